#include "broker/audit/log_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/unit/broker/scratch.h"

namespace broker::audit {
namespace {

using ::testing::HasSubstr;

class AuditLogFile : public testing::Test {
 protected:
  [[nodiscard]] std::string path() const { return scratch_.file("audit.log"); }
  std::string write(const std::string& text, mode_t mode = 0640,
                    const std::string& name = "audit.log") const {
    const std::string file = scratch_.write(name, text);
    EXPECT_EQ(::chmod(file.c_str(), mode), 0);
    return file;
  }
  static std::string refusal(const std::string& file) {
    const auto log = LogFile::open(file);
    return log ? "opened" : log.error();
  }
  // Where a broker that is started now goes on.
  [[nodiscard]] Answer<Head> found() const {
    TRY_LET(LogFile log, LogFile::open(path()));
    return log.find_head();
  }
  [[nodiscard]] std::string content() const {
    std::stringstream text;
    text << std::ifstream(path()).rdbuf();
    return text.str();
  }
  static Line line(const Head& before = {}) {
    return render_line(Event(Kind::kBrokerStarted), Time{}, before);
  }

  Scratch scratch_;
};

TEST_F(AuditLogFile, IsMadeForItsOwnerToWriteAndItsGroupToRead) {
  const mode_t before = ::umask(0);
  EXPECT_EQ(refusal(path()), "opened");
  ::umask(before);
  struct stat status {};
  ASSERT_EQ(::stat(path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640U);
}

TEST_F(AuditLogFile, IsAppendedTo) {
  write(line().text + "\n");
  auto log = LogFile::open(path());
  ASSERT_TRUE(log);
  EXPECT_TRUE(log->append("x"));
  EXPECT_EQ(content(), line().text + "\nx\n");
}

TEST_F(AuditLogFile, IsRefusedWhereOthersMayReadOrChangeIt) {
  EXPECT_THAT(refusal(write("", 0644)), HasSubstr("too wide (0644)"));
  EXPECT_THAT(refusal(write("", 0660)), HasSubstr("chmod 0640 it"));
}

TEST_F(AuditLogFile, IsRefusedAsALink) {
  const std::string target = write("", 0640, "target");
  ASSERT_EQ(::symlink(target.c_str(), path().c_str()), 0);
  EXPECT_THAT(refusal(path()), HasSubstr("symbolic link"));
}

TEST_F(AuditLogFile, IsRefusedWithASecondName) {
  ASSERT_EQ(::link(write("").c_str(), scratch_.file("other").c_str()), 0);
  EXPECT_THAT(refusal(path()), HasSubstr("hard link"));
}

TEST_F(AuditLogFile, IsRefusedAsAPipe) {
  ASSERT_EQ(::mkfifo(path().c_str(), 0640), 0);
  EXPECT_THAT(refusal(path()), HasSubstr("no regular file"));
}

TEST_F(AuditLogFile, IsRefusedAsADirectory) {
  std::filesystem::create_directory(path());
  EXPECT_THAT(refusal(path()), HasSubstr("is a directory"));
}

TEST_F(AuditLogFile, IsRefusedInADirectoryThatIsNotThere) {
  EXPECT_THAT(refusal(scratch_.file("no/audit.log")), HasSubstr("make it first"));
}

TEST_F(AuditLogFile, IsRefusedInADirectoryThatEverybodyMayWriteTo) {
  const std::string directory = scratch_.file("open");
  std::filesystem::create_directory(directory);
  ASSERT_EQ(::chmod(directory.c_str(), 0777), 0);
  EXPECT_THAT(refusal(directory + "/audit.log"), HasSubstr("everybody may write to"));
}

TEST_F(AuditLogFile, IsRefusedToASecondBroker) {
  const auto first = LogFile::open(path());
  ASSERT_TRUE(first);
  EXPECT_THAT(refusal(path()), HasSubstr("written to by another broker"));
}

TEST_F(AuditLogFile, BeginsAChainWhereItIsEmpty) { EXPECT_EQ(found(), Head{}); }

TEST_F(AuditLogFile, GoesOnAfterItsLastEvent) {
  const Line second = line(line().head);
  write(line().text + "\n" + second.text + "\n");
  EXPECT_EQ(found(), second.head);
}

TEST_F(AuditLogFile, GoesOnAfterTheFileThatWasRotatedAway) {
  write("");
  write(line().text + "\n", 0640, "audit.log.1");
  EXPECT_EQ(found(), line().head);
}

TEST_F(AuditLogFile, GoesOnAfterTheLastWholeEventAndEndsTheOneThatWasCutOff) {
  write(line().text + "\n{\"seq\":2");
  auto log = LogFile::open(path());
  ASSERT_TRUE(log);
  EXPECT_EQ(log->find_head(), line().head);
  EXPECT_EQ(log->torn_bytes(), 8U);
  EXPECT_TRUE(log->append("x"));
  EXPECT_EQ(log->torn_bytes(), 0U);
  EXPECT_EQ(content(), line().text + "\n{\"seq\":2\nx\n");
}

TEST_F(AuditLogFile, TakesAnEventThatOnlyLacksItsNewline) {
  write(line().text);
  auto log = LogFile::open(path());
  ASSERT_TRUE(log);
  EXPECT_EQ(log->find_head(), line().head);
  EXPECT_EQ(log->torn_bytes(), 0U);
  EXPECT_TRUE(log->append("x"));
  EXPECT_EQ(content(), line().text + "\nx\n");
}

TEST_F(AuditLogFile, IsRefusedWithSomethingElseInIt) {
  write("root:x:0:0:root:/root:/bin/bash\n");
  const auto head = found();
  ASSERT_FALSE(head);
  EXPECT_THAT(head.error(), HasSubstr("something else in it"));
}

TEST_F(AuditLogFile, KnowsThatItWasMovedAway) {
  const auto log = LogFile::open(path());
  ASSERT_TRUE(log);
  EXPECT_EQ(log->moved(), false);
  std::filesystem::rename(path(), path() + ".1");
  EXPECT_EQ(log->moved(), true);
}

}  // namespace
}  // namespace broker::audit
