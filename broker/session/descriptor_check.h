// broker/session/descriptor_check.h: is a descriptor what the front-end says it is?
//
// Not trusted: the VMM, which can send a descriptor of any kind. What can be told from fstat is
// told here, before a worker depends on it: a pipe or terminal as a kick would stall a worker, a
// device as guest memory could have side effects. What fstat cannot tell apart (an eventfd from
// other anonymous inodes) the worker finds out with one read, before it is sealed.
#pragma once

#include <cstdint>

#include "common/fd.h"
#include "common/result.h"

namespace session {

struct FileFacts {
  std::uint32_t mode = 0;  // st_mode: type and permissions.
  std::uint64_t bytes = 0;
  std::uint64_t device = 0;  // With `inode`: which file it is.
  std::uint64_t inode = 0;

  // Kernel objects without a file system have no type bits: eventfd, but also epoll, timerfd, ...
  [[nodiscard]] bool is_anonymous() const noexcept;
  [[nodiscard]] bool is_regular() const noexcept;  // Also memfd, shm and hugetlbfs.
  [[nodiscard]] bool is_socket() const noexcept;
};

// syscalls: fstat
[[nodiscard]] common::Result<FileFacts> mode_of(common::FdRef fd) noexcept;

}  // namespace session
