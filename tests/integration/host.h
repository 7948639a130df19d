// tests/integration/host.h: one broker with its own directory and disks, and what every test does
// to it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "tests/fakes/blk_client.h"
#include "tests/fakes/broker_process.h"
#include "tests/fakes/temp_dir.h"
#include "tests/integration/image.h"

namespace integration {

// Which worker serves, and whether past the page cache.
struct Setting {
  const char* name = "";
  const char* engine = "";
  bool direct = false;
};
// How GoogleTest, and with it ctest, names it.
inline void PrintTo(const Setting& setting, std::ostream* out) { *out << setting.name; }
inline constexpr Setting kAuto{"Auto", "auto", false};
inline constexpr Setting kUring{"IoUring", "io_uring", false};
inline constexpr Setting kFallback{"Fallback", "fallback", false};
inline constexpr Setting kUringDirect{"IoUringDirect", "io_uring", true};
inline constexpr Setting kFallbackDirect{"FallbackDirect", "fallback", true};

struct Disk {
  std::string name = "vda";
  std::uint64_t bytes = 8 << 20;
  std::vector<std::string> options = {};  // As on the command line of `bulkhead blk`.
  std::string file = {};                  // Instead of a fresh image.
};

class Host {
 public:
  explicit Host(const Setting& setting) : setting_(setting) {}

  // `bulkhead blk` with one disk; returns once it listens.
  void serve(const Disk& disk = {}) { start_blk(disk, {}); }
  // `bulkhead serve` with several.
  void serve_all(const std::vector<Disk>& disks, const std::vector<std::string>& options = {});
  // `bulkhead` with these arguments and descriptors, whatever they are; not awaited.
  void run(const std::vector<std::string>& arguments,
           const std::vector<common::FdRef>& inherit = {});
  // `bulkhead takeover` of what serve() serves; returns once the broker before it has left.
  void take_over(const Disk& disk);
  // The same, by these arguments.
  void take_over_by(std::vector<std::string> arguments);
  // What serve_all() has served, by another broker.
  void serve_again(const std::vector<std::string>& options = {});
  [[nodiscard]] std::vector<std::string> serve_arguments(
      const std::vector<std::string>& options) const;
  // Another broker beside the one that serves; not awaited.
  void run_beside(const std::vector<std::string>& arguments);
  [[nodiscard]] fakes::BrokerProcess& beside() { return *beside_; }
  // The arguments of serve(), for tests that change them.
  [[nodiscard]] std::vector<std::string> blk_arguments(const Disk& disk);

  [[nodiscard]] fakes::BrokerProcess& broker() { return *broker_; }
  [[nodiscard]] std::string socket(const std::string& name = "vda") const {
    return sockets_.file(name + ".sock");
  }
  [[nodiscard]] std::string image(const std::string& name = "vda") const {
    return images_.file(name + ".img");
  }
  [[nodiscard]] std::string file(const std::string& name) const { return images_.file(name); }

  // A front-end that has done QEMU's handshake and started its queues.
  [[nodiscard]] std::unique_ptr<fakes::BlkClient> connect(
      const fakes::BlkClient::Options& options = {}, const std::string& name = "vda") const {
    return std::make_unique<fakes::BlkClient>(socket(name), options);
  }
  [[nodiscard]] fakes::VhostFrontend connect_raw(const std::string& name = "vda") const {
    return fakes::VhostFrontend(socket(name));
  }

  // Workers and sessions that run now.
  [[nodiscard]] std::vector<pid_t> workers() { return broker().children_named("worker"); }
  [[nodiscard]] std::vector<pid_t> sessions() { return broker().children_named("session"); }

 private:
  void start_blk(const Disk& disk, const std::vector<common::FdRef>& inherit);

  Setting setting_;
  fakes::TempDir sockets_ = fakes::TempDir::for_sockets();
  fakes::TempDir images_{BULKHEAD_TEST_IMAGES};
  std::unique_ptr<fakes::BrokerProcess> broker_;
  std::unique_ptr<fakes::BrokerProcess> beside_;
};

// A test that runs once for each engine, or for each engine and each way to the disk.
class EngineTest : public testing::TestWithParam<Setting> {
 protected:
  Host host_{GetParam()};
};
class DiskTest : public EngineTest {};

[[nodiscard]] inline std::string setting_name(const testing::TestParamInfo<Setting>& info) {
  return info.param.name;
}

// Two disks in one broker: "vda", whose guest or VMM misbehaves, and "vdb", whose VMM is connected
// and must not notice.
class TwoDisks {
 public:
  explicit TwoDisks(const Setting& setting) : host_(setting) {
    host_.serve_all({{.name = "vda"}, {.name = "vdb"}});
    innocent_ = host_.connect({}, "vdb");
  }
  [[nodiscard]] Host& host() noexcept { return host_; }
  [[nodiscard]] fakes::BlkClient& innocent() noexcept { return *innocent_; }
  // The other disk goes on in its own session, and the attacked one serves the next VMM.
  void expect_broker_and_others_serve();

 private:
  Host host_;
  std::unique_ptr<fakes::BlkClient> innocent_;
};

// The disk works for this client: what is read is what `pattern` says, and a write comes back.
void expect_serves(fakes::BlkQueueDriver& queue, std::uint64_t sector = 64);

inline constexpr std::uint8_t kOk = 0;
inline constexpr std::uint8_t kIoError = 1;
inline constexpr std::uint8_t kUnsupported = 2;

}  // namespace integration

#define BULKHEAD_FOR_BOTH_ENGINES(suite)                                                 \
  INSTANTIATE_TEST_SUITE_P(Engines, suite,                                               \
                           testing::Values(integration::kUring, integration::kFallback), \
                           integration::setting_name)
#define BULKHEAD_FOR_ALL_SETTINGS(suite)                                                      \
  INSTANTIATE_TEST_SUITE_P(                                                                   \
      Settings, suite,                                                                        \
      testing::Values(integration::kUring, integration::kFallback, integration::kUringDirect, \
                      integration::kFallbackDirect),                                          \
      integration::setting_name)
