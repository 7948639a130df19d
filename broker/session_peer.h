// broker/session_peer.h: the whole of what a session can make the broker do: one table.
//
// Not trusted: the session. It parses what a VMM sends, so every packet is taken for hostile: kind,
// size and descriptors are checked against the message's type, the queue against the device, and
// the order against the state of that queue. One wrong packet ends the session and its workers; the
// broker and every other device go on.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/ipc/channel.h"
#include "common/ipc/session_broker.h"

namespace broker {

// What the table asks for once a packet has passed; `queue` is within the device.
class SessionRequests {
 public:
  virtual ~SessionRequests() = default;
  virtual void open_queue(std::uint32_t queue) = 0;
  virtual void queue_serving(std::uint32_t queue) = 0;
  virtual void close_queue(std::uint32_t queue) = 0;
  // To be answered always. `running` false: there is no worker that could take it.
  virtual void swap_call(std::uint32_t queue, common::Fd eventfd, bool running) = 0;
  // To be answered always.
  virtual void make_inflight(std::uint64_t bytes) = 0;
  virtual void session_event(const common::ipc::SessionEvent& event) = 0;
  // Only of what was offered.
  virtual void driver_features(std::uint64_t features) = 0;
  virtual void host_mtu(std::uint32_t mtu) = 0;
  virtual void send_rarp(const std::array<std::uint8_t, 6>& mac) = 0;
};

// kHangUp: kill this session and its workers.
enum class Verdict : std::uint8_t { kContinue, kHangUp };

class SessionPeer {
 public:
  // Of one queue, as this session has made it. Packets cross: a worker may end by itself while the
  // session still speaks of it, which kEnded forgives and kClosed does not.
  enum class QueueState : std::uint8_t {
    kClosed = 1,   // No worker, and the session knows.
    kOpen = 2,     // A worker was started.
    kServing = 4,  // It serves, says the session.
    kClosing = 8,  // The session wants it ended.
    kEnded = 16,   // It ended by itself; QueueEnded is on its way.
  };

  // `start`: what this session was told; it may speak of nothing else.
  SessionPeer(SessionRequests& requests, const common::ipc::SessionStart& start)
      : requests_(requests), start_(start), states_(start.queues_max, QueueState::kClosed) {}

  // Descriptors that a request takes are moved out of `packet`.
  [[nodiscard]] Verdict on_packet(common::ipc::Packet& packet);

  // An earlier broker has brought that queue so far.
  void adopt(std::uint32_t queue, QueueState state) { states_.at(queue) = state; }

  // That queue's worker is gone (or was never started), and QueueEnded is sent.
  void queue_ended(std::uint32_t queue);

  [[nodiscard]] QueueState state(std::uint32_t queue) const { return states_.at(queue); }
  // What was wrong, after kHangUp: our words and the session's numbers.
  [[nodiscard]] const std::string& complaint() const noexcept { return complaint_; }

 private:
  struct Rule {
    std::uint32_t kind;
    const char* name;
    std::uint8_t allowed_in;  // QueueStates, or-ed; 0: concerns no queue.
    Verdict (*handle)(SessionPeer&, common::ipc::Packet&, const Rule&);
  };
  static const std::array<Rule, 9> kRules;

  template <common::ipc::Message T, void (SessionPeer::*Handler)(const T&, common::ipc::Packet&)>
  static Verdict handle(SessionPeer& self, common::ipc::Packet& packet, const Rule& rule);

  void open(const common::ipc::OpenQueue& request, common::ipc::Packet& packet);
  void serving(const common::ipc::QueueServing& request, common::ipc::Packet& packet);
  void close(const common::ipc::CloseQueue& request, common::ipc::Packet& packet);
  void swap(const common::ipc::SwapCall& request, common::ipc::Packet& packet);
  void inflight(const common::ipc::MakeInflight& request, common::ipc::Packet& packet);
  void event(const common::ipc::SessionEvent& event, common::ipc::Packet& packet);
  void features(const common::ipc::DriverFeatures& message, common::ipc::Packet& packet);
  void mtu(const common::ipc::HostMtu& message, common::ipc::Packet& packet);
  void rarp(const common::ipc::SendRarp& message, common::ipc::Packet& packet);
  [[nodiscard]] bool offered(std::uint32_t kind) const noexcept;
  [[nodiscard]] Verdict hang_up(std::string complaint);

  SessionRequests& requests_;
  common::ipc::SessionStart start_;
  std::vector<QueueState> states_;
  std::string complaint_;
};

}  // namespace broker
