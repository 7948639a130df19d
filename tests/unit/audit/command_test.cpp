#include "broker/audit/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/broker/scratch.h"

namespace broker::audit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class AuditCommand : public testing::Test {
 protected:
  AuditCommand() {
    Head head;
    for (const Kind kind : {Kind::kAuditOpened, Kind::kBrokerStarted, Kind::kBrokerStopped}) {
      const Line line = render_line(Event(kind), Time{}, head);
      head = line.head;
      text_ += line.text + "\n";
    }
  }
  int run(const Command& command) {
    ::testing::internal::CaptureStdout();
    const int status = run_command(command);
    printed_ = ::testing::internal::GetCapturedStdout();
    return status;
  }
  int verify(const std::vector<std::string>& files) {
    return run({Command::What::kVerify, files, {}, {}});
  }

  Scratch scratch_;
  std::string text_;
  std::string printed_;
};

TEST_F(AuditCommand, SaysThatALogIsWhole) {
  EXPECT_EQ(verify({scratch_.write("a", text_)}), 0);
  EXPECT_THAT(printed_, AllOf(HasSubstr("3 events, head 3:"), HasSubstr("The chain is whole.")));
}

TEST_F(AuditCommand, PutsFilesInOrder) {
  const std::size_t cut = text_.find('\n') + 1;
  const std::string first = scratch_.write("new", text_.substr(0, cut));
  const std::string rest = scratch_.write("a", text_.substr(cut));
  EXPECT_EQ(verify({rest, first}), 0) << printed_;
}

TEST_F(AuditCommand, SaysThatALogIsNotWhole) {
  text_.replace(text_.find("noted"), 5, "eaten");
  EXPECT_EQ(verify({scratch_.write("a", text_)}), 1);
  EXPECT_THAT(printed_, AllOf(HasSubstr("a:1: event 1 was changed"), HasSubstr("NOT whole")));
}

TEST_F(AuditCommand, FailsWhereAFileCannotBeRead) { EXPECT_EQ(verify({scratch_.file("no")}), 2); }

TEST_F(AuditCommand, IsNotFilledByALineWithoutEnd) {
  EXPECT_EQ(verify({scratch_.write("a", std::string(1 << 20, '{'))}), 1);
  EXPECT_THAT(printed_, HasSubstr("a:1: is longer than any event"));
}

TEST_F(AuditCommand, ExplainsEveryEvent) {
  EXPECT_EQ(run({Command::What::kExplain, {scratch_.write("a", text_)}, {}, {}}), 0);
  EXPECT_THAT(printed_, AllOf(HasSubstr("event 2, "), HasSubstr("event 3, ")));
}

TEST_F(AuditCommand, ExplainsOneEvent) {
  EXPECT_EQ(run({Command::What::kExplain, {scratch_.write("a", text_)}, {}, 3}), 0);
  EXPECT_EQ(printed_, "event 3, 1970-01-01T00:00:00.000000Z, noted: the broker ended\n");
}

TEST_F(AuditCommand, FailsWhereThereIsNoSuchEvent) {
  EXPECT_EQ(run({Command::What::kExplain, {scratch_.write("a", text_)}, {}, 9}), 1);
}

TEST_F(AuditCommand, ReadsAHeadAsTheBrokersLogHasIt) {
  const std::string hash(64, 'a');
  EXPECT_EQ(parse_head("17:" + hash), (Head{17, hash}));
  EXPECT_EQ(parse_head("17"), std::nullopt);
  EXPECT_EQ(parse_head("17:" + hash + "a"), std::nullopt);
  EXPECT_EQ(parse_head("0:" + hash), std::nullopt);
  EXPECT_EQ(parse_head("x:" + hash), std::nullopt);
}

}  // namespace
}  // namespace broker::audit
