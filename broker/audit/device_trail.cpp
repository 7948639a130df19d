#include "broker/audit/device_trail.h"

#include <cstddef>
#include <utility>

namespace broker::audit {
namespace {

// Says which resource somebody got, or did not get.
bool names_backing(Kind kind) {
  return kind == Kind::kVmmConnected || kind == Kind::kVmmRefused || kind == Kind::kVmmDisconnected;
}

}  // namespace

Subject subject_of(const DeviceConfig& config) {
  return {.device = config.name,
          .type = config.kind == common::DeviceKind::kNet ? "net" : "blk",
          .vm = config.vm_name,
          .uuid = config.vm_uuid,
          .tenant = {}};
}

void DeviceTrail::record(Event event) {
  if (!active()) return;
  const Kind kind = event.kind();
  if (by_peer(kind) && !kinds_.budgets[static_cast<std::size_t>(kind)].take()) return;
  event.about(subject_);
  if (names_backing(kind)) {
    event.add(subject_.type == "net" ? Key::kMac : Key::kPath, backing_);
  }
  trail_->record(std::move(event));
}

void DeviceTrail::record_dropped() {
  for (std::size_t i = 0; i < kKindCount; ++i) {
    const std::uint64_t dropped = kinds_.budgets[i].take_dropped();
    if (dropped == 0) continue;
    record(Event(Kind::kEventsDropped)
               .with(Key::kKind, name_of(static_cast<Kind>(i)))
               .with(Key::kAmount, dropped));
  }
}

}  // namespace broker::audit
