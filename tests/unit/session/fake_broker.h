// tests/unit/session/fake_broker.h: the broker's and the workers' half of a session's messages, as
// one thread that answers as the real ones would, and writes down what it was asked.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/fd.h"
#include "common/ipc/channel.h"
#include "common/ipc/session_broker.h"
#include "common/ipc/worker_messages.h"
#include "common/sys.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"

namespace session_test {

// What a worker was started with.
struct Start {
  std::uint32_t queue = 0;
  common::ipc::RingStart ring{};
  std::vector<common::ipc::MemoryRegions::Region> regions;
  std::vector<common::Fd> files;
  common::Fd kick;
  common::Fd call;
  common::Fd inflight;
  common::Fd log;
};

struct Event {
  common::ipc::EventCode code{};
  std::array<std::uint64_t, 3> numbers{};
};

class FakeBroker {
 public:
  explicit FakeBroker(common::Fd socket);
  FakeBroker(const FakeBroker&) = delete;
  FakeBroker& operator=(const FakeBroker&) = delete;
  ~FakeBroker();

  // --- how it behaves from now on
  // -----------------------------------------------------------------
  void report_next_avail(std::uint32_t queue, std::uint32_t index);
  void end_on_close_with(common::ipc::QueueOutcome outcome);
  // After the next close only.
  void then_end_on_close_with(common::ipc::QueueOutcome outcome);
  void fail_starts(bool on);      // OpenQueue is answered by QueueEnded{kNotStarted}.
  void workers_hang_up(bool on);  // A worker takes its orders and dies before it serves.
  void workers_babble(bool on);   // A worker answers with something else than Serving.
  void refuse_swaps(bool on);
  void refuse_inflight(bool on);

  // --- what it does unasked
  // -----------------------------------------------------------------------
  void end_queue(std::uint32_t queue, common::ipc::QueueOutcome outcome);
  // The same, if it runs: a broker ends nobody twice.
  void end_running_queue(std::uint32_t queue, common::ipc::QueueOutcome outcome);
  template <common::ipc::Message T>
  void send(const T& message, std::span<const common::FdRef> fds = {}) {
    (void)common::ipc::send(socket_.ref(), message, fds);
  }
  void send_nonsense();
  void hang_up();

  // --- what it saw
  // -------------------------------------------------------------------------------- "open 0",
  // "start 0", "serving 0", "close 0", "swap 0", in order; and forgets them.
  [[nodiscard]] std::vector<std::string> take_log();
  [[nodiscard]] std::size_t running() const;
  // The newest start of this queue; fails if there was none.
  [[nodiscard]] const Start& start_of(std::uint32_t queue) const;
  [[nodiscard]] std::size_t starts_of(std::uint32_t queue) const;
  void forget_starts();  // And close what those workers were given.
  [[nodiscard]] common::FdRef swapped_call() const;
  [[nodiscard]] std::uint64_t driver_features() const;  // As it was told last.
  // The sizes of all in-flight files that were asked for.
  [[nodiscard]] std::vector<std::uint64_t> inflight_files() const;
  // Waits for it.
  [[nodiscard]] Event wait_event(common::ipc::EventCode code);
  [[nodiscard]] std::size_t events_of(common::ipc::EventCode code) const;
  [[nodiscard]] std::size_t events() const;
  // After the session has hung up: everything it said has been seen.
  void wait_closed();

 private:
  // Until everything that the session has sent by now has been seen.
  void catch_up(std::unique_lock<std::mutex>& lock) const;
  void run();
  bool serve_session();
  void on_make_inflight(std::uint64_t bytes);
  void on_open(std::uint32_t queue);
  void on_close(std::uint32_t queue);
  void serve_worker(std::uint32_t queue);
  void note(const std::string& what, std::uint32_t queue);
  void ended(std::uint32_t queue, common::ipc::QueueOutcome outcome);

  common::Fd socket_;
  common::Fd stop_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::map<std::uint32_t, common::Fd> workers_;  // Those that have not said "serving" yet.
  std::map<std::uint32_t, Start> half_started_;
  std::map<std::uint32_t, std::vector<Start>> starts_;
  std::map<std::uint32_t, bool> running_;
  std::map<std::uint32_t, std::uint32_t> next_avail_;
  std::vector<std::string> log_;
  std::vector<Event> events_;
  common::Fd swapped_;
  std::uint64_t driver_features_ = 0;
  common::ipc::QueueOutcome close_outcome_ = common::ipc::QueueOutcome::kStopped;
  std::optional<common::ipc::QueueOutcome> next_close_outcome_;
  bool fail_starts_ = false;
  bool hang_up_workers_ = false;
  bool babble_ = false;
  bool refuse_swaps_ = false;
  bool refuse_inflight_ = false;
  std::uint32_t deaths_ = 0;
  std::vector<std::uint64_t> inflight_bytes_;
  bool closed_ = false;
  std::thread thread_;
};

// --- from here on: how -------------------------------------------------------------------------

inline FakeBroker::FakeBroker(common::Fd socket) : socket_(std::move(socket)) {
  auto stop = common::make_eventfd();
  fakes::require(stop.has_value(), "eventfd");
  stop_ = *std::move(stop);
  thread_ = std::thread([this] { run(); });
}

inline FakeBroker::~FakeBroker() {
  const std::uint64_t one = 1;
  (void)!::write(stop_.ref().number, &one, sizeof(one));
  thread_.join();
}

inline void FakeBroker::report_next_avail(std::uint32_t queue, std::uint32_t index) {
  const std::lock_guard lock(mutex_);
  next_avail_[queue] = index;
}
inline void FakeBroker::end_on_close_with(common::ipc::QueueOutcome outcome) {
  const std::lock_guard lock(mutex_);
  close_outcome_ = outcome;
}
inline void FakeBroker::then_end_on_close_with(common::ipc::QueueOutcome outcome) {
  const std::lock_guard lock(mutex_);
  next_close_outcome_ = outcome;
}
inline void FakeBroker::fail_starts(bool on) {
  const std::lock_guard lock(mutex_);
  fail_starts_ = on;
}
inline void FakeBroker::workers_hang_up(bool on) {
  const std::lock_guard lock(mutex_);
  hang_up_workers_ = on;
}
inline void FakeBroker::workers_babble(bool on) {
  const std::lock_guard lock(mutex_);
  babble_ = on;
}
inline void FakeBroker::refuse_swaps(bool on) {
  const std::lock_guard lock(mutex_);
  refuse_swaps_ = on;
}

inline void FakeBroker::refuse_inflight(bool on) {
  const std::lock_guard lock(mutex_);
  refuse_inflight_ = on;
}

inline void FakeBroker::end_queue(std::uint32_t queue, common::ipc::QueueOutcome outcome) {
  const std::lock_guard lock(mutex_);
  ended(queue, outcome);
}

inline void FakeBroker::end_running_queue(std::uint32_t queue, common::ipc::QueueOutcome outcome) {
  const std::lock_guard lock(mutex_);
  if (running_.contains(queue)) ended(queue, outcome);
}

inline void FakeBroker::send_nonsense() {
  constexpr std::array<std::byte, 12> kNonsense{};
  (void)common::ipc::send_bytes(socket_.ref(), kNonsense, {}, true);
}

inline void FakeBroker::hang_up() { ::shutdown(socket_.ref().number, SHUT_RDWR); }

inline std::vector<std::string> FakeBroker::take_log() {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  return std::exchange(log_, {});
}

inline std::size_t FakeBroker::running() const {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  return running_.size();
}

inline const Start& FakeBroker::start_of(std::uint32_t queue) const {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  const auto found = starts_.find(queue);
  fakes::require(found != starts_.end(), "no worker was started");
  return found->second.back();
}

inline std::size_t FakeBroker::starts_of(std::uint32_t queue) const {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  const auto found = starts_.find(queue);
  return found == starts_.end() ? 0 : found->second.size();
}

inline void FakeBroker::forget_starts() {
  const std::lock_guard lock(mutex_);
  starts_.clear();
}

inline common::FdRef FakeBroker::swapped_call() const {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  return swapped_.ref();
}

inline std::uint64_t FakeBroker::driver_features() const {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  return driver_features_;
}

inline std::vector<std::uint64_t> FakeBroker::inflight_files() const {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  return inflight_bytes_;
}

inline Event FakeBroker::wait_event(common::ipc::EventCode code) {
  std::unique_lock lock(mutex_);
  const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
  while (true) {
    for (const Event& event : events_) {
      if (event.code == code) return event;
    }
    fakes::require(changed_.wait_until(lock, give_up) == std::cv_status::no_timeout,
                   "event " + std::to_string(static_cast<std::uint32_t>(code)) + " did not come");
  }
}

inline std::size_t FakeBroker::events_of(common::ipc::EventCode code) const {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  std::size_t count = 0;
  for (const Event& event : events_) count += event.code == code ? 1 : 0;
  return count;
}

inline std::size_t FakeBroker::events() const {
  std::unique_lock lock(mutex_);
  catch_up(lock);
  return events_.size();
}

inline void FakeBroker::wait_closed() {
  std::unique_lock lock(mutex_);
  fakes::require(changed_.wait_for(lock, fakes::kPatience, [this] { return closed_; }),
                 "the session did not end");
}

inline void FakeBroker::catch_up(std::unique_lock<std::mutex>& lock) const {
  while (!closed_) {
    pollfd look{socket_.ref().number, POLLIN, 0};
    if (::poll(&look, 1, 0) == 0) return;
    fakes::require(changed_.wait_for(lock, fakes::kPatience) == std::cv_status::no_timeout,
                   "the fake broker is stuck");
  }
}

inline void FakeBroker::run() {
  while (true) {
    std::vector<pollfd> sockets = {{stop_.ref().number, POLLIN, 0},
                                   {socket_.ref().number, POLLIN, 0}};
    std::vector<std::uint32_t> queues = {0, 0};
    {
      const std::lock_guard lock(mutex_);
      if (closed_) sockets[1].fd = -1;
      for (const auto& [queue, socket] : workers_) {
        sockets.push_back({socket.ref().number, POLLIN, 0});
        queues.push_back(queue);
      }
    }
    if (::poll(sockets.data(), sockets.size(), -1) < 0) continue;
    if (sockets[0].revents != 0) return;
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 2; i < sockets.size(); ++i) {
      // It may have been ended since we looked, and nobody is ended twice.
      if (sockets[i].revents != 0 && workers_.contains(queues[i])) serve_worker(queues[i]);
    }
    if (sockets[1].revents != 0 && !serve_session()) closed_ = true;
    changed_.notify_all();
  }
}

inline bool FakeBroker::serve_session() {
  common::ipc::Packet packet;
  const auto arrival = common::ipc::receive_packet(socket_.ref(), packet, false);
  if (!arrival || *arrival == common::ipc::Arrival::kClosed) return false;
  if (*arrival != common::ipc::Arrival::kData) return true;
  if (const auto open = packet.as<common::ipc::OpenQueue>()) {
    on_open(open->queue);
  } else if (const auto close = packet.as<common::ipc::CloseQueue>()) {
    on_close(close->queue);
  } else if (const auto serving = packet.as<common::ipc::QueueServing>()) {
    note("serving", serving->queue);
  } else if (const auto swap = packet.as<common::ipc::SwapCall>()) {
    note("swap", swap->queue);
    swapped_ = packet.fds.take(0);
    common::ipc::CallSwapped answer{};
    answer.kind = common::ipc::CallSwapped::kKind;
    answer.queue = swap->queue;
    answer.swapped = refuse_swaps_ ? 0 : 1;
    send(answer);
  } else if (const auto resumed = packet.as<common::ipc::Resumed>()) {
    note("resumed", resumed->phases[0]);
  } else if (const auto features = packet.as<common::ipc::DriverFeatures>()) {
    log_.push_back("features");
    driver_features_ = features->features;
  } else if (const auto mtu = packet.as<common::ipc::HostMtu>()) {
    note("mtu", mtu->mtu);
  } else if (const auto rarp = packet.as<common::ipc::SendRarp>()) {
    note("rarp", rarp->mac[5]);
  } else if (const auto make = packet.as<common::ipc::MakeInflight>()) {
    on_make_inflight(make->bytes);
  } else if (const auto event = packet.as<common::ipc::SessionEvent>()) {
    events_.push_back({static_cast<common::ipc::EventCode>(event->code), event->numbers});
  }
  return true;
}

inline void FakeBroker::on_make_inflight(std::uint64_t bytes) {
  inflight_bytes_.push_back(bytes);
  common::ipc::InflightMade made{};
  made.kind = common::ipc::InflightMade::kKind;
  auto file = common::make_sealed_memfd("inflight", bytes);
  if (!file || refuse_inflight_) return send(made);
  const std::array<common::FdRef, 1> fds = {file->ref()};
  send(made, fds);
}

inline void FakeBroker::on_open(std::uint32_t queue) {
  note("open", queue);
  if (running_.contains(queue)) note("second worker for", queue);
  running_[queue] = true;
  if (fail_starts_) {
    ended(queue, common::ipc::QueueOutcome::kNotStarted);
    return;
  }
  auto pair = common::make_packet_pair();
  if (!pair) return;
  workers_[queue] = std::move(pair->first);
  half_started_[queue] = Start{};
  common::ipc::QueueOpened opened{};
  opened.kind = common::ipc::QueueOpened::kKind;
  opened.queue = queue;
  const std::array<common::FdRef, 1> fds = {pair->second.ref()};
  send(opened, fds);
}

inline void FakeBroker::on_close(std::uint32_t queue) {
  note("close", queue);
  // Once only: what crossed an end that nobody had asked for is answered by that.
  if (running_.contains(queue)) ended(queue, close_outcome_);
  if (next_close_outcome_) close_outcome_ = *std::exchange(next_close_outcome_, std::nullopt);
}

// A broker starts nobody for ever.
inline void FakeBroker::ended(std::uint32_t queue, common::ipc::QueueOutcome outcome) {
  if (outcome == common::ipc::QueueOutcome::kDied && ++deaths_ % 4 == 0) {
    outcome = common::ipc::QueueOutcome::kGaveUp;
  }
  running_.erase(queue);
  workers_.erase(queue);
  common::ipc::QueueEnded message{};
  message.kind = common::ipc::QueueEnded::kKind;
  message.queue = queue;
  message.outcome = static_cast<std::uint32_t>(outcome);
  message.next_avail = next_avail_[queue];
  send(message);
}

inline void FakeBroker::serve_worker(std::uint32_t queue) {
  common::ipc::Packet packet;
  const common::FdRef socket = workers_[queue].ref();
  const auto arrival = common::ipc::receive_packet(socket, packet, false);
  if (arrival && *arrival == common::ipc::Arrival::kNothing) return;
  if (!arrival || *arrival != common::ipc::Arrival::kData) {
    ended(queue, common::ipc::QueueOutcome::kDied);
    return;
  }
  Start& start = half_started_[queue];
  if (const auto regions = packet.as<common::ipc::MemoryRegions>()) {
    for (std::uint32_t i = 0; i < regions->count; ++i) {
      start.regions.push_back(regions->regions[i]);
      start.files.push_back(packet.fds.take(i));
    }
    return;
  }
  const auto ring = packet.as<common::ipc::RingStart>();
  if (!ring) return;
  start.queue = queue;
  start.ring = *ring;
  std::size_t next = 0;
  if (ring->has_kick == 1) start.kick = packet.fds.take(next++);
  if (ring->has_call == 1) start.call = packet.fds.take(next++);
  if (ring->has_inflight == 1) start.inflight = packet.fds.take(next++);
  if (ring->has_log == 1) start.log = packet.fds.take(next++);
  note("start", queue);
  starts_[queue].push_back(std::move(start));
  if (hang_up_workers_) {
    ended(queue, common::ipc::QueueOutcome::kDied);
    return;
  }
  if (babble_) {
    common::ipc::QueueServing other{};
    other.kind = common::ipc::QueueServing::kKind;
    (void)common::ipc::send(socket, other);
  } else {
    common::ipc::Serving serving{};
    serving.kind = common::ipc::Serving::kKind;
    (void)common::ipc::send(socket, serving);
  }
  workers_.erase(queue);
}

inline void FakeBroker::note(const std::string& what, std::uint32_t queue) {
  log_.push_back(what + " " + std::to_string(queue));
}

}  // namespace session_test
