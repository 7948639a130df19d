#include "policy/last_namespaces.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "common/fd.h"

namespace policy {

common::Result<void> forbid_user_namespaces() noexcept {
  const common::Fd limit(::open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC));
  if (!limit.valid() || ::write(limit.ref().number, "0", 1) != 1) {
    return common::fail_errno("forbid user namespaces", errno);
  }
  return {};
}

}  // namespace policy
