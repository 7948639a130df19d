// The jailed program's half of capabilities.h: straight to the kernel, no library.
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "policy/capabilities.h"

namespace policy {
namespace {

using common::fail_errno;
using common::Result;

using CapabilityWords = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

bool read_own(CapabilityWords& words) noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  return ::syscall(SYS_capget, &header, words.data()) == 0;
}

}  // namespace

Result<void> drop_all_capabilities() noexcept {
  if (has_capability(CAP_SETPCAP)) {
    unsigned next = 0;
    while (::prctl(PR_CAPBSET_DROP, next, 0, 0, 0) == 0) ++next;
    if (errno != EINVAL) return fail_errno("empty the bounding set", errno);
  }
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
    return fail_errno("empty the ambient capabilities", errno);
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const CapabilityWords none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) {
    return fail_errno("drop all capabilities", errno);
  }
  return {};
}

bool all_capabilities_gone() noexcept {
  CapabilityWords words{};
  if (!read_own(words)) return false;
  for (const auto& word : words) {
    if ((word.effective | word.permitted | word.inheritable) != 0) return false;
  }
  // The ambient set is within the permitted and inheritable ones (capabilities(7)): empty as well.
  // PR_CAPBSET_READ: 1 or 0, and -1 beyond the last capability this kernel has.
  unsigned next = 0;
  int present = 0;
  do {
    present = ::prctl(PR_CAPBSET_READ, next++, 0, 0, 0);
  } while (present == 0);
  return present < 0;
}

Result<void> lock_securebits() noexcept {
  constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                  SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                  SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  if (::prctl(PR_SET_SECUREBITS, kBits, 0, 0, 0) != 0) return fail_errno("lock securebits", errno);
  return {};
}

bool has_capability(unsigned capability) noexcept {
  CapabilityWords words{};
  if (capability / 32 >= words.size() || !read_own(words)) return false;
  return ((words[capability / 32].effective >> (capability % 32)) & 1U) != 0;
}

}  // namespace policy
