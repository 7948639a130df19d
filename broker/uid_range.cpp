#include "broker/uid_range.h"

#include "common/verify.h"

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

std::uint32_t UidRange::pick(dev_t device, ino_t inode) {
  common::verify(taken_.size() < count_);
  std::uint64_t offset = mix(mix(device) ^ inode) % count_;
  while (!taken_.insert(kUidBase + static_cast<std::uint32_t>(offset)).second) {
    offset = (offset + 1) % count_;
  }
  return kUidBase + static_cast<std::uint32_t>(offset);
}

}  // namespace broker
