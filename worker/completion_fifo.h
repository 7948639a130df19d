// worker/completion_fifo.h: completions that an engine has and its caller has not taken yet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/verify.h"
#include "worker/engine.h"

namespace worker {

// Bounded by what may be in flight, so it never grows. Starts again at the front whenever it has
// been emptied: a worker at a low queue depth touches one page of it.
class CompletionFifo {
 public:
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }

  void push(std::uint32_t tag, std::int32_t result) noexcept {
    common::verify(count_ < kRequestsMax);
    slots_[(first_ + count_++) % kRequestsMax] = {tag, result};
  }

  [[nodiscard]] bool pop(Completion& completion) noexcept {
    if (count_ == 0) return false;
    const Slot& slot = slots_[first_];
    completion = {slot.tag, slot.result};
    first_ = --count_ == 0 ? 0 : (first_ + 1) % kRequestsMax;
    return true;
  }

 private:
  struct Slot {  // Without initialisers, so that making the array touches no page.
    std::uint32_t tag;
    std::int32_t result;
  };
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  std::array<Slot, kRequestsMax> slots_;
};

}  // namespace worker
