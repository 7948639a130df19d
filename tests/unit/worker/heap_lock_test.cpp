#include "worker/heap_lock.h"

#include <gtest/gtest.h>

#include <sys/wait.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <vector>

namespace {

// The trap is an illegal instruction on x86 and a breakpoint elsewhere; a sanitizer may report it
// and exit.
bool died_of_a_trap(int status) {
  return (WIFSIGNALED(status) && (WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGTRAP)) ||
         (WIFEXITED(status) && WEXITSTATUS(status) != 0);
}

TEST(HeapLockDeathTest, AllocationTrapsOnceLocked) {
  EXPECT_EXIT(
      {
        worker::lock_heap();
        auto* volatile kept = new int(1);
        _exit(*kept == 1 ? 0 : 1);
      },
      died_of_a_trap, "");
}

TEST(HeapLockDeathTest, ReleaseTrapsOnceLocked) {
  EXPECT_EXIT(
      {
        auto* volatile kept = new int(1);
        worker::lock_heap();
        delete kept;
        _exit(0);
      },
      died_of_a_trap, "");
}

// In a process of its own: nothing is given back after it. Exits with 0, or with the number of the
// expectation that failed.
int use_lasting_heap() {
  worker::start_lasting_heap();
  struct alignas(256) Wide {
    char bytes[256];
  };
  auto small = std::make_unique<int>(7);
  const auto wide = std::make_unique<Wide>();
  if (reinterpret_cast<std::uintptr_t>(wide.get()) % alignof(Wide) != 0) return 1;
  std::vector<std::unique_ptr<char[]>> large;
  for (std::size_t i = 0; i < 100; ++i) {
    large.push_back(std::make_unique<char[]>(i * 10'000));
    if (i > 0) large.back()[0] = large.back()[i * 10'000 - 1] = static_cast<char>(i);
  }
  for (std::size_t i = 1; i < 100; ++i) {
    if (large[i][0] != static_cast<char>(i)) return 2;
    if (large[i][i * 10'000 - 1] != static_cast<char>(i)) return 3;
  }
  large.clear();
  return *small == 7 ? 0 : 4;
}

TEST(HeapLockDeathTest, ALastingHeapGivesMemoryThatDoesNotOverlap) {
  EXPECT_EXIT(_exit(use_lasting_heap()), testing::ExitedWithCode(0), "");
}

TEST(HeapLock, BeforeItEverythingIsAsUsual) {
  struct alignas(256) Wide {
    char bytes[256];
  };
  const auto wide = std::make_unique<Wide>();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(wide.get()) % 256, 0U);
  const auto many = std::make_unique<char[]>(100'000);
  EXPECT_NE(many, nullptr);
}

}  // namespace
