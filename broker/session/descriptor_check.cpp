#include "broker/session/descriptor_check.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace session {

bool FileFacts::is_anonymous() const noexcept { return (mode & S_IFMT) == 0; }
bool FileFacts::is_regular() const noexcept { return (mode & S_IFMT) == S_IFREG; }
bool FileFacts::is_socket() const noexcept { return (mode & S_IFMT) == S_IFSOCK; }

// By number, since the C library's fstat() is newfstatat() with an empty path in some versions, and
// a system call that takes a path is not on a session's list.
common::Result<FileFacts> mode_of(common::FdRef fd) noexcept {
  struct stat status {};
  if (::syscall(SYS_fstat, fd.number, &status) != 0) return common::fail_errno("fstat", errno);
  return FileFacts{status.st_mode, static_cast<std::uint64_t>(status.st_size), status.st_dev,
                   status.st_ino};
}

}  // namespace session
