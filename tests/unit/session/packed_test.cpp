// Packed rings as front-ends ask for them: sizes, addresses, places in the ring, and what becomes
// of these when a worker, a front-end or a broker is another one.
#include <vector>

#include "common/virtqueue_wire.h"
#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

using Log = std::vector<std::string>;
using Numbers = std::array<std::uint64_t, 3>;

constexpr std::uint64_t kPacked = common::kFeatureRingPacked;
constexpr std::uint64_t kAcked = kBlkFeatures | kPacked | kBit30;

// As QEMU writes it: avail in the low half, used in the high one, each with its wrap counter.
constexpr std::uint32_t base_of(std::uint32_t avail, std::uint32_t used) {
  return avail | used << 16;
}
constexpr std::uint32_t kFresh = base_of(0x8000, 0x8000);

class Packed : public SessionTest {
 protected:
  static common::ipc::SessionStart device() {
    common::ipc::SessionStart start = blk_start();
    start.device_features |= kPacked;
    return start;
  }
  void begin(std::uint64_t features = kAcked) {
    launch(device());
    fe().set_owner();
    EXPECT_EQ(fe().get_features(), kOffered | kPacked);
    fe().set_protocol_features(kAllProtocol);
    fe().ask_for_acks(true);
    if (features != 0) fe().set_features(features);
    fe().set_mem_table(memory_);
  }
  void run_packed(std::uint32_t base = kFresh, std::uint32_t size = kRingSize) {
    fe().set_vring_num(0, size);
    fe().set_vring_base(0, base);
    fe().set_vring_addr(addresses(0));
    call(0, call_.ref());
    kick(0, kick_.ref());
    fe().set_vring_enable(0, true);
    fe().barrier();
  }
  void start(std::uint32_t base = kFresh) {
    begin();
    run_packed(base);
    (void)broker().take_log();
  }
  void give_region() {
    region_ = fe().get_inflight_fd(1, kRingSize);
    fe().set_inflight_fd(region_.description, region_.file.ref());
  }
  [[nodiscard]] const common::ipc::RingStart& newest() { return broker().start_of(0).ring; }
  void expect_end(EventCode code, Numbers numbers) {
    EXPECT_EQ(expect_violation(code).numbers, numbers);
  }

  fakes::VhostFrontend::InflightFile region_;
};

// --- where a ring goes on -----------------------------------------------------------------------

TEST_F(Packed, WorkerIsToldBothPlacesInTheRing) {
  start(base_of(0x8011, 0x800f));
  EXPECT_EQ(newest().next_avail, base_of(0x8011, 0x800f));
  EXPECT_EQ(newest().features, kBlkFeatures | kPacked);
}

// DPDK's virtio-user.
TEST_F(Packed, FrontEndThatGivesTheAvailHalfOnlyMeansBoth) {
  start(0x8000);
  EXPECT_EQ(newest().next_avail, kFresh);
}
TEST_F(Packed, TheAvailHalfAloneMayBeAnywhere) {
  start(0x0005);
  EXPECT_EQ(newest().next_avail, base_of(5, 5));
}
TEST_F(Packed, RingThatNobodyGaveAPlaceBeginsAtItsBeginning) {
  begin();
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr(addresses(0));
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  fe().barrier();
  EXPECT_EQ(newest().next_avail, kFresh);
}
TEST_F(Packed, RingThatNeverRanIsSaidToBeAtItsBeginning) {
  begin();
  EXPECT_EQ(fe().get_vring_base(0), kFresh);
}
TEST_F(Packed, BaseIsAnsweredWithBothPlacesAndTakenAgain) {
  start();
  const std::uint32_t here = base_of(0x0003, 0x0003);
  broker().report_next_avail(0, here);
  EXPECT_EQ(fe().get_vring_base(0), here);
  EXPECT_EQ(fe().get_vring_base(0), here);
  kick(0, kick_.ref());
  fe().barrier();
  EXPECT_EQ(newest().next_avail, here);
}
TEST_F(Packed, WorkerThatIsReplacedIsFollowedFromWhereItStood) {
  start();
  broker().report_next_avail(0, base_of(0x8007, 0x8007));
  common::ipc::ReplaceWorker replace{};
  replace.kind = common::ipc::ReplaceWorker::kKind;
  broker().send(replace);
  fe().barrier();
  EXPECT_EQ(newest().next_avail, base_of(0x8007, 0x8007));
}
// A hijacked worker's word.
TEST_F(Packed, PlaceOutsideTheRingIsNotBelieved) {
  start(base_of(0x8007, 0x8007));
  broker().report_next_avail(0, base_of(0x8007, kRingSize));
  fe().set_vring_enable(0, false);
  fe().set_vring_enable(0, true);
  fe().barrier();
  EXPECT_EQ(newest().next_avail, base_of(0x8007, 0x8007));
}
TEST_F(Packed, PauseAndResumeByEnableAloneGoOnFromThere) {
  start();
  broker().report_next_avail(0, base_of(9, 9));
  fe().set_vring_enable(0, false);
  EXPECT_EQ(broker().running(), 0U);
  fe().set_vring_enable(0, true);
  fe().barrier();
  EXPECT_EQ(newest().next_avail, base_of(9, 9));
}
// QEMU 7.2 resets the device first when it stops the machine, and asks each ring then.
TEST_F(Packed, ResetDoesNotForgetHowFarTheRingHadGot) {
  start();
  broker().report_next_avail(0, base_of(0x8021, 0x8021));
  fe().request(VhostRequest::kResetDevice);
  EXPECT_EQ(fe().get_vring_base(0), base_of(0x8021, 0x8021));
}
TEST_F(Packed, AfterAResetTheRingBeginsAnew) {
  start();
  broker().report_next_avail(0, base_of(0x8021, 0x8021));
  fe().request(VhostRequest::kResetDevice);
  fe().set_features(kAcked);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr(addresses(0));
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  fe().barrier();
  EXPECT_EQ(newest().next_avail, kFresh);
}

// --- the other kind -----------------------------------------------------------------------------

TEST_F(Packed, OfferedAndNotTakenTheRingIsSplit) {
  begin(kBlkFeatures | kBit30);
  run_packed(5);
  EXPECT_EQ(newest().next_avail, 5U);
  EXPECT_EQ(newest().features, kBlkFeatures);
}
// Firmware first, and then the system that it has started.
TEST_F(Packed, DeviceGoesFromSplitToPackedRingsWithAReset) {
  begin(kBlkFeatures | kBit30);
  run_packed(0);
  broker().report_next_avail(0, 0xffff);
  fe().request(VhostRequest::kResetDevice);
  fe().set_features(kAcked);
  run_packed(kFresh, 100);
  EXPECT_EQ(newest().next_avail, kFresh);
  EXPECT_EQ(newest().queue_size, 100U);
}
TEST_F(Packed, SplitRingsBaseHasSixteenBits) {
  begin(kBlkFeatures | kBit30);
  fe().ask_for_acks(false);
  fe().set_vring_base(0, kFresh);
  expect_end(EventCode::kBadVringBase, {10, 0, kFresh});
}
TEST_F(Packed, BaseThatCameBeforeTheFeaturesIsCheckedWhenTheRingStarts) {
  begin(0);
  fe().ask_for_acks(false);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_base(0, kFresh);
  fe().set_vring_addr(addresses(0));
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  fe().set_features(kBlkFeatures | kBit30);
  expect_end(EventCode::kBadVringBase, {10, 0, kFresh});
}
TEST_F(Packed, SizeThatCameBeforeTheFeaturesIsCheckedWhenTheRingStarts) {
  begin(0);
  fe().ask_for_acks(false);
  fe().set_vring_num(0, 100);
  fe().set_vring_addr(addresses(0));
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  fe().set_features(kBlkFeatures | kBit30);
  expect_end(EventCode::kBadQueueSize, {8, 0, 100});
}
TEST_F(Packed, EverythingMayComeBeforeTheFeatures) {
  begin(0);
  run_packed(kFresh, 100);
  fe().set_features(kAcked);
  fe().barrier();
  EXPECT_EQ(newest().queue_size, 100U);
  EXPECT_EQ(newest().next_avail, kFresh);
}

// --- what a ring may be -------------------------------------------------------------------------

TEST_F(Packed, SizeNeedNotBeAPowerOfTwo) {
  begin();
  run_packed(base_of(0x8063, 0x8063), 100);
  EXPECT_EQ(newest().queue_size, 100U);
}
TEST_F(Packed, SizeOfNothingEndsTheSession) {
  begin();
  fe().ask_for_acks(false);
  fe().set_vring_num(0, 0);
  expect_end(EventCode::kBadQueueSize, {8, 0, 0});
}
TEST_F(Packed, SizeBeyondTheLimitEndsTheSession) {
  begin();
  fe().ask_for_acks(false);
  fe().set_vring_num(0, 1025);
  expect_end(EventCode::kBadQueueSize, {8, 0, 1025});
}

class PackedBases : public Packed, public ::testing::WithParamInterface<std::uint32_t> {};
TEST_P(PackedBases, OutsideTheRingEndTheSession) {
  begin();
  fe().ask_for_acks(false);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_base(0, GetParam());
  expect_end(EventCode::kBadVringBase, {10, 0, GetParam()});
}
TEST_P(PackedBases, EndItAlsoWhereTheSizeComesLater) {
  begin();
  fe().ask_for_acks(false);
  fe().set_vring_base(0, GetParam());
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr(addresses(0));
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  expect_end(EventCode::kBadVringBase, {10, 0, GetParam()});
}
INSTANTIATE_TEST_SUITE_P(
    Places, PackedBases,
    ::testing::Values(0x0080U, 0x8080U, 0xffffU, base_of(0x8000, 0x8080), base_of(0x8000, 0xffff),
                      base_of(0x8003, 0x8004),  // Used before it was available:
                      base_of(0x8005, 0x0004),  // and more in flight than the ring holds.
                      0xffff'ffffU));

struct WrongPlace {
  const char* name;
  std::uint64_t fakes::VringAddr::*part;
  std::uint64_t offset;
  EventCode code;
  std::uint64_t number;
};
void PrintTo(const WrongPlace& wrong, std::ostream* out) { *out << wrong.name; }
class PackedPlaces : public Packed, public ::testing::WithParamInterface<WrongPlace> {};
TEST_P(PackedPlaces, EndTheSession) {
  begin();
  fe().ask_for_acks(false);
  fe().set_vring_num(0, kRingSize);
  fakes::VringAddr wrong = addresses(0);
  wrong.*GetParam().part = memory_.vmm_addr(0) + GetParam().offset;
  fe().set_vring_addr(wrong);
  expect_end(GetParam().code, {0, GetParam().number, wrong.*GetParam().part});
}
INSTANTIATE_TEST_SUITE_P(
    Parts, PackedPlaces,
    ::testing::Values(
        WrongPlace{"RingAtEight", &fakes::VringAddr::desc, 8, EventCode::kRingMisaligned, 0},
        WrongPlace{"DriverAreaAtTwo", &fakes::VringAddr::avail, 2, EventCode::kRingMisaligned, 1},
        WrongPlace{"DeviceAreaAtTwo", &fakes::VringAddr::used, 2, EventCode::kRingMisaligned, 2},
        WrongPlace{"RingBeyondMemory", &fakes::VringAddr::desc, (1 << 20) - 128 * 16 + 16,
                   EventCode::kRingUnmapped, 0},
        WrongPlace{"DriverAreaBeyondMemory", &fakes::VringAddr::avail, 1 << 20,
                   EventCode::kRingUnmapped, 1},
        WrongPlace{"DeviceAreaBeyondMemory", &fakes::VringAddr::used, 1 << 20,
                   EventCode::kRingUnmapped, 2}),
    [](const auto& each) { return each.param.name; });

// Four bytes each: where a split ring's would reach beyond.
TEST_F(Packed, EventAreasMayLieAtTheEndOfMemory) {
  begin();
  fe().set_vring_num(0, kRingSize);
  fakes::VringAddr addr = addresses(0);
  addr.desc = memory_.vmm_addr(kRam - 128 * 16);
  addr.avail = memory_.vmm_addr(0x4ffc);
  addr.used = memory_.vmm_addr(kRam - 4);
  fe().set_vring_addr(addr);
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  fe().barrier();
  EXPECT_EQ(newest().used_addr, kRam - 4);
}
TEST_F(Packed, LogNeedsBitsForTheDevicesAreaOnly) {
  begin(kAcked | kLogAll);
  fakes::VringAddr addr = addresses(0);
  addr.flags = 1;
  addr.log = kRam + 4096 - 4;
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr(addr);
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  const common::Fd file = common::make_sealed_memfd("log", 4096).value();
  fe().set_log_base({.mmap_bytes = 33, .mmap_offset = 0}, file.ref());
  fe().barrier();
  EXPECT_EQ(newest().has_log, 1U);
  EXPECT_EQ(newest().log_used_addr, addr.log);
}

// --- the in-flight region -----------------------------------------------------------------------

TEST_F(Packed, RegionHasAnEntryForEachDescriptor) {
  begin();
  give_region();
  // 32 bytes and 32 for each of 128.
  EXPECT_EQ(region_.description.mmap_bytes, 8192U);
  run_packed();
  EXPECT_EQ(newest().inflight_entries, kRingSize);
  EXPECT_EQ(newest().inflight_resume, 1U);
  EXPECT_TRUE(same_file(broker().start_of(0).inflight.ref(), region_.file.ref()));
}
TEST_F(Packed, RegionOfASecondQueueLiesBehindTheFirst) {
  begin();
  region_ = fe().get_inflight_fd(2, 1024);
  fe().set_inflight_fd(region_.description, region_.file.ref());
  EXPECT_EQ(region_.description.mmap_bytes, 2U * 36864);
  run_packed();
  EXPECT_EQ(newest().inflight_offset, 0U);
  fe().set_vring_num(1, kRingSize);
  fe().set_vring_addr(addresses(1));
  kick(1, kick_.ref());
  fe().set_vring_enable(1, true);
  fe().barrier();
  EXPECT_EQ(broker().start_of(1).ring.inflight_offset, 36864U);
}
TEST_F(Packed, RegionForSplitRingsIsTheirs) {
  begin(kBlkFeatures | kBit30);
  give_region();
  EXPECT_EQ(region_.description.mmap_bytes, 4096U);
}
// Old QEMUs ask before the driver has chosen.
TEST_F(Packed, RegionAskedForBeforeTheFeaturesServesEitherKind) {
  begin(0);
  give_region();
  EXPECT_EQ(region_.description.mmap_bytes, 8192U);
  fe().set_features(kBlkFeatures | kBit30);
  run_packed(0);
  EXPECT_TRUE(same_file(broker().start_of(0).inflight.ref(), region_.file.ref()));
  fe().request(VhostRequest::kResetDevice);
  fe().set_features(kAcked);
  run_packed();
  EXPECT_TRUE(same_file(broker().start_of(0).inflight.ref(), region_.file.ref()));
}
TEST_F(Packed, RegionOfASplitRingIsRefused) {
  begin(kBlkFeatures | kBit30);
  give_region();
  fe().set_features(kAcked);
  fe().ask_for_acks(false);
  fe().set_inflight_fd(region_.description, region_.file.ref());
  EXPECT_EQ(expect_violation(EventCode::kBadInflight).numbers, (Numbers{32, 2, 4096}));
}
TEST_F(Packed, RegionOfASplitRingThatCameBeforeIsNotUsed) {
  begin(kBlkFeatures | kBit30);
  give_region();
  fe().set_features(kAcked);
  run_packed();
  ASSERT_TRUE(broker().start_of(0).inflight.valid());
  EXPECT_FALSE(same_file(broker().start_of(0).inflight.ref(), region_.file.ref()));
}
TEST_F(Packed, OurOwnRegionHasRoomForRingsOfEitherKind) {
  begin(kBlkFeatures | kBit30);
  run_packed(0);
  fe().request(VhostRequest::kResetDevice);
  fe().set_features(kAcked);
  run_packed();
  EXPECT_EQ(broker().inflight_files(), std::vector<std::uint64_t>{8 * 36864});
  EXPECT_TRUE(broker().start_of(0).inflight.valid());
}

// Nothing in the guest's memory says where a packed ring stands: the newer word counts.
TEST_F(Packed, FirstWorkerBelievesTheRegionMoreThanTheFrontEnd) {
  begin();
  give_region();
  run_packed();
  EXPECT_EQ(newest().inflight_resume, 1U);
}
TEST_F(Packed, AfterADrainTheBaseCountsAndNotTheRegion) {
  begin();
  give_region();
  run_packed();
  broker().report_next_avail(0, base_of(0x8021, 0x8021));
  (void)fe().get_vring_base(0);
  // The guest has loaded its driver anew: the same region, and another ring.
  fe().set_inflight_fd(region_.description, region_.file.ref());
  run_packed();
  EXPECT_EQ(newest().inflight_resume, 0U);
  EXPECT_EQ(newest().next_avail, kFresh);
}
TEST_F(Packed, AfterAResetTheBaseCountsAndNotTheRegion) {
  begin();
  give_region();
  run_packed();
  fe().request(VhostRequest::kResetDevice);
  fe().set_features(kAcked);
  fe().set_inflight_fd(region_.description, region_.file.ref());
  run_packed();
  EXPECT_EQ(newest().inflight_resume, 0U);
}
TEST_F(Packed, AnotherRegionCountsAgain) {
  begin();
  give_region();
  run_packed();
  (void)fe().get_vring_base(0);
  give_region();
  run_packed();
  EXPECT_EQ(newest().inflight_resume, 1U);
}
TEST_F(Packed, WorkerThatDiesAfterADrainOfAnotherIsResumed) {
  begin();
  give_region();
  run_packed();
  fe().set_vring_enable(0, false);
  fe().set_vring_enable(0, true);
  fe().barrier();
  EXPECT_EQ(newest().inflight_resume, 0U);
  broker().end_queue(0, QueueOutcome::kDied);
  fe().barrier();
  EXPECT_EQ(newest().inflight_resume, 1U);
}
TEST_F(Packed, DeathWhileARingIsDrainedIsFollowedByAWorkerThatDrains) {
  begin();
  give_region();
  run_packed();
  (void)broker().take_log();
  broker().end_on_close_with(QueueOutcome::kDied);
  broker().then_end_on_close_with(QueueOutcome::kStopped);
  broker().report_next_avail(0, base_of(0x8009, 0x8009));
  EXPECT_EQ(fe().get_vring_base(0), base_of(0x8009, 0x8009));
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0", "close 0"}));
  EXPECT_EQ(newest().inflight_resume, 1U);
}

// --- an older broker ----------------------------------------------------------------------------

common::ipc::Resume resume_by(std::uint32_t version) {
  common::ipc::Resume resume{};
  resume.kind = common::ipc::Resume::kKind;
  resume.version = version;
  return resume;
}

TEST_F(Packed, OlderBrokersWorkersAreNotGivenAPackedRing) {
  start();
  broker().send(resume_by(common::ipc::kIpcPackedRings - 1));
  fe().barrier();
  (void)broker().take_log();
  EXPECT_EQ(broker().running(), 1U);
  broker().end_queue(0, QueueOutcome::kDied);
  (void)broker().wait_event(EventCode::kQueueNotStarted);
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{});
  // The newer one is back, and what was in flight is finished.
  broker().send(resume_by(common::ipc::kIpcVersion));
  fe().barrier();
  EXPECT_EQ(broker().running(), 1U);
  EXPECT_EQ(newest().inflight_resume, 1U);
}
TEST_F(Packed, OlderBrokersWorkersServeSplitRings) {
  begin(kBlkFeatures | kBit30);
  run_packed(0);
  broker().send(resume_by(common::ipc::kIpcPackedRings - 1));
  fe().barrier();
  broker().end_queue(0, QueueOutcome::kDied);
  fe().barrier();
  EXPECT_EQ(broker().running(), 1U);
}

}  // namespace
}  // namespace session_test
