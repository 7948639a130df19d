#include "policy/landlock.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "common/fd.h"

namespace policy {
namespace {

using common::LayerResult;

// The kernel's struct landlock_ruleset_attr as of ABI 6; older kernels take the front part of it.
// Written out here because the build host's headers may be older than the kernel it runs on.
struct RulesetAttributes {
  std::uint64_t handled_access_fs;
  std::uint64_t handled_access_net;  // ABI 4
  std::uint64_t scoped;              // ABI 6
};

constexpr long kCreateRuleset = 444;
constexpr long kRestrictSelf = 446;
constexpr unsigned kAskVersion = 1U << 0;

// How many file system rights each ABI has, lowest bits first: 2 adds REFER, 3 TRUNCATE, 5
// IOCTL_DEV.
constexpr unsigned fs_rights(int abi) noexcept {
  if (abi >= 5) return 16;
  if (abi >= 3) return 15;
  return abi == 2 ? 14 : 13;
}
constexpr std::uint64_t kNetBindAndConnectTcp = 0b11;
constexpr std::uint64_t kScopeAbstractSocketsAndSignals = 0b11;

constexpr std::size_t attribute_bytes(int abi) noexcept {
  if (abi >= 6) return sizeof(RulesetAttributes);
  return abi >= 4 ? offsetof(RulesetAttributes, scoped)
                  : offsetof(RulesetAttributes, handled_access_net);
}

LayerResult failed(int os_errno) noexcept {
  return {LayerResult::State::kAbsent, 0, static_cast<std::uint16_t>(os_errno)};
}

}  // namespace

LayerResult deny_all_by_landlock() noexcept {
  const long abi_or_error = ::syscall(kCreateRuleset, nullptr, std::size_t{0}, kAskVersion);
  if (abi_or_error < 1) return failed(abi_or_error < 0 ? errno : ENOSYS);
  const int abi = static_cast<int>(std::min(abi_or_error, 255L));

  RulesetAttributes attributes{};
  attributes.handled_access_fs = (std::uint64_t{1} << fs_rights(abi)) - 1;
  attributes.handled_access_net = abi >= 4 ? kNetBindAndConnectTcp : 0;
  attributes.scoped = abi >= 6 ? kScopeAbstractSocketsAndSignals : 0;

  const common::Fd ruleset(
      static_cast<int>(::syscall(kCreateRuleset, &attributes, attribute_bytes(abi), 0U)));
  if (!ruleset.valid()) return failed(errno);
  if (::syscall(kRestrictSelf, ruleset.ref().number, 0U) != 0) return failed(errno);

  const auto state =
      abi >= kLandlockAbiComplete ? LayerResult::State::kEnforced : LayerResult::State::kDegraded;
  return {state, static_cast<std::uint8_t>(abi), 0};
}

}  // namespace policy
