// broker/kept_record.h: what one thing that is kept for the next broker is (keep.h): a record of
// one fixed size beside its descriptors.
//
// Written by a broker, perhaps of another version, and brought back by the keeper: checked like
// anything that comes from outside, since whoever adopts it believes it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/config.h"
#include "common/fd.h"
#include "common/ipc/keeper_messages.h"
#include "common/ipc/session_broker.h"

namespace broker {

namespace audit {
struct Process;  // device_events.h, which needs this file.
}

enum class KeptType : std::uint32_t {
  kListener = 1,     // A device's listening socket. numbers: st_dev, st_ino of its file.
  kDisk = 2,         // The disk; and without O_DIRECT, where there are two. numbers: uid of the
                     // device's processes.
  kTap = 3,          // Queues of a tap, in order. numbers: which one the first is.
  kCard = 4,         // A network card. numbers: uid of the device's processes. `start.config`: what
                     // it is, and what its guest has asked for (net_card_state.h).
  kConnection = 5,   // pidfd of the session, its socket, its status page, the VMM's socket.
                     // numbers: pid. `start`: what it was told.
  kWorker = 6,       // pidfd, StopPipe::writing, its status page.
                     // numbers: pid, queue, EngineKind, start (steady clock, ns), ticks of its
                     // clock per microsecond (0: it has none), QueueRole.
  kControl = 7,      // The broker's end of a control worker's socket. numbers: queue. Of its group.
  kOperators = 8,    // The operator's listening socket, of no device. numbers: as kListener.
  kKeeper = 9,       // pidfd and status page of the keeper itself. numbers: pid.
  kRates = 10,       // Memory of a device's rate limits (common/rate_page.h), or
  kGroupRates = 11,  // of a group's, of no device. numbers: DeviceKind. text: its tenant.
  kHalted = 12,      // An operator has stopped or drained the device. numbers: Halt.
};

// What an operator has said of a device (Fleet).
enum class Halt : std::uint32_t { kNone = 0, kDrain = 1, kStop = 2 };

struct KeptRecord {
  // Goes up when the layout or a meaning changes. The version before is understood, too.
  static constexpr std::uint32_t kVersion = 1;
  static constexpr std::uint32_t kOldest = 1;
  std::uint32_t version;
  std::uint32_t type;           // KeptType.
  std::uint32_t ipc_version;    // What the process speaks, where it is one,
  std::uint32_t ipc_oldest;     // and what it speaks with an older broker; 0: nothing older.
  std::array<char, 80> device;  // Its name, with a zero at the end.
  std::array<std::uint64_t, 8> numbers;
  common::ipc::SessionStart start;
  std::array<char, 256> text;  // kConnection: how messages call the VMM.
};
static_assert(std::has_unique_object_representations_v<KeptRecord>);
static_assert(sizeof(KeptRecord) <= common::ipc::kKeptBytesMax);

// What the keeper has to know of it.
[[nodiscard]] constexpr common::ipc::KeptRole role_of(KeptType type) noexcept {
  if (type == KeptType::kConnection) return common::ipc::KeptRole::kSession;
  if (type == KeptType::kWorker) return common::ipc::KeptRole::kWorker;
  return common::ipc::KeptRole::kPlain;
}

// Zeros, but for version, type and name.
[[nodiscard]] KeptRecord make_record(KeptType type, std::string_view device);
// KeptType::kCard; `state`: NetCardState.
[[nodiscard]] KeptRecord make_card_record(std::string_view device, std::uint32_t uid,
                                          std::span<const std::byte> state);
// The session or worker that it is about, as it says itself; nothing of other things.
[[nodiscard]] std::optional<audit::Process> process_in(const KeptRecord& record);
void set_text(KeptRecord& record, std::string_view text);

// One thing as it came back.
struct KeptThing {
  std::uint64_t id = 0;
  std::uint64_t group = 0;
  KeptRecord record{};
  std::vector<common::Fd> fds;

  [[nodiscard]] KeptType type() const noexcept { return static_cast<KeptType>(record.type); }
  [[nodiscard]] common::ipc::KeptRole role() const noexcept { return role_of(type()); }
  // Of what it is; false: of the broker's own.
  [[nodiscard]] bool is_of_device() const noexcept {
    return type() != KeptType::kOperators && type() != KeptType::kKeeper &&
           type() != KeptType::kGroupRates;
  }
  [[nodiscard]] std::string device() const { return record.device.data(); }
  [[nodiscard]] bool is_of(KeptType type, std::string_view name) const noexcept {
    return this->type() == type && name == record.device.data();
  }
};

// Fails where the record is of a version that we do not know, or not sound: its size, its type, how
// many descriptors came with it and what they are, its texts and numbers.
[[nodiscard]] Answer<void> check_kept(const common::ipc::KeepThing& message,
                                      std::span<const common::Fd> fds);
// The same, and takes them.
[[nodiscard]] Answer<KeptThing> read_kept(const common::ipc::KeepThing& message,
                                          std::vector<common::Fd> fds);

}  // namespace broker
