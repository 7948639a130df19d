#include "broker/audit/json_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

namespace broker::audit {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr Time kWhen{std::chrono::microseconds{1'700'000'000'000'001}};

Line rendered(std::string_view comm, const Head& before = {}) {
  return render_line(
      Event(Kind::kVmmConnected).with(Key::kPid, std::uint64_t{812}).with(Key::kComm, comm), kWhen,
      before);
}

std::string read_back(std::string_view comm) {
  const Line line = rendered(comm);
  const auto parsed = parse_line(line.text);
  return parsed ? std::string(parsed->value("comm")) : "not read: " + parsed.error();
}

std::string refusal(std::string_view line) {
  const auto parsed = parse_line(line);
  return parsed ? "taken" : parsed.error();
}

TEST(AuditLine, IsAnObjectWithAllThatTheEventSays) {
  EXPECT_THAT(rendered("qemu").text,
              StartsWith(R"({"seq":1,"time":"2023-11-14T22:13:20.000001Z","event":"vmm-connected",)"
                         R"("result":"granted","pid":812,"comm":"qemu","prev":"0000000000)"));
}

TEST(AuditLine, IsReadBackWithItsPlaceInTheChain) {
  const Line first = rendered("qemu");
  const Line line = rendered("qemu", first.head);
  const auto parsed = parse_line(line.text);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->seq, 2U);
  EXPECT_EQ(parsed->prev, first.head.hash);
  EXPECT_EQ(parsed->head(), line.head);
  EXPECT_TRUE(parsed->hash_fits);
  EXPECT_EQ(parsed->value("pid"), "812");
}

TEST(AuditLine, KeepsQuotesAndBackslashesApart) {
  EXPECT_THAT(rendered(R"(a"b\c)").text, HasSubstr(R"("comm":"a\"b\\\\c")"));
  EXPECT_EQ(read_back(R"(a"b\c)"), R"(a"b\\c)");
}

TEST(AuditLine, CannotBeForgedByANewline) {
  const std::string text = rendered("x\"}\n{\"seq\":9").text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 0);
  EXPECT_EQ(read_back("x\n"), "x\\x0a");
}

TEST(AuditLine, WritesBytesThatAreNoTextAsTheirNumbers) {
  EXPECT_EQ(read_back("\xff\xc0\x80"), "\\xff\\xc0\\x80");
  EXPECT_EQ(read_back(std::string("\0\x1b[31m\x7f", 7)), "\\x00\\x1b[31m\\x7f");
  // U+202E, which turns what follows it, and U+2028, which ends a line.
  EXPECT_EQ(read_back("\xe2\x80\xae\xe2\x80\xa8"), "\\xe2\\x80\\xae\\xe2\\x80\\xa8");
}

TEST(AuditLine, TellsABackslashOfTheTextFromItsOwn) {
  EXPECT_NE(read_back("\\xff"), read_back("\xff"));
}

TEST(AuditLine, KeepsTextOfOtherScripts) { EXPECT_EQ(read_back("größe"), "größe"); }

TEST(AuditLine, ShowsThatAByteWasChanged) {
  std::string text = rendered("qemu").text;
  text.replace(text.find("qemu"), 4, "QEMU");
  const auto parsed = parse_line(text);
  ASSERT_TRUE(parsed);
  EXPECT_FALSE(parsed->hash_fits);
}

TEST(AuditLine, IsNotReadWhereItIsCutOff) {
  const std::string text = rendered("qemu").text;
  for (std::size_t length = 0; length < text.size(); ++length) {
    EXPECT_NE(refusal(std::string_view(text).substr(0, length)), "taken") << length;
  }
}

TEST(AuditLine, IsNotReadWhereSomethingFollowsIt) {
  EXPECT_EQ(refusal(rendered("qemu").text + " "), "goes on after its end");
}

TEST(AuditLine, IsNotReadWithAKeyTwice) {
  std::string text = rendered("qemu").text;
  text.replace(text.find("\"comm\""), 6, "\"pid\"");
  EXPECT_EQ(refusal(text), "has 'pid' twice");
}

TEST(AuditLine, IsNotReadWithoutHashes) {
  EXPECT_THAT(refusal(R"({"seq":1,"event":"x"})"), HasSubstr("no hashes"));
  EXPECT_THAT(refusal(R"({"seq":1,"prev":"00","hash":"00"})"), HasSubstr("no hashes"));
}

TEST(AuditLine, IsNotReadWithANumberThatIsNone) {
  EXPECT_THAT(refusal(R"({"seq":01})"), HasSubstr("begins no number"));
  EXPECT_THAT(refusal(R"({"seq":-1})"), HasSubstr("begins no number"));
  EXPECT_THAT(refusal(R"({"seq":99999999999999999999})"), HasSubstr("begins no number"));
}

TEST(AuditLine, IsNotReadWithAnImpossiblePlace) {
  const Line line = rendered("qemu", {kSeqMax, std::string(64, 'a')});
  EXPECT_THAT(refusal(line.text), HasSubstr("number is impossible"));
}

TEST(AuditLine, IsNotReadWhereItIsLongerThanAnyOfOurs) {
  EXPECT_EQ(refusal(std::string(kLineBytesMax + 1, '{')), "is longer than any event");
}

TEST(AuditLine, IsNotReadWithControlCharacters) {
  EXPECT_THAT(refusal("{\"seq\":1,\"comm\":\"a\tb\"}"), HasSubstr("control character"));
}

TEST(AuditLine, OfTheLongestPathIsReadBack) {
  const Line line = render_line(
      Event(Kind::kBackingOpened).with(Key::kPath, std::string(4095, '\xff')), kWhen, {});
  EXPECT_TRUE(parse_line(line.text));
}

}  // namespace
}  // namespace broker::audit
