#include "broker/foreign_close.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <vector>

#include "common/sys.h"

namespace broker {
namespace {

// Blocks until the last other end is closed: the event to wait for.
bool other_end_closed(common::FdRef end) {
  char byte = 0;
  return ::read(end.number, &byte, 1) == 0;
}

TEST(ForeignCloser, ClosesWhatItIsGiven) {
  ForeignCloser closer;
  auto ends = *common::make_packet_pair();
  closer.close(std::move(ends.second));
  EXPECT_TRUE(other_end_closed(ends.first.ref()));
}

TEST(ForeignCloser, ClosesEveryDescriptorOfAPacket) {
  ForeignCloser closer;
  auto carrier = *common::make_packet_pair();
  auto ends = *common::make_packet_pair();
  const std::array<common::FdRef, 2> fds = {ends.second.ref(), ends.second.ref()};
  const std::array<std::byte, 4> bytes{};
  ASSERT_TRUE(common::ipc::send_bytes(carrier.first.ref(), bytes, fds, false));
  ends.second.reset();
  common::ipc::Packet packet;
  ASSERT_TRUE(common::ipc::receive_packet(carrier.second.ref(), packet, false));

  closer.close(packet.fds);

  EXPECT_EQ(packet.fds.size(), 0U);
  EXPECT_TRUE(other_end_closed(ends.first.ref()));
}

// Many more than there are threads: none may be left open, or its owner would wait for ever.
TEST(ForeignCloser, ClosesEachOfManyThatComeAtOnce) {
  constexpr int kMany = 500;
  std::vector<common::Fd> kept;
  std::vector<common::Fd> foreign;
  for (int i = 0; i < kMany; ++i) {
    auto ends = *common::make_packet_pair();
    kept.push_back(std::move(ends.first));
    foreign.push_back(std::move(ends.second));
  }
  ForeignCloser closer;
  for (common::Fd& fd : foreign) closer.close(std::move(fd));
  for (const common::Fd& fd : kept) ASSERT_TRUE(other_end_closed(fd.ref()));
}

TEST(ForeignCloser, TakesNothingForGranted) {
  ForeignCloser closer;
  closer.close(common::Fd());
  common::ipc::FdList none;
  closer.close(none);
  SUCCEED();
}

TEST(IsEventfd, KnowsAnEventfd) { EXPECT_TRUE(is_eventfd((*common::make_eventfd()).ref())); }

TEST(IsEventfd, KnowsWhatIsNone) {
  const common::Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  const common::Fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_FALSE(is_eventfd(timer.ref()));
  EXPECT_FALSE(is_eventfd(directory.ref()));
  EXPECT_FALSE(is_eventfd(common::FdRef{-1}));
}

}  // namespace
}  // namespace broker
