// broker/session/queue_link.h: the session's talk with one worker, from OpenQueue to QueueEnded.
//
// The worker reads what a guest writes, so what it says is not trusted: one word of fixed size is
// believed, and only about its own queue. Once it serves it has no socket any more, and everything
// later comes through the broker.
#pragma once

#include <cstdint>
#include <optional>

#include "broker/session/inflight_region.h"
#include "broker/session/log_region.h"
#include "broker/session/memory_table.h"
#include "broker/session/vring.h"
#include "common/fd.h"
#include "common/ipc/session_broker.h"

namespace session {

class QueueLink {
 public:
  enum class State : std::uint8_t {
    kNone,      // No worker.
    kOpening,   // OpenQueue is sent.
    kStarting,  // The worker has its orders; it maps and seals.
    kServing,   // It said that it is sealed and looks at the ring.
    kClosing,   // CloseQueue is sent; it finishes what it has taken.
  };

  [[nodiscard]] State state() const noexcept { return state_; }
  // The same for another broker.
  [[nodiscard]] common::ipc::QueuePhase phase() const noexcept;
  [[nodiscard]] bool is_settled() const noexcept {
    return state_ == State::kNone || state_ == State::kServing;
  }
  // What the worker was, or will be, started with.
  [[nodiscard]] const RingSetup& setup() const noexcept { return setup_; }
  // Valid only while an answer is awaited.
  [[nodiscard]] common::FdRef socket() const noexcept { return socket_.ref(); }
  [[nodiscard]] bool had_call() const noexcept { return had_call_; }
  // What it takes is recorded where the next worker finds it.
  [[nodiscard]] bool has_inflight() const noexcept { return has_inflight_; }
  // What it writes is logged where the front-end looks.
  [[nodiscard]] bool log_counts() const noexcept { return log_counts_; }

  void opening(const RingSetup& setup) noexcept;
  // The broker has the worker ready: give it the guest's memory and the ring. A worker that does
  // not take them is about to be reported by the broker.
  void start(common::Fd socket, const Vring& ring, const MemoryTable& memory,
             const std::optional<InflightRegion::Place>& inflight, const LogRegion& log) noexcept;
  // Looks at what the worker says; true if it is "serving". False too where it hung up, which the
  // broker is about to explain.
  [[nodiscard]] Outcome<bool> take_answer() noexcept;
  void closing() noexcept { state_ = State::kClosing; }
  void ended() noexcept;

 private:
  [[nodiscard]] bool send_memory(const MemoryTable& memory) noexcept;
  [[nodiscard]] bool send_ring(const Vring& ring,
                               const std::optional<InflightRegion::Place>& inflight,
                               const LogRegion& log) noexcept;

  State state_ = State::kNone;
  bool had_call_ = false;
  bool has_inflight_ = false;
  bool log_counts_ = false;
  RingSetup setup_;
  common::Fd socket_;
};

}  // namespace session
