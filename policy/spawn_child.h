// policy/spawn_child.h: the half of spawn() that runs between clone() and exec, in the child.
//
// It shares the broker's memory until exec, so it makes system calls and does nothing else: no
// allocation, no locks, nothing that the broker looks at afterwards.
#pragma once

#include <array>
#include <cstddef>

#include "policy/spawn.h"

namespace policy {

// Where a child can fail.
enum class SpawnStep : int {
  kGroups,
  kGid,
  kUid,
  kSession,
  kDeathSignal,
  kMove,
  kClose,
  kSignals,
  kExec,
};
[[nodiscard]] const char* step_text(SpawnStep step) noexcept;

// What a child that fails sends to its parent.
struct SpawnFailure {
  SpawnStep step;
  int os_errno;
};

// Everything a child needs, made before clone(). The child may write into it (with CLONE_VM that is
// the parent's copy too, which looks at none of it afterwards).
struct SpawnPlan {
  // Null program: a probe, which ends once its ids are mapped.
  int program = -1;
  int null = -1;
  const char* title = "";
  std::array<DescriptorAt, kSpawnDescriptorsMax> descriptors{};
  std::size_t descriptor_count = 0;
  int above_targets = 3;  // The lowest number above every target.
  int our_end = -1;       // The child's end of the pair: "go" comes in, a SpawnFailure goes out.
  int parent_end = -1;
  bool take_ids = false;
  bool drop_groups = false;
  bool outlives_parent = false;
  char* const* environment = nullptr;
};

// For clone(): waits for the parent's word, takes its ids, arranges its descriptors, becomes the
// program. `argument` is a SpawnPlan.
int child_main(void* argument);

}  // namespace policy
