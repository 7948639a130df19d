#include "broker/program_files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/unit/broker/scratch.h"

namespace broker {
namespace {

using ::testing::HasSubstr;

void put_program(const Scratch& dir, const std::string& name, mode_t mode) {
  const std::string path = dir.write(name, "#!/bin/true\n");
  ASSERT_EQ(::chmod(path.c_str(), mode), 0);
}

TEST(ProgramFiles, AreFoundInTheFirstDirectoryThatHasThem) {
  const Scratch first;
  const Scratch second;
  put_program(first, "bulkhead-session", 0755);
  put_program(second, "bulkhead-session", 0755);
  put_program(second, "bulkhead-worker-blk", 0755);
  put_program(second, "bulkhead-worker-net", 0755);
  put_program(second, "bulkhead-keeper", 0755);
  const Answer<Programs> programs =
      open_programs_in({"/nonexistent", first.file(""), second.file("")});
  ASSERT_TRUE(programs) << programs.error();
  struct stat found {};
  struct stat expected {};
  ASSERT_EQ(::fstat(programs->session.ref().number, &found), 0);
  ASSERT_EQ(::stat(first.file("bulkhead-session").c_str(), &expected), 0);
  EXPECT_EQ(found.st_ino, expected.st_ino);
  EXPECT_TRUE((::fcntl(programs->worker_blk.ref().number, F_GETFD) & FD_CLOEXEC) != 0);
}

TEST(ProgramFiles, AreNamedWhereOneIsMissing) {
  const Scratch dir;
  put_program(dir, "bulkhead-session", 0755);
  const Answer<Programs> programs = open_programs_in({dir.file("")});
  ASSERT_FALSE(programs);
  EXPECT_THAT(programs.error(), HasSubstr("bulkhead-worker-blk is missing"));
}

TEST(ProgramFiles, AreRefusedWhereEverybodyMayWriteThem) {
  const Scratch dir;
  put_program(dir, "bulkhead-session", 0757);
  EXPECT_THAT(open_programs_in({dir.file("")}).error(), HasSubstr("written by everybody"));
}

TEST(ProgramFiles, AreRefusedWhereTheyAreNoPrograms) {
  const Scratch dir;
  put_program(dir, "bulkhead-session", 0644);
  EXPECT_THAT(open_programs_in({dir.file("")}).error(), HasSubstr("is no program"));
}

}  // namespace
}  // namespace broker
