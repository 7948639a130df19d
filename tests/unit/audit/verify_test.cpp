#include "broker/audit/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace broker::audit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class AuditVerify : public testing::Test {
 protected:
  AuditVerify() {
    write(Event(Kind::kAuditOpened).with(Key::kSink, "file"));
    for (std::uint64_t pid = 1; pid <= 5; ++pid)
      write(Event(Kind::kVmmConnected).with(Key::kPid, pid));
    write(Event(Kind::kBrokerStopped));
  }
  void write(const Event& event) {
    Line line = render_line(event, Time{}, head_);
    head_ = line.head;
    heads_.push_back(line.head);
    lines_.push_back(std::move(line.text));
  }
  std::string& event(std::size_t number) { return lines_.at(number - 1); }
  void remove(std::size_t number) {
    lines_.erase(lines_.begin() + static_cast<std::ptrdiff_t>(number) - 1);
  }
  bool whole(const std::optional<Head>& expected = {}) {
    Verifier verifier(
        [this](const Verifier::Finding& finding) {
          (finding.wrong ? wrong_ : notes_).push_back(finding.text);
        },
        expected);
    std::size_t number = 0;
    for (const std::string& line : lines_) verifier.line("a:" + std::to_string(++number), line);
    return verifier.finish();
  }

  Head head_;
  std::vector<Head> heads_;
  std::vector<std::string> lines_;
  std::vector<std::string> wrong_;
  std::vector<std::string> notes_;
};

TEST_F(AuditVerify, FindsNothingWrongWithAWholeLog) {
  EXPECT_TRUE(whole());
  EXPECT_THAT(wrong_, IsEmpty());
  EXPECT_THAT(notes_, IsEmpty());
}

TEST_F(AuditVerify, FindsAChangedEvent) {
  event(4).replace(event(4).find("\"pid\":3"), 7, "\"pid\":9");
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre("a:4: event 4 was changed after it was written"));
}

TEST_F(AuditVerify, FindsAnEventThatWasWrittenAnew) {
  event(4) =
      render_line(Event(Kind::kVmmConnected).with(Key::kPid, std::uint64_t{9}), Time{}, heads_[2])
          .text;
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre(HasSubstr("a:5: event 5 was not written after the event 4")));
}

TEST_F(AuditVerify, FindsARemovedEvent) {
  remove(4);
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre("a:4: event 4 is missing before event 5"));
}

TEST_F(AuditVerify, FindsSeveralRemovedEvents) {
  remove(4);
  remove(4);
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre("a:4: events 4 to 5 are missing before event 6"));
}

TEST_F(AuditVerify, FindsThatTheOrderWasChanged) {
  std::swap(event(4), event(5));
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre(HasSubstr("event 4 is missing"),
                                  HasSubstr("a:5: event 4 comes after event 5")));
}

TEST_F(AuditVerify, FindsAnEventTwice) {
  lines_.insert(lines_.begin() + 3, event(3));
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre(HasSubstr("a:4: event 3 comes after event 3")));
}

TEST_F(AuditVerify, FindsALineThatIsCutOff) {
  event(7).resize(20);
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre(HasSubstr("a:7: is cut off")));
}

TEST_F(AuditVerify, FindsALineThatIsNoEvent) {
  lines_.insert(lines_.begin() + 3, "nothing to see here");
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre(HasSubstr("a:4: is no event")));
}

TEST_F(AuditVerify, FindsAnEmptyLine) {
  lines_.insert(lines_.begin() + 3, "");
  EXPECT_FALSE(whole());
}

TEST_F(AuditVerify, SaysWhereAnEndMayHaveBeenCutOff) {
  lines_.resize(5);
  EXPECT_TRUE(whole());
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("the last event is not the broker's end")));
}

TEST_F(AuditVerify, FindsACutEndByAHeadThatWasNotedElsewhere) {
  const Head noted = head_;
  lines_.resize(5);
  EXPECT_FALSE(whole(noted));
  EXPECT_THAT(wrong_, ElementsAre(HasSubstr("event 7 is missing: the log was cut off")));
}

TEST_F(AuditVerify, FindsALogThatWasWrittenAnewByAHeadThatWasNotedElsewhere) {
  EXPECT_FALSE(whole(Head{5, std::string(64, 'a')}));
  EXPECT_THAT(wrong_, ElementsAre(HasSubstr("event 5 is another one: the log was rewritten")));
}

TEST_F(AuditVerify, IsContentWithTheHeadThatWasNoted) { EXPECT_TRUE(whole(heads_[4])); }

TEST_F(AuditVerify, TakesALogWhoseOldFilesAreGone) {
  lines_.erase(lines_.begin(), lines_.begin() + 3);
  EXPECT_TRUE(whole());
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("begins with event 4")));
}

TEST_F(AuditVerify, FindsThatTheFileWasEmptiedWhileNoBrokerRan) {
  head_ = Head{};
  write(Event(Kind::kAuditOpened).with(Key::kSink, "file"));
  write(Event(Kind::kBrokerStopped));
  EXPECT_FALSE(whole());
  EXPECT_THAT(wrong_, ElementsAre(HasSubstr("a new chain begins after event 7")));
}

TEST_F(AuditVerify, TakesEveryRunInAJournal) {
  head_ = Head{};
  write(Event(Kind::kAuditOpened).with(Key::kSink, "journal"));
  write(Event(Kind::kBrokerStopped));
  EXPECT_TRUE(whole());
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("a new run of the broker begins")));
}

TEST_F(AuditVerify, TakesALineThatACrashCutOffWhereTheBrokerSaysSo) {
  lines_.emplace_back(R"({"seq":8,"time":"20)");
  write(Event(Kind::kAuditOpened).with(Key::kTornBytes, std::uint64_t{lines_.back().size()}));
  write(Event(Kind::kBrokerStopped));
  EXPECT_TRUE(whole());
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("a:8: was cut off while it was written")));
}

TEST_F(AuditVerify, DoesNotTakeAnotherLineForTheOneThatACrashCutOff) {
  lines_.emplace_back("something longer than what was cut off");
  write(Event(Kind::kAuditOpened).with(Key::kTornBytes, std::uint64_t{19}));
  write(Event(Kind::kBrokerStopped));
  EXPECT_FALSE(whole());
}

TEST_F(AuditVerify, SaysWhatWasLost) {
  write(Event(Kind::kEventsLost)
            .with(Key::kAmount, std::uint64_t{12})
            .with(Key::kCause, "No space left on device"));
  write(Event(Kind::kBrokerStopped));
  EXPECT_TRUE(whole());
  EXPECT_THAT(notes_, ElementsAre(AllOf(HasSubstr("12 events were lost before event 8"),
                                        HasSubstr("No space left"))));
}

TEST_F(AuditVerify, SaysThatThereIsNoEvent) {
  lines_.clear();
  EXPECT_TRUE(whole());
  EXPECT_THAT(notes_, ElementsAre("there is no event"));
}

TEST_F(AuditVerify, FindsAFirstEventThatFollowsAnother) {
  lines_ = {render_line(Event(Kind::kBrokerStopped), Time{}, {0, std::string(64, 'b')}).text};
  EXPECT_FALSE(whole());
}

}  // namespace
}  // namespace broker::audit
