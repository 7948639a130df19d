// common/layers.h: the layers of the jail, as named in every posture report.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace common {

// In the order in which they are taken on. The numbers are part of the status page's layout.
enum class Layer : std::uint8_t {
  kUserNamespace = 0,
  kPidNamespace,
  kMountNamespace,
  kNetNamespace,
  kIpcNamespace,
  kUtsNamespace,
  kCgroupNamespace,
  kEmptyRoot,       // Read-only, empty, and the old one unmounted.
  kOwnUid,          // Not the broker's uid.
  kNoCapabilities,  // All five sets empty, and the bounding set.
  kSecurebits,      // Locked: uid 0 gains nothing.
  kNoNewPrivs,
  kLandlock,  // Every right handled, none granted, scopes included.
  kRlimits,
  kNotDumpable,
  kMdwe,   // Memory once written can never become executable.
  kMseal,  // Text and guest memory mappings cannot be changed.
  kSeccomp,
  kCgroupLimits,    // Born in its device's cgroup, which has limits of its own.
  kCoreScheduling,  // Never on one core with another VM's process.
};
inline constexpr std::size_t kLayerCount = 20;

[[nodiscard]] constexpr std::string_view layer_name(Layer layer) noexcept {
  constexpr std::array<std::string_view, kLayerCount> kNames = {
      "user namespace", "pid namespace",   "mount namespace",  "net namespace",
      "ipc namespace",  "uts namespace",   "cgroup namespace", "empty root",
      "own uid",        "no capabilities", "securebits",       "no_new_privs",
      "landlock",       "rlimits",         "not dumpable",     "mdwe",
      "mseal",          "seccomp",         "cgroup limits",    "core scheduling",
  };
  return kNames[static_cast<std::size_t>(layer)];
}

// What the operator wants (policy/core_scheduling.h).
enum class CoreScheduling : std::uint32_t { kOff = 0, kAuto = 1, kRequired = 2 };

// What became of one layer in one process, as that process itself saw it.
struct LayerResult {
  enum class State : std::uint8_t { kNotTried = 0, kEnforced = 1, kDegraded = 2, kAbsent = 3 };
  State state = State::kNotTried;
  std::uint8_t detail = 0;     // Landlock: the ABI in force. Else 0.
  std::uint16_t os_errno = 0;  // Why not enforced; 0 where the reason is no error.
};
static_assert(sizeof(LayerResult) == 4);

using LayerResults = std::array<LayerResult, kLayerCount>;

// mseal and mdwe are newer than the kernels most hosts run, and add to what seccomp refuses anyway.
// Limits by cgroup are about how much a process uses, not about what it reaches, and few start a
// broker with a tree of its own. Core scheduling is in few kernels, and costs throughput: who needs
// it says so (--core-scheduling=required). Strict asks for none of them.
[[nodiscard]] constexpr bool strict_requires(Layer layer) noexcept {
  return layer != Layer::kMseal && layer != Layer::kMdwe && layer != Layer::kCgroupLimits &&
         layer != Layer::kCoreScheduling;
}

// Whether strict is content with what became of a layer. Two that are degraded are enough:
// - an older Landlock (Debian 12's kernel has ABI 2) denies every file but knows no network and no
//   scopes, which namespaces refuse too;
// - a user namespace within which more could be made (containers mount /proc/sys read-only), which
//   seccomp refuses too.
[[nodiscard]] constexpr bool strict_accepts(Layer layer, LayerResult result) noexcept {
  if (!strict_requires(layer) || result.state == LayerResult::State::kEnforced) return true;
  if (result.state != LayerResult::State::kDegraded) return false;
  return layer == Layer::kUserNamespace || (layer == Layer::kLandlock && result.detail != 0);
}

}  // namespace common
