#include "common/ipc/channel.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "common/ipc/session_broker.h"
#include "common/ipc/worker_messages.h"
#include "common/sys.h"

namespace common::ipc {
namespace {

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* const directory = ::opendir("/proc/self/fd");
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}

class Channel : public testing::Test {
 protected:
  void SetUp() override {
    auto pair = make_packet_pair();
    ASSERT_TRUE(pair);
    ours_ = std::move(pair->first);
    theirs_ = std::move(pair->second);
    auto event = make_eventfd();
    ASSERT_TRUE(event);
    event_ = std::move(*event);
  }
  // What a peer without our library could send.
  void send_raw(const void* bytes, std::size_t size, std::size_t fds) {
    const std::vector<FdRef> refs(fds, event_.ref());
    const auto* const first = static_cast<const std::byte*>(bytes);
    ASSERT_TRUE(send_bytes(theirs_.ref(), {first, size}, refs, true));
  }
  [[nodiscard]] Arrival arrive(bool wait = false) {
    const auto arrival = receive_packet(ours_.ref(), packet_, wait);
    EXPECT_TRUE(arrival);
    return arrival.value_or(Arrival::kNothing);
  }
  Fd ours_;
  Fd theirs_;
  Fd event_;
  Packet packet_;
};

TEST_F(Channel, CarriesAMessage) {
  OpenQueue sent{};
  sent.kind = OpenQueue::kKind;
  sent.queue = 5;
  ASSERT_TRUE(send(theirs_.ref(), sent));
  ASSERT_EQ(arrive(), Arrival::kData);
  const auto got = packet_.as<OpenQueue>();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->queue, 5U);
}

TEST_F(Channel, CarriesDescriptors) {
  QueueOpened sent{};
  sent.kind = QueueOpened::kKind;
  const FdRef fds[] = {event_.ref()};
  ASSERT_TRUE(send(theirs_.ref(), sent, fds));
  ASSERT_EQ(arrive(), Arrival::kData);
  ASSERT_TRUE(packet_.as<QueueOpened>());
  const Fd got = packet_.fds.take(0);
  struct stat one {};
  struct stat other {};
  ASSERT_EQ(::fstat(got.ref().number, &one), 0);
  ASSERT_EQ(::fstat(event_.ref().number, &other), 0);
  EXPECT_EQ(one.st_ino, other.st_ino);
  EXPECT_NE(::fcntl(got.ref().number, F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(Channel, SaysThatNothingIsThere) { EXPECT_EQ(arrive(), Arrival::kNothing); }

TEST_F(Channel, SaysThatTheOtherSideIsGone) {
  theirs_.reset();
  EXPECT_EQ(arrive(), Arrival::kClosed);
}

TEST_F(Channel, WaitsForAMessage) {
  std::jthread later([this] {
    OpenQueue sent{};
    sent.kind = OpenQueue::kKind;
    EXPECT_TRUE(send(theirs_.ref(), sent));
  });
  EXPECT_EQ(arrive(true), Arrival::kData);
}

TEST_F(Channel, RefusesAMessageOfAnotherKind) {
  CloseQueue sent{};
  sent.kind = CloseQueue::kKind;
  ASSERT_TRUE(send(theirs_.ref(), sent));
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_FALSE(packet_.as<OpenQueue>());
  EXPECT_EQ(packet_.kind(), CloseQueue::kKind);
}

TEST_F(Channel, RefusesAMessageThatIsTooShort) {
  const std::uint32_t kind = OpenQueue::kKind;
  send_raw(&kind, sizeof(kind), 0);
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_FALSE(packet_.as<OpenQueue>());
}

TEST_F(Channel, RefusesAMessageThatIsTooLong) {
  const std::array<std::uint32_t, 3> words = {OpenQueue::kKind, 0, 0};
  send_raw(words.data(), sizeof(words), 0);
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_FALSE(packet_.as<OpenQueue>());
}

TEST_F(Channel, HasNoKindForLessThanAKind) {
  send_raw("abc", 3, 0);
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_EQ(packet_.kind(), 0U);
}

TEST_F(Channel, RefusesDescriptorsThatAMessageMayNotHave) {
  const std::array<std::uint32_t, 2> words = {OpenQueue::kKind, 0};
  send_raw(words.data(), sizeof(words), 1);
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_FALSE(packet_.as<OpenQueue>());
}

TEST_F(Channel, RefusesAMessageWithoutTheDescriptorItNeeds) {
  const std::array<std::uint32_t, 2> words = {QueueOpened::kKind, 0};
  send_raw(words.data(), sizeof(words), 0);
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_FALSE(packet_.as<QueueOpened>());
}

TEST_F(Channel, CallsAPacketLargerThanAnyMessageTruncated) {
  const std::vector<std::byte> large(kMessageBytesMax + 1);
  send_raw(large.data(), large.size(), 0);
  EXPECT_EQ(arrive(), Arrival::kTruncated);
}

TEST_F(Channel, LeavesTheDescriptorsOfATruncatedPacketToItsOwner) {
  const std::size_t before = open_descriptors();
  const std::vector<std::byte> large(kMessageBytesMax + 1);
  send_raw(large.data(), large.size(), 3);
  EXPECT_EQ(arrive(), Arrival::kTruncated);
  EXPECT_EQ(packet_.fds.size(), 3U);
  packet_.fds.clear();
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(Channel, TakesAsManyDescriptorsAsItHasRoomFor) {
  send_raw("x", 1, kFdListMax);
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_EQ(packet_.fds.size(), kFdListMax);
}

// sendmsg() by hand: our own send_bytes() refuses to.
TEST_F(Channel, CallsMoreDescriptorsThanAnyMessageMayHaveTruncatedAndTakesNoMore) {
  constexpr std::size_t kFlood = 200;
  const std::size_t before = open_descriptors();
  std::vector<std::byte> control(CMSG_SPACE(kFlood * sizeof(int)));
  std::byte byte{};
  iovec part{&byte, 1};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  cmsghdr* const first = CMSG_FIRSTHDR(&header);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(kFlood * sizeof(int));
  const std::vector<int> numbers(kFlood, event_.ref().number);
  std::memcpy(CMSG_DATA(first), numbers.data(), kFlood * sizeof(int));
  ASSERT_EQ(::sendmsg(theirs_.ref().number, &header, 0), 1);

  EXPECT_EQ(arrive(), Arrival::kTruncated);
  EXPECT_EQ(open_descriptors(), before + kFdListMax);
  packet_.fds.clear();
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(Channel, ClosesDescriptorsThatNobodyTook) {
  const std::size_t before = open_descriptors();
  send_raw("x", 1, 4);
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_EQ(open_descriptors(), before + 4);
  const Fd taken = packet_.fds.take(2);
  packet_.fds.clear();
  EXPECT_EQ(open_descriptors(), before + 1);
}

TEST_F(Channel, ClosesTheDescriptorsOfThePreviousPacket) {
  const std::size_t before = open_descriptors();
  send_raw("x", 1, 4);
  send_raw("y", 1, 0);
  ASSERT_EQ(arrive(), Arrival::kData);
  ASSERT_EQ(arrive(), Arrival::kData);
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(Channel, SaysThatTheOtherSidesBufferIsFullInsteadOfWaiting) {
  const std::vector<std::byte> bytes(1024);
  Result<void> sent{};
  while (sent) sent = send_bytes(theirs_.ref(), bytes, {}, false);
  EXPECT_EQ(sent.error().os_errno, EAGAIN);
}

TEST_F(Channel, FailsWithoutASignalWhereTheOtherSideIsGone) {
  ours_.reset();
  const auto sent = send_bytes(theirs_.ref(), std::as_bytes(std::span("x", 1)), {}, true);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().os_errno, EPIPE);
}

TEST_F(Channel, ReportsASocketThatIsNone) {
  const auto arrival = receive_packet(event_.ref(), packet_, false);
  ASSERT_FALSE(arrival);
  EXPECT_EQ(arrival.error().os_errno, ENOTSOCK);
}

using ChannelDeathTest = Channel;

TEST_F(ChannelDeathTest, TrapsOnADescriptorThatDidNotCome) {
  EXPECT_DEATH((void)packet_.fds.take(0), "");
  EXPECT_DEATH((void)packet_.fds.at(0), "");
}

// On a stream: the vhost-user socket.
class Stream : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2] = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    ours_ = Fd(ends[0]);
    theirs_ = Fd(ends[1]);
  }
  Fd ours_;
  Fd theirs_;
};

TEST_F(Stream, FinishesAMessageThatTheBufferCannotHoldAtOnce) {
  const std::vector<std::byte> sent(4 << 20, std::byte{7});
  std::jthread sender([&] { EXPECT_TRUE(send_bytes(theirs_.ref(), sent, {}, false)); });
  std::size_t got = 0;
  FdList fds;
  std::vector<std::byte> buffer(65536);
  while (got < sent.size()) {
    const auto received = receive(ours_.ref(), buffer, fds, true);
    ASSERT_TRUE(received);
    ASSERT_EQ(received->arrival, Arrival::kData);
    got += received->bytes;
  }
  EXPECT_EQ(got, sent.size());
}

TEST_F(Stream, ReadsNoMoreThanItsBuffer) {
  ASSERT_EQ(::send(theirs_.ref().number, "abcdef", 6, 0), 6);
  std::array<std::byte, 4> buffer{};
  FdList fds;
  const auto received = receive(ours_.ref(), buffer, fds, false);
  ASSERT_TRUE(received);
  EXPECT_EQ(received->bytes, 4U);
  EXPECT_EQ(received->arrival, Arrival::kData);
}

TEST_F(Stream, SaysThatTheOtherSideIsGone) {
  theirs_.reset();
  std::array<std::byte, 4> buffer{};
  FdList fds;
  const auto received = receive(ours_.ref(), buffer, fds, false);
  ASSERT_TRUE(received);
  EXPECT_EQ(received->arrival, Arrival::kClosed);
}

}  // namespace
}  // namespace common::ipc
