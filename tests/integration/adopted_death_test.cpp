// How workers end that an earlier broker has started. The kernel tells only once their new parent,
// which is the test here, has reaped them: their guests do not wait for that.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/hijack.h"
#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class AdoptedDeath : public EngineTest {
 protected:
  void SetUp() override { ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); }
  void TearDown() override { EXPECT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0), 0); }

  void adopt(const Disk& disk = {}) {
    host_.serve(disk);
    client_ = host_.connect({});
    expect_serves(client_->queue(0), 4096);  // Beyond what a load uses.
    const std::vector<pid_t> workers = host_.workers();
    ASSERT_THAT(workers, SizeIs(1));
    worker_ = workers[0];
    host_.broker().signal(SIGKILL);
    EXPECT_EQ(host_.broker().wait_exit(), 128 + SIGKILL);
    Disk same = disk;
    same.file = host_.image();
    host_.serve(same);
    expect_line({"goes on serving"});
  }
  void expect_line(const std::vector<std::string>& parts) {
    EXPECT_THAT(host_.broker().wait_for_line(parts), Not(IsEmpty())) << host_.broker().log();
  }
  // As an init does sooner or later.
  void reap_worker() { ASSERT_EQ(::waitpid(worker_, nullptr, 0), worker_); }

  std::unique_ptr<fakes::BlkClient> client_;
  pid_t worker_ = -1;
};
BULKHEAD_FOR_BOTH_ENGINES(AdoptedDeath);

TEST_P(AdoptedDeath, WorkerIsReplacedBeforeAnybodyHasReapedIt) {
  adopt();
  VerifiedLoad load(client_->queue(0), {.depth = 8});
  ASSERT_EQ(::kill(worker_, SIGKILL), 0);
  expect_line({"queue 0 is served again"});
  load.expect_progress();
  reap_worker();
  expect_line({"worker vda/0", "SIGKILL", std::to_string(worker_)});
  load.stop();
}

TEST_P(AdoptedDeath, WorkerThatItsJailKilledHasNoSuccessorOnceThatIsKnown) {
  adopt();
  fakes::make_it_call(worker_, SYS_getppid);
  reap_worker();
  expect_line({"queue 0 is not served any more", "--on-worker-violation"});
  EXPECT_TRUE(client_->queue(0).error_signalled());
  EXPECT_THAT(host_.workers(), IsEmpty());
}

TEST_P(AdoptedDeath, WorkerThatItsJailKilledHasOneWhereTheOperatorWantsThat) {
  adopt({.options = {"--on-worker-violation=restart"}});
  fakes::make_it_call(worker_, SYS_getppid);
  expect_line({"queue 0 is served again"});
  reap_worker();
  VerifiedLoad load(client_->queue(0), {.depth = 8});
  load.expect_progress();
  load.stop();
}

TEST_P(AdoptedDeath, StoppedRingIsDrainedThoughNobodyHasReapedItsWorker) {
  adopt();
  const std::uint32_t base = client_->stop_ring(0);
  EXPECT_EQ(base, client_->queue(0).driver().used_idx());
  expect_line({"worker vda/0 stopped: drained"});
  client_->restart_ring(0, static_cast<std::uint16_t>(base));
  VerifiedLoad load(client_->queue(0), {.depth = 8});
  load.expect_progress();
  load.stop();
  reap_worker();
}

}  // namespace
}  // namespace integration
