// tests/chaos/card_flows.h: who sends and receives stamped frames without a rest, each on a thread
// of its own: a guest's driver of one queue of its card, and the host behind the tap.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "tests/chaos/ledger.h"
#include "tests/fakes/host_port.h"
#include "tests/fakes/net_queue_driver.h"

namespace chaos {

// The first thing that was wrong on any thread.
class Complaint {
 public:
  // Runs it; what it throws is kept.
  void watch(const std::function<void()>& work) noexcept;
  // Fails with what was kept.
  void raise();

 private:
  std::mutex mutex_;
  std::string text_;
};

// A guest's driver of one queue. It sleeps on the doorbell as a guest does: a bell that is not rung
// when it should be makes the queue stand still.
class QueueFlow {
 public:
  virtual ~QueueFlow();
  QueueFlow(const QueueFlow&) = delete;
  QueueFlow& operator=(const QueueFlow&) = delete;

  // Nobody touches the ring as long as this is held.
  [[nodiscard]] std::unique_lock<std::mutex> hold() { return std::unique_lock(mutex_); }
  // While it is held: the guest has reset its card. What it had sent and not got back is none of
  // its business any more.
  virtual void was_reset() { was_reset_ = true; }
  // Fails where the queue does not get on.
  void expect_progress(std::uint64_t times);
  [[nodiscard]] std::chrono::microseconds take_longest_pause() {
    return pulse_.take_longest_pause();
  }
  // After it has got back what is to come back by itself.
  void stop();

 protected:
  QueueFlow(fakes::NetQueueDriver& queue, std::string name, Complaint& complaint,
            std::chrono::microseconds rest)
      : queue_(queue), name_(std::move(name)), complaint_(complaint), rest_(rest) {}
  void start();
  enum class Then : std::uint8_t { kAgain, kSleep, kPause, kEnd };
  // One turn, while it is held. kSleep: the device has been asked for a bell.
  [[nodiscard]] virtual Then turn() = 0;
  void count(std::uint64_t frames);

  fakes::NetQueueDriver& queue_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> was_reset_ = false;

 private:
  void run();
  [[nodiscard]] std::string why_it_stands_still();

  const std::string name_;
  Complaint& complaint_;
  const std::chrono::microseconds rest_;
  Pulse pulse_;
  std::mutex mutex_;
  std::uint64_t since_rest_ = 0;
  std::thread thread_;
};

class SendingFlow final : public QueueFlow {
 public:
  SendingFlow(fakes::NetQueueDriver& queue, std::uint32_t number, Complaint& complaint,
              std::chrono::microseconds rest);
  ~SendingFlow() override { stop(); }
  // What has left the guest and what the host got.
  [[nodiscard]] Ledger& ledger() noexcept { return ledger_; }
  // The first that has not been given back.
  [[nodiscard]] std::uint64_t first_out() const noexcept { return returned_ + 1; }
  void was_reset() override;

 private:
  [[nodiscard]] Then turn() override;
  void note_returned();

  const std::uint32_t number_;
  Ledger ledger_;
  std::uint64_t sent_ = 0;
  std::atomic<std::uint64_t> returned_ = 0;
};

class ReceivingFlow final : public QueueFlow {
 public:
  ReceivingFlow(fakes::NetQueueDriver& queue, std::uint32_t number, Ledger& ledger,
                Complaint& complaint, std::chrono::microseconds rest);
  ~ReceivingFlow() override { stop(); }

 private:
  [[nodiscard]] Then turn() override;

  Ledger& ledger_;
};

// The host behind the tap: one thread sends to the guest, one receives from it.
class HostFlow {
 public:
  // Hears what the guest sends from now on.
  HostFlow(const std::string& tap, Ledger& to_guest, std::chrono::microseconds rest);
  HostFlow(const HostFlow&) = delete;
  HostFlow& operator=(const HostFlow&) = delete;
  ~HostFlow();

  // `arrived`: what the guest has sent.
  void start(std::function<void(const Stamp&)> arrived, Complaint& complaint);
  // Before the tap is taken down: that is told as an error, once.
  void expect_down() { ++downs_; }
  void stop_sending();

 private:
  void send();
  void receive();

  fakes::HostPort port_;
  Ledger& to_guest_;
  std::function<void(const Stamp&)> arrived_;
  const std::chrono::microseconds rest_;
  std::atomic<int> downs_ = 0;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> stop_sending_ = false;
  std::thread sender_;
  std::thread receiver_;
};

}  // namespace chaos
