#include "broker/device_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace broker {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kFlood = 2000;

// What a device's log lets through to stderr meanwhile.
std::string logged(const std::function<void(DeviceLog&)>& use) {
  ::testing::internal::CaptureStderr();
  auto log = Log::open("info");
  if (log) {
    DeviceLog device(*log, "vda");
    use(device);
  }
  return ::testing::internal::GetCapturedStderr();
}

void flood(const std::function<void()>& write) {
  for (int line = 0; line < kFlood; ++line) write();
}

TEST(DeviceLog, LeavesOutWhatIsTooMuch) {
  const std::string text = logged([](DeviceLog& log) { flood([&] { log.info("again"); }); });
  EXPECT_LT(std::count(text.begin(), text.end(), '\n'), kFlood);
}

TEST(DeviceLog, WritesAnErrorHoweverMuchElseThereWasAndSaysThatLinesAreMissing) {
  const std::string text = logged([](DeviceLog& log) {
    flood([&] { log.info("again"); });
    log.error("a worker died");
  });
  EXPECT_THAT(text, HasSubstr(" error vda: a worker died\n"));
  EXPECT_THAT(text, HasSubstr(" lines were left out: too many a second\n"));
}

TEST(DeviceLog, LeavesOutErrorsThatAreTooMany) {
  const std::string text = logged([](DeviceLog& log) {
    flood([&] { log.error("again"); });
    log.error("the last");
  });
  EXPECT_THAT(text, Not(HasSubstr("the last")));
}

}  // namespace
}  // namespace broker
