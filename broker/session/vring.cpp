#include "broker/session/vring.h"

#include <unistd.h>

#include <utility>

#include "broker/session/wait.h"
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

}  // namespace

void Vring::reset() noexcept {
  common::Fd kept = std::move(error);
  const bool unlogged = ran_unlogged;
  const std::uint32_t next_generation = generation + 1;
  *this = Vring{};
  error = std::move(kept);
  ran_unlogged = unlogged;
  generation = next_generation;
  forgets_inflight = true;
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
  const bool event_idx = (features & common::kFeatureEventIdx) != 0;
  const auto count = static_cast<std::uint16_t>(size);
  RingPlaces places;
  TRY_LET(places.desc, locate_part(queue,
                                   {RingPart::kDesc, addresses.desc,
                                    common::desc_table_bytes(count), common::kDescAlign},
                                   memory));
  TRY_LET(places.avail, locate_part(queue,
                                    {RingPart::kAvail, addresses.avail,
                                     common::avail_bytes(count, event_idx), common::kAvailAlign},
                                    memory));
  TRY_LET(places.used, locate_part(queue,
                                   {RingPart::kUsed, addresses.used,
                                    common::used_bytes(count, event_idx), common::kUsedAlign},
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
