// Every way to break the protocol ends that session with one event that says how.
// Long because each of these is short, and they are read side by side.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

using Violations = SessionTest;
using Numbers = std::array<std::uint64_t, 3>;

TEST_F(Violations, WrongVersion) {
  launch();
  ASSERT_TRUE(fe().send_raw({1, 0x2, 0}));
  EXPECT_EQ(expect_violation(EventCode::kBadVersion).numbers, (Numbers{1, 2, 0}));
}

TEST_F(Violations, ReplyInPlaceOfARequest) {
  launch();
  ASSERT_TRUE(fe().send_raw({1, 0x5, 0}));
  EXPECT_EQ(expect_violation(EventCode::kBadVersion).numbers, (Numbers{1, 5, 0}));
}

TEST_F(Violations, UnknownRequest) {
  launch();
  ASSERT_TRUE(fe().send_raw({45, 0x1, 0}));
  EXPECT_EQ(expect_violation(EventCode::kUnknownRequest).numbers, (Numbers{45, 0, 0}));
}

TEST_F(Violations, UnknownRequestIsRefusedFirstWhereAnAckIsAskedFor) {
  launch();
  negotiate();
  ASSERT_TRUE(fe().send_raw({4000, 0x9, 0}));
  const auto reply = fe().receive();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->header.request, 4000U);
  EXPECT_NE(reply->u64(), 0U);
  (void)expect_violation(EventCode::kUnknownRequest);
}

TEST_F(Violations, KnownRequestIsRefusedFirstWhereAnAckIsAskedFor) {
  launch();
  negotiate();
  const fakes::VringState beyond{8, kRingSize};
  EXPECT_NE(fe().request_for_ack(VhostRequest::kSetVringNum, fakes::bytes_of(beyond)), 0U);
  (void)expect_violation(EventCode::kBadQueueIndex);
}

// An ack in the place of a reply would be taken for one.
TEST_F(Violations, RequestWithAReplyOfItsOwnIsNotRefusedByAnAck) {
  launch();
  negotiate();
  const fakes::VringState beyond{8, 0};
  ASSERT_TRUE(fe().send_raw({11, 0x9, sizeof(beyond)}, fakes::bytes_of(beyond)));
  EXPECT_FALSE(fe().receive().has_value());
  (void)expect_violation(EventCode::kBadQueueIndex);
}

TEST_F(Violations, PayloadOfTheWrongSize) {
  launch();
  ASSERT_TRUE(fe().send_raw({2, 0x1, 4}));
  EXPECT_EQ(expect_violation(EventCode::kPayloadSize).numbers, (Numbers{2, 4, 8}));
}

TEST_F(Violations, PayloadLargerThanAnyMessage) {
  launch();
  ASSERT_TRUE(fe().send_raw({24, 0x1, 0xffff'ffff}));
  EXPECT_EQ(expect_violation(EventCode::kPayloadSize).numbers, (Numbers{24, 0xffff'ffff, 0}));
}

TEST_F(Violations, MemoryTableWhoseCountIsNotItsSize) {
  launch();
  const std::array<std::uint32_t, 2> head = {2, 0};
  ASSERT_TRUE(fe().send_raw({5, 0x1, 8}, fakes::bytes_of(head)));
  EXPECT_EQ(expect_violation(EventCode::kPayloadSize).numbers, (Numbers{5, 8, 72}));
}

TEST_F(Violations, DescriptorsWhereNoneBelong) {
  launch();
  const std::array<common::FdRef, 1> fds = {kick_.ref()};
  ASSERT_TRUE(fe().send_raw({3, 0x1, 0}, {}, fds));
  EXPECT_EQ(expect_violation(EventCode::kTooManyFds).numbers, (Numbers{3, 1, 0}));
}

TEST_F(Violations, DescriptorsInTheMiddleOfAMessage) {
  launch();
  const fakes::VhostHeader header{12, 1, 8};
  ASSERT_TRUE(fe().send_bytes(fakes::bytes_of(header)));
  const std::uint64_t index = 0;
  const std::array<common::FdRef, 1> fds = {kick_.ref()};
  ASSERT_TRUE(fe().send_bytes(fakes::bytes_of(index), fds));
  EXPECT_EQ(expect_violation(EventCode::kTooManyFds).numbers[0], 12U);
}

TEST_F(Violations, KickWithoutDescriptor) {
  launch();
  fe().set_u64(VhostRequest::kSetVringKick, 0);
  EXPECT_EQ(expect_violation(EventCode::kTooFewFds).numbers, (Numbers{12, 0, 1}));
}

TEST_F(Violations, BackendChannelWithoutDescriptor) {
  launch();
  negotiate();
  ASSERT_TRUE(fe().send_raw({21, 0x1, 0}));
  EXPECT_EQ(expect_violation(EventCode::kTooFewFds).numbers, (Numbers{21, 0, 1}));
}

TEST_F(Violations, MoreDescriptorsThanAnyMessageMayCarry) {
  launch();
  const std::vector<common::FdRef> fds(200, kick_.ref());
  const std::size_t before = open_descriptors();
  ASSERT_TRUE(fe().send_raw({5, 0x1, 8}, std::vector<std::byte>(8), fds));
  (void)expect_violation(EventCode::kFdsTruncated);
  EXPECT_LE(open_descriptors(), before);
}

TEST_F(Violations, ConnectionClosedInTheMiddleOfAMessage) {
  launch();
  ASSERT_TRUE(fe().send_raw({2, 0x1, 8}, std::vector<std::byte>(3)));
  EXPECT_EQ(end(), SessionExit::kViolation);
  EXPECT_EQ(broker().wait_event(EventCode::kClosedMidMessage).numbers, (Numbers{2, 15, 20}));
}

TEST_F(Violations, QueueThatTheDeviceDoesNotHave) {
  launch();
  fe().set_vring_num(8, 128);
  EXPECT_EQ(expect_violation(EventCode::kBadQueueIndex).numbers, (Numbers{8, 8, 8}));
}

TEST_F(Violations, KickForAQueueThatTheDeviceDoesNotHave) {
  launch();
  kick(200, kick_.ref());
  EXPECT_EQ(expect_violation(EventCode::kBadQueueIndex).numbers, (Numbers{12, 200, 8}));
}

TEST_F(Violations, GetVringBaseOfAQueueThatTheDeviceDoesNotHave) {
  launch();
  fe().set_vring(VhostRequest::kGetVringBase, 0x8000'0000, 0);
  EXPECT_EQ(expect_violation(EventCode::kBadQueueIndex).numbers, (Numbers{11, 0x8000'0000, 8}));
}

TEST_F(Violations, QueueSizeOfZero) {
  launch();
  fe().set_vring_num(0, 0);
  EXPECT_EQ(expect_violation(EventCode::kBadQueueSize).numbers, (Numbers{8, 0, 0}));
}

TEST_F(Violations, QueueSizeThatIsNoPowerOfTwo) {
  launch();
  fe().set_vring_num(0, 100);
  EXPECT_EQ(expect_violation(EventCode::kBadQueueSize).numbers, (Numbers{8, 0, 100}));
}

TEST_F(Violations, QueueSizeBeyondTheLimit) {
  launch();
  fe().set_vring_num(0, 2048);
  EXPECT_EQ(expect_violation(EventCode::kBadQueueSize).numbers, (Numbers{8, 0, 2048}));
}

TEST_F(Violations, BaseOfMoreThan16Bits) {
  launch();
  fe().set_vring_base(1, 0x10000);
  EXPECT_EQ(expect_violation(EventCode::kBadVringBase).numbers, (Numbers{10, 1, 0x10000}));
}

TEST_F(Violations, FeaturesThatWereNotOffered) {
  launch();
  fe().set_features(kBlkFeatures | (1ULL << 34));
  EXPECT_EQ(expect_violation(EventCode::kBadFeatures).numbers, (Numbers{2, 1ULL << 34, 0}));
}

TEST_F(Violations, ProtocolFeaturesThatWereNotOffered) {
  launch();
  fe().set_protocol_features(kAllProtocol | (1ULL << 14));
  EXPECT_EQ(expect_violation(EventCode::kBadProtocolFeatures).numbers, (Numbers{16, 1 << 14, 0}));
}

TEST_F(Violations, KickThatIsAPipe) {
  launch();
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const common::Fd read_end(ends[0]);
  const common::Fd write_end(ends[1]);
  kick(0, read_end.ref());
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 12U);
}

TEST_F(Violations, CallThatIsADirectory) {
  launch();
  const common::Fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  call(0, directory.ref());
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 13U);
}

TEST_F(Violations, ErrorEventThatIsARegularFile) {
  launch();
  err(0, memory_.file(0));
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 14U);
}

TEST_F(Violations, KickThatIsADevice) {
  launch();
  const common::Fd device(::open("/dev/null", O_RDWR | O_CLOEXEC));
  kick(0, device.ref());
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 12U);
}

TEST_F(Violations, MemoryThatIsAnEventfd) {
  launch();
  const std::array<common::FdRef, 1> files = {kick_.ref()};
  fe().set_mem_table(memory_.regions(), files);
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 5U);
}

TEST_F(Violations, MemoryThatIsASocket) {
  launch();
  auto pair = socket_pair(SOCK_STREAM);
  const std::array<common::FdRef, 1> files = {pair.first.ref()};
  fe().set_mem_table(memory_.regions(), files);
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 5U);
}

TEST_F(Violations, BackendChannelThatIsNoSocket) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  const std::array<common::FdRef, 1> fds = {kick_.ref()};
  fe().request(VhostRequest::kSetBackendReqFd, {}, fds);
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 21U);
}

TEST_F(Violations, ConfigWhoseSizeIsNotItsPayload) {
  launch();
  negotiate();
  const std::array<std::uint32_t, 4> payload = {0, 60, 0, 0};
  ASSERT_TRUE(fe().send_raw({25, 0x1, 16}, fakes::bytes_of(payload)));
  EXPECT_EQ(expect_violation(EventCode::kBadConfigRange).numbers, (Numbers{25, 0, 60}));
}

TEST_F(Violations, ConfigRequestWhoseSizeIsAbsurd) {
  launch();
  negotiate();
  const std::array<std::uint32_t, 3> payload = {0xffff'ffff, 0xffff'ffff, 0};
  ASSERT_TRUE(fe().send_raw({24, 0x1, 12}, fakes::bytes_of(payload)));
  EXPECT_EQ(expect_violation(EventCode::kBadConfigRange).numbers,
            (Numbers{24, 0xffff'ffff, 0xffff'ffff}));
}

TEST_F(Violations, MemoryTableWithoutDescriptorsAsWithPrivateMemory) {
  launch();
  fe().set_mem_table(memory_.regions(), {});
  EXPECT_EQ(expect_violation(EventCode::kRegionCount).numbers, (Numbers{5, 1, 0}));
}

TEST_F(Violations, AddedRegionWithoutDescriptor) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  fe().request(VhostRequest::kAddMemReg, fakes::mem_reg_payload(memory_.regions()[0]));
  EXPECT_EQ(expect_violation(EventCode::kRegionCount).numbers, (Numbers{37, 1, 0}));
}

TEST_F(Violations, EmptyMemoryTable) {
  launch();
  fe().set_mem_table(std::span<const fakes::VmRegion>{}, {});
  EXPECT_EQ(expect_violation(EventCode::kRegionCount).numbers, (Numbers{5, 0, 0}));
}

TEST_F(Violations, RegionsThatOverlapForTheGuest) {
  launch();
  const std::array<fakes::VmRegion, 2> regions = {
      {{0x1000, 0x2000, 0x10'0000, 0}, {0x2fff, 0x1000, 0x20'0000, 0}}};
  const std::array<common::FdRef, 2> files = {memory_.file(0), memory_.file(0)};
  fe().set_mem_table(regions, files);
  EXPECT_EQ(expect_violation(EventCode::kRegionOverlaps).numbers, (Numbers{5, 0x2fff, 0x1000}));
}

TEST_F(Violations, RegionThatReachesIntoTheNextOne) {
  launch();
  const std::array<fakes::VmRegion, 2> regions = {
      {{0x2fff, 0x1000, 0x20'0000, 0}, {0x1000, 0x2000, 0x10'0000, 0}}};
  const std::array<common::FdRef, 2> files = {memory_.file(0), memory_.file(0)};
  fe().set_mem_table(regions, files);
  EXPECT_EQ(expect_violation(EventCode::kRegionOverlaps).numbers, (Numbers{5, 0x1000, 0x2000}));
}

TEST_F(Violations, RegionAddedTwiceWithDifferentPlacesInTheFile) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  fakes::VmRegion other = memory_.regions()[0];
  other.vmm_addr += 4096;
  fe().add_mem_reg(memory_.regions()[0], memory_.file(0));
  fe().add_mem_reg(other, memory_.file(0));
  EXPECT_EQ(expect_violation(EventCode::kRegionOverlaps).numbers, (Numbers{37, 0, kRam}));
}

TEST_F(Violations, RegionThatWrapsForTheGuest) {
  launch();
  const std::array<fakes::VmRegion, 1> regions = {{{~0ULL - 0xfff, 0x2000, 0x1000, 0}}};
  const std::array<common::FdRef, 1> files = {memory_.file(0)};
  fe().set_mem_table(regions, files);
  EXPECT_EQ(expect_violation(EventCode::kRegionWraps).numbers, (Numbers{5, ~0ULL - 0xfff, 0x2000}));
}

TEST_F(Violations, RegionThatWrapsForTheVmm) {
  launch();
  const std::array<fakes::VmRegion, 1> regions = {{{0, 0x2000, ~0ULL - 0xfff, 0}}};
  const std::array<common::FdRef, 1> files = {memory_.file(0)};
  fe().set_mem_table(regions, files);
  (void)expect_violation(EventCode::kRegionWraps);
}

TEST_F(Violations, RegionThatWrapsInItsFile) {
  launch();
  const std::array<fakes::VmRegion, 1> regions = {{{0, 0x2000, 0, ~0ULL - 0xfff}}};
  const std::array<common::FdRef, 1> files = {memory_.file(0)};
  fe().set_mem_table(regions, files);
  (void)expect_violation(EventCode::kRegionWraps);
}

TEST_F(Violations, EmptyRegion) {
  launch();
  const std::array<fakes::VmRegion, 1> regions = {{{0x5000, 0, 0, 0}}};
  const std::array<common::FdRef, 1> files = {memory_.file(0)};
  fe().set_mem_table(regions, files);
  EXPECT_EQ(expect_violation(EventCode::kRegionEmpty).numbers, (Numbers{5, 0x5000, 0}));
}

TEST_F(Violations, RegionBeyondTheEndOfItsFile) {
  launch();
  const std::array<fakes::VmRegion, 1> regions = {{{0, kRam, 0, 1}}};
  const std::array<common::FdRef, 1> files = {memory_.file(0)};
  fe().set_mem_table(regions, files);
  EXPECT_EQ(expect_violation(EventCode::kRegionBeyondFile).numbers, (Numbers{5, kRam + 1, kRam}));
}

TEST_F(Violations, RemovalOfARegionThatIsNotThere) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  fe().ask_for_acks(false);
  fakes::VmRegion other = memory_.regions()[0];
  other.bytes -= 1;
  fe().rem_mem_reg(other);
  EXPECT_EQ(expect_violation(EventCode::kRegionNotFound).numbers, (Numbers{38, 0, kRam - 1}));
}

TEST_F(Violations, RemovalOfARegionByAnotherUserAddress) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  fe().ask_for_acks(false);
  fakes::VmRegion other = memory_.regions()[0];
  other.vmm_addr += kPage;
  fe().rem_mem_reg(other);
  EXPECT_EQ(expect_violation(EventCode::kRegionNotFound).numbers, (Numbers{38, 0, kRam}));
}

TEST_F(Violations, MoreRegionsThanOneTableMayHave) {
  launch();
  const std::array<std::uint32_t, 2> head = {33, 0};
  ASSERT_TRUE(fe().send_raw({5, 0x1, 8}, fakes::bytes_of(head)));
  EXPECT_EQ(expect_violation(EventCode::kRegionTooMany).numbers, (Numbers{5, 33, 0}));
}

TEST_F(Violations, MoreRegionsThanThereAreSlots) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  for (std::uint64_t i = 0; i < 509; ++i) {
    fe().add_mem_reg({i << 20, 0x1000, i << 20, 0}, memory_.file(0));
  }
  fe().barrier();
  fe().add_mem_reg({509ULL << 20, 0x1000, 0, 0}, memory_.file(0));
  EXPECT_EQ(expect_violation(EventCode::kRegionTooMany).numbers, (Numbers{37, 510, 0}));
}

TEST_F(Violations, RingThatStartsWithoutMemory) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  configure(2);
  fe().set_vring_enable(2, true);
  EXPECT_EQ(expect_violation(EventCode::kNoMemory).numbers, (Numbers{2, 0, 0}));
}

TEST_F(Violations, RingOutsideMemory) {
  launch();
  fe().set_mem_table(memory_);
  fakes::VringAddr outside = addresses(0);
  outside.avail = memory_.vmm_addr(0) - 2;
  fe().set_vring_addr(outside);
  EXPECT_EQ(expect_violation(EventCode::kRingUnmapped).numbers, (Numbers{0, 1, outside.avail}));
}

TEST_F(Violations, RingThatReachesBeyondItsRegion) {
  launch();
  fe().set_mem_table(memory_);
  fe().set_vring_num(0, 1024);
  fakes::VringAddr outside = addresses(0);
  outside.used = memory_.vmm_addr(kRam - 4096);
  fe().set_vring_addr(outside);
  EXPECT_EQ(expect_violation(EventCode::kRingUnmapped).numbers, (Numbers{0, 2, outside.used}));
}

// With EVENT_IDX each of avail and used ring has two more bytes.
TEST_F(Violations, RingWhoseEventFieldReachesBeyondItsRegion) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  fe().ask_for_acks(false);
  fe().set_vring_num(0, kRingSize);
  fakes::VringAddr last = addresses(0);
  last.used = memory_.vmm_addr(0) + kRam - (4 + 8 * kRingSize);
  fe().set_vring_addr(last);
  EXPECT_EQ(expect_violation(EventCode::kRingUnmapped).numbers, (Numbers{0, 2, last.used}));
}

TEST_F(Violations, RingSetBeforeMemoryAndThenOutsideIt) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  fakes::VringAddr outside = addresses(0);
  outside.desc = 0x10;
  fe().set_vring_num(0, 128);
  fe().set_vring_addr(outside);
  fe().set_mem_table(memory_);
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  EXPECT_EQ(expect_violation(EventCode::kRingUnmapped).numbers, (Numbers{0, 0, 0x10}));
}

TEST_F(Violations, RunningRingThatIsMovedOutsideMemoryAfterMemoryHasGrown) {
  start_device();
  fe().add_mem_reg({1ULL << 40, kRam, 1ULL << 50, 0}, memory_.file(0));
  fe().ask_for_acks(false);
  fe().set_vring_addr({0, 0, 0x10, 0x20, 0x30, 0});
  EXPECT_EQ(expect_violation(EventCode::kRingUnmapped).numbers, (Numbers{0, 0, 0x10}));
}

TEST_F(Violations, RingThatIsMovedOutsideMemoryOnceThatIsBack) {
  start_device();
  fe().rem_mem_reg(memory_.regions()[0]);
  fe().add_mem_reg(memory_.regions()[0], memory_.file(0));
  fe().ask_for_acks(false);
  fe().set_vring_addr({0, 0, 0x10, 0x20, 0x30, 0});
  EXPECT_EQ(expect_violation(EventCode::kRingUnmapped).numbers, (Numbers{0, 0, 0x10}));
}

TEST_F(Violations, RingThatIsMovedIntoOtherMemoryAndThenOutsideIt) {
  start_device();
  const std::size_t more = memory_.add({.guest_addr = 1ULL << 32, .bytes = kRam});
  fe().add_mem_reg(memory_.regions()[more], memory_.file(more));
  fe().rem_mem_reg(memory_.regions()[0]);
  const std::uint64_t there = memory_.vmm_addr(1ULL << 32);
  fe().set_vring_addr({0, 0, there, there + 0x2000, there + 0x1000, 0});
  EXPECT_EQ(broker().running(), 1U);
  fe().ask_for_acks(false);
  fe().set_vring_addr({0, 0, 0x10, 0x20, 0x30, 0});
  EXPECT_EQ(expect_violation(EventCode::kRingUnmapped).numbers, (Numbers{0, 0, 0x10}));
}

TEST_F(Violations, RingWhoseAddressesComeLastAndWithoutMemory) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  fe().set_vring_num(0, kRingSize);
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  fe().set_vring_addr(addresses(0));
  EXPECT_EQ(expect_violation(EventCode::kNoMemory).numbers, (Numbers{0, 0, 0}));
}

TEST_F(Violations, RingWhoseSizeComesLastAndReachesBeyondItsRegion) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  fe().ask_for_acks(false);
  fakes::VringAddr outside = addresses(0);
  outside.used = memory_.vmm_addr(kRam - 4096);
  fe().set_vring_addr(outside);
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  fe().set_vring_num(0, 1024);
  EXPECT_EQ(expect_violation(EventCode::kRingUnmapped).numbers, (Numbers{0, 2, outside.used}));
}

TEST_F(Violations, RingThatFeaturesStartWithoutMemory) {
  launch();
  configure(1);
  fe().set_features(kBlkFeatures);
  EXPECT_EQ(expect_violation(EventCode::kNoMemory).numbers, (Numbers{1, 0, 0}));
}

TEST_F(Violations, RingThatIsMisaligned) {
  launch();
  fe().set_mem_table(memory_);
  fakes::VringAddr crooked = addresses(0);
  crooked.desc += 8;
  fe().set_vring_addr(crooked);
  EXPECT_EQ(expect_violation(EventCode::kRingMisaligned).numbers, (Numbers{0, 0, crooked.desc}));
}

TEST_F(Violations, RequestWhoseFeatureWasNotNegotiatedAndThatCannotBeRefused) {
  launch();
  ASSERT_TRUE(fe().send_raw({36, 0x1, 0}));
  EXPECT_EQ(expect_violation(EventCode::kNotNegotiated).numbers, (Numbers{36, 0, 0}));
}

TEST_F(Violations, StatusOfMoreThanEightBits) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  fe().set_u64(VhostRequest::kSetStatus, 0x100);
  EXPECT_EQ(expect_violation(EventCode::kBadStatus).numbers, (Numbers{39, 0x100, 0}));
}

TEST_F(Violations, FrontEndThatRefusesToHearItsAnswers) {
  launch();
  ASSERT_EQ(::shutdown(fe().socket().number, SHUT_RD), 0);
  ASSERT_TRUE(fe().send_raw({1, 0x1, 0}));
  broker().wait_closed();
  EXPECT_EQ(broker().wait_event(EventCode::kReplyFailed).numbers[0], 1U);
  EXPECT_EQ(end(), SessionExit::kViolation);
}

TEST_F(Violations, LastWordsReachABrokerThatHadMoreToSay) {
  launch();
  common::ipc::ConfigChanged changed{};
  changed.kind = common::ipc::ConfigChanged::kKind;
  for (int i = 0; i < 100; ++i) broker().send(changed);
  ASSERT_TRUE(fe().send_raw({99, 0x1, 0}));
  EXPECT_EQ(expect_violation(EventCode::kUnknownRequest).numbers[0], 99U);
}

TEST_F(Violations, NonsenseFromTheBrokerIsAFaultOfTheHost) {
  start_device();
  broker().send_nonsense();
  EXPECT_TRUE(fe().hung_up());
  EXPECT_EQ(end(), SessionExit::kHostFault);
}

TEST_F(Violations, EndOfAQueueThatHasNoWorkerIsAFaultOfTheHost) {
  start_device();
  broker().end_queue(5, QueueOutcome::kDied);
  EXPECT_TRUE(fe().hung_up());
  EXPECT_EQ(end(), SessionExit::kHostFault);
}

TEST_F(Violations, BrokerThatHangsUpEndsTheSession) {
  start_device();
  broker().hang_up();
  EXPECT_TRUE(fe().hung_up());
  EXPECT_EQ(end(), SessionExit::kBrokerGone);
}

}  // namespace
}  // namespace session_test
