// tests/chaos/hand.h: the hand that at random kills, replaces and restarts what serves a guest, of
// whichever device. What the guest does meanwhile, and what must be true of it after each event,
// its heirs know: chaos.h of disks, cards.h of network cards.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/fakes/broker_process.h"
#include "tests/fakes/process.h"
#include "tests/fakes/temp_dir.h"

namespace chaos {

struct Plan {
  std::string program = BULKHEAD_PROGRAM;
  bool card = false;
  std::string engine = "io_uring";
  bool direct = false;  // Of disks.
  // The front-end uses vhost-user's in-flight tracking. Without it a disk's request that was in
  // flight when session and worker died together is lost, so that is not tried.
  bool tracked = true;
  bool packed = false;  // Rings. QEMU does not know where these stand, so only where it is tracked.
  std::uint32_t events = 1000;
  std::uint16_t queues = 4;  // Of a card: pairs.
  std::uint64_t seed = 1;
  // Of each queue's load, after 64 answers: more events for the same time of the processors.
  std::chrono::microseconds rest{0};
  bool verbose = false;
};

// What was tried, by one guest after the other, and what their queues saw of it.
struct Tally {
  struct Tried {
    std::uint32_t count = 0;
    std::vector<double> pause_ms;  // Of each event: the queue that stood still for longest.
  };
  std::map<std::string, Tried> events;
  std::vector<double> restart_ms;
  std::vector<double> reconnect_ms;
  std::uint64_t answered = 0;
  // Of cards, where a worker was killed: as many as these are to be expected.
  std::uint64_t repeated = 0;
  std::uint64_t lost = 0;

  void print(bool card) const;
};

class Hand {
 public:
  Hand(const Hand&) = delete;
  Hand& operator=(const Hand&) = delete;
  virtual ~Hand() = default;

  // All events. Fails (fakes::Failure) at the first thing that is wrong.
  void run();
  // What has happened last, for whoever has to find out why.
  [[nodiscard]] std::string story() const;

 protected:
  struct Event {
    const char* name;
    std::function<void()> act;
    bool needs_tracking;
    std::uint32_t weight;
  };

  // `program`: of the workers, as it stands in their titles.
  Hand(const Plan& plan, Tally& tally, const std::string& program);

  // --- the heir's -------------------------------------------------------------------------------
  // `bulkhead`'s arguments, from the kind of device on.
  [[nodiscard]] virtual std::vector<std::string> arguments() const = 0;
  virtual void before_event() {}
  // Each queue must get on after an event, and what has gone through them must be right.
  virtual void expect_progress() = 0;
  [[nodiscard]] virtual double take_longest_pause_ms() = 0;
  // After some events, and after the last one.
  virtual void end_epoch(bool last) = 0;
  // The guest's front-end finds the back-end again, which is `socket_`.
  virtual void reconnect() = 0;
  // Something that a front-end says while it runs.
  virtual void some_message() = 0;
  // The workers that there were are being replaced.
  virtual void upgrading() {}
  virtual void about_to_kill(const std::vector<pid_t>& victims) { (void)victims; }

  // --- means ------------------------------------------------------------------------------------
  void add_event(const Event& event) { events_.push_back(event); }
  void start_broker();
  // Calls it until it is true: the device may still drain what the last session's workers have.
  void try_until_let_in(const std::function<bool()>& connects);
  // In [0, below).
  [[nodiscard]] std::uint32_t pick(std::uint32_t below);
  void note(const std::string& what);
  void collect_pauses();
  // Whichever broker has started them.
  [[nodiscard]] std::vector<pid_t> workers() const {
    return fakes::processes_titled(workers_title_);
  }
  [[nodiscard]] std::vector<pid_t> sessions() const {
    return fakes::processes_titled("bulkhead-session: " + name_);
  }

  Plan plan_;
  Tally& tally_;
  std::string name_ = "chaos" + std::to_string(::getpid());  // Of the device, in titles.
  std::mt19937_64 random_;
  fakes::TempDir sockets_ = fakes::TempDir::for_sockets();
  std::unique_ptr<fakes::BrokerProcess> broker_;
  std::unique_ptr<fakes::BrokerProcess> leaving_;  // Whom the guest migrates away from.
  std::string socket_;                             // Of that one.

 private:
  void kill_worker();
  void kill_all_workers();
  void crash_worker();
  void kill_worker_in_the_middle();
  void kill_session();
  void kill_session_and_workers();
  void kill_session_in_the_middle();
  void kill_broker();
  void restart_broker();
  void take_over();
  void upgrade_workers();
  [[nodiscard]] const Event& pick_event();
  [[nodiscard]] std::vector<pid_t> pick_worker();
  void kill_all(const std::vector<pid_t>& victims);
  [[nodiscard]] std::unique_ptr<fakes::BrokerProcess> run_broker(bool takeover) const;

  std::string workers_title_;
  std::uint32_t brokers_ = 0;
  std::vector<Event> events_;
  std::deque<std::string> story_;
};

}  // namespace chaos
