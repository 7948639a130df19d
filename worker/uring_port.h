// worker/uring_port.h: what every engine does with its io_uring besides moving data: it gives the
// ring its files, submits and sleeps, rings the bell, and hears the broker, which reaches a sealed
// worker with messages into the ring (kRingStop, kRingCallSwapped).
//
// Trusts: the broker and the kernel. The eventfds are the VMM's, and all they carry is "now".
#pragma once

#include <cstdint>

#include "common/fd.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "worker/uring.h"

namespace worker {

class UringPort {
 public:
  struct Parts {
    common::FdRef ring;  // As policy::make_restricted_ring() made it, still disabled.
    common::ipc::UringLayout layout;
    common::FdRef device;             // The disk or tap.
    common::FdRef device_buffered{};  // Invalid: nobody will use kSlotDeviceBuffered.
    common::FdRef kick{};             // Invalid: the front-end wants its ring polled.
    common::FdRef call{};             // Invalid: no interrupts until the broker swaps one in.
    common::FdRef stop{};             // Readable: stop. Invalid: kRingStop is the only way to.
  };

  // user_data: in the high half one of these, whose low half is the engine's, or the generation of
  // kKindCall. The broker's messages have the top byte set.
  static constexpr std::uint64_t kKindMask = 0xffff'ffff'0000'0000ULL;
  static constexpr std::uint64_t kKindData = 0;
  static constexpr std::uint64_t kKindKick = 1ULL << 32;
  static constexpr std::uint64_t kKindCall = 2ULL << 32;
  static constexpr std::uint64_t kKindDevice = 3ULL << 32;
  static constexpr std::uint64_t kKindStop = 4ULL << 32;

  // What a completion was that is neither data, kick nor the device's readiness. kStopLost: nobody
  // looks at kSlotStop any more; look again.
  enum class Message : std::uint8_t { kNone, kStop, kStopLost, kCallSwapped };

  // Afterwards no descriptor of `parts` is needed: the ring holds the files, and this task the
  // ring.
  [[nodiscard]] static common::Result<UringPort> open(const Parts& parts) noexcept;

  // Null only where the ring does not work any more; broken() says so from then on.
  [[nodiscard]] io_uring_sqe* claim(std::uint8_t opcode, std::uint32_t slot) noexcept {
    if (io_uring_sqe* const entry = ring_.claim(opcode, slot); entry != nullptr) [[likely]] {
      return entry;
    }
    return claim_after_submitting(opcode, slot);
  }
  // Submits what was claimed, and with `sleep` waits for one completion at least, but no longer
  // than `sleep_us_max`; where that is 0, without a kick eventfd not longer than it takes to look
  // at the avail ring again. False where the ring does not work any more.
  bool enter(bool sleep, std::uint32_t sleep_us_max = 0) noexcept;
  [[nodiscard]] bool next(io_uring_cqe& completion) noexcept { return ring_.next(completion); }
  [[nodiscard]] Message take(const io_uring_cqe& completion) noexcept;

  // Interrupts the guest, with the next enter(). Does nothing without a call eventfd.
  void ring_call() noexcept;

  [[nodiscard]] std::uint32_t unsubmitted() const noexcept { return ring_.unsubmitted(); }
  [[nodiscard]] bool work_pending() const noexcept { return ring_.work_pending(); }
  [[nodiscard]] bool completions_waiting() const noexcept { return ring_.completions_waiting(); }
  [[nodiscard]] std::uint64_t system_calls() const noexcept { return ring_.system_calls(); }

  // The engine is to look at kSlotStop, in the way its profile allows.
  [[nodiscard]] bool has_stop() const noexcept { return has_stop_; }
  [[nodiscard]] bool has_kick() const noexcept { return has_kick_; }
  // It was an eventfd when we started; without it, the avail ring is looked at from time to time.
  void lose_kick() noexcept { has_kick_ = false; }
  // The broker wants us to come to an end.
  [[nodiscard]] bool stopping() const noexcept { return stopping_; }
  [[nodiscard]] bool broken() const noexcept { return broken_; }
  void give_up() noexcept { broken_ = true; }
  // The same, and completions that were lost besides.
  [[nodiscard]] bool faulty() const noexcept { return broken_ || ring_.overflowed(); }

 private:
  UringPort(Uring ring, const Parts& parts) noexcept;
  [[nodiscard]] io_uring_sqe* claim_after_submitting(std::uint8_t opcode,
                                                     std::uint32_t slot) noexcept;
  void finish_call(std::uint32_t generation, std::int32_t result) noexcept;

  Uring ring_;
  bool has_kick_ = false;
  bool has_call_ = false;
  bool has_stop_ = false;
  bool stopping_ = false;
  bool broken_ = false;

  // The bell. At most one WRITE to the file that is in kSlotCall now is outstanding: a front-end
  // that fills its eventfd's counter would make more of them wait for ever.
  bool call_queued_ = false;   // Claimed, not submitted: whatever is published now is before it.
  bool call_pending_ = false;  // Submitted, not completed.
  bool call_again_ = false;    // Wanted while one was pending, which may have been too early.
  std::uint32_t call_generation_ = 0;  // Counts the files that were in the slot.
  std::uint64_t call_value_ = 1;
};

}  // namespace worker
