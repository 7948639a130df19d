// What a guest may ask for with a header, and what happens to one that lies.
#include "worker/net_header.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace {

namespace net = common::net;
using common::Le16;
using net::Gso;
using worker::HeaderRules;
using worker::HeaderVerdict;

constexpr std::uint64_t kAllHost = net::kFeatureCsum | net::kFeatureHostTso4 |
                                   net::kFeatureHostTso6 | net::kFeatureHostEcn |
                                   net::kFeatureHostUfo | net::kFeatureHostUso;

net::WireHeader with_csum(std::uint16_t start, std::uint16_t offset) {
  net::WireHeader header{};
  header.flags = net::kHeaderNeedsCsum;
  header.csum_start = Le16(start);
  header.csum_offset = Le16(offset);
  return header;
}

net::WireHeader with_gso(std::uint8_t type, std::uint16_t size = 1448) {
  net::WireHeader header = with_csum(34, 16);
  header.gso_type = type;
  header.gso_size = Le16(size);
  header.hdr_len = Le16(54);
  return header;
}

HeaderVerdict check(net::WireHeader header, std::uint32_t bytes, std::uint64_t features = kAllHost,
                    std::uint32_t mtu = 0) {
  return HeaderRules(features, mtu).check(header, bytes);
}

TEST(NetHeader, TakesAPlainPacketOfEveryLengthThereIs) {
  EXPECT_EQ(check({}, 14), HeaderVerdict::kGood);
  EXPECT_EQ(check({}, 1514), HeaderVerdict::kGood);
  EXPECT_EQ(check({}, 65554), HeaderVerdict::kGood);
}

TEST(NetHeader, RefusesWhatIsShorterThanAnEthernetHeader) {
  EXPECT_EQ(check({}, 0), HeaderVerdict::kBadLength);
  EXPECT_EQ(check({}, 13), HeaderVerdict::kBadLength);
}

TEST(NetHeader, RefusesMoreThanAPacketCanHave) {
  EXPECT_EQ(check({}, 65555), HeaderVerdict::kBadLength);
  EXPECT_EQ(check(with_gso(1), 65555), HeaderVerdict::kBadLength);
  EXPECT_EQ(check({}, UINT32_MAX), HeaderVerdict::kBadLength);
}

TEST(NetHeader, HoldsAGuestToTheMtuItWasGiven) {
  constexpr std::uint64_t kMtu = kAllHost | net::kFeatureMtu;
  EXPECT_EQ(check({}, 1500 + 18, kMtu, 1500), HeaderVerdict::kGood);
  EXPECT_EQ(check({}, 1500 + 19, kMtu, 1500), HeaderVerdict::kBadLength);
  EXPECT_EQ(check(with_gso(1), 60000, kMtu, 1500), HeaderVerdict::kGood);
}

TEST(NetHeader, DoesNotHoldAGuestToAnMtuItDoesNotKnow) {
  EXPECT_EQ(check({}, 9000, kAllHost, 1500), HeaderVerdict::kGood);
}

TEST(NetHeader, RefusesAChecksumThatWasNotNegotiated) {
  EXPECT_EQ(check(with_csum(34, 16), 100, 0), HeaderVerdict::kBadHeader);
}

TEST(NetHeader, RefusesAChecksumBehindThePacket) {
  EXPECT_EQ(check(with_csum(34, 16), 52), HeaderVerdict::kGood);
  EXPECT_EQ(check(with_csum(34, 16), 51), HeaderVerdict::kBadHeader);
  EXPECT_EQ(check(with_csum(0xffff, 0xffff), 65000), HeaderVerdict::kBadHeader);
}

TEST(NetHeader, TakesEachKindOfSegmentationThatWasNegotiated) {
  for (const std::uint8_t type : std::to_array<std::uint8_t>({1, 3, 4, 5, 0x81, 0x84})) {
    EXPECT_EQ(check(with_gso(type), 3000), HeaderVerdict::kGood) << int{type};
  }
}

TEST(NetHeader, RefusesEachKindOfSegmentationThatWasNot) {
  for (const std::uint8_t type : std::to_array<std::uint8_t>({1, 3, 4, 5})) {
    EXPECT_EQ(check(with_gso(type), 3000, net::kFeatureCsum | net::kFeatureHostEcn),
              HeaderVerdict::kBadHeader)
        << int{type};
  }
  EXPECT_EQ(check(with_gso(0x81), 3000, kAllHost & ~net::kFeatureHostEcn),
            HeaderVerdict::kBadHeader);
}

TEST(NetHeader, RefusesKindsOfSegmentationThatDoNotExist) {
  for (const std::uint8_t type : std::to_array<std::uint8_t>({2, 6, 7, 0x40, 0x7f, 0xff})) {
    EXPECT_EQ(check(with_gso(type), 3000), HeaderVerdict::kBadHeader) << int{type};
  }
}

TEST(NetHeader, RefusesPiecesOfNoBytes) {
  EXPECT_EQ(check(with_gso(1, 0), 3000), HeaderVerdict::kBadHeader);
}

TEST(NetHeader, PassesOnWhatWasChecked) {
  net::WireHeader header = with_gso(1);
  const net::WireHeader before = header;
  ASSERT_EQ(HeaderRules(kAllHost, 0).check(header, 3000), HeaderVerdict::kGood);
  EXPECT_EQ(std::memcmp(&header, &before, sizeof(header)), 0);
}

TEST(NetHeader, PassesOnNothingThatHasNoMeaning) {
  net::WireHeader header{0xfe, 0x80, Le16(1), Le16(2), Le16(3), Le16(4), Le16(5)};
  ASSERT_EQ(HeaderRules(kAllHost, 0).check(header, 100), HeaderVerdict::kGood);
  const net::WireHeader nothing{};
  EXPECT_EQ(std::memcmp(&header, &nothing, sizeof(header)), 0);
}

TEST(NetHeader, BringsAHeaderLengthBackIntoThePacket) {
  net::WireHeader header = with_gso(1);
  header.hdr_len = Le16(60000);
  ASSERT_EQ(HeaderRules(kAllHost, 0).check(header, 100), HeaderVerdict::kGood);
  EXPECT_EQ(header.hdr_len.get(), 100);
}

}  // namespace
