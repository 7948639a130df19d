// broker/session/vring.h: what the front-end has said about one ring, and what follows from it.
//
// vhost-user, "Ring states": started or stopped, enabled or disabled, each on its own. Here is only
// the state; workers.cpp compares it with what runs and makes the two agree.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "broker/session/config_space.h"
#include "broker/session/end.h"
#include "broker/session/features.h"
#include "broker/session/memory_table.h"
#include "broker/session/vhost_wire.h"
#include "common/addresses.h"
#include "common/dirty_log_wire.h"
#include "common/fd.h"

namespace session {

// All that a worker is told once and can never be told again: while one runs, it was started with
// one of these, and when the ring asks for another one, it is replaced.
struct RingSetup {
  std::uint32_t size = 0;
  common::GuestAddr desc, avail, used;
  std::uint64_t features = 0;
  std::array<std::uint8_t, kWritableBytesMax> writable_config{};
  std::uint32_t memory_generation = 0;
  std::uint32_t config_generation = 0;
  std::uint32_t ring_generation = 0;
  std::uint32_t inflight_generation = 0;
  bool logs = false;
  std::uint64_t log_used_addr = 0;   // Only where it logs,
  std::uint32_t log_generation = 0;  // likewise.
  bool operator==(const RingSetup&) const = default;

  [[nodiscard]] bool packed() const noexcept {
    return (features & common::kFeatureRingPacked) != 0;
  }
  // What its worker says of how far it has got, which may be a hijacked one's word: a Vring's base,
  // or nothing where no worker of such a ring could have said it.
  [[nodiscard]] std::optional<std::uint32_t> base_from(std::uint32_t next_avail) const noexcept;
};

// Where a ring's parts lie. A packed ring has no tables but one: kAvail is its driver's event
// suppression structure, and kUsed its device's (virtio 1.2, 2.8.10).
enum class RingPart : std::uint8_t { kDesc = 0, kAvail = 1, kUsed = 2 };

struct Vring {
  std::uint32_t size = 0;  // 0: not set.
  std::optional<VringAddr> addresses;
  // Where the ring goes on: what the last worker reported, or SET_VRING_BASE. Split ring: the next
  // avail index to take. Packed ring: see common::PackedBase. Nothing: where a new ring begins.
  std::optional<std::uint32_t> base;
  // SET_VRING_BASE or a reset came while a worker ran: what that one reports is not wanted any
  // more.
  bool base_overrides_worker = false;
  // A reset came, and this is how far the ring had got: QEMU 7.2 resets the device first when it
  // stops the machine, and asks each ring then where its migration's destination is to go on.
  std::optional<std::uint32_t> stopped_at;

  bool started = false;  // From SET_VRING_KICK to GET_VRING_BASE.
  bool enabled = false;
  // The guest broke it, or its workers died too often: stopped until the front-end starts it anew.
  bool broken = false;
  // Its last worker died, and the in-flight region knows what it had taken: the next one finishes
  // that first, also where the ring is not wanted any more.
  bool unfinished = false;
  // What the in-flight region says of it belongs to a ring that is gone.
  bool forgets_inflight = false;
  // Packed ring: it was drained, or reset, since the front-end gave its in-flight region: `base` is
  // newer than what that one says, and nothing in the guest's memory tells where the ring stands.
  bool base_is_newer = false;
  // A change of memory took its place away while it was started: it waits, and no fault is in it.
  bool waits_for_memory = false;

  common::Fd kick;  // Invalid while started: the front-end wants the ring polled.
  common::Fd call;  // Invalid: it wants no interrupts.
  common::Fd error;
  // Goes up with what RingSetup cannot compare: a new eventfd, a new base.
  std::uint32_t generation = 0;
  // It has been served without the log that the front-end wants of it, or with one that nobody
  // looks at any more: the first worker with another log marks everything.
  bool ran_unlogged = false;
  // Interrupts may have gone nowhere: ring `call` once when the next worker serves.
  bool owes_call = false;

  // Started and enabled: there is work to be done as soon as it can be.
  [[nodiscard]] bool is_wanted(const Features& features) const noexcept {
    return started && enabled && can_run(features);
  }
  [[nodiscard]] bool can_run(const Features& features) const noexcept {
    return !broken && size != 0 && addresses && features.acknowledged();
  }
  // `base` for a worker: as it is, or where a ring begins that nobody has served yet; and for a
  // packed ring with the used half that a front-end may have left out.
  [[nodiscard]] std::uint32_t next_avail(bool packed) const noexcept;
  [[nodiscard]] bool logs_used_ring() const noexcept {
    return addresses && (addresses->flags & common::dirty_log::kVringLog) != 0;
  }
  // Back to "initialized in a stopped and disabled state". Keeps only the error eventfd, which QEMU
  // sends once for each connection.
  void reset() noexcept;
  // GET_VRING_BASE: nothing of the ring's running state survives; SET_VRING_KICK starts it again.
  void stop() noexcept;
};

// What SET_VRING_NUM and SET_VRING_BASE may say of a ring: checked as soon as they come, and again
// when the ring starts, since only its features tell of which kind it is.
[[nodiscard]] Outcome<void> check_size(std::uint32_t queue, std::uint32_t size,
                                       const Features& features) noexcept;
[[nodiscard]] Outcome<void> check_base(std::uint32_t queue, const Vring& ring,
                                       const Features& features) noexcept;

// The three addresses for the guest. The End says what is wrong with them: kRingUnmapped or
// kRingMisaligned. Without a size only the start of each part is looked at.
struct RingPlaces {
  common::GuestAddr desc, avail, used;
};
// How long the part is that the device alone writes, and a migration's log has an address for.
[[nodiscard]] std::uint64_t used_part_bytes(std::uint32_t size, std::uint64_t features) noexcept;
[[nodiscard]] Outcome<RingPlaces> locate(std::uint32_t queue, const VringAddr& addresses,
                                         std::uint32_t size, std::uint64_t features,
                                         const MemoryTable& memory) noexcept;

// Adds 1 to an eventfd, unless that would block: a call or error eventfd belongs to the front-end,
// which may have filled it up in order to stall us.
// syscalls: write
void signal(common::FdRef event) noexcept;

}  // namespace session
