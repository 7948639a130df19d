#include "policy/capability_aside.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "policy/capabilities.h"

namespace policy {
namespace {

bool set_effective(unsigned capability, bool held) noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> words{};
  if (::syscall(SYS_capget, &header, words.data()) != 0) return false;
  auto& word = words[capability / 32].effective;
  const unsigned bit = 1U << (capability % 32);
  word = held ? word | bit : word & ~bit;
  return ::syscall(SYS_capset, &header, words.data()) == 0;
}

}  // namespace

CapabilityAside::CapabilityAside(unsigned capability) noexcept
    : capability_(capability),
      aside_(has_capability(capability) && set_effective(capability, false)) {}

CapabilityAside::~CapabilityAside() {
  if (aside_) (void)set_effective(capability_, true);
}

}  // namespace policy
