// broker/uid_range.h: which uid a device's processes run as. Two devices of one broker never share
// one, so that a hijacked process cannot signal or trace another tenant's.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <unordered_set>

#include "broker/config.h"

namespace broker {

class UidRange {
 public:
  explicit UidRange(UidSpan span = {}) noexcept : span_(span) {}

  // The same disk gets the same uid in the next broker, too, unless another one holds it already.
  // None where every uid of the range is another device's.
  [[nodiscard]] std::optional<uid_t> pick(dev_t device, ino_t inode);
  [[nodiscard]] const UidSpan& span() const noexcept { return span_; }
  // One that was chosen; false where another device holds it.
  [[nodiscard]] bool take(std::uint32_t uid) { return taken_.insert(uid).second; }
  // Its device is gone.
  void give_back(std::uint32_t uid) noexcept { taken_.erase(uid); }

 private:
  UidSpan span_;
  std::unordered_set<std::uint32_t> taken_;
};

}  // namespace broker
