// A hostile or confused VMM: each message that must not be ends that session with one clear line,
// and the broker, the disk and everybody else go on.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>
#include <random>

#include "tests/fakes/failure.h"
#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::BlkClient;
using fakes::bytes_of;
using fakes::kVhostVersion;
using fakes::VhostFrontend;
using fakes::VhostHeader;
using fakes::VhostRequest;
using fakes::VmRegion;
using fakes::VringState;
using testing::IsEmpty;
using testing::Not;

VhostHeader header(VhostRequest request, std::uint32_t size) {
  return {static_cast<std::uint32_t>(request), kVhostVersion, size};
}

common::Fd memfd(std::uint64_t bytes) {
  common::Fd fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  fakes::require_call(::ftruncate(fd.ref().number, static_cast<off_t>(bytes)) == 0, "ftruncate");
  return fd;
}

class HostileVmm : public testing::Test {
 protected:
  void SetUp() override { vhost_.emplace(disks_.host().connect_raw()); }

  // The session has ended, one line says why, and nobody else noticed.
  void expect_thrown_out(const std::vector<std::string>& why) {
    EXPECT_TRUE(vhost_->hung_up());
    EXPECT_THAT(disks_.host().broker().wait_for_line(why), Not(IsEmpty()))
        << disks_.host().broker().log();
    disks_.expect_broker_and_others_serve();
  }
  void handshake() {
    (void)vhost_->get_features();
    vhost_->set_protocol_features(vhost_->get_protocol_features());
    vhost_->set_owner();
  }
  // A session that has all it needs but the message under test.
  void connect_whole(const BlkClient::Options& options = {}) {
    vhost_.reset();
    client_ = disks_.host().connect(options);
  }
  void expect_client_thrown_out(const std::vector<std::string>& why) {
    EXPECT_TRUE(client_->vhost().hung_up());
    EXPECT_THAT(disks_.host().broker().wait_for_line(why), Not(IsEmpty()))
        << disks_.host().broker().log();
    disks_.expect_broker_and_others_serve();
  }
  void send_regions(const std::vector<VmRegion>& regions, const std::vector<common::FdRef>& fds) {
    const std::vector<std::byte> payload = fakes::mem_table_payload(regions);
    vhost_->send_raw(header(VhostRequest::kSetMemTable, static_cast<std::uint32_t>(payload.size())),
                     payload, fds);
  }

  TwoDisks disks_{kAuto};
  std::optional<VhostFrontend> vhost_;
  std::unique_ptr<BlkClient> client_;
};

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

// An eventfd has no file type, nor has an epoll or a timer: the worker finds out, or the session.
TEST_F(HostileVmm, CallThatIsAnEpollHarmsNobodyElse) {
  connect_whole({.acks = false});
  const common::Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  try {
    client_->vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, epoll.ref());
    client_->vhost().barrier();
  } catch (const fakes::Failure&) {
    // To hang up is an answer.
  }
  client_.reset();
  disks_.expect_broker_and_others_serve();
}

// --- the memory table ----------------------------------------------------------------------------

TEST_F(HostileVmm, MemoryThatIsNotSharedIsExplained) {
  handshake();
  send_regions({{0, 4096, 0, 0}}, {});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "share=on"});
}

TEST_F(HostileVmm, MoreRegionsThanDescriptorsEndTheSession) {
  handshake();
  const common::Fd file = memfd(8192);
  send_regions({{0, 4096, 0, 0}, {4096, 4096, 4096, 4096}}, {file.ref()});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "2 memory regions", "1 descriptors"});
}

TEST_F(HostileVmm, RegionCountThatIsNotThePayloadsEndsTheSession) {
  handshake();
  const common::Fd file = memfd(4096);
  std::vector<std::byte> payload = fakes::mem_table_payload(std::array{VmRegion{0, 4096, 0, 0}});
  payload[0] = std::byte{7};
  const common::FdRef fd = file.ref();
  vhost_->send_raw(header(VhostRequest::kSetMemTable, static_cast<std::uint32_t>(payload.size())),
                   payload, {&fd, 1});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "40 bytes"});
}

TEST_F(HostileVmm, HugeRegionCountEndsTheSession) {
  handshake();
  std::vector<std::byte> payload = fakes::mem_table_payload(std::array{VmRegion{0, 4096, 0, 0}});
  payload[3] = std::byte{0x80};
  const common::Fd file = memfd(4096);
  const common::FdRef fd = file.ref();
  vhost_->send_raw(header(VhostRequest::kSetMemTable, static_cast<std::uint32_t>(payload.size())),
                   payload, {&fd, 1});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "too many"});
}

TEST_F(HostileVmm, OverlappingRegionsEndTheSession) {
  handshake();
  const common::Fd file = memfd(1 << 20);
  send_regions({{0, 8192, 0, 0}, {4096, 8192, 65536, 8192}}, {file.ref(), file.ref()});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "overlaps"});
}

TEST_F(HostileVmm, RegionThatWrapsInGuestSpaceEndsTheSession) {
  handshake();
  const common::Fd file = memfd(1 << 20);
  send_regions({{~0ULL - 4095, 8192, 0, 0}}, {file.ref()});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "past the end of the address space"});
}

TEST_F(HostileVmm, RegionThatWrapsInVmmSpaceEndsTheSession) {
  handshake();
  const common::Fd file = memfd(1 << 20);
  send_regions({{0, 8192, ~0ULL - 4095, 0}}, {file.ref()});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "past the end of the address space"});
}

TEST_F(HostileVmm, RegionWhoseFileOffsetOverflowsEndsTheSession) {
  handshake();
  const common::Fd file = memfd(1 << 20);
  send_regions({{0, 8192, 0, ~0ULL - 4095}}, {file.ref()});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "past the end of the address space"});
}

TEST_F(HostileVmm, EmptyRegionEndsTheSession) {
  handshake();
  const common::Fd file = memfd(4096);
  send_regions({{0, 0, 0, 0}}, {file.ref()});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "empty"});
}

TEST_F(HostileVmm, RegionBeyondItsFileEndsTheSession) {
  handshake();
  const common::Fd file = memfd(4096);
  send_regions({{0, 8192, 0, 0}}, {file.ref()});
  expect_thrown_out({"vda", "SET_MEM_TABLE", "8192", "4096"});
}

TEST_F(HostileVmm, RemovingARegionThatIsNotThereEndsTheSession) {
  connect_whole({.acks = false});
  client_->vhost().rem_mem_reg({0x77000, 4096, 0x77000, 0});
  expect_client_thrown_out({"vda", "REM_MEM_REG", "no memory region"});
}

TEST_F(HostileVmm, MoreSlotsThanPromisedEndTheSession) {
  handshake();
  const common::Fd file = memfd(4096);
  for (std::uint64_t i = 0; i <= 509; ++i) {
    const std::vector<std::byte> payload = fakes::mem_reg_payload({i * 4096, 4096, i * 4096, 0});
    const common::FdRef fd = file.ref();
    if (!vhost_->send_raw(header(VhostRequest::kAddMemReg, 40), payload, {&fd, 1})) break;
  }
  expect_thrown_out({"vda", "ADD_MEM_REG", "510 memory regions"});
}

TEST_F(HostileVmm, AllPromisedSlotsAreUsable) {
  connect_whole();
  const std::size_t taken = client_->memory().regions().size();
  const common::Fd file = memfd(4096);
  for (std::uint64_t i = 0; i < 509 - taken; ++i) {
    const std::uint64_t at = 0x200000000 + i * 4096;
    client_->vhost().add_mem_reg({at, 4096, at, 0}, file.ref());
  }
  expect_serves(client_->queue());
}

// --- rings ---------------------------------------------------------------------------------------

TEST_F(HostileVmm, QueueIndexBeyondTheDeviceEndsTheSession) {
  handshake();
  vhost_->set_vring_num(64, 128);
  expect_thrown_out({"vda", "SET_VRING_NUM", "queue 64"});
}

TEST_F(HostileVmm, HugeQueueIndexEndsTheSession) {
  handshake();
  vhost_->set_vring_enable(0xffffffff, true);
  expect_thrown_out({"vda", "SET_VRING_ENABLE", "queue 4294967295"});
}

TEST_F(HostileVmm, QueueIndexOfAddressesIsChecked) {
  handshake();
  vhost_->set_vring_addr({.index = 200});
  expect_thrown_out({"vda", "SET_VRING_ADDR", "queue 200"});
}

TEST_F(HostileVmm, QueueIndexOfBaseIsChecked) {
  handshake();
  const VringState state{70, 0};
  vhost_->send_raw(header(VhostRequest::kGetVringBase, 8), bytes_of(state));
  expect_thrown_out({"vda", "GET_VRING_BASE", "queue 70"});
}

TEST_F(HostileVmm, QueueIndexOfAKickIsChecked) {
  handshake();
  const common::Fd kick(::eventfd(0, EFD_CLOEXEC));
  vhost_->set_vring_fd(VhostRequest::kSetVringKick, 255, kick.ref());
  expect_thrown_out({"vda", "SET_VRING_KICK", "queue 255"});
}

class BadQueueSize : public HostileVmm, public testing::WithParamInterface<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, BadQueueSize,
                         testing::Values(0, 3, 100, 1023, 2048, 65536, 0x80000000, 0xffffffff),
                         testing::PrintToStringParamName());

TEST_P(BadQueueSize, EndsTheSession) {
  handshake();
  vhost_->set_vring_num(0, GetParam());
  expect_thrown_out({"vda", "SET_VRING_NUM", "queue 0 " + std::to_string(GetParam()) + " entries"});
}

TEST_F(HostileVmm, BaseOfMoreThanSixteenBitsEndsTheSession) {
  handshake();
  vhost_->set_vring_base(0, 0x10000);
  expect_thrown_out({"vda", "SET_VRING_BASE", "0x10000"});
}

TEST_F(HostileVmm, FeaturesThatWereNotOfferedEndTheSession) {
  handshake();
  vhost_->set_features(vhost_->get_features() | common::kFeatureRingPacked);
  expect_thrown_out({"vda", "SET_FEATURES", "not offered"});
}

TEST_F(HostileVmm, ProtocolFeaturesThatWereNotOfferedEndTheSession) {
  (void)vhost_->get_features();
  vhost_->set_protocol_features(1ULL << 14);
  expect_thrown_out({"vda", "SET_PROTOCOL_FEATURES", "0x4000"});
}

TEST_F(HostileVmm, RingThatStartsWithoutMemoryIsExplained) {
  handshake();
  vhost_->set_features(vhost_->get_features());
  const common::Fd kick(::eventfd(0, EFD_CLOEXEC));
  vhost_->set_vring_num(0, 128);
  vhost_->set_vring_addr({.index = 0, .desc = 0x1000, .used = 0x3000, .avail = 0x2000});
  vhost_->set_vring_fd(VhostRequest::kSetVringKick, 0, kick.ref());
  vhost_->set_vring_enable(0, true);
  expect_thrown_out({"vda", "queue 0", "not shared", "share=on"});
}

class BadRingAddress : public HostileVmm {
 protected:
  // A ring whose parts are moved by `change`.
  template <typename Change>
  void start_with(Change change) {
    BlkClient::Options options;
    options.acks = false;
    options.handshake = false;
    vhost_.reset();
    client_ = disks_.host().connect(options);
    client_->negotiate_protocol();
    client_->vhost().set_features(client_->offered());
    client_->vhost().set_mem_table(client_->memory());
    client_->vhost().set_vring_num(0, client_->queue().place().size);
    client_->vhost().set_vring_base(0, 0);
    fakes::VringAddr addr = client_->queue().place().vring_addr(0, client_->memory());
    change(addr);
    client_->vhost().send_raw(header(VhostRequest::kSetVringAddr, sizeof(addr)), bytes_of(addr));
  }
};

TEST_F(BadRingAddress, DescriptorTableOutsideMemoryEndsTheSession) {
  start_with([](fakes::VringAddr& addr) { addr.desc = 0x10; });
  expect_client_thrown_out({"vda", "descriptor table of queue 0", "0x10"});
}

TEST_F(BadRingAddress, AvailRingOutsideMemoryEndsTheSession) {
  start_with([](fakes::VringAddr& addr) { addr.avail = ~0ULL - 1; });
  expect_client_thrown_out({"vda", "avail ring of queue 0"});
}

TEST_F(BadRingAddress, UsedRingThatReachesOutOfMemoryEndsTheSession) {
  start_with([&](fakes::VringAddr& addr) {
    const VmRegion& region = client_->memory().regions()[0];
    addr.used = region.vmm_addr + region.bytes - 16;
  });
  expect_client_thrown_out({"vda", "used ring of queue 0"});
}

TEST_F(BadRingAddress, MisalignedDescriptorTableEndsTheSession) {
  start_with([](fakes::VringAddr& addr) { addr.desc += 8; });
  expect_client_thrown_out({"vda", "descriptor table of queue 0", "not aligned"});
}

TEST_F(BadRingAddress, MisalignedAvailRingEndsTheSession) {
  start_with([](fakes::VringAddr& addr) { addr.avail += 1; });
  expect_client_thrown_out({"vda", "avail ring of queue 0", "not aligned"});
}

TEST_F(BadRingAddress, MisalignedUsedRingEndsTheSession) {
  start_with([](fakes::VringAddr& addr) { addr.used += 2; });
  expect_client_thrown_out({"vda", "used ring of queue 0", "not aligned"});
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
