// worker/engine.h: how a worker moves data and sleeps. Two of them exist: uring_engine and
// fallback_engine; tests have a third. The one `virtual` seam of the worker.
//
// Trusts: its caller. What an IoRequest names has been checked against the guest's memory and the
// disk's size before it comes here.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace worker {

// Never more requests in flight than a ring has entries (virtio 1.2, 2.7; common::kQueueSizeMax).
inline constexpr std::uint32_t kRequestsMax = 1024;

struct IoRequest {
  enum class Kind : std::uint8_t {
    kRead,
    kWrite,
    kSync,       // fdatasync of the whole disk: what every queue has completed before.
    kPunchHole,  // Deallocate [offset, offset + length): reads as zeros afterwards.
    kZeroRange,  // Zero it, keeping it allocated where the disk can.
  };
  Kind kind = Kind::kRead;
  bool durable = false;      // kWrite: on stable storage when it completes.
  bool buffered = false;     // Use the second, buffered descriptor of a direct disk.
  std::uint32_t tag = 0;     // Comes back with the completion.
  std::uint64_t offset = 0;  // Bytes from the start of the disk.
  // Bytes; kPunchHole and kZeroRange. For kRead and kWrite the segments say.
  std::uint64_t length = 0;
  // kRead and kWrite: at most IOV_MAX (1024). They and the memory they name stay valid until the
  // completion.
  std::span<const iovec> segments{};
};

struct Completion {
  std::uint32_t tag = 0;
  std::int32_t result = 0;  // Bytes moved (maybe fewer than asked), 0, or a negative errno.
};

// Why turn() came back. Several may hold at once, or none.
struct Wakeup {
  bool stop = false;          // The broker wants this worker to drain and end. Sticky.
  bool kicked = false;        // The guest kicked since the last turn.
  bool call_swapped = false;  // A new call eventfd is in place: ring it once, wanted or not.
  bool host_fault = false;    // The engine itself failed: nothing more can be done here.
};

class Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;

  // Takes the request; it is under way at the latest after the next turn(). At most kRequestsMax
  // are in flight at once, which the caller keeps to.
  virtual void start(const IoRequest& request) noexcept = 0;

  // Rings the guest's bell (the call eventfd), at the latest with the next turn(). A bell that is
  // still on its way is not rung twice, and none is lost. Nothing without a call eventfd.
  virtual void ring_call() noexcept = 0;

  // Submits what was started and, where `may_sleep`, waits until there is a completion, a kick, or
  // a message of the broker: the first of them wakes.
  [[nodiscard]] virtual Wakeup turn(bool may_sleep) noexcept = 0;

  // Turns that sleep do not sleep longer than this from now on. 0: as long as they like.
  void sleep_at_most(std::uint32_t us) noexcept { sleep_us_max_ = us; }

  // True if a turn(false) would bring something: for busy polling. Costs no system call.
  [[nodiscard]] virtual bool ready() const noexcept = 0;

  // Takes completions that turn() has brought. False when there is none.
  [[nodiscard]] virtual bool next_completion(Completion& completion) noexcept = 0;

  // How many system calls this engine has made, for the status page.
  [[nodiscard]] virtual std::uint64_t system_calls() const noexcept = 0;

 protected:
  [[nodiscard]] std::uint32_t sleep_us_max() const noexcept { return sleep_us_max_; }

 private:
  std::uint32_t sleep_us_max_ = 0;
};

}  // namespace worker
