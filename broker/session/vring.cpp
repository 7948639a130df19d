#include "broker/session/vring.h"

#include <unistd.h>

#include <utility>

#include "broker/session/wait.h"
#include "common/checked.h"
#include "common/virtqueue_wire.h"

namespace session {
namespace {

using common::GuestAddr;
using common::VmmAddr;
using common::ipc::EventCode;

struct PartShape {
  RingPart part;
  std::uint64_t addr;
  std::uint64_t bytes;
  std::uint64_t alignment;
};

Outcome<GuestAddr> locate_part(std::uint32_t queue, const PartShape& shape,
                               const MemoryTable& memory) noexcept {
  const auto number = static_cast<std::uint64_t>(shape.part);
  const auto place = memory.translate(VmmAddr{shape.addr}, shape.bytes);
  if (!place) return violation(EventCode::kRingUnmapped, queue, number, shape.addr);
  // virtio 1.2, 2.7: the alignment is that of the guest's address; the VMM's may differ.
  if (place->value % shape.alignment != 0) {
    return violation(EventCode::kRingMisaligned, queue, number, shape.addr);
  }
  return *place;
}

struct RingShape {
  std::uint64_t desc_bytes, avail_bytes, used_bytes;
  std::uint64_t desc_align, avail_align, used_align;
};

RingShape shape_of(std::uint32_t size, std::uint64_t features) noexcept {
  const auto count = static_cast<std::uint16_t>(size);
  if ((features & common::kFeatureRingPacked) != 0) {
    return {common::packed_ring_bytes(count), common::kPackedEventBytes, common::kPackedEventBytes,
            common::kPackedDescAlign,         common::kPackedEventAlign, common::kPackedEventAlign};
  }
  const bool event_idx = (features & common::kFeatureEventIdx) != 0;
  return {common::desc_table_bytes(count),
          common::avail_bytes(count, event_idx),
          common::used_bytes(count, event_idx),
          common::kDescAlign,
          common::kAvailAlign,
          common::kUsedAlign};
}

// QEMU gives the used half, too; front-ends that know 16 bits only leave zeros there. As these
// never stop a ring with anything in flight, it then goes on where the other half does.
common::PackedBase packed_base(std::uint32_t base) noexcept {
  common::PackedBase places = common::unpack_vring_base(base);
  if (base >> 16 == 0) places.used = places.avail;
  return places;
}

}  // namespace

std::uint32_t Vring::next_avail(bool packed) const noexcept {
  if (!packed) return base.value_or(0);
  return common::pack_vring_base(packed_base(base.value_or(common::kPackedBaseFresh)));
}

// Split ring: any 16 bits are an index that some worker could have reported.
std::optional<std::uint32_t> RingSetup::base_from(std::uint32_t next_avail) const noexcept {
  if (!packed()) return next_avail & 0xffff;
  if (!common::packed_base_is_sane(common::unpack_vring_base(next_avail), size)) return {};
  return next_avail;
}

Outcome<void> check_size(std::uint32_t queue, std::uint32_t size,
                         const Features& features) noexcept {
  // virtio 1.2, 2.7: "Queue Size value is always a power of 2". 2.8.10.1: a packed ring's need not
  // be.
  if (size != 0 && (features.may_be_packed() || common::is_power_of_two(size))) return {};
  return violation(EventCode::kBadQueueSize, std::uint64_t(Request::kSetVringNum), queue, size);
}

Outcome<void> check_base(std::uint32_t queue, const Vring& ring,
                         const Features& features) noexcept {
  if (!ring.base) return {};
  // Split ring: "Bits 16-31: Reserved (set to zero)".
  bool sane = *ring.base <= 0xffff || features.may_be_packed();
  if (features.packed() && ring.size != 0) {
    sane = common::packed_base_is_sane(packed_base(*ring.base), ring.size);
  }
  if (sane) return {};
  return violation(EventCode::kBadVringBase, std::uint64_t(Request::kSetVringBase), queue,
                   *ring.base);
}

std::uint64_t used_part_bytes(std::uint32_t size, std::uint64_t features) noexcept {
  return shape_of(size, features).used_bytes;
}

void Vring::reset() noexcept {
  common::Fd kept = std::move(error);
  const bool unlogged = ran_unlogged;
  const std::uint32_t next_generation = generation + 1;
  *this = Vring{};
  error = std::move(kept);
  ran_unlogged = unlogged;
  generation = next_generation;
  forgets_inflight = base_is_newer = true;
}

void Vring::stop() noexcept {
  started = false;
  // Nobody could finish what is in flight, and what the front-end starts next may be another ring.
  if (std::exchange(broken, false)) forgets_inflight = true;
  unfinished = false;
  waits_for_memory = false;
  owes_call = false;
  kick.reset();
  call.reset();
}

Outcome<RingPlaces> locate(std::uint32_t queue, const VringAddr& addresses, std::uint32_t size,
                           std::uint64_t features, const MemoryTable& memory) noexcept {
  const RingShape shape = shape_of(size, features);
  RingPlaces places;
  TRY_LET(places.desc,
          locate_part(queue, {RingPart::kDesc, addresses.desc, shape.desc_bytes, shape.desc_align},
                      memory));
  TRY_LET(
      places.avail,
      locate_part(queue, {RingPart::kAvail, addresses.avail, shape.avail_bytes, shape.avail_align},
                  memory));
  TRY_LET(places.used,
          locate_part(queue, {RingPart::kUsed, addresses.used, shape.used_bytes, shape.used_align},
                      memory));
  return places;
}

void signal(common::FdRef event) noexcept {
  pollfd look{event.number, POLLOUT, 0};
  const auto ready = wait({&look, 1}, Patience::kNone);
  if (!ready || (look.revents & POLLOUT) == 0) return;
  const std::uint64_t one = 1;
  // Nothing to do about a failure: it is no eventfd, and the front-end did that to itself.
  [[maybe_unused]] const ssize_t written = ::write(event.number, &one, sizeof(one));
}

}  // namespace session
