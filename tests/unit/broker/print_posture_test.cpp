#include "broker/print_posture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace broker {
namespace {

using ::testing::HasSubstr;

TEST(PrintPosture, PrintsARunningProcess) {
  ::testing::internal::CaptureStdout();
  const int exit_code = print_posture(::getpid());
  const std::string text = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(exit_code, 0);
  EXPECT_THAT(text, HasSubstr(std::to_string(::getpid())));
  EXPECT_THAT(text, HasSubstr("seccomp"));
}

TEST(PrintPosture, SaysThatThereIsNoSuchProcess) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ::testing::internal::CaptureStderr();
  const int exit_code = print_posture(child);
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(exit_code, 1);
  EXPECT_THAT(text, HasSubstr("there is no process " + std::to_string(child)));
}

}  // namespace
}  // namespace broker
