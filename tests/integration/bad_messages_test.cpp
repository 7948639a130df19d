// A hostile or confused VMM: each message that must not be ends that session with one clear line,
// and the broker, the disk and everybody else go on. Here: headers, sizes, descriptors, and no
// order at all.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <array>
#include <random>

#include "tests/fakes/process.h"
#include "tests/integration/hostile_vmm.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::BlkClient;
using fakes::bytes_of;
using fakes::kVhostVersion;
using fakes::VhostFrontend;
using fakes::VhostHeader;
using fakes::VhostRequest;

// --- headers and sizes ---------------------------------------------------------------------------

TEST_F(HostileVmm, WrongVersionEndsTheSession) {
  vhost_->send_raw({1, 0x2, 0});
  expect_thrown_out({"vda", "GET_FEATURES", "flags 0x2"});
}

TEST_F(HostileVmm, AReplyInsteadOfARequestEndsTheSession) {
  vhost_->send_raw({1, kVhostVersion | fakes::kVhostReply, 0});
  expect_thrown_out({"vda", "GET_FEATURES", "flags 0x5"});
}

TEST_F(HostileVmm, AnotherProtocolEndsTheSession) {
  constexpr std::string_view kHttp = "GET / HTTP/1.1\r\nHost: disk\r\n\r\n";
  vhost_->send_bytes(std::as_bytes(std::span(kHttp)));
  expect_thrown_out({"vda", "vhost-user"});
}

TEST_F(HostileVmm, UnknownRequestEndsTheSession) {
  vhost_->send_raw({4711, kVhostVersion, 0});
  expect_thrown_out({"vda", "request 4711"});
}

TEST_F(HostileVmm, RequestZeroEndsTheSession) {
  vhost_->send_raw({0, kVhostVersion, 0});
  expect_thrown_out({"vda", "not known"});
}

TEST_F(HostileVmm, TooShortPayloadEndsTheSession) {
  const std::uint32_t half = 1;
  vhost_->send_raw(header(VhostRequest::kSetFeatures, 4), bytes_of(half));
  expect_thrown_out({"vda", "SET_FEATURES", "4 bytes"});
}

TEST_F(HostileVmm, OversizedPayloadEndsTheSessionUnread) {
  vhost_->send_raw(header(VhostRequest::kSetFeatures, 1U << 30));
  expect_thrown_out({"vda", "SET_FEATURES", "1073741824 bytes"});
}

TEST_F(HostileVmm, LargestSizeEndsTheSession) {
  vhost_->send_raw(header(VhostRequest::kGetConfig, 0xffffffff));
  expect_thrown_out({"vda", "GET_CONFIG", "4294967295 bytes"});
}

TEST_F(HostileVmm, MessageCutOffInItsHeaderEndsTheSession) {
  const std::array<std::byte, 5> part = {std::byte{1}};
  vhost_->send_bytes(part);
  ::shutdown(vhost_->socket().number, SHUT_WR);
  expect_thrown_out({"vda", "in the middle of a message header", "5 of 12"});
}

TEST_F(HostileVmm, MessageCutOffInItsPayloadEndsTheSession) {
  const std::uint32_t half = 0;
  vhost_->send_raw(header(VhostRequest::kSetFeatures, 8), bytes_of(half));
  ::shutdown(vhost_->socket().number, SHUT_WR);
  expect_thrown_out({"vda", "in the middle of SET_FEATURES", "16 of 20"});
}

TEST_F(HostileVmm, HeaderInPiecesIsUnderstood) {
  const VhostHeader ask = header(VhostRequest::kGetFeatures, 0);
  for (const std::byte& byte : bytes_of(ask)) vhost_->send_bytes({&byte, 1});
  EXPECT_TRUE(vhost_->receive().has_value());
}

TEST_F(HostileVmm, ManyRequestsInOneWriteAreAllAnswered) {
  std::vector<std::byte> burst;
  const VhostHeader ask = header(VhostRequest::kGetFeatures, 0);
  for (int i = 0; i < 50; ++i) {
    burst.insert(burst.end(), bytes_of(ask).begin(), bytes_of(ask).end());
  }
  vhost_->send_bytes(burst);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(vhost_->receive().has_value());
}

TEST_F(HostileVmm, RepliesThatNobodyReadsDoNotStopTheOthers) {
  const VhostHeader ask = header(VhostRequest::kGetFeatures, 0);
  ASSERT_EQ(::fcntl(vhost_->socket().number, F_SETFL, O_NONBLOCK), 0);
  while (::send(vhost_->socket().number, &ask, sizeof(ask), MSG_NOSIGNAL) == sizeof(ask)) {
  }
  EXPECT_EQ(errno, EAGAIN);
  expect_serves(disks_.innocent().queue());
  vhost_.reset();
  disks_.expect_broker_and_others_serve();
}

// --- descriptors ---------------------------------------------------------------------------------

TEST_F(HostileVmm, DescriptorWhereNoneBelongsEndsTheSession) {
  const common::Fd extra(::eventfd(0, EFD_CLOEXEC));
  const common::FdRef fd = extra.ref();
  vhost_->send_raw(header(VhostRequest::kGetFeatures, 0), {}, {&fd, 1});
  expect_thrown_out({"vda", "GET_FEATURES", "1 descriptors"});
}

TEST_F(HostileVmm, FloodOfDescriptorsEndsTheSession) {
  const common::Fd extra(::eventfd(0, EFD_CLOEXEC));
  const std::vector<common::FdRef> flood(253, extra.ref());
  vhost_->send_raw(header(VhostRequest::kSetMemTable, 8), {}, flood);
  expect_thrown_out({"vda", "more descriptors than any message may carry"});
}

TEST_F(HostileVmm, DescriptorsWithAPayloadAreNotKept) {
  // They belong to the header's first byte; here they come with the payload.
  const common::Fd extra(::eventfd(0, EFD_CLOEXEC));
  const common::FdRef fd = extra.ref();
  vhost_->send_raw(header(VhostRequest::kSetVringKick, 8));
  const std::uint64_t ring = 0;
  vhost_->send_bytes(bytes_of(ring), {&fd, 1});
  expect_thrown_out({"vda", "SET_VRING_KICK"});
}

// CVE-2020-10726, CVE-2019-14818: the same message again and again, each time with a descriptor.
TEST_F(HostileVmm, SessionKeepsNoDescriptorOfRepeatedMessages) {
  connect_whole();
  const std::vector<pid_t> sessions = disks_.host().sessions();
  const auto open_now = [&] {
    std::size_t most = 0;
    for (const pid_t pid : sessions) most = std::max(most, fakes::descriptors_of(pid).size());
    return most;
  };
  client_->vhost().barrier();
  const std::size_t before = open_now();
  for (int i = 0; i < 200; ++i) {
    client_->give_err(0);
    client_->vhost().set_vring_num(0, client_->queue().place().size);
    client_->vhost().set_mem_table(client_->memory());
    client_->give_kick(0);
  }
  client_->vhost().barrier();
  EXPECT_LE(open_now(), before + 2);
  expect_serves(client_->queue());
}

TEST_F(HostileVmm, KickThatIsAPipeEndsTheSession) {
  handshake();
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const common::Fd read_end(ends[0]);
  const common::Fd write_end(ends[1]);
  vhost_->set_vring_fd(VhostRequest::kSetVringKick, 0, read_end.ref());
  expect_thrown_out({"vda", "SET_VRING_KICK", "a pipe"});
}

TEST_F(HostileVmm, CallThatIsADirectoryEndsTheSession) {
  handshake();
  const common::Fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  vhost_->set_vring_fd(VhostRequest::kSetVringCall, 0, directory.ref());
  expect_thrown_out({"vda", "SET_VRING_CALL", "a directory"});
}

TEST_F(HostileVmm, ErrThatIsASocketEndsTheSession) {
  handshake();
  vhost_->set_vring_fd(VhostRequest::kSetVringErr, 0, vhost_->socket());
  expect_thrown_out({"vda", "SET_VRING_ERR", "a socket"});
}

TEST_F(HostileVmm, KickThatIsARegularFileEndsTheSession) {
  handshake();
  const common::Fd file = memfd(4096);
  vhost_->set_vring_fd(VhostRequest::kSetVringKick, 0, file.ref());
  expect_thrown_out({"vda", "SET_VRING_KICK", "a regular file"});
}

TEST_F(HostileVmm, KickWithoutItsDescriptorEndsTheSession) {
  handshake();
  const std::uint64_t ring = 0;
  vhost_->send_raw(header(VhostRequest::kSetVringKick, 8), bytes_of(ring));
  expect_thrown_out({"vda", "SET_VRING_KICK", "0 descriptors"});
}

TEST_F(HostileVmm, MemoryThatIsAPipeEndsTheSession) {
  handshake();
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const common::Fd read_end(ends[0]);
  const common::Fd write_end(ends[1]);
  send_regions({{0, 4096, 0, 0}}, {read_end.ref()});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "a pipe"});
}

// An eventfd has no file type, nor has an epoll or a timer: the worker finds out, or nothing comes
// of it.
class OddDescriptor : public HostileVmm, public testing::WithParamInterface<VhostRequest> {
 protected:
  void expect_only_that_queue_suffers(common::Fd odd) {
    connect_whole({.acks = false});
    try {
      client_->vhost().set_vring_fd(GetParam(), 0, odd.ref());
      client_->vhost().barrier();
      client_->queue().send();
      client_->queue().kick();
    } catch (const fakes::Failure&) {
      // To hang up is an answer, too.
    }
    client_.reset();
    disks_.expect_broker_and_others_serve();
  }
};
INSTANTIATE_TEST_SUITE_P(Requests, OddDescriptor,
                         testing::Values(VhostRequest::kSetVringKick, VhostRequest::kSetVringCall,
                                         VhostRequest::kSetVringErr));

TEST_P(OddDescriptor, EpollHarmsNobodyElse) {
  expect_only_that_queue_suffers(common::Fd(::epoll_create1(EPOLL_CLOEXEC)));
}

TEST_P(OddDescriptor, TimerHarmsNobodyElse) {
  expect_only_that_queue_suffers(common::Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)));
}

TEST_P(OddDescriptor, SemaphoreHarmsNobodyElse) {
  expect_only_that_queue_suffers(common::Fd(::eventfd(1000, EFD_CLOEXEC | EFD_SEMAPHORE)));
}

TEST_F(HostileVmm, ReadOnlyMemoryIsRefusedInWords) {
  const BlkClient::Options options{.acks = false, .handshake = false};
  vhost_.reset();
  client_ = disks_.host().connect(options);
  client_->negotiate_protocol();
  client_->vhost().set_features(client_->offered());
  std::vector<common::Fd> read_only;
  std::vector<common::FdRef> files;
  for (const common::FdRef file : client_->memory().files()) {
    const std::string path = "/proc/self/fd/" + std::to_string(file.number);
    read_only.emplace_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    files.push_back(read_only.back().ref());
  }
  client_->vhost().set_mem_table(client_->memory().regions(), files);
  client_->describe_ring(0, 0);
  client_->give_kick(0);
  client_->enable(0, true);
  EXPECT_THAT(disks_.host().broker().wait_for_line({"vda", "could not be mapped"}),
              testing::Not(testing::IsEmpty()))
      << disks_.host().broker().log();
  client_.reset();
  disks_.expect_broker_and_others_serve();
}

// Its replies fill the socket, and the session sleeps over the next one.
TEST_F(HostileVmm, VmmThatReadsNothingDoesNotHoldUpTheEnd) {
  const VhostHeader ask = header(VhostRequest::kGetFeatures, 0);
  ASSERT_EQ(::fcntl(vhost_->socket().number, F_SETFL, O_NONBLOCK), 0);
  while (::send(vhost_->socket().number, &ask, sizeof(ask), MSG_NOSIGNAL) == sizeof(ask)) {
  }
  disks_.host().broker().signal(SIGTERM);
  EXPECT_EQ(disks_.host().broker().wait_exit(), 0);
}

// --- no order, no sense --------------------------------------------------------------------------

class RandomOrder : public HostileVmm, public testing::WithParamInterface<unsigned> {
 protected:
  // One message of a VMM that has lost its mind; false once the session has ended.
  bool send_one(std::mt19937& random, const std::vector<common::FdRef>& fds) {
    const auto request = static_cast<VhostRequest>(random() % 46);
    const std::array<std::uint32_t, 10> sizes = {0, 4, 8, 8, 8, 12, 16, 40, 72, 4096};
    std::vector<std::byte> payload(sizes[random() % sizes.size()]);
    for (std::byte& byte : payload) {
      // Mostly zeroes, so that indices and counts are often right.
      if (random() % 4 == 0) byte = static_cast<std::byte>(random());
    }
    const std::size_t count = random() % 3;
    std::vector<common::FdRef> chosen;
    for (std::size_t i = 0; i < count; ++i) chosen.push_back(fds[random() % fds.size()]);
    VhostHeader message = header(request, static_cast<std::uint32_t>(payload.size()));
    return vhost_->send_raw(message, payload, chosen);
  }
};
INSTANTIATE_TEST_SUITE_P(Seeds, RandomOrder, testing::Range(1U, 9U),
                         testing::PrintToStringParamName());

// QEMU #4403: it takes no guest, a front-end is enough.
TEST_P(RandomOrder, OfMessagesHarmsNobodyElse) {
  std::mt19937 random(GetParam());
  const common::Fd event(::eventfd(0, EFD_CLOEXEC));
  const common::Fd memory = memfd(1 << 20);
  const common::Fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::vector<common::FdRef> fds = {event.ref(), memory.ref(), directory.ref()};
  VerifiedLoad load(disks_.innocent().queue(), {.first_sector = 2048});
  for (int session = 0; session < 20; ++session) {
    (void)vhost_->get_features();
    if (session % 2 == 0) vhost_->set_protocol_features(vhost_->get_protocol_features());
    for (int i = 0; i < 200 && send_one(random, fds); ++i) {
    }
    vhost_.reset();
    vhost_.emplace(disks_.host().connect_raw());
  }
  vhost_.reset();
  load.expect_progress();
  load.stop();
  disks_.expect_broker_and_others_serve();
}

TEST_F(HostileVmm, SilentVmmHoldsUpNobodyElse) {
  // Connected, and says nothing: the other disk works, and this one after it has gone.
  expect_serves(disks_.innocent().queue());
  vhost_.reset();
  disks_.expect_broker_and_others_serve();
}

TEST_F(HostileVmm, ConnectingAndHangingUpInALoopHarmsNobody) {
  for (int i = 0; i < 30; ++i) {
    vhost_.reset();
    vhost_.emplace(disks_.host().connect_raw());
  }
  vhost_.reset();
  disks_.expect_broker_and_others_serve();
}

}  // namespace
}  // namespace integration
