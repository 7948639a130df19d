// What an earlier broker has left of one device cannot be gone on with: that ends, in words, and
// all the others go on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "broker/kept_record.h"
#include "common/ipc/channel.h"
#include "common/ipc/keeper_messages.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

namespace ipc = common::ipc;
using broker::KeptRecord;
using broker::KeptType;
using fakes::BlkClient;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// A broker of a test's own, which changes what is kept.
class RawKeeperClient {
 public:
  explicit RawKeeperClient(const std::string& path)
      : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    fakes::require(::connect(socket_.ref().number, reinterpret_cast<const sockaddr*>(&address),
                             sizeof(address)) == 0,
                   "no keeper at " + path);
    ipc::KeepClaim claim{};
    claim.kind = ipc::KeepClaim::kKind;
    ask(claim);
    const auto claimed = answer_.as<ipc::KeepClaimed>();
    fakes::require(claimed && claimed->granted == 1, "the keeper has a broker");
  }

  // Of each record of `type` that `device` has; returns how many there were.
  int change(KeptType type, const std::string& device,
             const std::function<void(KeptRecord&)>& how) {
    int changed = 0;
    ipc::KeepGet get{};
    get.kind = ipc::KeepGet::kKind;
    while (true) {
      ask(get);
      auto thing = answer_.as<ipc::KeepThing>();
      if (!thing) return changed;
      get.after = thing->id;
      KeptRecord record;
      std::memcpy(static_cast<void*>(&record), thing->record.data(), sizeof(record));
      if (record.type != static_cast<std::uint32_t>(type) || record.device.data() != device) {
        continue;
      }
      how(record);
      std::memcpy(thing->record.data(), &record, sizeof(record));
      thing->update = 1;
      fakes::require(ipc::send(socket_.ref(), *thing).has_value(), "the keeper has hung up");
      ++changed;
    }
  }

 private:
  template <ipc::Message T>
  void ask(const T& message) {
    fakes::require(ipc::send(socket_.ref(), message).has_value(), "the keeper has hung up");
    const auto arrival = ipc::receive_packet(socket_.ref(), answer_, true);
    fakes::require(arrival && *arrival == ipc::Arrival::kData, "the keeper has hung up");
  }

  common::Fd socket_;
  ipc::Packet answer_;
};

class TakeoverLoss : public EngineTest {
 protected:
  static constexpr const char* kLost = "vdb";

  void start() {
    host_.serve_all({{.name = "vda"}, {.name = kLost}});
    client_ = host_.connect();
    lost_client_ = host_.connect({.queues = 2}, kLost);
    load_ = std::make_unique<VerifiedLoad>(client_->queue(), VerifiedLoad::Plan{.depth = 4});
    lost_load_ =
        std::make_unique<VerifiedLoad>(lost_client_->queue(), VerifiedLoad::Plan{.depth = 4});
    load_->expect_progress();
    lost_load_->expect_progress();
    workers_ = host_.broker().children_named("worker-blk: vda");
    lost_ = host_.broker().children_named("worker-blk: vdb");
    for (const pid_t pid : host_.broker().children_named("session: vdb")) lost_.push_back(pid);
    ASSERT_THAT(workers_, SizeIs(1));
    ASSERT_THAT(lost_, SizeIs(3));
  }
  [[nodiscard]] std::string config_text() const {
    std::ifstream file(host_.file("bulkhead.toml"));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write_config(const std::string& text) const {
    std::ofstream(host_.file("bulkhead.toml")) << text;
  }
  void kill_broker() {
    host_.broker().signal(SIGKILL);
    EXPECT_EQ(host_.broker().wait_exit(), 128 + SIGKILL);
  }
  // The same worker as ever.
  void expect_the_other_goes_on() {
    load_->expect_progress();
    for (const pid_t pid : workers_) EXPECT_EQ(::kill(pid, 0), 0);
  }
  void expect_loss(const std::string& why) {
    EXPECT_THAT(host_.broker().wait_for_line({kLost, why}), Not(IsEmpty())) << host_.broker().log();
    for (const pid_t pid : lost_) EXPECT_TRUE(fakes::wait_gone(pid)) << fakes::command_line_of(pid);
    EXPECT_TRUE(lost_client_->vhost().hung_up());
  }
  // Nothing was lost but the connection.
  void expect_served_again() {
    ASSERT_TRUE(lost_client_->reconnect(host_.socket(kLost)));
    lost_load_->expect_progress();
    lost_load_->stop();
  }
  void spoil(KeptType type, int count, const std::function<void(KeptRecord&)>& how) {
    RawKeeperClient keeper(host_.socket() + ".takeover");
    EXPECT_EQ(keeper.change(type, kLost, how), count);
  }
  void stop_all() {
    load_->stop();
    host_.broker().signal(SIGTERM);
    EXPECT_EQ(host_.broker().wait_exit(), 0);
  }

  std::unique_ptr<BlkClient> client_;
  std::unique_ptr<BlkClient> lost_client_;
  std::unique_ptr<VerifiedLoad> load_;
  std::unique_ptr<VerifiedLoad> lost_load_;
  std::vector<pid_t> workers_;
  std::vector<pid_t> lost_;
};
BULKHEAD_FOR_BOTH_ENGINES(TakeoverLoss);

TEST_P(TakeoverLoss, DeviceThatIsNotConfiguredAnyMoreEndsAndTheOthersGoOn) {
  start();
  kill_broker();
  const std::string both = config_text();
  write_config(both.substr(0, both.rfind("[[device]]")));
  host_.serve_again();
  expect_loss("it is not configured any more");
  EXPECT_NE(::access(host_.socket(kLost).c_str(), F_OK), 0);
  lost_load_->abandon();
  expect_the_other_goes_on();
  // Its disk is free, and it can come back.
  kill_broker();
  write_config(both);
  host_.serve_again();
  expect_the_other_goes_on();
  ASSERT_TRUE(lost_client_->reconnect(host_.socket(kLost)));
  stop_all();
}

TEST_P(TakeoverLoss, SessionThatSpeaksAnUnknownVersionEndsAndTheOthersGoOn) {
  start();
  kill_broker();
  spoil(KeptType::kConnection, 1,
        [](KeptRecord& record) { record.ipc_version = record.ipc_oldest = 4711; });
  host_.serve_again();
  expect_loss("a process that speaks version 4711");
  expect_the_other_goes_on();
  expect_served_again();
  stop_all();
}

TEST_P(TakeoverLoss, WorkerWhoseRecordIsUnsoundTakesItsConnectionAlong) {
  start();
  kill_broker();
  spoil(KeptType::kWorker, 2, [](KeptRecord& record) {
    if (record.numbers[1] == 1) record.version = 99;
  });
  host_.serve_again();
  expect_loss("a record of version 99");
  expect_the_other_goes_on();
  expect_served_again();
  stop_all();
}

TEST_P(TakeoverLoss, DiskThatWasNotKeptTakesItsConnectionAlong) {
  start();
  kill_broker();
  spoil(KeptType::kDisk, 1, [](KeptRecord& record) { record.version = 99; });
  host_.serve_again();
  expect_loss("its disk or tap was not kept");
  expect_the_other_goes_on();
  expect_served_again();
  stop_all();
}

// As a broker leaves it that dies when it has just started a dead worker's successor.
TEST_P(TakeoverLoss, DeadWorkerBesideItsSuccessorIsNobodys) {
  start();
  const std::vector<pid_t> dead = host_.broker().children_named("vdb/0");
  ASSERT_THAT(dead, SizeIs(1));
  kill_broker();
  ASSERT_EQ(::kill(dead[0], SIGKILL), 0);
  ASSERT_TRUE(fakes::wait_gone(dead[0]));
  spoil(KeptType::kWorker, 2, [](KeptRecord& record) { record.numbers[1] = 1; });
  host_.serve_again();
  EXPECT_THAT(host_.broker().wait_for_line({"vdb", "goes on serving", "with 1 worker"}),
              Not(IsEmpty()))
      << host_.broker().log();
  lost_load_->expect_progress();  // By a worker of its own again.
  lost_load_->stop();
  expect_the_other_goes_on();
  stop_all();
}

TEST_P(TakeoverLoss, ConnectionThatCannotBeAdoptedEndsAndTheOthersGoOn) {
  start();
  kill_broker();
  spoil(KeptType::kWorker, 2, [](KeptRecord& record) { record.numbers[1] = 0; });
  host_.serve_again();
  expect_loss("two workers of one queue");
  expect_the_other_goes_on();
  expect_served_again();
  stop_all();
}

}  // namespace
}  // namespace integration
