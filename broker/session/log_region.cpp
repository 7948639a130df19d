#include "broker/session/log_region.h"

#include <utility>

#include "broker/session/descriptor_check.h"
#include "common/checked.h"

namespace session {

using common::ipc::EventCode;

// Any offset will do: the log is set byte by byte, and mapped from the page in which it starts.
Outcome<void> LogRegion::set(const LogDescription& description, common::Fd file) noexcept {
  constexpr auto kRequest = static_cast<std::uint64_t>(Request::kSetLogBase);
  const auto facts = mode_of(file.ref());
  if (!facts || !facts->is_regular()) {
    return violation(EventCode::kBadFdType, kRequest, 0, facts ? facts->mode : 0);
  }
  const auto end = common::checked_add(description.mmap_offset, description.mmap_bytes);
  if (description.mmap_bytes == 0 || !end || *end > facts->bytes) {
    return violation(EventCode::kLogBeyondFile, description.mmap_offset, description.mmap_bytes,
                     facts->bytes);
  }
  const Given given{facts->device, facts->inode, description.mmap_offset, description.mmap_bytes};
  if (given != given_ || stale_) ++generation_;
  given_ = given;
  file_ = std::move(file);
  stale_ = false;
  return {};
}

std::optional<LogRegion::Place> LogRegion::place() const noexcept {
  if (!file_.valid()) return std::nullopt;
  return Place{file_.ref(), given_.offset, given_.bytes};
}

}  // namespace session
