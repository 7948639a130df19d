// tests/fakes/scripted_engine.h: an Engine over a disk in memory or in a file, which fails,
// shortens, delays and reorders as a test says, and writes down what it was asked for.
//
// One turn is one step of the test: `on_turn` runs at its start, as the guest's other CPUs do while
// the worker is in its system call. When the worker would sleep and nothing can wake it any more,
// the engine says stop, so BlkQueue::run() comes back by itself. With `live`, it really sleeps and
// kick() and stop() come from other threads.
#pragma once

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/fd.h"
#include "common/verify.h"
#include "worker/engine.h"

namespace fakes {

class ScriptedEngine final : public worker::Engine {
 public:
  using Kind = worker::IoRequest::Kind;
  enum class Order : std::uint8_t { kFifo, kReversed };
  static constexpr std::uint32_t kAlways = UINT32_MAX;

  // What start() was given.
  struct Seen {
    Kind kind;
    bool durable;
    bool buffered;
    std::uint64_t offset;
    std::uint64_t bytes;
    std::size_t segments;
    std::uint64_t address_bits;  // All segment addresses, or-ed.
  };

  explicit ScriptedEngine(std::size_t disk_bytes) : disk_(disk_bytes) {}
  explicit ScriptedEngine(common::FdRef file) : file_(file) {}

  // --- the script -------------------------------------------------------------------------------
  std::function<void(bool may_sleep)> on_turn;
  // It would sleep, but no longer than that; it goes on at once.
  std::function<void(std::uint32_t us)> on_nap;
  Order order = Order::kFifo;
  bool held = false;  // Completions wait for release(), or for a worker that sleeps.
  bool live = false;

  // The next `times` requests of this kind: fail with `error`, or move `bytes` bytes at most.
  void fail(Kind kind, int error, std::uint32_t times = 1) {
    rules_.push_back({kind, times, -error});
  }
  void shorten(Kind kind, std::int32_t bytes, std::uint32_t times = 1) {
    rules_.push_back({kind, times, bytes});
  }
  void release(std::size_t count) { releasable_ += count; }
  void swap_call() { call_swapped_ = true; }
  void break_host() { host_fault_ = true; }
  // Any thread:
  void kick() {
    kicks_.fetch_add(1, std::memory_order_release);
    wake();
  }
  void stop() {
    stop_.store(true, std::memory_order_release);
    wake();
  }

  // --- what happened ----------------------------------------------------------------------------
  std::vector<Seen> seen;
  std::size_t sleeps = 0;
  std::size_t naps = 0;
  std::size_t turns = 0;
  [[nodiscard]] std::uint32_t bells() const { return bells_.load(std::memory_order_acquire); }
  [[nodiscard]] std::span<std::byte> disk() { return disk_; }
  [[nodiscard]] std::size_t under_way() const { return started_.size() + waiting_.size(); }

  // --- Engine -----------------------------------------------------------------------------------
  void start(const worker::IoRequest& request) noexcept override {
    std::uint64_t bytes = request.length;
    std::uint64_t bits = 0;
    for (const iovec& segment : request.segments) {
      bytes += segment.iov_len;
      bits |= reinterpret_cast<std::uintptr_t>(segment.iov_base);
    }
    common::verify(request.segments.size() <= 1024);  // IOV_MAX
    if (record_) {
      seen.push_back({request.kind, request.durable, request.buffered, request.offset, bytes,
                      request.segments.size(), bits});
    }
    started_.push_back(request);
    common::verify(under_way() <= worker::kRequestsMax);
  }
  void ring_call() noexcept override { bells_.fetch_add(1, std::memory_order_release); }

  [[nodiscard]] worker::Wakeup turn(bool may_sleep) noexcept override {
    ++turns;
    if (on_turn) on_turn(may_sleep);
    for (const worker::IoRequest& request : started_)
      waiting_.push_back({request.tag, perform(request)});
    started_.clear();
    move_completions(may_sleep);
    if (may_sleep) sleep();

    worker::Wakeup wakeup;
    wakeup.stop = stop_.load(std::memory_order_acquire);
    wakeup.kicked = kicks_.exchange(0, std::memory_order_acquire) != 0;
    wakeup.call_swapped = std::exchange(call_swapped_, false);
    wakeup.host_fault = host_fault_;
    return wakeup;
  }
  [[nodiscard]] bool ready() const noexcept override {
    return !done_.empty() || kicks_.load(std::memory_order_acquire) != 0 ||
           stop_.load(std::memory_order_acquire);
  }
  [[nodiscard]] bool next_completion(worker::Completion& completion) noexcept override {
    if (done_.empty()) return false;
    completion = done_.front();
    done_.pop_front();
    return true;
  }
  [[nodiscard]] std::uint64_t system_calls() const noexcept override { return turns; }

  // For long runs that would only fill memory.
  void forget_requests() { record_ = false; }

 private:
  struct Rule {
    Kind kind;
    std::uint32_t times;
    std::int32_t result;  // Negative: errno. Else: the most bytes to move.
  };

  void wake() {
    events_.fetch_add(1, std::memory_order_release);
    events_.notify_all();
  }

  // A slow disk completes at the latest when nobody has anything else to do.
  void move_completions(bool may_sleep) {
    std::size_t count = waiting_.size();
    if (held) {
      count = std::min(count, releasable_);
      releasable_ -= count;
      if (count == 0 && may_sleep && done_.empty())
        count = std::min<std::size_t>(1, waiting_.size());
    }
    for (; count > 0; --count) {
      const auto at = order == Order::kFifo ? waiting_.begin() : waiting_.end() - 1;
      done_.push_back(*at);
      waiting_.erase(at);
    }
  }

  void sleep() {
    ++sleeps;
    if (!done_.empty()) return;
    if (sleep_us_max() != 0) {
      ++naps;
      if (on_nap) on_nap(sleep_us_max());
      return;
    }
    if (!live) {
      const bool woken = kicks_.load() != 0 || call_swapped_ || host_fault_;
      if (!woken && waiting_.empty()) stop_.store(true);
      return;
    }
    const std::uint32_t before = events_.load(std::memory_order_acquire);
    if (kicks_.load(std::memory_order_acquire) == 0 && !stop_.load(std::memory_order_acquire)) {
      events_.wait(before, std::memory_order_acquire);
    }
  }

  std::optional<std::int32_t> scripted(Kind kind) {
    for (Rule& rule : rules_) {
      if (rule.kind != kind || rule.times == 0) continue;
      if (rule.times != kAlways) --rule.times;
      return rule.result;
    }
    return std::nullopt;
  }

  std::int32_t perform(const worker::IoRequest& request) {
    const std::optional<std::int32_t> rule = scripted(request.kind);
    if (rule && *rule < 0) return *rule;
    const std::size_t limit = rule ? static_cast<std::size_t>(*rule) : SIZE_MAX;
    switch (request.kind) {
      case Kind::kRead:
      case Kind::kWrite:
        return move(request, limit);
      case Kind::kSync:
        return 0;
      case Kind::kPunchHole:
      case Kind::kZeroRange:
        return clear(request);
    }
    __builtin_trap();
  }

  std::int32_t move(const worker::IoRequest& request, std::size_t limit) {
    std::uint64_t at = request.offset;
    std::size_t moved = 0;
    for (const iovec& segment : request.segments) {
      const std::size_t want = std::min(segment.iov_len, limit - moved);
      const std::size_t got =
          move_segment(request.kind, at, {static_cast<std::byte*>(segment.iov_base), want});
      moved += got;
      at += got;
      if (got < segment.iov_len) break;
    }
    return static_cast<std::int32_t>(moved);
  }

  std::size_t move_segment(Kind kind, std::uint64_t at, std::span<std::byte> memory) {
    if (file_.valid()) {
      const auto offset = static_cast<off_t>(at);
      const ssize_t got = kind == Kind::kRead
                              ? ::pread(file_.number, memory.data(), memory.size(), offset)
                              : ::pwrite(file_.number, memory.data(), memory.size(), offset);
      return got < 0 ? 0 : static_cast<std::size_t>(got);
    }
    if (at >= disk_.size()) return 0;
    const std::size_t bytes = std::min<std::size_t>(memory.size(), disk_.size() - at);
    if (kind == Kind::kRead) {
      std::memcpy(memory.data(), disk_.data() + at, bytes);
    } else {
      std::memcpy(disk_.data() + at, memory.data(), bytes);
    }
    return bytes;
  }

  std::int32_t clear(const worker::IoRequest& request) {
    common::verify(request.segments.empty());
    std::vector<std::byte> zeros(std::min<std::uint64_t>(request.length, 1U << 16));
    for (std::uint64_t done = 0; done < request.length;) {
      const std::uint64_t bytes = std::min<std::uint64_t>(zeros.size(), request.length - done);
      const std::size_t got =
          move_segment(Kind::kWrite, request.offset + done, std::span(zeros).first(bytes));
      if (got == 0) return -EIO;
      done += got;
    }
    return 0;
  }

  std::vector<std::byte> disk_;
  common::FdRef file_;
  std::vector<worker::IoRequest> started_;
  std::deque<worker::Completion> waiting_;  // Performed, not told.
  std::deque<worker::Completion> done_;
  std::vector<Rule> rules_;
  std::size_t releasable_ = 0;
  std::atomic<std::uint32_t> bells_ = 0;
  std::atomic<std::uint32_t> kicks_ = 0;
  std::atomic<bool> stop_ = false;
  std::atomic<std::uint32_t> events_ = 0;
  bool call_swapped_ = false;
  bool host_fault_ = false;
  bool record_ = true;
};

}  // namespace fakes
