#include "tests/integration/recovery_stories.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <string>

#include "tests/fakes/process.h"
#include "tests/integration/verified_load.h"

namespace integration {

using fakes::VhostRequest;

void RecoveryStories::start(const Options& options, const Disk& disk) {
  Disk served = disk;
  if (options.shape.packed) served.options.emplace_back("--packed-rings=on");
  options_ = served.options;
  host_.serve(served);
  client_ = host_.connect(options);
}

Disk RecoveryStories::same_disk() const { return {.options = options_, .file = host_.image()}; }

std::vector<pid_t> RecoveryStories::workers_of(std::uint32_t queue) {
  return host_.broker().children_named("vda/" + std::to_string(queue));
}

void RecoveryStories::kill_worker(std::uint32_t queue) {
  const std::vector<pid_t> victims = workers_of(queue);
  ASSERT_EQ(victims.size(), 1U);
  ASSERT_EQ(::kill(victims[0], SIGKILL), 0);
  ASSERT_TRUE(fakes::wait_gone(victims[0]));
}

void RecoveryStories::reconnect() {
  for (int attempt = 0; attempt < 50; ++attempt) {
    if (client_->reconnect(host_.socket())) return;
  }
  FAIL() << "no connection was served";
}

void RecoveryStories::workers_die_and_the_guest_notices_nothing(const Options& with) {
  start(with);
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(1), {.first_sector = 4096});
  for (int death = 0; death < 6; ++death) {
    load.expect_progress(30);
    kill_worker(0);
  }
  load.expect_progress(50);
  other.expect_progress();
  load.stop();
  other.stop();
  EXPECT_FALSE(queue(0).error_signalled_now());
}

void RecoveryStories::workers_die_under_a_front_end_without_tracking(Options with) {
  with.protocol_features = ~fakes::kProtocolInflight;
  start(with);
  VerifiedLoad load(queue(0), {.depth = 8});
  for (int death = 0; death < 4; ++death) {
    load.expect_progress(30);
    kill_worker(0);
  }
  load.expect_progress(50);
  load.stop();
}

void RecoveryStories::ring_is_stopped_when_its_worker_was_just_killed(const Options& with) {
  start(with);
  VerifiedLoad load(queue(0), {.depth = 8});
  for (int round = 0; round < 5; ++round) {
    load.expect_progress(20);
    const std::vector<pid_t> victims = workers_of(0);
    ASSERT_EQ(victims.size(), 1U);
    ASSERT_EQ(::kill(victims[0], SIGKILL), 0);
    const std::uint32_t base = client_->stop_ring(0);
    // Nothing is in flight: a packed ring's base says it itself.
    EXPECT_EQ(with.shape.packed ? base & 0xffff : base,
              with.shape.packed ? base >> 16 : queue(0).driver().used_idx());
    client_->restart_ring(0, base);
  }
  load.expect_progress(20);
  load.stop();
}

void RecoveryStories::sessions_and_workers_die(const Options& with, bool sessions_alone) {
  start(with);
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(1), {.first_sector = 4096, .depth = 8});
  for (int death = 0; death < 4; ++death) {
    load.expect_progress(30);
    other.expect_progress(10);
    std::vector<pid_t> victims;
    if (!sessions_alone || death % 2 == 0) victims = host_.workers();
    victims.push_back(host_.sessions().at(0));
    for (const pid_t pid : victims) (void)::kill(pid, SIGKILL);
    ASSERT_TRUE(client_->vhost().hung_up());
    reconnect();
  }
  load.expect_progress(30);
  load.stop();
  other.stop();
}

void RecoveryStories::broker_and_its_children_are_killed(const Options& with) {
  start(with);
  VerifiedLoad load(queue(0), {.depth = 8});
  load.expect_progress(30);
  const std::vector<pid_t> tree = fakes::tree_of(host_.broker().pid());
  for (const pid_t pid : tree) EXPECT_EQ(::kill(pid, SIGKILL), 0);
  (void)host_.broker().wait_exit();
  for (const pid_t pid : tree) EXPECT_TRUE(fakes::wait_gone(pid));
  host_.serve(same_disk());
  reconnect();
  load.expect_progress(30);
  load.stop();
}

void RecoveryStories::calls_are_swapped_while_workers_die(const Options& with, int times) {
  start(with);
  VerifiedLoad load(queue(0), {.depth = 8});
  for (int swap = 0; swap < times; ++swap) {
    client_->vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, queue(0).doorbell().replace());
    if (swap % 40 == 39) {
      for (const pid_t pid : workers_of(0)) (void)::kill(pid, SIGKILL);
    }
  }
  load.expect_progress();
  load.stop();
}

void RecoveryStories::rings_pause_and_memory_changes_while_workers_die(const Options& with,
                                                                       int times) {
  const fakes::VmRegion more{1ULL << 40, 1 << 20, 1ULL << 50, 0};
  start(with);
  VerifiedLoad load(queue(0), {.depth = 8});
  for (int round = 0; round < times; ++round) {
    if (round % 3 == 0) {
      for (const pid_t pid : workers_of(0)) (void)::kill(pid, SIGKILL);
    }
    client_->enable(0, false);
    client_->enable(0, true);
    client_->vhost().add_mem_reg(more, client_->memory().file(2));
    client_->vhost().rem_mem_reg(more);
    load.expect_progress(10);
  }
  load.stop();
}

}  // namespace integration
