#include "broker/audit/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace broker::audit {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr Time kWhen{};

std::string explained(const std::string& line) {
  const auto parsed = parse_line(line);
  return parsed ? explain(*parsed) : parsed.error();
}

std::string explained(const Event& event) { return explained(render_line(event, kWhen, {}).text); }

TEST(AuditExplain, SaysWhoGotWhat) {
  const std::string text =
      explained(about({.device = "vda", .type = "blk", .vm = "web", .uuid = "", .tenant = ""},
                      Event(Kind::kVmmConnected)
                          .with(Key::kPid, std::uint64_t{812})
                          .with(Key::kUid, std::uint64_t{107})
                          .with(Key::kGid, std::uint64_t{36})
                          .with(Key::kComm, "qemu")));
  EXPECT_EQ(text,
            "event 1, 1970-01-01T00:00:00.000000Z, granted: the VMM with pid 812 (qemu), uid 107, "
            "gid 36 was let in to device vda of VM web");
}

TEST(AuditExplain, LeavesOutWhatIsNotKnown) {
  const auto event = about({.device = "vda", .type = {}, .vm = {}, .uuid = {}, .tenant = {}},
                           Event(Kind::kDeviceRemoved));
  EXPECT_EQ(in_words(event), "device vda is not offered any more");
}

TEST(AuditExplain, ShowsWhatShouldBeKnownAndIsNot) {
  EXPECT_EQ(in_words(Event(Kind::kDeviceRemoved)), "device ? is not offered any more");
}

TEST(AuditExplain, GivesAnEventOfAnotherVersionAsItIs) {
  std::string line = render_line(Event(Kind::kBrokerStopped), kWhen, {}).text;
  line.replace(line.find("broker-stopped"), 14, "broker-retired");
  EXPECT_THAT(explained(line), HasSubstr("does not know: 'broker-retired' seq=1"));
}

TEST(AuditExplain, SaysThatAnEventWasChanged) {
  std::string line = render_line(Event(Kind::kBrokerStopped), kWhen, {}).text;
  line.replace(line.find("noted"), 5, "eaten");
  EXPECT_THAT(explained(line), HasSubstr("its hash does not fit"));
}

TEST(AuditExplain, DoesNotHandOnWhatATerminalWouldObey) {
  EXPECT_THAT(in_words(Event(Kind::kBrokerStopped).with(Key::kCause, "\x1b[2J")),
              Not(HasSubstr("\x1b")));
}

TEST(AuditExplain, HasASentenceForEveryKindOfEvent) {
  for (std::size_t i = 0; i < kKindCount; ++i) {
    const std::string words = in_words(Event(static_cast<Kind>(i)));
    EXPECT_THAT(words, Not(HasSubstr("{")));
    EXPECT_THAT(words, Not(HasSubstr("[")));
    EXPECT_FALSE(words.empty());
  }
}

}  // namespace
}  // namespace broker::audit
