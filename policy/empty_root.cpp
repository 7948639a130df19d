#include "policy/empty_root.h"

#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace policy {

using common::fail_errno;
using common::Result;

Result<void> enter_empty_root() noexcept {
  // Else our mounts would appear in the broker's namespace too, where that is shared (systemd).
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return fail_errno("make mounts private", errno);
  }
  // Over "/", since no other directory is sure to exist. One inode, which the root itself takes,
  // and one page: 0 would mean "no limit". Readable, so that an operator can see that it is empty.
  constexpr unsigned long kFlags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (::mount("none", "/", "tmpfs", kFlags, "size=4k,nr_inodes=1,mode=555") != 0) {
    return fail_errno("mount an empty root", errno);
  }
  // Our root directory is still the one below; ".." from there is what is mounted on top of it.
  if (::chdir("/..") != 0) return fail_errno("enter the empty root", errno);
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return fail_errno("pivot_root", errno);
  // pivot_root(".", ".") stacked the old root on the new one, where "." finds it (pivot_root(2)).
  if (::umount2(".", MNT_DETACH) != 0) return fail_errno("detach the old root", errno);
  if (::chdir("/") != 0) return fail_errno("chdir to the empty root", errno);
  return {};
}

}  // namespace policy
