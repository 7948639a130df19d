// Both engines of a network worker over a packet socket that stands for the tap: it answers at
// once, keeps packets apart, and can be empty and full.
#include "worker/tap_engine.h"

#include <gtest/gtest.h>

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "policy/worker_net.h"
#include "tests/unit/worker/engine_rig.h"
#include "worker/tap_fallback.h"
#include "worker/tap_uring.h"

namespace worker_test {
namespace {

using worker::TapDirection;
using worker::TapEngine;
using worker::TapPacket;
using worker::TapWakeup;
using Until = worker::TapEngine::Until;

class TapRig {
 public:
  TapRig(EngineType type, TapDirection direction) : type_(type), direction_(direction) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()),
              0);
    tap = Fd(ends[0]);
    host = Fd(ends[1]);
    kick = *common::make_eventfd();
    call = *common::make_eventfd();
    stop_pipe = *common::make_stop_pipe();
    type == EngineType::kIoUring ? make_uring() : make_fallback();
  }

  void stop() {
    if (type_ == EngineType::kIoUring) {
      EXPECT_EQ(messages_->send(ring.ref(), common::ipc::kRingStop), 0);
    } else {
      stop_without_ring();
    }
  }
  void stop_without_ring() const { EXPECT_TRUE(common::tell_to_stop(stop_pipe.writing.ref())); }
  void host_sends(const std::string& packet) const {
    EXPECT_EQ(::write(host.ref().number, packet.data(), packet.size()),
              static_cast<ssize_t>(packet.size()));
  }
  [[nodiscard]] std::string host_gets() const {
    std::string packet(70'000, '\0');
    const ssize_t got = ::read(host.ref().number, packet.data(), packet.size());
    packet.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return packet;
  }
  // The tap is full when it takes no more.
  std::size_t fill() {
    std::size_t count = 0;
    while (::write(tap.ref().number, "filler", 6) == 6) ++count;
    return count;
  }

  Fd tap, host, kick, call, ring;
  common::StopPipe stop_pipe;
  std::unique_ptr<TapEngine> engine;
  std::unique_ptr<MessageRing> messages_;

 private:
  void make_uring() {
    const bool receive = direction_ == TapDirection::kReceive;
    auto made = policy::make_restricted_ring(
        {.entries = common::ipc::kRingEntries,
         .completion_entries = common::ipc::kRingCompletionEntries,
         .bounded_workers = common::ipc::kRingThreads,
         .opcodes = receive ? std::span<const std::uint8_t>(policy::kWorkerNetReceiveOpcodes)
                            : std::span<const std::uint8_t>(policy::kWorkerNetTransmitOpcodes)});
    ASSERT_TRUE(made) << made.error().what;
    ring = std::move(made->fd);
    auto built = worker::TapUring::create(direction_, {.ring = ring.ref(),
                                                       .layout = made->layout,
                                                       .device = tap.ref(),
                                                       .kick = kick.ref(),
                                                       .call = call.ref(),
                                                       .stop = stop_pipe.reading.ref()});
    ASSERT_TRUE(built) << built.error().what << ": " << std::strerror(built.error().os_errno);
    engine = *std::move(built);
    messages_ = std::make_unique<MessageRing>();
  }
  void make_fallback() {
    engine =
        worker::TapFallback::create({.direction = direction_,
                                     .tap = tap.ref(),
                                     .events = {stop_pipe.reading.ref(), kick.ref(), call.ref()}});
  }

  EngineType type_;
  TapDirection direction_;
};

class TapEngineTest : public testing::TestWithParam<EngineType> {
 protected:
  // A ring belongs to the task that enabled it: each engine is a thread's own.
  static void with(TapDirection direction, const std::function<void(TapRig&)>& body) {
    std::thread([&] {
      TapRig rig(GetParam(), direction);
      if (rig.engine) body(rig);
    }).join();
  }
};

// Room for a batch of packets, each in two segments.
struct Batch {
  explicit Batch(std::size_t count) : bytes(count), segments(count), packets(count) {
    for (std::size_t i = 0; i < count; ++i) {
      bytes[i].assign(64, '.');
      segments[i] = {iovec{bytes[i].data(), 4}, iovec{bytes[i].data() + 4, 60}};
      packets[i] = {segments[i].data(), 2, 0};
    }
  }
  std::vector<std::string> bytes;
  std::vector<std::array<iovec, 2>> segments;
  std::vector<TapPacket> packets;
};

TEST_P(TapEngineTest, ReadsABatchInItsOrderAndSaysWhereTheTapWasEmpty) {
  with(TapDirection::kReceive, [](TapRig& rig) {
    rig.host_sends("packet one");
    rig.host_sends("two");
    Batch batch(4);
    const TapWakeup wakeup = rig.engine->transfer(batch.packets);
    EXPECT_FALSE(wakeup.host_fault);
    EXPECT_EQ(batch.packets[0].result, 10);
    EXPECT_EQ(batch.bytes[0].substr(0, 11), "packet one.");
    EXPECT_EQ(batch.packets[1].result, 3);
    EXPECT_EQ(batch.packets[2].result, -EAGAIN);
    EXPECT_EQ(batch.packets[3].result, -EAGAIN);
  });
}

TEST_P(TapEngineTest, WritesABatchInItsOrder) {
  with(TapDirection::kTransmit, [](TapRig& rig) {
    Batch batch(8);
    for (std::size_t i = 0; i < 8; ++i) batch.bytes[i][0] = static_cast<char>('a' + i);
    EXPECT_FALSE(rig.engine->transfer(batch.packets).host_fault);
    for (std::size_t i = 0; i < 8; ++i) {
      EXPECT_EQ(batch.packets[i].result, 64);
      EXPECT_EQ(rig.host_gets(), batch.bytes[i]);
    }
  });
}

TEST_P(TapEngineTest, SaysThatTheTapIsFullAndWakesWhenThereIsRoom) {
  with(TapDirection::kTransmit, [](TapRig& rig) {
    ASSERT_GT(rig.fill(), 0U);
    Batch batch(2);
    (void)rig.engine->transfer(batch.packets);
    EXPECT_EQ(batch.packets[0].result, -EAGAIN);
    EXPECT_EQ(batch.packets[1].result, -EAGAIN);
    std::thread host([&] {
      while (rig.host_gets() == "filler") {
      }
    });
    EXPECT_TRUE(rig.engine->wait(Until::kTap).tap_ready);
    host.join();
    (void)rig.engine->transfer(batch.packets);
    EXPECT_EQ(batch.packets[0].result, 64);
  });
}

TEST_P(TapEngineTest, SleepsUntilAPacketComes) {
  with(TapDirection::kReceive, [](TapRig& rig) {
    std::thread host([&] { rig.host_sends("late"); });
    EXPECT_TRUE(rig.engine->wait(Until::kTap).tap_ready);
    host.join();
    Batch batch(1);
    (void)rig.engine->transfer(batch.packets);
    EXPECT_EQ(batch.packets[0].result, 4);
  });
}

TEST_P(TapEngineTest, SleepsUntilAKickComesEachTime) {
  with(TapDirection::kTransmit, [](TapRig& rig) {
    for (int i = 0; i < 3; ++i) {
      std::thread guest([&] { Rig::add(rig.kick.ref(), 1); });
      EXPECT_TRUE(rig.engine->wait(Until::kKick).kicked);
      guest.join();
    }
  });
}

TEST_P(TapEngineTest, NoticesAKickThatCameBeforeItSlept) {
  with(TapDirection::kReceive, [](TapRig& rig) {
    Rig::add(rig.kick.ref(), 3);
    EXPECT_TRUE(rig.engine->wait(Until::kKick).kicked);
  });
}

TEST_P(TapEngineTest, SleepsNoLongerThanItIsTold) {
  with(TapDirection::kTransmit, [](TapRig& rig) {
    rig.engine->sleep_at_most(500);
    const TapWakeup woken = rig.engine->wait(Until::kKick);  // Nothing else would wake it.
    EXPECT_FALSE(woken.kicked || woken.stop || woken.tap_ready || woken.host_fault);
  });
}

TEST_P(TapEngineTest, AFullTapDoesNotWakeWhoWaitsForAKick) {
  with(TapDirection::kReceive, [](TapRig& rig) {
    rig.host_sends("waiting");
    std::thread guest([&] { Rig::add(rig.kick.ref(), 1); });
    EXPECT_TRUE(rig.engine->wait(Until::kKick).kicked);
    guest.join();
  });
}

TEST_P(TapEngineTest, StopWakesAndStays) {
  with(TapDirection::kReceive, [](TapRig& rig) {
    std::thread broker([&] { rig.stop(); });
    EXPECT_TRUE(rig.engine->wait(Until::kTap).stop);
    broker.join();
    EXPECT_TRUE(rig.engine->wait(Until::kKick).stop);
    EXPECT_TRUE(rig.engine->transfer({}).stop);
  });
}

TEST_P(TapEngineTest, ABrokerThatDoesNotHaveTheRingStopsItToo) {
  with(TapDirection::kTransmit, [](TapRig& rig) {
    std::thread broker([&] { rig.stop_without_ring(); });
    EXPECT_TRUE(rig.engine->wait(Until::kKick).stop);
    broker.join();
  });
}

TEST_P(TapEngineTest, StopsWhenNobodyIsLeftWhoCouldStopIt) {
  with(TapDirection::kTransmit, [](TapRig& rig) {
    std::thread broker([&] { rig.stop_pipe.writing.reset(); });
    EXPECT_TRUE(rig.engine->wait(Until::kKick).stop);
    broker.join();
  });
}

TEST_P(TapEngineTest, StopIsSeenByWhoNeverSleeps) {
  with(TapDirection::kReceive, [](TapRig& rig) {
    rig.stop();
    bool stopped = false;
    for (int i = 0; i < 64 && !stopped; ++i) {
      Batch batch(1);
      stopped = rig.engine->transfer(batch.packets).stop;
    }
    EXPECT_TRUE(stopped);
  });
}

TEST_P(TapEngineTest, RingsTheBellAtTheLatestWithTheNextCall) {
  with(TapDirection::kTransmit, [](TapRig& rig) {
    rig.engine->ring_call();
    (void)rig.engine->transfer({});
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U);
    rig.engine->ring_call();
    Rig::add(rig.kick.ref(), 1);
    (void)rig.engine->wait(Until::kKick);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U);
  });
}

TEST_P(TapEngineTest, ACallEventfdThatIsFullHoldsNobodyUp) {
  with(TapDirection::kReceive, [](TapRig& rig) {
    Rig::add(rig.call.ref(), ~std::uint64_t{1});
    for (int i = 0; i < 5; ++i) {
      rig.engine->ring_call();
      rig.host_sends("goes on");
      Batch batch(1);
      EXPECT_FALSE(rig.engine->transfer(batch.packets).host_fault);
      EXPECT_EQ(batch.packets[0].result, 7);
    }
  });
}

TEST_P(TapEngineTest, IsReadyWhereAWaitWouldNotSleep) {
  with(TapDirection::kReceive, [](TapRig& rig) {
    rig.engine->watch_tap();
    EXPECT_FALSE(rig.engine->ready());
    rig.host_sends("here");
    EXPECT_TRUE(rig.engine->ready());
    EXPECT_TRUE(rig.engine->wait(Until::kTap).tap_ready);
  });
}

INSTANTIATE_TEST_SUITE_P(Tap, TapEngineTest,
                         testing::Values(EngineType::kIoUring, EngineType::kFallback), type_name);

void with_ring(TapDirection direction, const std::function<void(TapRig&)>& body) {
  std::thread([&] {
    TapRig rig(EngineType::kIoUring, direction);
    if (rig.engine) body(rig);
  }).join();
}

TEST(TapUring, MovesABatchWithOneSystemCall) {
  with_ring(TapDirection::kTransmit, [](TapRig& rig) {
    (void)rig.engine->transfer({});  // Arms the kick.
    const std::uint64_t before = rig.engine->system_calls();
    Batch batch(worker::kTapBatchMax);
    rig.engine->ring_call();
    (void)rig.engine->transfer(batch.packets);
    EXPECT_EQ(rig.engine->system_calls(), before + 1);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U);
  });
}

TEST(TapUring, NeedsNoDescriptorOnceItIsMade) {
  with_ring(TapDirection::kReceive, [](TapRig& rig) {
    const Fd kick = *common::duplicate(rig.kick.ref());
    rig.tap.reset();
    rig.kick.reset();
    rig.call.reset();
    rig.host_sends("still");
    Batch batch(1);
    (void)rig.engine->transfer(batch.packets);
    EXPECT_EQ(batch.packets[0].result, 5);
    Rig::add(kick.ref(), 1);
    EXPECT_TRUE(rig.engine->wait(Until::kKick).kicked);
  });
}

TEST(TapUring, RingsTheCallEventfdThatTheBrokerPutInPlace) {
  with_ring(TapDirection::kReceive, [](TapRig& rig) {
    const Fd other = *common::make_eventfd();
    EXPECT_EQ(rig.messages_->send_fd(rig.ring.ref(), other.ref(), common::ipc::kSlotCall,
                                     common::ipc::kRingCallSwapped),
              0);
    EXPECT_TRUE(rig.engine->wait(Until::kTap).call_swapped);
    rig.engine->ring_call();
    (void)rig.engine->transfer({});
    EXPECT_EQ(Rig::count_of(other.ref()), 1U);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 0U);
  });
}

TEST(TapUring, PollsWithoutASystemCall) {
  with_ring(TapDirection::kReceive, [](TapRig& rig) {
    rig.engine->watch_tap();
    const std::uint64_t before = rig.engine->system_calls();
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(rig.engine->ready());
    EXPECT_EQ(rig.engine->system_calls(), before);
  });
}

}  // namespace
}  // namespace worker_test
