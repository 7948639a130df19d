#include "broker/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <regex>

namespace broker {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// What goes to stderr meanwhile.
std::string logged(std::string_view level, const std::function<void(Log&)>& use) {
  ::testing::internal::CaptureStderr();
  common::Result<Log, std::string> log = Log::open(level);
  if (log) use(*log);
  std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(log);
  return text;
}

TEST(Log, WritesTimeLevelSubjectAndText) {
  const std::string text = logged("info", [](Log& log) { log.warn("vda/2", "worker ended"); });
  const std::regex expected(
      R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d warning vda/2: worker ended\n)");
  EXPECT_TRUE(std::regex_match(text, expected)) << text;
}

TEST(Log, WritesNoColonWithoutASubject) {
  EXPECT_THAT(logged("info", [](Log& log) { log.info("", "ready"); }), HasSubstr(" info ready\n"));
}

TEST(Log, LeavesOutWhatIsBelowItsLevel) {
  const std::string text = logged("warn", [](Log& log) {
    log.debug("", "one");
    log.info("", "two");
    log.warn("", "three");
    log.error("", "four");
  });
  EXPECT_THAT(text, Not(HasSubstr("one")));
  EXPECT_THAT(text, Not(HasSubstr("two")));
  EXPECT_THAT(text, HasSubstr("three"));
  EXPECT_THAT(text, HasSubstr("four"));
  EXPECT_EQ(logged("off", [](Log& log) { log.error("", "five"); }), "");
}

TEST(Log, LetsNobodyForgeALine) {
  const std::string text = logged("info", [](Log& log) { log.info("a\nb", "c\nd\x1b[2J{}%s"); });
  EXPECT_THAT(text, HasSubstr("a\\x0ab: c\\x0ad\\x1b[2J{}%s\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(Log, LimitsALine) {
  const std::string text =
      logged("info", [](Log& log) { log.info("", std::string(100'000, 'x')); });
  EXPECT_LT(text.size(), 5000u);
}

TEST(Log, RefusesAnUnknownLevel) {
  const auto log = Log::open("loud");
  ASSERT_FALSE(log);
  EXPECT_THAT(log.error(), HasSubstr("'loud'"));
}

TEST(Log, PrefixesPrioritiesWhereStderrIsTheJournal) {
  // The captured stderr is a file whose identity is known only inside the capture.
  const auto log_as_service = [](const char* stream) {
    ::testing::internal::CaptureStderr();
    struct stat status {};
    ::fstat(STDERR_FILENO, &status);
    const std::string real = std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
    ::setenv("JOURNAL_STREAM", stream != nullptr ? stream : real.c_str(), 1);
    common::Result<Log, std::string> log = Log::open("debug");
    if (log) {
      log->debug("", "a");
      log->info("", "b");
      log->warn("", "c");
      log->error("vda", "d");
    }
    ::unsetenv("JOURNAL_STREAM");
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(log_as_service(nullptr), "<7>a\n<6>b\n<4>c\n<3>vda: d\n");
  EXPECT_THAT(log_as_service("1:1"), Not(StartsWith("<")));
}

}  // namespace
}  // namespace broker
