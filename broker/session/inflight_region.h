// broker/session/inflight_region.h: where the rings' in-flight records are kept (vhost-user,
// "Inflight I/O tracking"): in the front-end's file where it gave one, else in one of our own, so
// that a worker's death is survived whatever the front-end can do.
//
// Not trusted: the front-end's file and its description of it. Nothing is mapped here; the worker
// that maps its part checks every byte.
#pragma once

#include <cstdint>
#include <optional>

#include "broker/session/end.h"
#include "broker/session/features.h"
#include "broker/session/vhost_wire.h"
#include "common/fd.h"

namespace session {

// Regions of either kind of ring have a layout of their own. A front-end that asks for one before
// its driver has chosen gets one that has room for both.
enum class RingKind : std::uint8_t { kSplit, kPacked };
[[nodiscard]] inline RingKind kind_of(const Features& features) noexcept {
  return features.packed() ? RingKind::kPacked : RingKind::kSplit;
}

class InflightRegion {
 public:
  struct Place {
    common::FdRef file;
    std::uint64_t offset = 0;
    std::uint32_t entries = 0;
    bool of_front_end = false;
  };

  // SET_INFLIGHT_FD. `kind`: of the rings whose region it must be; where that is not known yet, a
  // split ring's, which is the smaller one. `queues_max`: how many the device has.
  [[nodiscard]] Outcome<void> set(const InflightDescription& description, common::Fd file,
                                  RingKind kind, std::uint32_t queues_max) noexcept;
  // A file of our own, for the whole device and rings up to `kind`; kept as long as the session
  // lives.
  void set_own(common::Fd file, RingKind kind, std::uint32_t queue_size_max) noexcept;
  [[nodiscard]] bool has_own() const noexcept { return own_.valid(); }

  // Where ring `queue` of `size` entries has its records; nothing where there is no file for it.
  [[nodiscard]] std::optional<Place> place(RingKind kind, std::uint32_t queue,
                                           std::uint32_t size) const noexcept;

  // Goes up with another file or another place in it: workers that keep the old one are replaced.
  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }

 private:
  struct Given {
    std::uint64_t device = 0;  // With `inode`: which file.
    std::uint64_t inode = 0;
    std::uint64_t offset = 0;
    std::uint64_t split_stride = 0;
    std::uint64_t packed_stride = 0;  // 0: it has no room for packed rings.
    std::uint32_t queues = 0;
    std::uint32_t entries = 0;
    bool operator==(const Given&) const = default;
  };

  Given given_;
  common::Fd file_;
  common::Fd own_;
  std::uint64_t own_stride_ = 0;
  std::uint32_t generation_ = 0;
};

// What GET_INFLIGHT_FD answers for so many queues and entries.
[[nodiscard]] std::uint64_t inflight_file_bytes(RingKind kind, std::uint32_t queues,
                                                std::uint32_t entries) noexcept;

}  // namespace session
