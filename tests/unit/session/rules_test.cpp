// What a back-end must tolerate so that every front-end works: one test for each rule that was
// derived from their sources, in that order.
// Long because each of these is short, and they are read side by side.
#include <fcntl.h>
#include <sys/mman.h>

#include <array>
#include <cstring>
#include <vector>

#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

using Rules = SessionTest;
using Log = std::vector<std::string>;

constexpr std::byte byte_of(std::uint32_t value) { return static_cast<std::byte>(value); }

std::vector<std::byte> config_payload(std::uint32_t offset, std::uint32_t size, std::uint32_t flags,
                                      std::size_t bytes) {
  std::vector<std::byte> payload(12 + bytes);
  const std::array<std::uint32_t, 3> head = {offset, size, flags};
  std::memcpy(payload.data(), head.data(), sizeof(head));
  return payload;
}

// 1
TEST_F(Rules, ReplyFlagsAreVersionAndReplyAloneEvenWhereAnAckWasAskedFor) {
  launch();
  negotiate();
  fe().need_reply_on_gets(true);
  const fakes::VhostReply reply = fe().ask(VhostRequest::kGetFeatures);
  EXPECT_EQ(reply.header.flags, 0x5U);
}

// 2
TEST_F(Rules, GetWithNeedReplyIsAnsweredOnceAndSetWithoutItNever) {
  launch();
  negotiate();
  fe().need_reply_on_gets(true);
  EXPECT_EQ(fe().get_queue_num(), 8U);
  fe().ask_for_acks(false);
  fe().set_owner();
  fe().set_vring_num(0, 128);
  // Whatever had been answered above would come before this reply.
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetMaxMemSlots), 509U);
}

// 2
TEST_F(Rules, NeedReplyIsIgnoredUntilReplyAckIsAcknowledged) {
  launch();
  const fakes::VhostHeader owner{3, fakes::kVhostVersion | fakes::kVhostNeedReply, 0};
  ASSERT_TRUE(fe().send_raw(owner));
  EXPECT_EQ(fe().get_features(), kOffered);
  // The message that acknowledges it is the first to be acknowledged itself.
  const std::uint64_t bits = fakes::kProtocolReplyAck;
  EXPECT_EQ(fe().request_for_ack(VhostRequest::kSetProtocolFeatures, fakes::bytes_of(bits)), 0U);
}

// 3
TEST_F(Rules, GetConfigTakesAnySizeAndOffsetAndFillsWithZeros) {
  launch();
  negotiate();
  const std::vector<std::byte> all = fe().get_config(0, 256);
  EXPECT_EQ(all[59], byte_of(60));
  EXPECT_EQ(all[60], byte_of(0));
  EXPECT_EQ(fe().get_config(0, 4096)[4095], byte_of(0));
  EXPECT_EQ(fe().get_config(58, 4),
            (std::vector{byte_of(59), byte_of(60), byte_of(0), byte_of(0)}));
  EXPECT_EQ(fe().get_config(0xffff'fffe, 8), std::vector<std::byte>(8));
  EXPECT_EQ(fe().get_config(0x100, 2, 1), (std::vector{byte_of(1), byte_of(2)}));
}

// 3
TEST_F(Rules, GetConfigWithoutRoomForTheBytesIsAnsweredInFull) {
  launch();
  negotiate();
  const auto payload = config_payload(4, 8, 0, 0);
  const fakes::VhostReply reply = fe().ask(VhostRequest::kGetConfig, payload);
  EXPECT_EQ(reply.payload.size(), 12U + 8U);
  EXPECT_EQ(reply.payload[12], byte_of(5));
}

// 4
TEST_F(Rules, SetConfigTakesTheWritableByteWithAnyOfTheKnownFlags) {
  launch();
  negotiate();
  const std::array<std::byte, 1> zero = {byte_of(0)};
  const std::array<std::byte, 1> one = {byte_of(1)};
  fe().set_config(kWceOffset, zero, 0);
  EXPECT_EQ(fe().get_config(kWceOffset, 1)[0], byte_of(0));
  fe().set_config(kWceOffset, one, 1);
  EXPECT_EQ(fe().get_config(kWceOffset, 1)[0], byte_of(1));
  fe().set_config(kWceOffset, zero, 2);
  EXPECT_EQ(fe().get_config(kWceOffset, 1)[0], byte_of(0));
}

// 4
TEST_F(Rules, SetConfigOfReadOnlyBytesIsRefusedAndTheSessionGoesOn) {
  launch();
  negotiate();
  const auto capacity = config_payload(0, 8, 0, 8);
  EXPECT_NE(fe().request_for_ack(VhostRequest::kSetConfig, capacity), 0U);
  EXPECT_EQ(fe().get_config(0, 1)[0], byte_of(1));
  const Event event = broker().wait_event(EventCode::kConfigNotWritable);
  EXPECT_EQ(event.numbers, (std::array<std::uint64_t, 3>{25, 0, 8}));
  // The same bytes once more change nothing, so they are no offence (OpenVMM writes whole words).
  fe().set_config(0, fe().get_config(0, 60));
}

// 4
TEST_F(Rules, WritableByteChangedWhileRunningReachesTheWorker) {
  start_device();
  const std::array<std::byte, 1> zero = {byte_of(0)};
  EXPECT_EQ(broker().start_of(0).ring.writable_config[0], kWceOffset + 1);
  fe().set_config(kWceOffset, zero);
  EXPECT_EQ(broker().starts_of(0), 2U);
  EXPECT_EQ(broker().start_of(0).ring.writable_config[0], 0U);
}

// virtio 1.2, 5.2.5.2
TEST_F(Rules, WritableByteReadsAsZeroForADriverWithoutTheFeatureItNeeds) {
  launch();
  negotiate();
  fe().set_features((kBlkFeatures & ~kFlush) | kBit30);
  EXPECT_EQ(fe().get_config(kWceOffset, 1)[0], byte_of(0));
  fe().set_features(kBlkFeatures | kBit30);
  EXPECT_EQ(fe().get_config(kWceOffset, 1)[0], byte_of(kWceOffset + 1));
}

// 4: QEMU pauses a machine with SET_STATUS 0 and does not send its cache mode again.
TEST_F(Rules, WritableByteSurvivesPauseAndReset) {
  start_device();
  const std::array<std::byte, 1> zero = {byte_of(0)};
  fe().set_config(kWceOffset, zero);
  fe().set_vring_enable(0, false);
  (void)fe().get_vring_base(0);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  fe().request(VhostRequest::kResetDevice);
  EXPECT_EQ(fe().get_config(kWceOffset, 1)[0], byte_of(0));
  fe().set_features(kBlkFeatures | kBit30);
  run_ring();
  EXPECT_EQ(broker().start_of(0).ring.writable_config[0], 0U);
}

// 5
TEST_F(Rules, RingIsServedAsSoonAsItIsStartedAndEnabledWhateverCameLast) {
  launch();
  negotiate();
  fe().set_vring_enable(0, true);
  kick(0, kick_.ref());
  fe().set_mem_table(memory_);
  fe().set_vring_addr(addresses(0));
  EXPECT_EQ(broker().take_log(), Log{});
  fe().set_vring_num(0, kRingSize);
  EXPECT_EQ(broker().take_log(), (Log{"open 0", "start 0", "serving 0"}));
}

// 6
TEST_F(Rules, CallMayComeBeforeMemoryAndFeaturesAndBeOneFileForAllQueues) {
  launch();
  fe().set_protocol_features(kAllProtocol);
  fe().ask_for_acks(true);
  call(0, call_.ref());
  call(1, call_.ref());
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_mem_table(memory_);
  run_ring(0);
  run_ring(1);
  EXPECT_TRUE(same_file(broker().start_of(0).call.ref(), call_.ref()));
  EXPECT_TRUE(same_file(broker().start_of(1).call.ref(), call_.ref()));
}

// 6
TEST_F(Rules, NewCallIsSwappedInPlaceBeforeItIsAcknowledged) {
  start_device();
  const common::Fd fresh = new_event();
  call(0, fresh.ref());
  EXPECT_EQ(broker().take_log(), Log{"swap 0"});
  EXPECT_TRUE(same_file(broker().swapped_call(), fresh.ref()));
}

// 6
TEST_F(Rules, CallThatCannotBeSwappedReplacesTheWorkerAndIsRungOnce) {
  start_device();
  broker().refuse_swaps(true);
  broker().report_next_avail(0, 33);
  const common::Fd fresh = new_event();
  call(0, fresh.ref());
  EXPECT_EQ(broker().take_log(), (Log{"swap 0", "close 0", "open 0", "start 0", "serving 0"}));
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 33U);
  EXPECT_TRUE(was_rung(fresh.ref()));
  fe().add_mem_reg({1ULL << 40, kRam, 1ULL << 50, 0}, memory_.file(0));
  EXPECT_EQ(broker().starts_of(0), 3U);
  EXPECT_FALSE(was_rung(fresh.ref()));
}

// 6
TEST_F(Rules, CallWithoutDescriptorReplacesTheWorkerByOneWithoutInterruptsAndBack) {
  start_device();
  call(0, common::FdRef{});
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0"}));
  EXPECT_EQ(broker().start_of(0).ring.has_call, 0U);
  call(0, common::FdRef{});
  EXPECT_EQ(broker().take_log(), Log{});
  call(0, call_.ref());
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0"}));
  EXPECT_EQ(broker().start_of(0).ring.has_call, 1U);
}

// 6
TEST_F(Rules, WithoutSwapInPlaceEveryNewCallReplacesTheWorker) {
  auto start = blk_start();
  start.call_swap_in_place = 0;
  launch(start);
  negotiate();
  fe().set_mem_table(memory_);
  run_ring();
  (void)broker().take_log();
  call(0, call_.ref());
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0"}));
}

// 7
TEST_F(Rules, EnableIsLegalBeforeAnythingElse) {
  launch();
  fe().set_vring_enable(7, true);
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{});
}

// 7
TEST_F(Rules, FeaturesWithoutBit30EnableAllRings) {
  launch();
  negotiate(kBlkFeatures);
  fe().set_mem_table(memory_);
  configure(3);
  EXPECT_EQ(broker().running(), 1U);
}

// 8
TEST_F(Rules, FeaturesAndAddressesSentAgainWhileRunningChangeNothing) {
  start_device();
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_vring_addr(addresses(0));
  fe().set_vring_num(0, kRingSize);
  EXPECT_EQ(broker().take_log(), Log{});
}

// 8
TEST_F(Rules, OtherFeaturesAddressesOrSizesReplaceTheWorker) {
  start_device();
  broker().report_next_avail(0, 12);
  fe().set_features((kBlkFeatures & ~(1ULL << 29)) | kBit30);
  EXPECT_EQ(broker().start_of(0).ring.features, kBlkFeatures & ~(1ULL << 29));
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 12U);
  fe().set_vring_addr({0, 0, memory_.vmm_addr(desc_of(5)), memory_.vmm_addr(used_of(5)),
                       memory_.vmm_addr(avail_of(5)), 0});
  EXPECT_EQ(broker().start_of(0).ring.desc_addr, desc_of(5));
  fe().set_vring_num(0, 64);
  EXPECT_EQ(broker().start_of(0).ring.queue_size, 64U);
  EXPECT_EQ(broker().starts_of(0), 4U);
}

// 9
TEST_F(Rules, SameMemoryTableWhileRunningChangesNothingAndItsFilesAreClosed) {
  start_device();
  const std::size_t before = open_descriptors();
  fe().set_mem_table(memory_);
  fe().set_mem_table(memory_);
  EXPECT_EQ(broker().take_log(), Log{});
  EXPECT_EQ(open_descriptors(), before);
}

// 9: what tells tables apart is where the guest's memory is, not what the VMM calls the place.
TEST_F(Rules, SamePlacesInAnotherFileOrElsewhereInItReplaceTheWorker) {
  start_device();
  fakes::VmMemory other;
  other.add({.guest_addr = 0, .bytes = 2 * kRam});
  const std::array<common::FdRef, 1> file = {other.file(0)};
  std::array<fakes::VmRegion, 1> place = {memory_.regions()[0]};
  fe().set_mem_table(place, file);
  EXPECT_EQ(broker().starts_of(0), 2U);
  place[0].file_offset = kRam;
  fe().set_mem_table(place, file);
  EXPECT_EQ(broker().starts_of(0), 3U);
  EXPECT_EQ(broker().start_of(0).regions[0].file_offset, kRam);
}

// 9
TEST_F(Rules, FilesOfRegionsThatAreGoneAreClosed) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  const std::size_t before = open_descriptors();
  fe().add_mem_reg({1ULL << 40, kRam, 1ULL << 50, 0}, memory_.file(0));
  fe().rem_mem_reg({1ULL << 40, kRam, 1ULL << 50, 0});
  EXPECT_EQ(open_descriptors(), before);
  fakes::VmMemory more;
  more.add({.guest_addr = 1ULL << 40, .bytes = kRam});
  more.add({.guest_addr = 1ULL << 41, .bytes = kRam});
  const std::size_t with_more = open_descriptors();
  fe().set_mem_table(more);
  fe().set_mem_table(memory_);
  EXPECT_EQ(open_descriptors(), with_more);
}

// 9
TEST_F(Rules, NewMemoryTableWhileRunningMovesAllWorkersOverAndKeepsTheirPlaces) {
  start_device();
  run_ring(1);
  broker().report_next_avail(0, 100);
  broker().report_next_avail(1, 200);
  memory_.add({.guest_addr = 1ULL << 32, .bytes = kRam});
  fe().set_mem_table(memory_);
  EXPECT_EQ(broker().start_of(0).regions.size(), 2U);
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 100U);
  EXPECT_EQ(broker().start_of(1).ring.next_avail, 200U);
  EXPECT_EQ(broker().running(), 2U);
}

// 9
TEST_F(Rules, RingWaitsWhileItsRegionIsTakenAwayAndGoesOnWhenItIsBack) {
  start_device();
  broker().report_next_avail(0, 55);
  fe().rem_mem_reg(memory_.regions()[0]);
  EXPECT_EQ(broker().running(), 0U);
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_vring_addr(addresses(0));
  fe().add_mem_reg(memory_.regions()[0], memory_.file(0));
  EXPECT_EQ(broker().running(), 1U);
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 55U);
}

// 9
TEST_F(Rules, RingWaitsWhileATableIsWithoutItsRegionAndGoesOnWithTheNextOne) {
  start_device();
  broker().report_next_avail(0, 55);
  fakes::VmMemory elsewhere;
  elsewhere.add({.guest_addr = 1ULL << 40, .bytes = kRam});
  fe().set_mem_table(elsewhere);
  EXPECT_EQ(broker().running(), 0U);
  fe().set_vring_enable(0, true);
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_mem_table(memory_);
  EXPECT_EQ(broker().running(), 1U);
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 55U);
}

// 9
TEST_F(Rules, MoreThanEightRegionsComeInOneTableOrOneByOne) {
  launch();
  negotiate();
  fakes::VmMemory many;
  for (std::uint64_t i = 0; i < 32; ++i) many.add({.guest_addr = i << 20, .bytes = 1 << 16});
  fe().set_mem_table(many);
  fakes::VmMemory more;
  for (std::uint64_t i = 32; i < 60; ++i) {
    const std::size_t index = more.add({.guest_addr = i << 20, .bytes = 1 << 16});
    fe().add_mem_reg(more.regions()[index], more.file(index));
  }
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr({0, 0, many.vmm_addr(0x0), many.vmm_addr(0x2000), many.vmm_addr(0x1000), 0});
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().start_of(0).regions.size(), 60U);
  EXPECT_TRUE(same_file(broker().start_of(0).files[59].ref(), more.file(27)));
}

// 10
TEST_F(Rules, OwnerMayBeSetLateAgainOrNeverAndItsResetIsIgnored) {
  start_device();
  fe().set_owner();
  fe().set_owner();
  fe().request(VhostRequest::kResetOwner);
  EXPECT_EQ(broker().running(), 1U);
  EXPECT_EQ(broker().wait_event(EventCode::kIgnoredRequest).numbers[0], 4U);
}

// 11
TEST_F(Rules, NothingIsOfferedThatQemuWouldAcknowledgeWithoutImplementingIt) {
  launch();
  EXPECT_EQ(fe().get_protocol_features(), kAllProtocol);
}

// 12
TEST_F(Rules, PackedBaseIsNotTakenForASplitRing) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  fe().set_vring_base(0, 0x8000'8000);
  EXPECT_EQ(expect_violation(EventCode::kBadVringBase).numbers[2], 0x8000'8000U);
}

// 13
TEST_F(Rules, LogMessagesAreRefusedWhereTheLogCannotCome) {
  launch();
  negotiate(kBlkFeatures | kBit30, kAllProtocol & ~fakes::kProtocolLogShmfd);
  const std::array<std::uint64_t, 2> log = {4096, 0};
  EXPECT_NE(fe().request_for_ack(VhostRequest::kSetLogBase, fakes::bytes_of(log)), 0U);
  EXPECT_NE(fe().request_for_ack(VhostRequest::kSetLogFd), 0U);
  EXPECT_EQ(broker().wait_event(EventCode::kRefusedRequest).numbers[0], 6U);
}

// 14
TEST_F(Rules, InflightMemoryIsGivenAlsoToFrontEndsThatDoNotSayHowMuch) {
  launch();
  negotiate();
  // Old rust-vmm front-ends send no payload.
  const fakes::VhostReply reply = fe().ask(VhostRequest::kGetInflightFd);
  ASSERT_EQ(reply.payload.size(), sizeof(fakes::VhostInflight));
  fakes::VhostInflight description;
  std::memcpy(&description, reply.payload.data(), sizeof(description));
  EXPECT_EQ(description.queues, 8U);
  EXPECT_EQ(description.queue_size, 1024U);
  EXPECT_TRUE(reply.file.valid());
}

// 15
TEST_F(Rules, QueueNumberIsToldWithoutMq) {
  launch();
  fe().set_protocol_features(fakes::kProtocolConfig);
  EXPECT_EQ(fe().get_queue_num(), 8U);
}

TEST_F(Rules, RingMayEndWhereItsRegionDoesWithoutEventIdx) {
  launch();
  constexpr std::uint64_t kEventIdx = 1ULL << 29;
  negotiate((kBlkFeatures | kBit30) & ~kEventIdx);
  fe().set_mem_table(memory_);
  configure(0);
  fakes::VringAddr last = addresses(0);
  last.used = memory_.vmm_addr(0) + kRam - (4 + 8 * kRingSize);
  fe().set_vring_addr(last);
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().running(), 1U);
}

// 16: what is aligned for the guest need not be so for the VMM.
TEST_F(Rules, RingIsAlignedByItsGuestAddressAlone) {
  launch();
  negotiate();
  constexpr std::uint64_t kThere = (1ULL << 50) + 1;
  fe().add_mem_reg({1ULL << 40, kRam, kThere, 0}, memory_.file(0));
  fe().set_vring_num(0, kRingSize);
  kick(0, kick_.ref());
  fe().set_vring_addr({0, 0, kThere, kThere + 0x2000, kThere + 0x1000, 0});
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().running(), 1U);
}

// 16
TEST_F(Rules, RegionsMayTouchShareAFileBeUnalignedAndHaveAnyUserAddress) {
  launch();
  negotiate();
  fakes::VmMemory memory;
  memory.add({.guest_addr = 0x1000, .bytes = kRam, .file_offset = 0x123});
  const fakes::VmRegion& whole = memory.regions()[0];
  const std::array<fakes::VmRegion, 3> regions = {{
      {0x1234'5000, 0x8000, 0x7000'0000'0000, 0x123},
      {0x1234'd000, 0x8000, 0x7000'0000'8000, 0x123 + 0x8000},
      {0x0, 0x8000, 0x7000'0000'0000, 0x123},
  }};
  const std::array<common::FdRef, 3> files = {memory.file(0), memory.file(0), memory.file(0)};
  fe().set_mem_table(regions, files);
  EXPECT_EQ(whole.file_offset, 0x123U);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr({0, 0, 0x7000'0000'9000, 0x7000'0000'b000, 0x7000'0000'a000, 0});
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().start_of(0).ring.desc_addr, 0x1234'e000U);
  EXPECT_EQ(broker().start_of(0).regions[2].file_offset, 0x123U + 0x8000);
}

// 17
TEST_F(Rules, FrontEndThatLeavesEndsTheSessionQuietly) {
  start_device();
  EXPECT_EQ(end(), SessionExit::kPeerClosed);
  broker().wait_closed();
  EXPECT_EQ(broker().events(), 1U);  // kConnected.
}

common::ipc::ConfigChanged resized() {
  common::ipc::ConfigChanged changed{};
  changed.kind = common::ipc::ConfigChanged::kKind;
  changed.config_bytes = 60;
  changed.config[0] = 0x99;
  changed.config[kWceOffset] = 0x77;
  return changed;
}

// 18
TEST_F(Rules, ConfigChangeIsAnnouncedWithoutWaitingForAnAnswer) {
  start_device();
  auto channel = socket_pair(SOCK_STREAM);
  const std::array<common::FdRef, 1> fds = {channel.second.ref()};
  fe().request(VhostRequest::kSetBackendReqFd, {}, fds);
  broker().send(resized());
  fakes::VhostHeader message{};
  ASSERT_EQ(::recv(channel.first.ref().number, &message, sizeof(message), MSG_WAITALL), 12);
  EXPECT_EQ(message.request, 2U);
  EXPECT_EQ(message.flags, 1U);
  EXPECT_EQ(message.size, 0U);
  EXPECT_EQ(fe().get_config(0, 1)[0], byte_of(0x99));
  // What the driver chose is not the broker's to change.
  EXPECT_EQ(fe().get_config(kWceOffset, 1)[0], byte_of(kWceOffset + 1));
  EXPECT_EQ(broker().starts_of(0), 2U);
  fe().barrier();
  EXPECT_EQ(::recv(channel.first.ref().number, &message, sizeof(message), MSG_DONTWAIT), -1);
}

// 18
TEST_F(Rules, FrontEndWithoutAChannelForConfigChangesIsReported) {
  start_device();
  broker().send(resized());
  (void)broker().wait_event(EventCode::kConfigNotTold);
  EXPECT_EQ(broker().starts_of(0), 2U);
}

// 18
TEST_F(Rules, ConfigChangeWaitsWhileTheDeviceIsSuspended) {
  launch();
  negotiate();
  auto channel = socket_pair(SOCK_STREAM);
  const std::array<common::FdRef, 1> fds = {channel.second.ref()};
  fe().request(VhostRequest::kSetBackendReqFd, {}, fds);
  broker().send(resized());
  while (fe().get_config(0, 1)[0] != byte_of(0x99)) {
  }
  fakes::VhostHeader message{};
  EXPECT_EQ(::recv(channel.first.ref().number, &message, sizeof(message), MSG_DONTWAIT), -1);
  fe().set_mem_table(memory_);
  run_ring();
  EXPECT_EQ(::recv(channel.first.ref().number, &message, sizeof(message), MSG_DONTWAIT), 12);
}

// 18
TEST_F(Rules, ConfigChangeIsNotAnnouncedToWhoeverHasNotNegotiatedConfig) {
  launch();
  negotiate(kBlkFeatures | kBit30, kAllProtocol & ~fakes::kProtocolConfig);
  auto channel = socket_pair(SOCK_STREAM);
  const std::array<common::FdRef, 1> fds = {channel.second.ref()};
  fe().request(VhostRequest::kSetBackendReqFd, {}, fds);
  fe().set_mem_table(memory_);
  run_ring();
  broker().send(resized());
  while (broker().starts_of(0) != 2) fe().barrier();
  fakes::VhostHeader message{};
  EXPECT_EQ(::recv(channel.first.ref().number, &message, sizeof(message), MSG_DONTWAIT), -1);
}

// 18
TEST_F(Rules, FullBackendChannelStopsNobody) {
  start_device();
  auto channel = socket_pair(SOCK_STREAM);
  const std::array<common::FdRef, 1> fds = {channel.second.ref()};
  fe().request(VhostRequest::kSetBackendReqFd, {}, fds);
  const std::vector<std::byte> filling(1 << 16);
  while (::send(channel.second.ref().number, filling.data(), filling.size(), MSG_DONTWAIT) > 0) {
  }
  while (::send(channel.second.ref().number, filling.data(), 1, MSG_DONTWAIT) > 0) {
  }
  broker().send(resized());
  while (fe().get_config(0, 1)[0] != byte_of(0x99)) {
  }
  EXPECT_EQ(broker().running(), 1U);
}

// 19
TEST_F(Rules, QueuesThatNobodyStartsAreNotMissed) {
  start_device();
  EXPECT_EQ(fe().get_queue_num(), 8U);
  EXPECT_EQ(broker().running(), 1U);
}

// 20
TEST_F(Rules, StatusGatesNothingAndFeaturesOkNeedsFeatures) {
  launch();
  fe().set_protocol_features(kAllProtocol);
  fe().ask_for_acks(true);
  fe().set_u64(VhostRequest::kSetStatus, 11);
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus), 3U);
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_u64(VhostRequest::kSetStatus, 11);
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus), 11U);
  fe().set_u64(VhostRequest::kSetStatus, 11 + 64);  // NEEDS_RESET is the device's to say.
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus), 11U);
  fe().set_mem_table(memory_);
  run_ring();
  EXPECT_EQ(broker().running(), 1U);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  EXPECT_EQ(broker().running(), 0U);
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus), 0U);
  (void)broker().wait_event(EventCode::kDeviceReset);
}

}  // namespace
}  // namespace session_test
