// tests/unit/session/harness.h: a real Session between a front-end of the test's and a fake broker.
#pragma once

#include <gtest/gtest.h>
#include <linux/kcmp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

#include "broker/session/session.h"
#include "common/sys.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/fakes/vm_memory.h"
#include "tests/unit/session/fake_broker.h"

namespace session_test {

using common::ipc::EventCode;
using common::ipc::QueueOutcome;
using common::ipc::SessionExit;
using fakes::VhostRequest;

inline constexpr std::uint64_t kBlkFeatures =
    (1ULL << 32) | (1ULL << 29) | (1ULL << 28) | (1ULL << 12) | (1ULL << 11) | (1ULL << 9);
inline constexpr std::uint64_t kBit30 = fakes::kVhostFeatureProtocol;
inline constexpr std::uint64_t kLogAll = fakes::kVhostFeatureLogAll;
inline constexpr std::uint64_t kOffered = kBlkFeatures | kBit30 | kLogAll;
inline constexpr std::uint64_t kAllProtocol =
    fakes::kProtocolMq | fakes::kProtocolLogShmfd | fakes::kProtocolReplyAck |
    fakes::kProtocolBackendReq | fakes::kProtocolConfig | fakes::kProtocolBackendSendFd |
    fakes::kProtocolInflight | fakes::kProtocolResetDevice | fakes::kProtocolMemSlots |
    fakes::kProtocolStatus | fakes::kProtocolDeviceState | fakes::kProtocolGetVringBaseInflight;
inline constexpr std::uint64_t kFlush = 1ULL << 9;
inline constexpr std::uint32_t kWceOffset = 32;

// A disk of 60 configuration bytes, of which the 33rd (the cache mode) can be written.
[[nodiscard]] inline common::ipc::SessionStart blk_start() {
  common::ipc::SessionStart start{};
  start.kind = common::ipc::SessionStart::kKind;
  start.device_kind = 1;
  start.device_features = kBlkFeatures;
  start.queues_max = 8;
  start.queue_size_max = 1024;
  start.config_bytes = 60;
  start.writable_offset = kWceOffset;
  start.writable_bytes = 1;
  start.writable_needs = kFlush;
  start.call_swap_in_place = 1;
  for (std::uint8_t i = 0; i < 60; ++i) start.config[i] = static_cast<std::uint8_t>(i + 1);
  return start;
}

[[nodiscard]] inline std::pair<common::Fd, common::Fd> socket_pair(int type) {
  int ends[2] = {-1, -1};
  fakes::require_call(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
  return {common::Fd(ends[0]), common::Fd(ends[1])};
}

[[nodiscard]] inline common::Fd new_event() {
  auto event = common::make_eventfd();
  fakes::require(event.has_value(), "eventfd");
  return *std::move(event);
}

[[nodiscard]] inline bool was_rung(common::FdRef event) {
  std::uint64_t count = 0;
  return ::read(event.number, &count, sizeof(count)) == sizeof(count) && count > 0;
}

// Two descriptors for one open file have the same number in the kernel's own comparison.
[[nodiscard]] inline bool same_file(common::FdRef left, common::FdRef right) {
  const pid_t self = ::getpid();
  const long order = ::syscall(SYS_kcmp, self, self, KCMP_FILE, left.number, right.number);
  fakes::require_call(order >= 0, "kcmp");
  return order == 0;
}

[[nodiscard]] inline std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

class SessionTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kPage = 4096;
  static constexpr std::uint64_t kRam = 1 << 20;
  static constexpr std::uint32_t kRingSize = 128;

  // Where ring `queue` lies in guest memory.
  static constexpr std::uint64_t desc_of(std::uint32_t queue) { return 0x4000 * (queue + 1ULL); }
  static constexpr std::uint64_t avail_of(std::uint32_t queue) { return desc_of(queue) + 0x1000; }
  static constexpr std::uint64_t used_of(std::uint32_t queue) { return desc_of(queue) + 0x2000; }

  SessionTest() { memory_.add({.guest_addr = 0, .bytes = kRam}); }
  ~SessionTest() override { end(); }

  void launch(const common::ipc::SessionStart& start = blk_start()) {
    auto broker = socket_pair(SOCK_SEQPACKET);
    auto vmm = socket_pair(SOCK_STREAM);
    broker_ = std::make_unique<FakeBroker>(std::move(broker.first));
    front_end_ = std::make_unique<fakes::VhostFrontend>(std::move(vmm.first));
    broker_end_ = std::move(broker.second);
    vmm_end_ = std::move(vmm.second);
    session_ = std::make_unique<session::Session>(broker_end_.ref(), vmm_end_.ref(), start);
    thread_ = std::thread([this] {
      exit_ = session_->run();
      // A process would be gone: nobody holds its ends any more.
      session_.reset();
      vmm_end_.reset();
      broker_end_.reset();
    });
  }

  // Ends the conversation if it has not ended, and says how it did.
  SessionExit end() {
    if (thread_.joinable()) {
      if (front_end_) front_end_->disconnect();
      thread_.join();
    }
    return exit_;
  }

  // The session must end by itself, with this code and this violation.
  Event expect_violation(EventCode code) {
    EXPECT_TRUE(front_end_->hung_up());
    thread_.join();
    EXPECT_EQ(exit_, SessionExit::kViolation);
    broker_->wait_closed();
    return broker_->wait_event(code);
  }

  [[nodiscard]] fakes::VhostFrontend& fe() { return *front_end_; }
  [[nodiscard]] FakeBroker& broker() { return *broker_; }

  [[nodiscard]] fakes::VringAddr addresses(std::uint32_t queue) const {
    return {.index = queue,
            .flags = 0,
            .desc = memory_.vmm_addr(desc_of(queue)),
            .used = memory_.vmm_addr(used_of(queue)),
            .avail = memory_.vmm_addr(avail_of(queue)),
            .log = 0};
  }
  void kick(std::uint32_t queue, common::FdRef fd) {
    fe().set_vring_fd(VhostRequest::kSetVringKick, queue, fd);
  }
  void call(std::uint32_t queue, common::FdRef fd) {
    fe().set_vring_fd(VhostRequest::kSetVringCall, queue, fd);
  }
  void err(std::uint32_t queue, common::FdRef fd) {
    fe().set_vring_fd(VhostRequest::kSetVringErr, queue, fd);
  }

  // The shortest way to protocol features and acks.
  void negotiate(std::uint64_t features = kBlkFeatures | kBit30,
                 std::uint64_t protocol = kAllProtocol) {
    fe().set_owner();
    EXPECT_EQ(fe().get_features(), kOffered);
    fe().set_protocol_features(protocol);
    if ((protocol & fakes::kProtocolReplyAck) != 0) fe().ask_for_acks(true);
    fe().set_features(features);
  }

  // Everything but the enabling of ring `queue`.
  void configure(std::uint32_t queue, std::uint32_t base = 0) {
    fe().set_vring_num(queue, kRingSize);
    fe().set_vring_base(queue, base);
    fe().set_vring_addr(addresses(queue));
    kick(queue, kick_.ref());
    call(queue, call_.ref());
  }

  // A device with one ring that runs.
  void run_ring(std::uint32_t queue = 0) {
    configure(queue);
    fe().set_vring_enable(queue, true);
    fe().barrier();
  }
  void start_device() {
    launch();
    negotiate();
    fe().set_mem_table(memory_);
    run_ring();
    (void)broker().take_log();
  }

  fakes::VmMemory memory_;
  common::Fd kick_ = new_event();
  common::Fd call_ = new_event();

 private:
  std::unique_ptr<FakeBroker> broker_;
  std::unique_ptr<fakes::VhostFrontend> front_end_;
  common::Fd broker_end_;
  common::Fd vmm_end_;
  std::unique_ptr<session::Session> session_;
  SessionExit exit_ = SessionExit::kPeerClosed;
  std::thread thread_;
};

}  // namespace session_test
