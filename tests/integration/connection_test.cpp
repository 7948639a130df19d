// How VMMs come and go, and every way to be given a socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "tests/fakes/failure.h"
#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::BlkClient;
using fakes::BrokerProcess;
using fakes::VhostFrontend;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

common::Fd listen_at(const std::string& path) {
  common::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::ranges::copy(path, address.sun_path);
  fakes::require_call(
      ::bind(fd.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 &&
          ::listen(fd.ref().number, 4) == 0,
      "listen at " + path);
  return fd;
}

common::Fd accept_from(const common::Fd& listener) {
  common::Fd fd(::accept4(listener.ref().number, nullptr, nullptr, SOCK_CLOEXEC));
  fakes::require_call(fd.valid(), "accept");
  return fd;
}

class Connection : public testing::Test {
 protected:
  Host host_{kAuto};
};

TEST_F(Connection, SecondVmmIsRefusedWithAClearLineAndTheFirstGoesOn) {
  host_.serve();
  const auto first = host_.connect();
  VhostFrontend second = host_.connect_raw();
  EXPECT_TRUE(second.hung_up());
  EXPECT_THAT(host_.broker().wait_for_line({"vda", "refused", "one VMM at a time"}),
              Not(IsEmpty()));
  expect_serves(first->queue());
}

TEST_F(Connection, NextVmmIsServedAfterTheFirstHasGone) {
  host_.serve();
  for (int round = 0; round < 5; ++round) {
    expect_serves(host_.connect()->queue());
  }
}

TEST_F(Connection, VmmThatReconnectsAtOnceIsServed) {
  host_.serve();
  auto first = host_.connect();
  expect_serves(first->queue());
  first->vhost().disconnect();
  const auto second = host_.connect();
  expect_serves(second->queue());
}

TEST_F(Connection, EachConnectionIsLoggedWithPidAndUid) {
  host_.serve();
  const auto client = host_.connect();
  EXPECT_THAT(host_.broker().wait_for_line({"connection", "pid " + std::to_string(::getpid()),
                                            "uid " + std::to_string(::getuid())}),
              Not(IsEmpty()));
}

TEST_F(Connection, ListeningSocketCanBeInherited) {
  const common::Fd listener = listen_at(host_.socket());
  make_image(host_.image(), 8 << 20);
  host_.run({"blk", "--fd=3", "--blk-file=" + host_.image()}, {listener.ref()});
  host_.broker().wait_ready();
  expect_serves(host_.connect()->queue());
  expect_serves(host_.connect()->queue());
}

TEST_F(Connection, ConnectedSocketCanBeInheritedAndItsEndEndsTheProgram) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  common::Fd ours(ends[0]);
  common::Fd theirs(ends[1]);
  make_image(host_.image(), 8 << 20);
  host_.run({"blk", "--fd=3", "--blk-file=" + host_.image()}, {theirs.ref()});
  theirs.reset();
  auto client = std::make_unique<BlkClient>(VhostFrontend(std::move(ours)), BlkClient::Options{});
  expect_serves(client->queue());
  client.reset();
  EXPECT_EQ(host_.broker().wait_exit(), 0);
}

TEST_F(Connection, ClientModeConnectsToAVmmThatListensAndComesBack) {
  const common::Fd listener = listen_at(host_.socket());
  make_image(host_.image(), 8 << 20);
  host_.run({"blk", "--client", "--socket-path=" + host_.socket(), "--blk-file=" + host_.image()});
  for (int round = 0; round < 2; ++round) {
    BlkClient client(VhostFrontend(accept_from(listener)), BlkClient::Options{});
    expect_serves(client.queue());
  }
}

TEST_F(Connection, ClientModeWaitsForAVmmThatIsNotThereYet) {
  make_image(host_.image(), 8 << 20);
  host_.run({"blk", "--client", "--socket-path=" + host_.socket(), "--blk-file=" + host_.image()});
  EXPECT_THAT(host_.broker().wait_for_line({host_.socket(), "again"}), Not(IsEmpty()));
  const common::Fd listener = listen_at(host_.socket());
  BlkClient client(VhostFrontend(accept_from(listener)), BlkClient::Options{});
  expect_serves(client.queue());
}

TEST_F(Connection, UidThatIsNotAllowedIsRefused) {
  host_.serve({.options = {"--allow-uid=4294967000"}});
  VhostFrontend stranger = host_.connect_raw();
  EXPECT_TRUE(stranger.hung_up());
  EXPECT_THAT(host_.broker().wait_for_line({"refused", "--allow-uid"}), Not(IsEmpty()));
}

TEST_F(Connection, UidThatIsAllowedIsServed) {
  host_.serve({.options = {"--allow-uid=4294967000," + std::to_string(::getuid())}});
  expect_serves(host_.connect()->queue());
}

TEST_F(Connection, SocketHasTheModeThatWasAskedFor) {
  host_.serve({.options = {"--socket-mode=0606"}});
  struct stat status {};
  ASSERT_EQ(::stat(host_.socket().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0606U);
}

TEST_F(Connection, SocketIsForOwnerAndGroupUnlessToldOtherwise) {
  host_.serve();
  struct stat status {};
  ASSERT_EQ(::stat(host_.socket().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0660U);
}

TEST_F(Connection, StaleSocketOfADeadBrokerIsReplaced) {
  { const common::Fd dead = listen_at(host_.socket()); }
  host_.serve();
  expect_serves(host_.connect()->queue());
}

TEST_F(Connection, SocketThatSomebodyServesIsNotTakenAway) {
  host_.serve();
  Host second(kAuto);
  make_image(second.image(), 1 << 20);
  second.run({"blk", "--socket-path=" + host_.socket(), "--blk-file=" + second.image()});
  EXPECT_EQ(second.broker().wait_exit(), 1);
  EXPECT_THAT(second.broker().log(), HasSubstr(host_.socket()));
  expect_serves(host_.connect()->queue());
}

TEST_F(Connection, FileThatIsNoSocketIsNotReplaced) {
  make_image(host_.socket(), 4096);
  make_image(host_.image(), 1 << 20);
  host_.run({"blk", "--socket-path=" + host_.socket(), "--blk-file=" + host_.image()});
  EXPECT_EQ(host_.broker().wait_exit(), 1);
  EXPECT_EQ(std::filesystem::file_size(host_.socket()), 4096U);
}

TEST_F(Connection, StatisticsAreLoggedWhereAskedFor) {
  host_.serve({.options = {"--stats-interval=1"}});
  const auto client = host_.connect();
  expect_serves(client->queue());
  EXPECT_THAT(host_.broker().wait_for_line({"vda", "IO/s", "1 worker"}), Not(IsEmpty()));
}

// --- without privileges --------------------------------------------------------------------------

TEST_F(Connection, RingsOfAPrivilegedBrokerAreNotCountedAsLockedMemory) {
  constexpr unsigned long long kCapIpcLock = 1ULL << 14;
  const std::string ours = fakes::status_field(::getpid(), "CapEff");
  if ((std::stoull(ours, nullptr, 16) & kCapIpcLock) == 0) GTEST_SKIP() << "needs CAP_IPC_LOCK";
  make_image(host_.image(), 8 << 20);
  BrokerProcess broker({.program = BULKHEAD_PROGRAM,
                        .arguments = {"blk", "--socket-path=" + host_.socket(),
                                      "--blk-file=" + host_.image(), "--engine=io_uring"},
                        .locked_bytes_max = 1 << 20});
  broker.wait_ready();
  const auto client = host_.connect({.queues = 32});
  for (std::uint32_t queue = 0; queue < 32; ++queue) expect_serves(client->queue(queue));
}

// A broker that runs as nobody, on a disk of its own.
class Unprivileged : public testing::Test {
 protected:
  // False where this cannot be tried here; `why_not_` says why.
  [[nodiscard]] bool serve(const BrokerProcess::Setup& how,
                           const std::vector<std::string>& options = {}) {
    if (::getuid() != 0) {
      why_not_ = "everything else runs without root then";
      return false;
    }
    const std::string image = home_.file("vda.img");
    make_image(image, 8 << 20);
    constexpr uid_t kNobody = 65534;
    EXPECT_EQ(::chown(home_.path().c_str(), kNobody, kNobody), 0);
    EXPECT_EQ(::chown(image.c_str(), kNobody, kNobody), 0);
    BrokerProcess::Setup setup = how;
    setup.program = BULKHEAD_PROGRAM;
    setup.arguments = {"blk", "--socket-path=" + socket(), "--blk-file=" + image};
    setup.arguments.insert(setup.arguments.end(), options.begin(), options.end());
    setup.drop_root = true;
    broker_ = std::make_unique<BrokerProcess>(setup);
    try {
      broker_->wait_ready();
    } catch (const fakes::Failure&) {
      if (broker_->wait_exit() < 126) throw;
      why_not_ = "nobody may not run what was built here";
      return false;
    }
    return true;
  }
  [[nodiscard]] std::string socket() const { return home_.file("s"); }

  fakes::TempDir home_ = fakes::TempDir::for_sockets();
  std::unique_ptr<BrokerProcess> broker_;
  std::string why_not_;
};

TEST_F(Unprivileged, BrokerServesADiskThatItMayOpen) {
  if (!serve({})) GTEST_SKIP() << why_not_;
  BlkClient client(socket());
  expect_serves(client.queue());
  EXPECT_THAT(broker_->log(), HasSubstr("posture"));
  EXPECT_EQ(fakes::status_field(broker_->children_named("worker").at(0), "Seccomp"), "2");
}

// Rings count as locked memory, which is scarce for whoever has no CAP_IPC_LOCK.
TEST_F(Unprivileged, QueuesForWhichThereIsNoRingAreServedByTheFallbackEngine) {
  if (!serve({.locked_bytes_max = 1 << 20})) GTEST_SKIP() << why_not_;
  BlkClient client(socket(), {.queues = 32});
  for (std::uint32_t queue = 0; queue < 32; ++queue) expect_serves(client.queue(queue));
  EXPECT_NE(broker_->wait_for_line({"warning", "vda/31 gets the fallback engine", "LimitMEMLOCK="}),
            "");
}

TEST_F(Unprivileged, QueueForWhichThereIsNoRingIsRefusedWhereIoUringIsDemanded) {
  if (!serve({.locked_bytes_max = 1 << 20}, {"--engine=io_uring"})) GTEST_SKIP() << why_not_;
  EXPECT_THROW(BlkClient(socket(), {.queues = 32}), fakes::Failure);
  EXPECT_NE(broker_->wait_for_line({"error", "cannot be started", "LimitMEMLOCK="}), "");
}

// --- the command line ----------------------------------------------------------------------------

TEST_F(Connection, LinkNamedVhostUserBlkServesADisk) {
  const std::string link = host_.file("vhost-user-blk");
  std::filesystem::create_symlink(BULKHEAD_PROGRAM, link);
  make_image(host_.image(), 8 << 20);
  BrokerProcess broker({.program = link,
                        .arguments = {"--socket-path=" + host_.socket(),
                                      "--blk-file=" + host_.image(), "--read-only"}});
  broker.wait_ready();
  const auto client = host_.connect();
  EXPECT_NE(client->offered() & common::blk::kFeatureReadOnly, 0U);
}

TEST_F(Connection, CapabilitiesArePrintedAsJson) {
  host_.run({"blk", "--print-capabilities"});
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  EXPECT_THAT(host_.broker().log(),
              HasSubstr(R"({"type":"block","features":["read-only","blk-file"]})"));
}

TEST_F(Connection, UnderscoresAndDashesAreTheSame) {
  make_image(host_.image(), 8 << 20);
  host_.run(
      {"blk", "--socket_path=" + host_.socket(), "--blk_file=" + host_.image(), "--num_queues=2"});
  host_.broker().wait_ready();
  EXPECT_EQ(host_.connect({.queues = 2})->vhost().get_queue_num(), 2U);
}

TEST_F(Connection, MissingImageIsOneClearLineAndAnError) {
  host_.run({"blk", "--socket-path=" + host_.socket(), "--blk-file=/nonexistent/disk.img"});
  EXPECT_EQ(host_.broker().wait_exit(), 1);
  EXPECT_THAT(host_.broker().log(), HasSubstr("/nonexistent/disk.img"));
  EXPECT_NE(::access(host_.socket().c_str(), F_OK), 0);
}

TEST_F(Connection, ImageThatIsADirectoryIsRefused) {
  host_.run({"blk", "--socket-path=" + host_.socket(), "--blk-file=/tmp"});
  EXPECT_EQ(host_.broker().wait_exit(), 1);
  EXPECT_THAT(host_.broker().log(), HasSubstr("/tmp"));
}

TEST_F(Connection, ImageThatIsServedAlreadyIsRefused) {
  host_.serve();
  Host second(kAuto);
  second.run({"blk", "--socket-path=" + second.socket(), "--blk-file=" + host_.image()});
  EXPECT_EQ(second.broker().wait_exit(), 1);
  EXPECT_THAT(second.broker().log(), HasSubstr(host_.image()));
}

TEST_F(Connection, ReadOnlyImageMayBeServedTwice) {
  host_.serve({.options = {"--read-only"}});
  Host second(kAuto);
  second.serve({.name = "vdz", .options = {"--read-only"}, .file = host_.image()});
  std::vector<std::byte> got(4096);
  EXPECT_EQ(second.connect({}, "vdz")->queue().read(8, got), kOk);
  EXPECT_EQ(host_.connect()->queue().read(8, got), kOk);
}

TEST_F(Connection, ServeLogsEachDeviceOnceAtItsStart) {
  host_.serve_all({{.name = "vda"}, {.name = "vdb"}});
  EXPECT_THAT(host_.broker().wait_for_line({"vda", "listening", host_.socket("vda")}),
              Not(IsEmpty()))
      << host_.broker().log();
  EXPECT_THAT(host_.broker().wait_for_line({"vdb", "listening", host_.socket("vdb")}),
              Not(IsEmpty()));
}

}  // namespace
}  // namespace integration
