// broker/orphans.h: sessions and workers of an earlier broker with which this one cannot go on
// (keep.h). They end before anybody else may write to their disk; those of other devices go on.
//
// What a descriptor is, is not believed: it may be why they are not adopted. So nothing here waits
// without a limit.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <vector>

#include "common/fd.h"
#include "common/ipc/keeper_messages.h"

namespace broker {

// How long workers that are not adopted may finish what they have taken. The broker waits for it.
inline constexpr std::chrono::milliseconds kOrphanPatience{2000};

class Orphans {
 public:
  // The descriptors of one thing that was kept; copies are made. Nothing where it is no process.
  void add(common::ipc::KeptRole role, std::span<const common::Fd> fds);
  [[nodiscard]] bool empty() const noexcept { return processes_.empty(); }

  // Sessions are killed. Workers finish what they have taken; those that have not within `patience`
  // are killed, too. False where one has not ended all the same: it waits in the kernel.
  [[nodiscard]] bool end(std::chrono::milliseconds patience);

 private:
  struct Process {
    common::Fd pidfd;
    common::Fd stop;  // A worker's.
  };
  // True if all have ended by then.
  [[nodiscard]] bool wait(std::chrono::milliseconds patience);

  std::vector<Process> processes_;
};

}  // namespace broker
