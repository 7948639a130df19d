// Each front-end's own order of messages, as its source sends them: one test plays one VMM.
#include <array>
#include <vector>

#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

using ::testing::Test;

using FrontEnds = SessionTest;
using Log = std::vector<std::string>;

const Log kOneStart = {"open 0", "start 0", "serving 0"};

// hw/virtio/vhost-user.c, vhost.c and hw/block/vhost-user-blk.c of QEMU 8 and later.
TEST_F(FrontEnds, QemuStartsMasksUnmasksAndStops) {
  launch();
  EXPECT_EQ(fe().get_features(), kOffered);
  EXPECT_EQ(fe().get_protocol_features(), kAllProtocol);
  fe().set_protocol_features(kAllProtocol);
  fe().ask_for_acks(true);
  EXPECT_EQ(fe().get_queue_num(), 8U);
  EXPECT_EQ(fe().get_max_mem_slots(), 509U);
  auto channel = socket_pair(SOCK_STREAM);
  const std::array<common::FdRef, 1> channel_fd = {channel.second.ref()};
  fe().request(VhostRequest::kSetBackendReqFd, {}, channel_fd);
  fe().set_owner();
  EXPECT_EQ(fe().get_features(), kOffered);
  const common::Fd masked = new_event();
  const common::Fd broken = new_event();
  call(0, masked.ref());
  err(0, broken.ref());
  EXPECT_EQ(fe().get_config(0, 57).size(), 57U);

  fe().set_features(kBlkFeatures | kBit30);
  call(0, masked.ref());
  fe().set_features(kBlkFeatures | kBit30);
  fe().add_mem_reg(memory_.regions()[0], memory_.file(0));
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_base(0, 0);
  fe().set_vring_addr(addresses(0));
  kick(0, kick_.ref());
  EXPECT_EQ(broker().take_log(), Log{});
  fe().set_vring_enable(0, true);
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus), 0U);
  fe().set_u64(VhostRequest::kSetStatus, 7);
  fe().barrier();
  EXPECT_EQ(broker().take_log(), kOneStart);
  EXPECT_TRUE(same_file(broker().start_of(0).call.ref(), masked.ref()));

  call(0, call_.ref());
  call(0, masked.ref());
  call(0, call_.ref());
  EXPECT_EQ(broker().take_log(), (Log{"swap 0", "swap 0", "swap 0"}));
  EXPECT_TRUE(same_file(broker().swapped_call(), call_.ref()));

  broker().report_next_avail(0, 4711);
  fe().set_vring_enable(0, false);
  EXPECT_EQ(broker().take_log(), Log{"close 0"});
  EXPECT_EQ(fe().get_vring_base(0), 4711U);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  EXPECT_EQ(end(), SessionExit::kPeerClosed);
}

// Before 7.2 it never sets bit 30, so rings are enabled from the start and run from KICK on; it
// stops them without disabling them.
TEST_F(FrontEnds, OldQemuWithoutBit30RunsFromKickOn) {
  launch();
  (void)fe().get_features();
  (void)fe().get_protocol_features();
  fe().set_protocol_features(kAllProtocol);
  fe().set_owner();
  fe().set_features(kBlkFeatures);
  call(0, call_.ref());
  fe().set_mem_table(memory_);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_base(0, 0);
  fe().set_vring_addr(addresses(0));
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{});
  kick(0, kick_.ref());
  fe().barrier();
  EXPECT_EQ(broker().take_log(), kOneStart);

  call(0, call_.ref());
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{"swap 0"});
  broker().report_next_avail(0, 9);
  EXPECT_EQ(fe().get_vring_base(0), 9U);
  EXPECT_EQ(broker().running(), 0U);
}

// QEMU 7.2 and later sets bit 30; with no ack asked for, it uses GET_FEATURES as a barrier.
TEST_F(FrontEnds, Qemu72EnablesAfterKickAndStopsWithDisable) {
  launch();
  (void)fe().get_features();
  fe().set_protocol_features(fakes::kProtocolMq | fakes::kProtocolConfig);
  fe().set_owner();
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_mem_table(memory_);
  configure(0);
  configure(1);
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{});
  fe().set_vring_enable(0, true);
  fe().set_vring_enable(1, true);
  fe().barrier();
  EXPECT_EQ(broker().running(), 2U);
  fe().set_vring_enable(0, false);
  fe().set_vring_enable(1, false);
  broker().report_next_avail(0, 1);
  broker().report_next_avail(1, 2);
  (void)fe().get_vring_base(0);
  (void)fe().get_vring_base(1);
  EXPECT_EQ(broker().running(), 0U);
}

// vmm's vu_common_ctrl.rs: NEED_REPLY everywhere, all NUMs first, ADDR before BASE, ENABLE last.
TEST_F(FrontEnds, CloudHypervisorPausesAndResumesByEnableAlone) {
  launch();
  fe().set_owner();
  (void)fe().get_features();
  (void)fe().get_protocol_features();
  fe().set_protocol_features(fakes::kProtocolMq | fakes::kProtocolConfig |
                             fakes::kProtocolReplyAck | fakes::kProtocolMemSlots |
                             fakes::kProtocolBackendReq);
  fe().ask_for_acks(true);
  fe().need_reply_on_gets(true);
  EXPECT_EQ(fe().get_queue_num(), 8U);
  EXPECT_EQ(fe().get_config(0, 60, 1).size(), 60U);
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_mem_table(memory_);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_num(1, kRingSize);
  for (const std::uint32_t queue : {0U, 1U}) {
    fe().set_vring_addr(addresses(queue));
    fe().set_vring_base(queue, 5);
    call(queue, call_.ref());
    kick(queue, kick_.ref());
  }
  fe().set_vring_enable(0, true);
  fe().set_vring_enable(1, true);
  auto channel = socket_pair(SOCK_STREAM);
  const std::array<common::FdRef, 1> channel_fd = {channel.second.ref()};
  fe().request(VhostRequest::kSetBackendReqFd, {}, channel_fd);
  EXPECT_EQ(broker().start_of(1).ring.next_avail, 5U);
  EXPECT_EQ(broker().running(), 2U);

  broker().report_next_avail(0, 17);
  broker().report_next_avail(1, 18);
  fe().set_vring_enable(0, false);
  fe().set_vring_enable(1, false);
  EXPECT_EQ(broker().running(), 0U);
  fe().set_vring_enable(0, true);
  fe().set_vring_enable(1, true);
  EXPECT_EQ(broker().running(), 2U);
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 17U);
  EXPECT_EQ(broker().start_of(1).ring.next_avail, 18U);
  EXPECT_EQ(broker().start_of(0).ring.has_kick, 1U);
}

// devices' vhost_user_frontend: acknowledges REPLY_ACK and never asks for one; the memory table at
// every activation; SET_FEATURES only when they change.
TEST_F(FrontEnds, CrosvmNeverAsksForAcksAndActivatesAgain) {
  launch();
  fe().set_owner();
  (void)fe().get_features();
  (void)fe().get_protocol_features();
  fe().set_protocol_features(kAllProtocol);
  fe().set_features(kBlkFeatures | kBit30);
  for (const std::uint32_t activation : {1U, 2U}) {
    fe().set_mem_table(memory_);
    fe().set_vring_num(0, kRingSize);
    fe().set_vring_addr(addresses(0));
    fe().set_vring_base(0, 0);
    call(0, call_.ref());
    kick(0, kick_.ref());
    fe().set_vring_enable(0, true);
    fe().barrier();
    EXPECT_EQ(broker().starts_of(0), activation);
    fe().set_vring_enable(0, false);
    (void)fe().get_vring_base(0);
    EXPECT_EQ(broker().running(), 0U);
  }
}

// Only CONFIG is acknowledged, and rings are never stopped.
TEST_F(FrontEnds, FirecrackerStartsOnceAndReadsTheConfigurationAgain) {
  launch();
  fe().set_owner();
  (void)fe().get_features();
  (void)fe().get_protocol_features();
  fe().set_protocol_features(fakes::kProtocolConfig);
  EXPECT_EQ(fe().get_config(0, 60, 1).size(), 60U);
  fe().set_features((1ULL << 32) | (1ULL << 29) | kBit30);
  fe().set_mem_table(memory_);
  fe().set_vring_num(0, 256);
  fe().set_vring_addr(addresses(0));
  fe().set_vring_base(0, 3);
  call(0, call_.ref());
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  fe().barrier();
  EXPECT_EQ(broker().take_log(), kOneStart);
  EXPECT_EQ(broker().start_of(0).ring.features, (1ULL << 32) | (1ULL << 29));
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 3U);
  EXPECT_EQ(fe().get_config(0, 60, 1).size(), 60U);
}

// virtio/vhost_user/device.rs: SET_OWNER at every activation, memory before features, KICK before
// CALL, one call eventfd for all queues; a reset is ENABLE 0 and then BASE 0 on a started ring.
TEST_F(FrontEnds, LibkrunReactivatesStillStartedRings) {
  launch();
  (void)fe().get_features();
  (void)fe().get_protocol_features();
  fe().set_protocol_features(fakes::kProtocolConfig | fakes::kProtocolMq);
  (void)fe().get_queue_num();
  for (const std::uint32_t activation : {1U, 2U}) {
    fe().set_owner();
    fe().set_mem_table(memory_);
    fe().set_features(kBlkFeatures | kBit30);
    for (const std::uint32_t queue : {0U, 1U}) {
      fe().set_vring_num(queue, kRingSize);
      fe().set_vring_base(queue, 0);
      fe().set_vring_addr(addresses(queue));
      kick(queue, kick_.ref());
      call(queue, call_.ref());
      fe().set_vring_enable(queue, true);
    }
    fe().barrier();
    EXPECT_EQ(broker().starts_of(0), activation);
    EXPECT_EQ(broker().starts_of(1), activation);
    EXPECT_EQ(broker().start_of(1).ring.next_avail, 0U);
    EXPECT_TRUE(same_file(broker().start_of(0).call.ref(), broker().start_of(1).call.ref()));
    broker().report_next_avail(1, 77);
    fe().set_vring_enable(0, false);
    fe().set_vring_enable(1, false);
    fe().barrier();
    EXPECT_EQ(broker().running(), 0U);
  }
}

// vhost_user_frontend/src/lib.rs: configuration in words of four bytes, KICK before CALL, memory
// once for each connection, RESET_DEVICE at a reset.
TEST_F(FrontEnds, OpenVmmReadsWordsAndResetsTheDevice) {
  launch();
  (void)fe().get_features();
  (void)fe().get_protocol_features();
  fe().set_protocol_features(kAllProtocol);
  fe().set_owner();
  fe().ask_for_acks(true);
  EXPECT_EQ(fe().get_queue_num(), 8U);
  EXPECT_EQ(fe().get_config(8, 4),
            (std::vector{std::byte{9}, std::byte{10}, std::byte{11}, std::byte{12}}));
  fe().set_mem_table(memory_);
  const auto activate = [this] {
    fe().set_features(kBlkFeatures | kBit30);
    fe().set_vring_num(0, kRingSize);
    fe().set_vring_addr(addresses(0));
    fe().set_vring_base(0, 0);
    kick(0, kick_.ref());
    call(0, call_.ref());
    fe().set_vring_enable(0, true);
  };
  activate();
  EXPECT_EQ(broker().starts_of(0), 1U);

  // A guest's write of the cache mode carries its three neighbours, unchanged.
  std::vector<std::byte> word = fe().get_config(kWceOffset, 4);
  word[0] = std::byte{0};
  fe().set_config(kWceOffset, word);
  EXPECT_EQ(fe().get_config(kWceOffset, 4), word);
  EXPECT_EQ(broker().starts_of(0), 2U);

  fe().set_vring_enable(0, false);
  (void)fe().get_vring_base(0);
  fe().request(VhostRequest::kResetDevice);
  EXPECT_EQ(fe().get_config(kWceOffset, 4), word);
  EXPECT_EQ(broker().running(), 0U);
  activate();
  EXPECT_EQ(broker().starts_of(0), 3U);
}

// lib/virtio/virtio_vhost_user.c: features before protocol features, ENABLE first of all, the
// memory table again and again, each time with GET_FEATURES behind it; 256 bytes of configuration.
TEST_F(FrontEnds, SpdkEnablesFirstAndRepeatsItsMemoryTable) {
  fakes::VmMemory memory;
  memory.add({.guest_addr = 0x200000, .bytes = kRam, .gpa_as_vmm_addr = true});
  launch();
  fe().set_owner();
  (void)fe().get_features();
  fe().set_features(kBlkFeatures | kBit30);
  (void)fe().get_protocol_features();
  fe().set_protocol_features(fakes::kProtocolMq | fakes::kProtocolConfig);
  EXPECT_EQ(fe().get_config(0, 256).size(), 256U);
  fe().set_vring_enable(0, true);
  fe().set_vring_enable(1, true);
  EXPECT_EQ(fe().get_queue_num(), 8U);
  call(0, call_.ref());
  call(1, call_.ref());
  for (int i = 0; i < 20; ++i) {
    fe().set_mem_table(memory);
    fe().barrier();
  }
  for (const std::uint32_t queue : {0U, 1U}) {
    const std::uint64_t at = 0x200000 + desc_of(queue);
    fe().set_vring_num(queue, 256);
    fe().set_vring_base(queue, 0);
    fe().set_vring_addr({queue, 0, at, at + 0x2000, at + 0x1000, 0});
    kick(queue, kick_.ref());
    fe().set_mem_table(memory);
    fe().barrier();
  }
  EXPECT_EQ(broker().take_log(),
            (Log{"open 0", "start 0", "serving 0", "open 1", "start 1", "serving 1"}));
  EXPECT_EQ(broker().start_of(1).ring.desc_addr, 0x200000 + desc_of(1));
}

// STATUS and REPLY_ACK; CALL before everything, pair 0 enabled last.
TEST_F(FrontEnds, DpdkVirtioUserSetsTheStatusAroundItsStart) {
  launch();
  fe().set_owner();
  (void)fe().get_features();
  (void)fe().get_protocol_features();
  fe().set_protocol_features(fakes::kProtocolMq | fakes::kProtocolReplyAck |
                             fakes::kProtocolStatus);
  (void)fe().get_queue_num();
  fe().ask_for_acks(true);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  fe().set_u64(VhostRequest::kSetStatus, 1);
  fe().set_u64(VhostRequest::kSetStatus, 3);
  call(0, call_.ref());
  call(1, call_.ref());
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_u64(VhostRequest::kSetStatus, 11);
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus), 11U);
  fe().set_mem_table(memory_);
  for (const std::uint32_t queue : {0U, 1U}) {
    fe().set_vring_num(queue, kRingSize);
    fe().set_vring_base(queue, 0);
    fe().set_vring_addr(addresses(queue));
    kick(queue, kick_.ref());
  }
  fe().set_vring_enable(0, true);
  fe().set_vring_enable(1, true);
  fe().set_u64(VhostRequest::kSetStatus, 15);
  EXPECT_EQ(broker().running(), 2U);
  (void)fe().get_vring_base(0);
  (void)fe().get_vring_base(1);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  EXPECT_EQ(broker().running(), 0U);
}

// virtio-driver: ADD_MEM_REG only, ring addresses that are guest addresses, KICK before CALL, and
// no goodbye.
TEST_F(FrontEnds, LibblkioAddsRegionsAndJustCloses) {
  fakes::VmMemory memory;
  memory.add({.guest_addr = 0x10000, .bytes = kRam, .gpa_as_vmm_addr = true});
  launch();
  fe().set_owner();
  (void)fe().get_features();
  fe().set_features(kBlkFeatures | kBit30);
  (void)fe().get_protocol_features();
  fe().set_protocol_features(fakes::kProtocolReplyAck | fakes::kProtocolConfig |
                             fakes::kProtocolMemSlots | fakes::kProtocolMq);
  fe().ask_for_acks(true);
  EXPECT_EQ(fe().get_max_mem_slots(), 509U);
  fe().add_mem_reg(memory.regions()[0], memory.file(0));
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_base(0, 0);
  fe().set_vring_addr({0, 0, 0x10000, 0x12000, 0x11000, 0});
  kick(0, kick_.ref());
  call(0, call_.ref());
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().take_log(), kOneStart);
  EXPECT_EQ(end(), SessionExit::kPeerClosed);
}

// QEMU before 8.0 adds each region once for each pair of queues of a network card, and removes it
// as often.
TEST_F(FrontEnds, RegionsThatAreAddedTwiceAreRemovedTwice) {
  launch();
  fe().set_owner();
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_protocol_features(fakes::kProtocolReplyAck | fakes::kProtocolMemSlots);
  fe().ask_for_acks(true);
  const fakes::VmRegion& region = memory_.regions()[0];
  fe().add_mem_reg(region, memory_.file(0));
  fe().add_mem_reg(region, memory_.file(0));
  fe().rem_mem_reg(region);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_base(0, 0);
  fe().set_vring_addr(addresses(0));
  kick(0, kick_.ref());
  call(0, call_.ref());
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().running(), 1U);
  fe().rem_mem_reg(region);
  EXPECT_EQ(broker().running(), 0U);
  fe().ask_for_acks(false);
  fe().rem_mem_reg(region);
  EXPECT_EQ(end(), SessionExit::kViolation);
}

}  // namespace
}  // namespace session_test
