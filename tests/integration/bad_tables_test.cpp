// A hostile or confused VMM, continued: memory tables and rings that cannot be.
#include <fcntl.h>
#include <sys/eventfd.h>

#include <array>

#include "tests/integration/hostile_vmm.h"

namespace integration {
namespace {

using fakes::BlkClient;
using fakes::bytes_of;
using fakes::VhostRequest;
using fakes::VmRegion;
using fakes::VringState;

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

// CVE-2020-10722: offset + size of a mapping.
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

TEST_F(HostileVmm, MoreRegionsThanOneTableHoldsEndTheSession) {
  handshake();
  const common::Fd file = memfd(4096);
  std::vector<VmRegion> regions;
  for (std::uint64_t i = 0; i < 33; ++i) regions.push_back({i * 4096, 4096, i * 4096, 0});
  send_regions(regions, std::vector<common::FdRef>(33, file.ref()));
  expect_thrown_out({"vda", "more descriptors"});
}

TEST_F(HostileVmm, TableOf32RegionsIsUsable) {
  connect_whole();
  const common::Fd file = memfd(4096);
  std::vector<VmRegion> regions = client_->memory().regions();
  std::vector<common::FdRef> files = client_->memory().files();
  while (regions.size() < 32) {
    const std::uint64_t at = 0x200000000 + regions.size() * 4096;
    regions.push_back({at, 4096, at, 0});
    files.push_back(file.ref());
  }
  client_->vhost().set_mem_table(regions, files);
  expect_serves(client_->queue());
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

// Far more descriptors than Linux lets one user have under way at once.
TEST_F(HostileVmm, QueuesMoveToATableOfAllPromisedSlotsTogether) {
  connect_whole({.queues = 32});
  for (std::uint32_t i = 0; i < client_->queues(); ++i) client_->enable(i, false);
  const std::size_t taken = client_->memory().regions().size();
  const common::Fd file = memfd(4096);
  const auto extra = [](std::uint64_t i) -> VmRegion {
    const std::uint64_t at = 0x2000000000 + i * 4096;
    return {at, 4096, at, 0};
  };
  for (std::uint64_t i = 0; i < 509 - taken; ++i) {
    client_->vhost().add_mem_reg(extra(i), file.ref());
  }
  for (std::uint32_t i = 0; i < client_->queues(); ++i) client_->enable(i, true);
  client_->vhost().rem_mem_reg(extra(0));
  for (std::uint32_t i = 0; i < client_->queues(); ++i) expect_serves(client_->queue(i));
}

// --- rings ---------------------------------------------------------------------------------------

// CVE-2020-10723: an index that is not checked, or checked after it was cut to fewer bits.
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

}  // namespace
}  // namespace integration
