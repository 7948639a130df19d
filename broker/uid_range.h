// broker/uid_range.h: which uid a device's processes run as. Two devices of one broker never share
// one, so that a hijacked process cannot signal or trace another tenant's.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <unordered_set>

namespace broker {

// Far above what distributions, directory services and container managers hand out, and below 2^31.
inline constexpr std::uint32_t kUidBase = 2'000'000'000;
inline constexpr std::uint32_t kUidCount = 1U << 20;

class UidRange {
 public:
  explicit UidRange(std::uint32_t count = kUidCount) noexcept : count_(count) {}

  // The same disk gets the same uid in the next broker, too, unless another one holds it already.
  // As many devices at most as the range has uids.
  [[nodiscard]] std::uint32_t pick(dev_t device, ino_t inode);
  // One that was chosen; false where another device holds it.
  [[nodiscard]] bool take(std::uint32_t uid) { return taken_.insert(uid).second; }
  // Its device is gone.
  void give_back(std::uint32_t uid) noexcept { taken_.erase(uid); }

 private:
  std::uint32_t count_;
  std::unordered_set<std::uint32_t> taken_;
};

}  // namespace broker
