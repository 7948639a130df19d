// Requests about the guest's memory.
#include <array>
#include <cstring>

#include "broker/session/requests.h"
#include "broker/session/workers.h"

namespace session {
namespace {

using common::ipc::EventCode;

}  // namespace

Outcome<Answer> set_mem_table(Context& context, Incoming& incoming) noexcept {
  const auto head = incoming.as<MemoryTableHead>();
  const auto bytes = incoming.payload.subspan(sizeof(MemoryTableHead));
  if (head.count > kTableRegionsMax) {
    return violation(EventCode::kRegionTooMany, number_of(incoming), head.count);
  }
  if (bytes.size() != head.count * sizeof(MemoryRegion)) {
    return violation(EventCode::kPayloadSize, number_of(incoming), incoming.payload.size(),
                     sizeof(MemoryTableHead) + head.count * sizeof(MemoryRegion));
  }
  std::array<MemoryRegion, kTableRegionsMax> places;
  if (!bytes.empty()) std::memcpy(places.data(), bytes.data(), bytes.size());
  TRY(context.device.memory.set(std::span(places).first(head.count), incoming.fds));
  context.device.mark_rings_without_memory();
  TRY(context.device.check_logs());
  return Answer{};
}

Outcome<Answer> get_max_mem_slots(Context&, Incoming& incoming) noexcept {
  return body_of(incoming, std::uint64_t{common::kMemoryRegionsMax});
}

Outcome<Answer> add_mem_reg(Context& context, Incoming& incoming) noexcept {
  if (incoming.fds.size() != 1) {
    return violation(EventCode::kRegionCount, number_of(incoming), 1, incoming.fds.size());
  }
  TRY(context.device.memory.add(incoming.as<SingleRegion>().region, incoming.fds.take(0)));
  context.device.mark_rings_without_memory();
  TRY(context.device.check_logs());
  return Answer{};
}

// A descriptor that comes along is closed, as the specification asks.
Outcome<Answer> rem_mem_reg(Context& context, Incoming& incoming) noexcept {
  TRY(context.device.memory.remove(incoming.as<SingleRegion>().region));
  context.device.mark_rings_without_memory();
  TRY(context.device.check_logs());
  return Answer{};
}

}  // namespace session
