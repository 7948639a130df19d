#include "broker/audit/event.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace broker::audit {
namespace {

using ::testing::EndsWith;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<std::string_view> keys_in(std::string_view sentence) {
  std::vector<std::string_view> keys;
  for (std::size_t at = sentence.find('{'); at != std::string_view::npos;
       at = sentence.find('{', at + 1)) {
    keys.push_back(sentence.substr(at + 1, sentence.find('}', at) - at - 1));
  }
  return keys;
}

TEST(AuditEvent, HasANameForEachKindAndIsFoundByIt) {
  std::set<std::string_view> names;
  for (std::size_t i = 0; i < kKindCount; ++i) {
    const auto kind = static_cast<Kind>(i);
    names.insert(name_of(kind));
    EXPECT_EQ(kind_named(name_of(kind)), kind);
  }
  EXPECT_THAT(names, SizeIs(kKindCount));
  EXPECT_EQ(kind_named("vmm-teleported"), std::nullopt);
}

TEST(AuditEvent, HasSentencesThatNameOnlyKeysThereAre) {
  std::set<std::string_view> known;
  for (std::size_t i = 0; i < kKeyCount; ++i) known.insert(name_of(static_cast<Key>(i)));
  EXPECT_THAT(known, SizeIs(kKeyCount));
  for (std::size_t i = 0; i < kKindCount; ++i) {
    for (const std::string_view key : keys_in(sentence_of(static_cast<Kind>(i)))) {
      EXPECT_TRUE(known.contains(key)) << key << " of " << name_of(static_cast<Kind>(i));
    }
  }
}

TEST(AuditEvent, BoundsOnlyWhatPeersCanCause) {
  EXPECT_TRUE(by_peer(Kind::kVmmRefused));
  EXPECT_TRUE(by_peer(Kind::kWorkerEnded));
  EXPECT_FALSE(by_peer(Kind::kDeviceAdded));
  EXPECT_FALSE(by_peer(Kind::kOperatorRequest));
  EXPECT_FALSE(by_peer(Kind::kEventsDropped));
}

TEST(AuditEvent, CutsATextThatIsTooLongAndShowsIt) {
  const auto event = Event(Kind::kVmmRefused).with(Key::kCause, std::string(5000, 'x'));
  EXPECT_THAT(event.value(Key::kCause), SizeIs(kTextBytesMax));
  EXPECT_THAT(std::string(event.value(Key::kCause)), EndsWith("x..."));
}

TEST(AuditEvent, KeepsAPathWhole) {
  const std::string path = "/" + std::string(4094, 'p');
  EXPECT_EQ(Event(Kind::kBackingOpened).with(Key::kPath, path).value(Key::kPath), path);
}

TEST(AuditEvent, LeavesOutWhatSaysNothing) {
  const auto event = Event(Kind::kVmmRefused).with(Key::kLabel, "");
  EXPECT_THAT(event.fields(), IsEmpty());
}

TEST(AuditEvent, PutsItsSubjectFirst) {
  const auto event = about({.device = "vda", .type = "blk", .vm = "", .uuid = "", .tenant = "blue"},
                           Event(Kind::kDeviceRemoved).with(Key::kCause, "why"));
  ASSERT_THAT(event.fields(), SizeIs(4));
  EXPECT_EQ(event.fields()[0].text, "vda");
  EXPECT_EQ(event.fields()[2].text, "blue");
  EXPECT_EQ(event.fields()[3].text, "why");
}

TEST(AuditEvent, WritesADeviceAsItsTwoNumbers) {
  EXPECT_EQ(device_number_text(::gnu_dev_makedev(8, 17)), "8:17");
}

}  // namespace
}  // namespace broker::audit
