// tests/integration/hostile_vmm.h: a front-end that sends what it should not, and what must come of
// it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/fakes/failure.h"
#include "tests/integration/host.h"

namespace integration {

[[nodiscard]] inline fakes::VhostHeader header(fakes::VhostRequest request, std::uint32_t size) {
  return {static_cast<std::uint32_t>(request), fakes::kVhostVersion, size};
}

[[nodiscard]] inline common::Fd memfd(std::uint64_t bytes) {
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
    EXPECT_THAT(disks_.host().broker().wait_for_line(why), testing::Not(testing::IsEmpty()))
        << disks_.host().broker().log();
    disks_.expect_broker_and_others_serve();
  }
  void handshake() {
    (void)vhost_->get_features();
    vhost_->set_protocol_features(vhost_->get_protocol_features());
    vhost_->set_owner();
  }
  // A session that has all it needs but the message under test.
  void connect_whole(const fakes::BlkClient::Options& options = {}) {
    vhost_.reset();
    client_ = disks_.host().connect(options);
  }
  void expect_client_thrown_out(const std::vector<std::string>& why) {
    EXPECT_TRUE(client_->vhost().hung_up());
    EXPECT_THAT(disks_.host().broker().wait_for_line(why), testing::Not(testing::IsEmpty()))
        << disks_.host().broker().log();
    disks_.expect_broker_and_others_serve();
  }
  void send_regions(const std::vector<fakes::VmRegion>& regions,
                    const std::vector<common::FdRef>& fds) {
    const std::vector<std::byte> payload = fakes::mem_table_payload(regions);
    vhost_->send_raw(
        header(fakes::VhostRequest::kSetMemTable, static_cast<std::uint32_t>(payload.size())),
        payload, fds);
  }

  TwoDisks disks_{kAuto};
  std::optional<fakes::VhostFrontend> vhost_;
  std::unique_ptr<fakes::BlkClient> client_;
};

}  // namespace integration
