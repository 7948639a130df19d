#include "tests/integration/host.h"

#include <algorithm>
#include <fstream>

#include "tests/fakes/failure.h"

namespace integration {

std::vector<std::string> Host::blk_arguments(const Disk& disk) {
  if (disk.file.empty()) make_image(image(disk.name), disk.bytes);
  std::vector<std::string> arguments = {
      "blk", "--socket-path=" + socket(disk.name),
      "--blk-file=" + (disk.file.empty() ? image(disk.name) : disk.file),
      std::string("--engine=") + setting_.engine};
  if (setting_.direct) arguments.emplace_back("--direct=on");
  arguments.insert(arguments.end(), disk.options.begin(), disk.options.end());
  return arguments;
}

void Host::run(const std::vector<std::string>& arguments,
               const std::vector<common::FdRef>& inherit) {
  broker_.reset();  // It must not find that one serve.
  broker_ = std::make_unique<fakes::BrokerProcess>(fakes::BrokerProcess::Setup{
      .program = BULKHEAD_PROGRAM, .arguments = arguments, .inherit = inherit});
}

void Host::start_blk(const Disk& disk, const std::vector<common::FdRef>& inherit) {
  run(blk_arguments(disk), inherit);
  broker_->wait_ready();
}

void Host::serve_all(const std::vector<Disk>& disks, const std::vector<std::string>& options) {
  const std::string path = file("bulkhead.toml");
  std::ofstream config(path);
  for (const Disk& disk : disks) {
    make_image(image(disk.name), disk.bytes);
    config << "[[device]]\ntype = \"blk\"\nname = \"" << disk.name << "\"\nsocket_path = \""
           << socket(disk.name) << "\"\nblk_file = \"" << image(disk.name) << "\"\nengine = \""
           << setting_.engine << "\"\ndirect = " << (setting_.direct ? "true" : "false") << "\n";
    for (const std::string& line : disk.options) config << line << "\n";
  }
  config.close();
  run(serve_arguments(options));
  broker_->wait_ready();
}

std::vector<std::string> Host::serve_arguments(const std::vector<std::string>& options) const {
  std::vector<std::string> arguments = {"serve", "--config=" + file("bulkhead.toml")};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return arguments;
}

void Host::serve_again(const std::vector<std::string>& options) {
  run(serve_arguments(options));
  broker_->wait_ready();
}

void Host::run_beside(const std::vector<std::string>& arguments) {
  beside_ = std::make_unique<fakes::BrokerProcess>(
      fakes::BrokerProcess::Setup{.program = BULKHEAD_PROGRAM, .arguments = arguments});
}

void Host::take_over(const Disk& disk) { take_over_by(blk_arguments(disk)); }

void Host::take_over_by(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "takeover");
  run_beside(arguments);
  beside_->wait_ready();
  fakes::require(broker_->wait_exit() == 0, "the broker did not leave well: " + broker_->log());
  broker_ = std::move(beside_);
}

void TwoDisks::expect_broker_and_others_serve() {
  EXPECT_TRUE(host_.broker().running());
  expect_serves(innocent_->queue(), 256);
  expect_serves(host_.connect({}, "vda")->queue(), 512);
}

void expect_serves(fakes::BlkQueueDriver& queue, std::uint64_t sector) {
  constexpr std::uint64_t kBytes = 4096;
  constexpr std::uint32_t kVersion = 7;
  std::vector<std::byte> got(kBytes);
  ASSERT_EQ(queue.write(sector, pattern(sector, kBytes, kVersion)), kOk);
  ASSERT_EQ(queue.read(sector, got), kOk);
  EXPECT_TRUE(is_pattern(got, sector, kVersion));
  ASSERT_EQ(queue.read(sector + kBytes / kSector, got), kOk);
  EXPECT_TRUE(is_pattern(got, sector + kBytes / kSector));
}

}  // namespace integration
