// tests/chaos/chaos.h: a guest with several queues that never stops working, and a hand that kills,
// swaps and moves everything around it. After every event each queue must get on, and what was
// written must read back; no request may be lost, answered twice or answered wrongly.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/blk_client.h"
#include "tests/fakes/broker_process.h"
#include "tests/fakes/process.h"
#include "tests/fakes/temp_dir.h"
#include "tests/integration/verified_load.h"

namespace chaos {

struct Plan {
  std::string program = BULKHEAD_PROGRAM;
  std::string engine = "io_uring";
  bool direct = false;
  // The front-end uses vhost-user's in-flight tracking. Without it a request that was in flight
  // when session and worker died together is lost, so that is not tried.
  bool tracked = true;
  bool packed = false;  // Rings. QEMU does not know where these stand, so only where it is tracked.
  std::uint32_t events = 1000;
  std::uint16_t queues = 4;
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

  void print() const;
};

class Chaos {
 public:
  Chaos(const Plan& plan, Tally& tally);

  // All events. Fails (fakes::Failure) at the first thing that is wrong.
  void run();
  // What has happened last, for whoever has to find out why.
  [[nodiscard]] std::string story() const;

 private:
  struct Event {
    const char* name;
    void (Chaos::*act)();
    bool needs_tracking;
    std::uint32_t weight;
  };

  [[nodiscard]] bool is_drained(std::uint32_t queue, std::uint32_t base);

  // --- events -----------------------------------------------------------------------------------
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
  void disconnect();
  void swap_calls();
  void change_memory();
  void pause_queue();
  void stop_and_start_ring();
  void grow_disk();
  void switch_log();
  void migrate();

  // --- means ------------------------------------------------------------------------------------
  enum class Image : std::uint8_t { kOurs, kStillAnothers };
  void start_broker(Image image = Image::kOurs);
  void start_loads();
  void stop_loads();
  void expect_progress();
  [[nodiscard]] double take_longest_pause_ms();
  void reconnect();
  void some_messages();
  [[nodiscard]] const Event& pick_event();
  [[nodiscard]] std::uint32_t pick(std::uint32_t below);
  // Whichever broker has started them.
  [[nodiscard]] std::vector<pid_t> workers() const {
    return fakes::processes_titled("bulkhead-worker-blk: " + name_ + "/");
  }
  [[nodiscard]] std::vector<pid_t> sessions() const {
    return fakes::processes_titled("bulkhead-session: " + name_);
  }
  [[nodiscard]] std::unique_ptr<fakes::BrokerProcess> run_broker(bool takeover,
                                                                 Image image = Image::kOurs) const;
  void kill_all(const std::vector<pid_t>& victims);
  void note(const std::string& what);
  void collect_pauses();

  Plan plan_;
  Tally& tally_;
  std::string name_ = "chaos" + std::to_string(::getpid());  // Of the disk, in titles.
  std::mt19937_64 random_;
  fakes::TempDir sockets_ = fakes::TempDir::for_sockets();
  fakes::TempDir images_{BULKHEAD_TEST_IMAGES};
  std::unique_ptr<fakes::BrokerProcess> broker_;
  std::unique_ptr<fakes::BrokerProcess> leaving_;  // Whom the guest migrates away from.
  std::string socket_;                             // Of that one.
  std::uint32_t brokers_ = 0;
  std::unique_ptr<fakes::BlkClient> client_;
  std::unique_ptr<fakes::DirtyLog> log_;  // While the front-end migrates.
  std::vector<std::vector<std::uint32_t>> versions_;
  std::vector<std::unique_ptr<integration::VerifiedLoad>> loads_;
  std::vector<Event> events_;
  std::deque<std::string> story_;
};

}  // namespace chaos
