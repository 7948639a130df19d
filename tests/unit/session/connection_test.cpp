// The stream: messages that come in pieces, never end, come in floods, in any order, or are not
// served at all.
#include <fcntl.h>

#include <array>
#include <random>
#include <vector>

#include "broker/session/vhost_table.h"
#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

using Connection = SessionTest;
using session::Refusal;

std::vector<std::byte> message_bytes(std::uint32_t request, std::uint32_t flags,
                                     std::span<const std::byte> payload) {
  const fakes::VhostHeader header{request, flags, static_cast<std::uint32_t>(payload.size())};
  std::vector<std::byte> bytes(sizeof(header) + payload.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  if (!payload.empty()) std::memcpy(bytes.data() + sizeof(header), payload.data(), payload.size());
  return bytes;
}

TEST_F(Connection, MessageMayComeByteByByteWithItsDescriptorOnTheFirst) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr(addresses(0));
  fe().set_vring_enable(0, true);
  const std::uint64_t index = 0;
  const auto bytes = message_bytes(12, 0x9, fakes::bytes_of(index));
  const std::array<common::FdRef, 1> fds = {kick_.ref()};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_TRUE(
        fe().send_bytes(std::span(bytes).subspan(i, 1), i == 0 ? std::span<const common::FdRef>(fds)
                                                               : std::span<const common::FdRef>{}));
  }
  const auto reply = fe().receive();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->u64(), 0U);
  EXPECT_TRUE(same_file(broker().start_of(0).kick.ref(), kick_.ref()));
}

TEST_F(Connection, SeveralMessagesMayComeInOnePiece) {
  launch();
  auto bytes = message_bytes(3, 1, {});
  const auto next = message_bytes(1, 1, {});
  bytes.insert(bytes.end(), next.begin(), next.end());
  bytes.insert(bytes.end(), next.begin(), next.end());
  ASSERT_TRUE(fe().send_bytes(bytes));
  EXPECT_EQ(fe().receive()->u64(), kOffered);
  EXPECT_EQ(fe().receive()->u64(), kOffered);
}

TEST_F(Connection, BrokerIsServedWhileAMessageIsIncomplete) {
  start_device();
  const auto bytes = message_bytes(2, 1, std::vector<std::byte>(8));
  ASSERT_TRUE(fe().send_bytes(std::span(bytes).first(7)));
  broker().end_queue(0, QueueOutcome::kGaveUp);
  (void)broker().wait_event(EventCode::kQueueDied);
}

TEST_F(Connection, BrokerIsServedWhileTheFrontEndDoesNotReadItsAnswers) {
  start_device();
  const auto bytes = message_bytes(1, 1, {});
  const int number = fe().socket().number;
  while (::send(number, bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
  }
  broker().end_queue(0, QueueOutcome::kGaveUp);
  (void)broker().wait_event(EventCode::kQueueDied);
}

// Every message there is, cut off after every one of its bytes.
class CutOff : public SessionTest, public ::testing::WithParamInterface<std::uint32_t> {};

TEST_P(CutOff, MessageEndsTheSessionWherever) {
  const session::Row* const row = session::find_row(GetParam());
  ASSERT_NE(row, nullptr);
  const std::vector<std::byte> payload(row->payload_bytes.min);
  const auto bytes = message_bytes(GetParam(), 1, payload);
  const std::vector<common::FdRef> fds(row->fds.min, kick_.ref());
  for (std::size_t length = 1; length < bytes.size(); ++length) {
    launch();
    ASSERT_TRUE(fe().send_bytes(std::span(bytes).first(length), fds));
    ASSERT_EQ(end(), SessionExit::kViolation);
    const Event event = broker().wait_event(EventCode::kClosedMidMessage);
    EXPECT_EQ(event.numbers[1], length);
  }
}
INSTANTIATE_TEST_SUITE_P(EveryRequest, CutOff, ::testing::Range(1U, 45U));

// Every request, one byte longer than it may be.
class WrongSize : public SessionTest, public ::testing::WithParamInterface<std::uint32_t> {};

TEST_P(WrongSize, PayloadIsAViolation) {
  const session::Row* const row = session::find_row(GetParam());
  ASSERT_NE(row, nullptr);
  const std::vector<common::FdRef> fds(row->fds.min, kick_.ref());
  launch();
  ASSERT_TRUE(fe().send_raw({GetParam(), 1, row->payload_bytes.max + 1}, {}, fds));
  EXPECT_EQ(expect_violation(EventCode::kPayloadSize).numbers[0], GetParam());
}
INSTANTIATE_TEST_SUITE_P(EveryRequest, WrongSize, ::testing::Range(1U, 45U));

// What is not offered: each request is refused in the words of its own reply, or by its ack.
class NotServed : public SessionTest, public ::testing::WithParamInterface<std::uint32_t> {};

TEST_P(NotServed, RequestIsRefusedAndTheSessionGoesOn) {
  const session::Row* const row = session::find_row(GetParam());
  ASSERT_NE(row, nullptr);
  ASSERT_TRUE(row->handler == nullptr || (row->needs & ~kAllProtocol) != 0);
  launch();
  negotiate();
  const std::vector<std::byte> payload(row->payload_bytes.min);
  ASSERT_TRUE(
      fe().send_raw({GetParam(), 0x9, static_cast<std::uint32_t>(payload.size())}, payload));
  const auto reply = fe().receive();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->header.request, GetParam());
  EXPECT_EQ(reply->header.flags, 0x5U);
  if (row->refusal == Refusal::kByAck) {
    EXPECT_NE(reply->u64(), 0U);
  }
  EXPECT_EQ(broker().wait_event(EventCode::kRefusedRequest).numbers[0], GetParam());
  EXPECT_EQ(fe().get_features(), kOffered);
}
INSTANTIATE_TEST_SUITE_P(ByNumber, NotServed,
                         ::testing::Values(19U, 20U, 22U, 23U, 26U, 27U, 28U, 29U, 30U, 33U, 35U,
                                           41U, 44U));

TEST_F(Connection, RequestThatIsNotServedAndAsksForNoAckEndsTheSession) {
  launch();
  negotiate();
  ASSERT_TRUE(fe().send_raw({19, 0x1, 8}, std::vector<std::byte>(8)));
  EXPECT_EQ(expect_violation(EventCode::kNotNegotiated).numbers[0], 19U);
}

TEST_F(Connection, GetConfigWithoutConfigIsRefusedByAnEmptyReply) {
  launch();
  const std::array<std::uint32_t, 4> payload = {0, 4, 0, 0};
  EXPECT_TRUE(fe().ask(VhostRequest::kGetConfig, fakes::bytes_of(payload)).payload.empty());
}

TEST_F(Connection, FloodOfDescriptorsLeavesNoneBehind) {
  launch();
  negotiate();
  const std::array<common::FdRef, 1> stray = {kick_.ref()};
  const fakes::VmRegion other{1ULL << 40, 0x1000, 1ULL << 40, 0};
  const auto round = [&] {
    kick(1, kick_.ref());
    call(1, call_.ref());
    err(1, call_.ref());
    fe().set_mem_table(memory_);
    fe().add_mem_reg(other, memory_.file(0));
    // Stray ones, beside NOFD and with REM_MEM_REG, are to be closed.
    fe().request(VhostRequest::kRemMemReg, fakes::mem_reg_payload(other), stray);
    const std::uint64_t no_fd = 3 | fakes::kVhostNoFd;
    fe().request(VhostRequest::kSetVringCall, fakes::bytes_of(no_fd), stray);
    // Looked at, and closed.
    (void)fe().request_for_ack(VhostRequest::kSetLogFd, {}, stray);
    auto channel = socket_pair(SOCK_STREAM);
    const std::array<common::FdRef, 1> fds = {channel.second.ref()};
    fe().request(VhostRequest::kSetBackendReqFd, {}, fds);
  };
  round();
  fe().barrier();
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 300; ++i) round();
  fe().barrier();
  EXPECT_EQ(open_descriptors(), before);
  (void)fe().get_vring_base(1);
  EXPECT_EQ(open_descriptors(), before - 2);  // Kick and call.
}

TEST_F(Connection, WorkersReplacedByTheHundredLeaveNoDescriptorBehind) {
  start_device();
  const auto replace = [this] {
    kick(0, kick_.ref());
    broker().forget_starts();
  };
  replace();
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 200; ++i) replace();
  EXPECT_EQ(open_descriptors(), before);
}

// Any order of well-formed messages: the session answers or ends with a violation, and never has
// two workers for one queue.
class AnyOrder : public SessionTest, public ::testing::WithParamInterface<unsigned> {
 protected:
  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(random_() % limit); }
  template <typename T>
  void carry(const T& value) {
    const auto bytes = fakes::bytes_of(value);
    payload_.assign(bytes.begin(), bytes.end());
  }
  void make_ring_message(std::uint32_t request) {
    const std::uint32_t queue = below(3);
    if (request == 8) carry(fakes::VringState{queue, 1U << below(11)});
    if (request == 9) carry(addresses(queue));
    if (request == 10 || request == 11) carry(fakes::VringState{queue, below(0x10000)});
    if (request == 18) carry(fakes::VringState{queue, below(4) == 0 ? 0U : 1U});
    if (request >= 12 && request <= 14) {
      carry(std::uint64_t{queue} | (below(4) == 0 ? fakes::kVhostNoFd : 0));
      fds_.push_back(request == 12 ? kick_.ref() : call_.ref());
    }
  }
  void make_device_message(std::uint32_t request) {
    const fakes::VmRegion other{1ULL << 40, 0x1000, 1ULL << 40, 0};
    if (request == 2) carry(kBlkFeatures | (below(2) == 0 ? kBit30 : 0));
    if (request == 5) payload_ = fakes::mem_table_payload(memory_.regions());
    if (request == 5) fds_ = memory_.files();
    if (request == 24 || request == 25) {
      carry(std::array<std::uint32_t, 4>{below(300), 4, 0, below(2)});
    }
    if (request == 37 || request == 38) payload_ = fakes::mem_reg_payload(other);
    if (request == 37) fds_.push_back(memory_.file(0));
    if (request == 39) carry(std::uint64_t{below(16)});
  }
  // False once the session has ended.
  bool send_one() {
    constexpr std::array<std::uint32_t, 22> kRequests = {
        2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 17, 18, 18, 24, 25, 34, 36, 37, 38, 39, 40};
    const std::uint32_t request = kRequests[below(kRequests.size())];
    payload_.clear();
    fds_.clear();
    make_ring_message(request);
    make_device_message(request);
    const auto size = static_cast<std::uint32_t>(payload_.size());
    return fe().send_raw({request, 0x9, size}, payload_, fds_) && fe().receive().has_value();
  }

 private:
  std::mt19937 random_{GetParam()};
  std::vector<std::byte> payload_;
  std::vector<common::FdRef> fds_;
};

TEST_P(AnyOrder, OfMessagesIsServedOrRefused) {
  launch();
  fe().set_protocol_features(kAllProtocol);
  fe().set_features(kBlkFeatures | (below(2) == 0 ? kBit30 : 0));
  for (int i = 0; i < 200 && send_one(); ++i) {
  }
  const SessionExit exit = end();
  EXPECT_TRUE(exit == SessionExit::kPeerClosed || exit == SessionExit::kViolation);
  broker().wait_closed();
  for (const std::string& line : broker().take_log()) {
    EXPECT_EQ(line.find("second"), std::string::npos) << line;
  }
  EXPECT_LE(broker().events(), 66U);
}
INSTANTIATE_TEST_SUITE_P(FixedSeeds, AnyOrder, ::testing::Range(0U, 60U));

}  // namespace
}  // namespace session_test
