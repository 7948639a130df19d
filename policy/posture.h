// policy/posture.h: what jails a process really has, read from the kernel's own view of it
// (/proc/PID/{status,ns,fd,maps,limits,mountinfo,root}) and not from what we meant to do.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/layers.h"
#include "common/result.h"

namespace policy {

enum class LayerState : std::uint8_t {
  kEnforced,
  kDegraded,
  kAbsent,
  kUnknown,  // The kernel does not show it, or we may not look: `reason` says which.
};

struct LayerView {
  common::Layer layer;
  LayerState state;
  std::string reason;  // What was seen ("Seccomp: 2, 1 filter"), or why it is not enforced.
};

enum class ProcessRole : std::uint8_t { kBroker, kSession, kWorker, kOther };

struct ProcessPosture {
  pid_t pid = -1;
  ProcessRole role = ProcessRole::kOther;
  std::string title;                     // argv[0], control characters removed.
  std::vector<LayerView> layers;         // One for each Layer.
  std::vector<std::string> descriptors;  // "3 socket:[…]"; empty where the table is empty.
  std::vector<std::string> executable_maps;
  std::vector<std::string> suspicious_maps;  // Writable and executable at once.
};

// Reads one process. `claimed`, where given, fills in layers the kernel does not show (Landlock,
// securebits, MDWE, mseal) as what the process itself reported, and says so.
[[nodiscard]] common::Result<ProcessPosture> read_posture(pid_t pid,
                                                          const common::LayerResults* claimed);

// The same, for a child of ours that has a uid of its own, without capabilities to look into
// others' directories: with that uid for files, while it looks. Needs CAP_SETUID and CAP_SETGID,
// and that we made the child's user namespace.
[[nodiscard]] common::Result<ProcessPosture> read_posture_as_owner(
    pid_t pid, const common::LayerResults* claimed);

// The process and all its descendants, parents first.
[[nodiscard]] std::vector<pid_t> process_tree(pid_t root);
// What `root` supervises by a pidfd and is not in its `tree`: what it has adopted.
[[nodiscard]] std::vector<pid_t> held_processes(pid_t root, const std::vector<pid_t>& tree);

// The table that `bulkhead posture` prints.
[[nodiscard]] std::string format_postures(const std::vector<ProcessPosture>& postures);

}  // namespace policy
