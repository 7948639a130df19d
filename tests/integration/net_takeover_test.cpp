// A broker of disks and network cards is replaced: disks go on, and the VMMs of cards connect
// again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/blk_client.h"
#include "tests/integration/net_host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using testing::SizeIs;

class NetTakeover : public NetTest {
 protected:
  void start_both() {
    add_tap();
    make_image(images_.file("vda.img"), 4 << 20);
    std::ofstream config(config_path());
    config << "[[device]]\ntype = \"blk\"\nname = \"vda\"\nsocket_path = \"" << host().socket("vda")
           << "\"\nblk_file = \"" << images_.file("vda.img") << "\"\nengine = \""
           << GetParam().engine
           << "\"\n[[device]]\ntype = \"net\"\nname = \"tap0\"\nsocket_path = \"" << host().socket()
           << "\"\ntap_name = \"tap0\"\nengine = \"" << GetParam().engine << "\"\n";
    config.close();
    host().run({"serve", "--config=" + config_path()});
    host().broker().wait_ready();
    disk_ = std::make_unique<fakes::BlkClient>(host().socket("vda"), fakes::BlkClient::Options{});
    load_ = std::make_unique<VerifiedLoad>(disk_->queue(), VerifiedLoad::Plan{.depth = 4});
    client_ = host().connect();
    port_ = std::make_unique<fakes::HostPort>("tap0");
    workers_ = host().broker().children_named("worker-blk: vda");
    ASSERT_THAT(workers_, SizeIs(1));
    load_->expect_progress();
    expect_works();
  }
  // Its VMM hears of it, and what it starts anew works.
  void expect_card_comes_back() {
    EXPECT_TRUE(client_->vhost().hung_up());
    client_ = host().connect();
    expect_works();
  }
  void expect_disk_goes_on() {
    load_->expect_progress();
    for (const pid_t pid : workers_) EXPECT_EQ(::kill(pid, 0), 0);
  }
  [[nodiscard]] std::string config_path() const { return images_.file("bulkhead.toml"); }
  void stop(fakes::BrokerProcess& broker) {
    load_->stop();
    broker.signal(SIGTERM);
    EXPECT_EQ(broker.wait_exit(), 0);
  }

  fakes::TempDir images_{BULKHEAD_TEST_IMAGES};
  std::unique_ptr<fakes::BlkClient> disk_;
  std::unique_ptr<VerifiedLoad> load_;
  std::vector<pid_t> workers_;
};
BULKHEAD_FOR_BOTH_ENGINES(NetTakeover);

TEST_P(NetTakeover, TakesOverTheDiskAndServesTheCardAnew) {
  start_both();
  fakes::BrokerProcess next({.program = BULKHEAD_PROGRAM,
                             .arguments = {"takeover", "serve", "--config=" + config_path()}});
  next.wait_ready();
  EXPECT_EQ(host().broker().wait_exit(), 0) << host().broker().log();
  expect_disk_goes_on();
  expect_card_comes_back();
  stop(next);
}

TEST_P(NetTakeover, BrokerThatIsStartedAgainServesTheCardAnew) {
  start_both();
  host().broker().signal(SIGKILL);
  EXPECT_EQ(host().broker().wait_exit(), 128 + SIGKILL);
  host().run({"serve", "--config=" + config_path()});
  host().broker().wait_ready();
  expect_disk_goes_on();
  expect_card_comes_back();
  stop(host().broker());
}

}  // namespace
}  // namespace integration
