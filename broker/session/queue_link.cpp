#include "broker/session/queue_link.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/ipc/channel.h"
#include "common/ipc/worker_messages.h"

namespace session {

using common::FdRef;
using common::ipc::Arrival;
using common::ipc::MemoryRegions;
using common::ipc::RingStart;

common::ipc::QueuePhase QueueLink::phase() const noexcept {
  using common::ipc::QueuePhase;
  switch (state_) {
    case State::kNone:
      return QueuePhase::kNone;
    case State::kOpening:
      return QueuePhase::kOpening;
    case State::kStarting:
      return QueuePhase::kStarting;
    case State::kServing:
      return QueuePhase::kServing;
    case State::kClosing:
      return QueuePhase::kClosing;
  }
  return QueuePhase::kNone;
}

void QueueLink::opening(const RingSetup& setup) noexcept {
  setup_ = setup;
  state_ = State::kOpening;
}

void QueueLink::start(common::Fd socket, const Vring& ring, const MemoryTable& memory,
                      const std::optional<InflightRegion::Place>& inflight,
                      const LogRegion& log) noexcept {
  state_ = State::kStarting;
  socket_ = std::move(socket);
  had_call_ = ring.call.valid();
  has_inflight_ = inflight.has_value();
  log_counts_ = setup_.logs && !log.is_stale();
  // Hanging up makes a worker that has only half of its orders end, and the broker says so.
  if (!send_memory(memory) || !send_ring(ring, inflight, log)) socket_.reset();
}

Outcome<bool> QueueLink::take_answer() noexcept {
  common::ipc::Packet packet;
  const auto arrival = common::ipc::receive_packet(socket_.ref(), packet, false);
  if (arrival && *arrival == Arrival::kNothing) return false;
  socket_.reset();
  if (!arrival || *arrival == Arrival::kClosed) return false;
  // It has not looked at the ring yet, so this is a program of another version, not an attack.
  if (*arrival != Arrival::kData || !packet.as<common::ipc::Serving>()) {
    return end_with(common::ipc::SessionExit::kHostFault);
  }
  state_ = State::kServing;
  return true;
}

void QueueLink::ended() noexcept {
  state_ = State::kNone;
  socket_.reset();
}

// These wait for room in the socket's buffer: the worker is new, has seen nothing of the guest's
// yet, and does nothing but read them.
bool QueueLink::send_memory(const MemoryTable& memory) noexcept {
  const auto regions = memory.regions();
  for (std::size_t first = 0; first < regions.size();) {
    const auto part =
        regions.subspan(first, std::min(MemoryRegions::kFdsMax, regions.size() - first));
    MemoryRegions message{};
    message.kind = MemoryRegions::kKind;
    message.total = static_cast<std::uint32_t>(regions.size());
    message.first = static_cast<std::uint32_t>(first);
    message.count = static_cast<std::uint32_t>(part.size());
    std::array<FdRef, MemoryRegions::kFdsMax> files;
    for (std::size_t i = 0; i < part.size(); ++i) {
      const MemoryRegion& place = part[i].place;
      message.regions[i] = {place.guest_addr, place.bytes, place.file_offset};
      files[i] = part[i].file.ref();
    }
    if (!common::ipc::send(socket_.ref(), message, std::span(files).first(part.size()))) {
      return false;
    }
    first += part.size();
  }
  return true;
}

bool QueueLink::send_ring(const Vring& ring, const std::optional<InflightRegion::Place>& inflight,
                          const LogRegion& log) noexcept {
  RingStart message{};
  message.kind = RingStart::kKind;
  message.queue_size = setup_.size;
  message.desc_addr = setup_.desc.value;
  message.avail_addr = setup_.avail.value;
  message.used_addr = setup_.used.value;
  message.features = setup_.features;
  message.next_avail = ring.next_avail(setup_.packed());
  message.has_kick = ring.kick.valid() ? 1 : 0;
  message.has_call = ring.call.valid() ? 1 : 0;
  message.writable_config = setup_.writable_config;
  std::array<FdRef, RingStart::kFdsMax> events;
  std::size_t count = 0;
  if (ring.kick.valid()) events[count++] = ring.kick.ref();
  if (ring.call.valid()) events[count++] = ring.call.ref();
  if (inflight) {
    message.has_inflight = 1;
    message.inflight_offset = inflight->offset;
    message.inflight_entries = inflight->entries;
    // The front-end's file may know more than we do: another session may have died before us.
    const bool outdated = ring.forgets_inflight || (setup_.packed() && ring.base_is_newer);
    const bool resume = inflight->of_front_end ? !outdated : ring.unfinished;
    message.inflight_resume = resume ? 1 : 0;
    events[count++] = inflight->file;
  }
  if (const auto place = log.place(); setup_.logs && place) {
    message.has_log = 1;
    message.log_everything = ring.ran_unlogged ? 1 : 0;
    message.log_offset = place->offset;
    message.log_bytes = place->bytes;
    message.log_used_addr = setup_.log_used_addr;
    events[count++] = place->file;
  }
  return common::ipc::send(socket_.ref(), message, std::span(events).first(count)).has_value();
}

}  // namespace session
