// tests/unit/broker/session_peer_test.cpp: every message in every state of a queue, and every way
// in which a packet can have the wrong shape.
#include "broker/session_peer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "common/sys.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
using State = SessionPeer::QueueState;

constexpr std::uint32_t kQueues = 4;
constexpr std::uint32_t kQueue = 3;

// Notes what passes the table.
class Requests final : public SessionRequests {
 public:
  void open_queue(std::uint32_t queue) override { note("open", queue); }
  void queue_serving(std::uint32_t queue) override { note("serving", queue); }
  void close_queue(std::uint32_t queue) override { note("close", queue); }
  void swap_call(std::uint32_t queue, common::Fd eventfd, bool running) override {
    note(running ? "swap" : "swap without worker", queue);
    swapped_valid = eventfd.valid();
  }
  void session_event(const ipc::SessionEvent& event) override { note("event", event.code); }
  void make_inflight(std::uint64_t bytes) override {
    note("inflight", static_cast<std::uint32_t>(bytes));
  }
  void driver_features(std::uint64_t features) override { noted_features = features; }
  void host_mtu(std::uint32_t mtu) override { note("mtu", mtu); }
  void send_rarp(const std::array<std::uint8_t, 6>& mac) override { note("rarp", mac[5]); }

  std::vector<std::string> noted;
  bool swapped_valid = false;
  std::uint64_t noted_features = 0;

 private:
  void note(const std::string& what, std::uint32_t number) {
    noted.push_back(what + " " + std::to_string(number));
  }
};

// A packet with any bytes and any number of descriptors, over a real socket.
class Wire {
 public:
  ipc::Packet& carry(std::span<const std::byte> bytes, std::size_t fd_count) {
    const auto event = *common::make_eventfd();
    const std::vector<common::FdRef> fds(fd_count, event.ref());
    EXPECT_TRUE(ipc::send_bytes(ends_.first.ref(), bytes, fds, false));
    EXPECT_EQ(ipc::receive_packet(ends_.second.ref(), packet_, false), ipc::Arrival::kData);
    return packet_;
  }
  template <ipc::Message T>
  ipc::Packet& carry(const T& message, std::size_t fd_count = T::kFdsMin) {
    return carry(std::as_bytes(std::span(&message, 1)), fd_count);
  }

 private:
  std::pair<common::Fd, common::Fd> ends_ = *common::make_packet_pair();
  ipc::Packet packet_;
};

template <ipc::Message T>
T message_for(std::uint32_t queue) {
  T message{};
  message.kind = T::kKind;
  message.queue = queue;
  return message;
}

ipc::SessionStart session_start(std::uint32_t queues, bool call_swap) {
  ipc::SessionStart start{};
  start.queues_max = queues;
  start.call_swap_in_place = call_swap ? 1 : 0;
  return start;
}

// A network card's session may say more.
ipc::SessionStart net_session_start() {
  ipc::SessionStart start = session_start(kQueues, true);
  start.device_features = 0xff;
  start.wants_features = 1;
  start.protocol_features = 1U << 2 | 1U << 4;
  start.mtu_max = 1500;
  return start;
}

class SessionPeerTest : public testing::Test {
 protected:
  template <ipc::Message T>
  Verdict send(std::uint32_t queue = kQueue) {
    return peer_.on_packet(wire_.carry(message_for<T>(queue)));
  }
  Verdict send_bytes(std::span<const std::byte> bytes, std::size_t fds = 0) {
    return peer_.on_packet(wire_.carry(bytes, fds));
  }
  // By the shortest way of an honest session.
  void bring_queue_to(State state) {
    if (state == State::kClosed) return;
    ASSERT_EQ(send<ipc::OpenQueue>(), Verdict::kContinue);
    if (state == State::kServing) {
      ASSERT_EQ(send<ipc::QueueServing>(), Verdict::kContinue);
    }
    if (state == State::kClosing) {
      ASSERT_EQ(send<ipc::CloseQueue>(), Verdict::kContinue);
    }
    if (state == State::kEnded) peer_.queue_ended(kQueue);
    ASSERT_EQ(peer_.state(kQueue), state);
    requests_.noted.clear();
  }

  Requests requests_;
  Wire wire_;
  SessionPeer peer_{requests_, session_start(kQueues, true)};
};

// --- every message in every state
// -----------------------------------------------------------------

struct Case {
  State before;
  std::uint32_t kind;
  Verdict verdict;
  std::string asked_for;  // What of the broker; empty: nothing.
  State after;
};

void PrintTo(const Case& each, std::ostream* out) {
  *out << "state " << int{static_cast<std::uint8_t>(each.before)} << ", kind " << each.kind;
}

class SessionPeerTableTest : public SessionPeerTest, public testing::WithParamInterface<Case> {
 protected:
  Verdict send_kind(std::uint32_t kind) {
    switch (kind) {
      case ipc::OpenQueue::kKind:
        return send<ipc::OpenQueue>();
      case ipc::QueueServing::kKind:
        return send<ipc::QueueServing>();
      case ipc::CloseQueue::kKind:
        return send<ipc::CloseQueue>();
      default:
        return send<ipc::SwapCall>();
    }
  }
};

TEST_P(SessionPeerTableTest, DoesWhatTheTableSays) {
  bring_queue_to(GetParam().before);

  const Verdict verdict = send_kind(GetParam().kind);

  EXPECT_EQ(verdict, GetParam().verdict);
  EXPECT_EQ(peer_.state(kQueue), GetParam().after);
  const std::vector<std::string> expected(GetParam().asked_for.empty() ? 0 : 1,
                                          GetParam().asked_for + " 3");
  EXPECT_EQ(requests_.noted, expected);
}

constexpr Verdict kGo = Verdict::kContinue;
constexpr Verdict kHang = Verdict::kHangUp;
constexpr std::uint32_t kOpenKind = ipc::OpenQueue::kKind;
constexpr std::uint32_t kServingKind = ipc::QueueServing::kKind;
constexpr std::uint32_t kCloseKind = ipc::CloseQueue::kKind;
constexpr std::uint32_t kSwapKind = ipc::SwapCall::kKind;

INSTANTIATE_TEST_SUITE_P(
    Table, SessionPeerTableTest,
    testing::Values(Case{State::kClosed, kOpenKind, kGo, "open", State::kOpen},
                    Case{State::kOpen, kOpenKind, kHang, "", State::kOpen},
                    Case{State::kServing, kOpenKind, kHang, "", State::kServing},
                    Case{State::kClosing, kOpenKind, kHang, "", State::kClosing},
                    Case{State::kEnded, kOpenKind, kGo, "open", State::kOpen},

                    Case{State::kClosed, kServingKind, kHang, "", State::kClosed},
                    Case{State::kOpen, kServingKind, kGo, "serving", State::kServing},
                    Case{State::kServing, kServingKind, kHang, "", State::kServing},
                    Case{State::kClosing, kServingKind, kGo, "serving", State::kClosing},
                    Case{State::kEnded, kServingKind, kGo, "", State::kEnded},

                    Case{State::kClosed, kCloseKind, kHang, "", State::kClosed},
                    Case{State::kOpen, kCloseKind, kGo, "close", State::kClosing},
                    Case{State::kServing, kCloseKind, kGo, "close", State::kClosing},
                    Case{State::kClosing, kCloseKind, kHang, "", State::kClosing},
                    Case{State::kEnded, kCloseKind, kGo, "", State::kClosed},

                    Case{State::kClosed, kSwapKind, kHang, "", State::kClosed},
                    Case{State::kOpen, kSwapKind, kGo, "swap without worker", State::kOpen},
                    Case{State::kServing, kSwapKind, kGo, "swap", State::kServing},
                    Case{State::kClosing, kSwapKind, kGo, "swap without worker", State::kClosing},
                    Case{State::kEnded, kSwapKind, kGo, "swap without worker", State::kEnded}));

// --- shapes
// ---------------------------------------------------------------------------------------

// Each message with one byte less, one more, and the wrong numbers of descriptors.
struct Shape {
  std::uint32_t kind;
  std::size_t bytes;
  std::size_t fds;
};

void PrintTo(const Shape& shape, std::ostream* out) {
  *out << "kind " << shape.kind << ", " << shape.bytes << " bytes, " << shape.fds << " fds";
}

class SessionPeerShapeTest : public SessionPeerTest, public testing::WithParamInterface<Shape> {};

TEST_P(SessionPeerShapeTest, HangsUpOnWrongSizeOrDescriptors) {
  bring_queue_to(State::kServing);
  std::vector<std::byte> bytes(GetParam().bytes);
  std::memcpy(bytes.data(), &GetParam().kind, std::min(bytes.size(), sizeof(std::uint32_t)));

  EXPECT_EQ(send_bytes(bytes, GetParam().fds), Verdict::kHangUp);

  EXPECT_TRUE(requests_.noted.empty());
  EXPECT_FALSE(peer_.complaint().empty());
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, SessionPeerShapeTest,
    testing::Values(Shape{kOpenKind, 7, 0}, Shape{kOpenKind, 9, 0}, Shape{kOpenKind, 8, 1},
                    Shape{kOpenKind, 4, 0}, Shape{kServingKind, 7, 0}, Shape{kServingKind, 9, 0},
                    Shape{kServingKind, 8, 1}, Shape{kCloseKind, 7, 0}, Shape{kCloseKind, 9, 0},
                    Shape{kCloseKind, 8, 1}, Shape{kSwapKind, 7, 1}, Shape{kSwapKind, 9, 1},
                    Shape{kSwapKind, 8, 0}, Shape{kSwapKind, 8, 2},
                    Shape{ipc::SessionEvent::kKind, 31, 0}, Shape{ipc::SessionEvent::kKind, 33, 0},
                    Shape{ipc::SessionEvent::kKind, 32, 1}, Shape{ipc::MakeInflight::kKind, 15, 0},
                    Shape{ipc::MakeInflight::kKind, 17, 0}, Shape{ipc::MakeInflight::kKind, 16, 1},
                    Shape{kOpenKind, 3, 0}, Shape{kOpenKind, 1, 0}, Shape{kOpenKind, 2048, 0}));

// --- what the session may not say at all
// -----------------------------------------------------------

class SessionPeerKindTest : public SessionPeerTest,
                            public testing::WithParamInterface<std::uint32_t> {};

TEST_P(SessionPeerKindTest, HangsUpOnKindsThatAreNotTheSessions) {
  std::array<std::byte, 16> bytes{};
  std::memcpy(bytes.data(), &GetParam(), sizeof(std::uint32_t));

  EXPECT_EQ(send_bytes(bytes), Verdict::kHangUp);
}

// The broker's own messages sent back, workers' messages, and numbers that mean nothing.
INSTANTIATE_TEST_SUITE_P(Kinds, SessionPeerKindTest,
                         testing::Values(0U, 1U, ipc::SessionStart::kKind, ipc::QueueOpened::kKind,
                                         ipc::QueueEnded::kKind, ipc::CallSwapped::kKind,
                                         ipc::ConfigChanged::kKind, ipc::InflightMade::kKind,
                                         0x201U, 0x10bU, 0xffffffffU));

// --- single cases
// ---------------------------------------------------------------------------------

TEST_F(SessionPeerTest, HangsUpOnAQueueThatTheDeviceHasNot) {
  EXPECT_EQ(send<ipc::OpenQueue>(kQueues), Verdict::kHangUp);
  EXPECT_EQ(peer_.complaint(), "OpenQueue for queue 4 of 4");
}

TEST_F(SessionPeerTest, HangsUpOnTheLargestQueueNumber) {
  EXPECT_EQ(send<ipc::CloseQueue>(UINT32_MAX), Verdict::kHangUp);
}

TEST_F(SessionPeerTest, TakesEveryQueueOfTheDevice) {
  EXPECT_EQ(send<ipc::OpenQueue>(0), Verdict::kContinue);
  EXPECT_EQ(send<ipc::OpenQueue>(kQueues - 1), Verdict::kContinue);
  EXPECT_THAT(requests_.noted, testing::ElementsAre("open 0", "open 3"));
}

TEST_F(SessionPeerTest, HandsTheDescriptorOfASwapOn) {
  bring_queue_to(State::kServing);
  EXPECT_EQ(send<ipc::SwapCall>(), Verdict::kContinue);
  EXPECT_TRUE(requests_.swapped_valid);
}

TEST_F(SessionPeerTest, HangsUpOnASwapThatWasNotOffered) {
  SessionPeer peer(requests_, session_start(kQueues, false));
  ASSERT_EQ(peer.on_packet(wire_.carry(message_for<ipc::OpenQueue>(0))), Verdict::kContinue);
  EXPECT_EQ(peer.on_packet(wire_.carry(message_for<ipc::SwapCall>(0))), Verdict::kHangUp);
}

TEST_F(SessionPeerTest, TellsOnlyOfDriverFeaturesThatWereOffered) {
  SessionPeer peer(requests_, net_session_start());
  ipc::DriverFeatures message{};
  message.kind = ipc::DriverFeatures::kKind;
  message.features = 0x1'0000'000fULL;
  EXPECT_EQ(peer.on_packet(wire_.carry(message)), Verdict::kContinue);
  EXPECT_EQ(requests_.noted_features, 0xfU);
}

TEST_F(SessionPeerTest, KeepsTheMtuWithinWhatWasOffered) {
  SessionPeer peer(requests_, net_session_start());
  ipc::HostMtu message{};
  message.kind = ipc::HostMtu::kKind;
  for (const std::uint32_t mtu : {0U, 1400U, 9000U}) {
    message.mtu = mtu;
    EXPECT_EQ(peer.on_packet(wire_.carry(message)), Verdict::kContinue);
  }
  EXPECT_THAT(requests_.noted, testing::ElementsAre("mtu 68", "mtu 1400", "mtu 1500"));
}

TEST_F(SessionPeerTest, PassesTheAddressOfASendRarpOn) {
  SessionPeer peer(requests_, net_session_start());
  ipc::SendRarp message{};
  message.kind = ipc::SendRarp::kKind;
  message.mac = {2, 0, 0, 0, 0, 7};
  EXPECT_EQ(peer.on_packet(wire_.carry(message)), Verdict::kContinue);
  EXPECT_THAT(requests_.noted, testing::ElementsAre("rarp 7"));
}

TEST_F(SessionPeerTest, HangsUpOnWhatOnlyANetworkCardsSessionMaySay) {
  ipc::HostMtu mtu{};
  mtu.kind = ipc::HostMtu::kKind;
  EXPECT_EQ(peer_.on_packet(wire_.carry(mtu)), Verdict::kHangUp);
  ipc::SendRarp rarp{};
  rarp.kind = ipc::SendRarp::kKind;
  EXPECT_EQ(peer_.on_packet(wire_.carry(rarp)), Verdict::kHangUp);
}

TEST_F(SessionPeerTest, PassesAnyEventCodeOn) {
  ipc::SessionEvent event{};
  event.kind = ipc::SessionEvent::kKind;
  event.code = 0xdeadbeef;
  EXPECT_EQ(peer_.on_packet(wire_.carry(event)), Verdict::kContinue);
  EXPECT_THAT(requests_.noted, testing::ElementsAre("event 3735928559"));
}

TEST_F(SessionPeerTest, ForgivesOneCloseThatCrossedTheEndAndNoSecondOne) {
  bring_queue_to(State::kServing);
  peer_.queue_ended(kQueue);
  EXPECT_EQ(send<ipc::CloseQueue>(), Verdict::kContinue);
  EXPECT_EQ(send<ipc::CloseQueue>(), Verdict::kHangUp);
}

TEST_F(SessionPeerTest, ClosedQueueIsKnownToBeClosedOnceItHasEnded) {
  bring_queue_to(State::kClosing);
  peer_.queue_ended(kQueue);
  EXPECT_EQ(peer_.state(kQueue), State::kClosed);
}

TEST_F(SessionPeerTest, OneQueueDoesNotChangeAnother) {
  bring_queue_to(State::kServing);
  ASSERT_EQ(send<ipc::OpenQueue>(1), Verdict::kContinue);
  EXPECT_EQ(peer_.state(kQueue), State::kServing);
  EXPECT_EQ(peer_.state(0), State::kClosed);
}

}  // namespace
}  // namespace broker
