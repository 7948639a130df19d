// tests/integration/recovery_stories.h: one disk under load, and what dies or changes around it:
// the same for every kind of ring.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/blk_client.h"
#include "tests/integration/host.h"

namespace integration {

class RecoveryStories : public EngineTest {
 protected:
  using Options = fakes::BlkClient::Options;

  void start(const Options& options = {}, const Disk& disk = {});
  [[nodiscard]] fakes::BlkQueueDriver& queue(std::uint32_t index = 0) {
    return client_->queue(index);
  }
  [[nodiscard]] std::vector<pid_t> workers_of(std::uint32_t queue);
  // Kills the worker of this queue, and waits until nothing of it is left.
  void kill_worker(std::uint32_t queue);
  void reconnect();
  // What another broker is to serve.
  [[nodiscard]] Disk same_disk() const;

  // --- each a whole test, from start() on
  void workers_die_and_the_guest_notices_nothing(const Options& with);  // Of two queues.
  void workers_die_under_a_front_end_without_tracking(Options with);
  void ring_is_stopped_when_its_worker_was_just_killed(const Options& with);
  // With `sessions_alone`: every other time only the session.
  void sessions_and_workers_die(const Options& with, bool sessions_alone);  // Of two queues.
  void broker_and_its_children_are_killed(const Options& with);
  void calls_are_swapped_while_workers_die(const Options& with, int times);
  void rings_pause_and_memory_changes_while_workers_die(const Options& with, int times);

  std::unique_ptr<fakes::BlkClient> client_;
  std::vector<std::string> options_;  // The disk's.
};

}  // namespace integration
