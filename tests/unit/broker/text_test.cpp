#include "broker/text.h"

#include <gtest/gtest.h>

#include <array>

namespace broker {
namespace {

TEST(Text, LeavesOrdinaryTextAlone) {
  EXPECT_EQ(clean_text("/var/lib/images/vda.img é 日本"), "/var/lib/images/vda.img é 日本");
}

TEST(Text, EscapesControlCharacters) {
  EXPECT_EQ(clean_text("a\nb\x1b[31m\x7f"), "a\\x0ab\\x1b[31m\\x7f");
}

TEST(Text, EscapesC1ControlsInUtf8) { EXPECT_EQ(clean_text("\xc2\x9b"), "\\xc2\\x9b"); }

TEST(Text, EscapesBytesThatAreNoUtf8) {
  EXPECT_EQ(clean_text("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(clean_text("\xe2\x28\xa1"), "\\xe2(\\xa1");
}

TEST(Text, EscapesOverlongFormsAndSurrogates) {
  EXPECT_EQ(clean_text("\xc0\x8a"), "\\xc0\\x8a");
  EXPECT_EQ(clean_text("\xe0\x80\x8a"), "\\xe0\\x80\\x8a");
  EXPECT_EQ(clean_text("\xed\xa0\x80"), "\\xed\\xa0\\x80");
}

TEST(Text, EscapesWhatTurnsOrBreaksLines) {
  EXPECT_EQ(clean_text("\u202e"), "\\xe2\\x80\\xae");
  EXPECT_EQ(clean_text("\u2028"), "\\xe2\\x80\\xa8");
}

TEST(Text, QuotesAtMostTwoHundredBytes) {
  EXPECT_EQ(in_quotes("x"), "'x'");
  EXPECT_EQ(in_quotes(std::string(201, 'x')), "'" + std::string(200, 'x') + "…'");
}

TEST(Text, CountsASwapOfNeighboursAsOneEdit) {
  EXPECT_EQ(edit_distance("ab", "ba"), 1u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(Text, SuggestsTheNearestWordOnlyWhenItIsNear) {
  constexpr std::array<std::string_view, 2> kWords = {"queue-size", "serial"};
  EXPECT_EQ(nearest("queue-sizes", kWords), "queue-size");
  EXPECT_EQ(nearest("banana", kWords), "");
}

TEST(Text, JoinsWordsWithOrBeforeTheLast) {
  constexpr std::array<std::string_view, 3> kWords = {"a", "b", "c"};
  EXPECT_EQ(join_or(kWords), "a, b or c");
}

}  // namespace
}  // namespace broker
