// policy/exec_label.h: SELinux's label of a process that is about to be started: the type of its
// kind, and the categories of the VMM that it is for, so that what is compromised in it cannot
// touch what belongs to a VMM with others (MCS, as libvirt's sVirt gives them out).
//
// Not trusted: the VMM's label. The kernel says it, but whoever may choose it may choose anything
// that the host's policy accepts; only its level is used, and only if it is one.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/result.h"

namespace policy {

// The broker's domain (policy/selinux/bulkhead.te), from which processes enter theirs.
inline constexpr std::string_view kBrokerType = "bulkhead_t";

// The lower level of a label, "s0:c12,c34" of "u:r:t:s0:c12,c34-s0:c0.c1023": what the VMM's own
// files have. Nothing where that is no label of SELinux with a level.
[[nodiscard]] std::optional<std::string> level_in(std::string_view label);

// That of a process of `type` for the VMM `peer`, started by the broker `own`. Empty where the
// policy decides alone: no SELinux, no levels, a broker that is not confined, or a VMM of no level.
[[nodiscard]] std::string label_for(std::string_view own, std::string_view type,
                                    std::string_view peer);

// This thread's own, as the security module says it; empty where there is none.
[[nodiscard]] std::string own_label();

// What this thread, or a child that it starts meanwhile, executes next gets `label`, until the end
// of the scope. Empty: the policy decides.
class ExecLabel {
 public:
  [[nodiscard]] static common::Result<ExecLabel> set(const std::string& label);
  ExecLabel(ExecLabel&& other) noexcept : set_(other.set_) { other.set_ = false; }
  ExecLabel& operator=(ExecLabel&&) = delete;
  ~ExecLabel();

 private:
  explicit ExecLabel(bool set) noexcept : set_(set) {}
  bool set_;
};

}  // namespace policy
