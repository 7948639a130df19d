#include "tests/fakes/watched_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <utility>

namespace fakes {
namespace {

WatchedMemory* watch = nullptr;
struct sigaction old_segv;
struct sigaction old_trap;

#if defined(__x86_64__)
constexpr greg_t kTrapFlag = 0x100;

void on_segv(int /*signal*/, siginfo_t* info, void* context) {
  if (watch == nullptr || !watch->begin_access(reinterpret_cast<std::uintptr_t>(info->si_addr))) {
    ::sigaction(SIGSEGV, &old_segv, nullptr);  // Not ours: fault again, with whoever was there.
    return;
  }
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= kTrapFlag;
}

void on_trap(int /*signal*/, siginfo_t* /*info*/, void* context) {
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
  if (watch != nullptr) watch->end_access();
}

void install(int signal, void (*handler)(int, siginfo_t*, void*), struct sigaction* old) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO;
  if (::sigaction(signal, &action, old) != 0) std::abort();
}
#endif

}  // namespace

WatchedMemory::WatchedMemory(std::span<std::byte> page,
                             std::function<void(std::size_t)> after_access)
    : page_(page), after_access_(std::move(after_access)) {
#if defined(__x86_64__)
  if (watch != nullptr || page.size() != kPageBytes) std::abort();
  watch = this;
  install(SIGSEGV, on_segv, &old_segv);
  install(SIGTRAP, on_trap, &old_trap);
  protect(true);
#endif
}

WatchedMemory::~WatchedMemory() {
#if defined(__x86_64__)
  protect(false);
  ::sigaction(SIGSEGV, &old_segv, nullptr);
  ::sigaction(SIGTRAP, &old_trap, nullptr);
  watch = nullptr;
#endif
}

void WatchedMemory::protect(bool locked) {
  if (::mprotect(page_.data(), page_.size(), locked ? PROT_NONE : PROT_READ | PROT_WRITE) != 0) {
    std::abort();
  }
}

bool WatchedMemory::begin_access(std::uintptr_t address) {
  const auto start = reinterpret_cast<std::uintptr_t>(page_.data());
  if (address < start || address - start >= kPageBytes) return false;
  last_ = address - start;
  ++counts_.at(last_);
  protect(false);
  return true;
}

void WatchedMemory::end_access() {
  if (after_access_) after_access_(last_);
  protect(true);
}

std::uint32_t WatchedMemory::most() const {
  return *std::max_element(counts_.begin(), counts_.end());
}

std::uint32_t WatchedMemory::accesses_of(std::span<std::byte> page,
                                         const std::function<void()>& copy) {
  WatchedMemory watched(page);
  copy();
  return watched.total();
}

std::uint32_t WatchedMemory::total() const {
  return std::accumulate(counts_.begin(), counts_.end(), 0U);
}

}  // namespace fakes
