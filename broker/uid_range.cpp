#include "broker/uid_range.h"

#include <algorithm>

namespace broker {
namespace {

// The finaliser of splitmix64: neighbouring inodes end far apart.
std::uint64_t mix(std::uint64_t value) noexcept {
  value += 0x9e37'79b9'7f4a'7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58'476d'1ce4'e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d0'49bb'1331'11ebULL;
  return value ^ (value >> 31);
}

}  // namespace

std::optional<uid_t> UidRange::pick(dev_t device, ino_t inode) {
  const std::uint64_t count = std::uint64_t{span_.last} - span_.first + 1;
  // Uids that were chosen by hand are among those taken, and may lie elsewhere.
  const std::uint64_t tries = std::min<std::uint64_t>(count, taken_.size() + 1);
  const std::uint64_t start = mix(mix(device) ^ inode) % count;
  for (std::uint64_t i = 0; i < tries; ++i) {
    const auto uid = static_cast<uid_t>(span_.first + (start + i) % count);
    if (taken_.insert(uid).second) return uid;
  }
  return std::nullopt;
}

}  // namespace broker
