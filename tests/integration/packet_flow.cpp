#include "tests/integration/packet_flow.h"

#include <gtest/gtest.h>

#include <exception>
#include <utility>

#include "tests/fakes/process.h"

namespace integration {
namespace {

constexpr int kPatienceMs = 10'000;  // A packet later than this is lost.
constexpr int kSoonMs = 50;          // After which one that may be lost is sent again.

constexpr std::size_t size_of(std::uint32_t seed) { return 100 + seed % 1000; }

}  // namespace

PacketFlow::PacketFlow(fakes::NetClient& client, fakes::HostPort& port, const Plan& plan)
    : client_(client), port_(port), plan_(plan), thread_([this] { run(); }) {}

PacketFlow::~PacketFlow() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void PacketFlow::run() {
  std::string problem;
  try {
    for (std::uint32_t seed = 1; !stop_ && problem.empty(); seed += plan_.burst) {
      problem = exchange(seed);
      const std::lock_guard lock(mutex_);
      ++bursts_;
      moved_.notify_all();
    }
  } catch (const std::exception& failure) {
    problem = failure.what();
  }
  const std::lock_guard lock(mutex_);
  problem_ = std::move(problem);
  ended_ = true;
  moved_.notify_all();
}

bool PacketFlow::arrives(std::uint32_t seed, bool from_guest) {
  const int patience_ms = plan_.may_lose ? kSoonMs : kPatienceMs;
  const auto wanted = fakes::make_frame(size_of(seed), seed, from_guest);
  while (true) {
    const auto got =
        from_guest ? port_.receive(patience_ms) : client_.receive_queue().receive(patience_ms);
    if (got && got->frame == wanted) return true;
    if (!got || !plan_.may_lose) return false;
  }
}

void PacketFlow::send(std::uint32_t seed) {
  port_.send(fakes::make_frame(size_of(seed), seed));
  client_.transmit_queue().send(
      {.header = {}, .frame = fakes::make_frame(size_of(seed), seed, true)});
}

// One packet each way, again until it has come: what was lost or came twice is passed over.
std::string PacketFlow::try_exchange(std::uint32_t seed) {
  bool to_guest = false;
  bool to_host = false;
  while (!stop_ && !(to_guest && to_host)) {
    send(seed);
    to_guest = arrives(seed, false) || to_guest;
    to_host = arrives(seed, true) || to_host;
  }
  return {};
}

// A burst each way, then what has come of it.
std::string PacketFlow::exchange(std::uint32_t first) {
  if (plan_.may_lose) return try_exchange(first);
  for (std::uint32_t seed = first; seed < first + plan_.burst; ++seed) send(seed);
  for (std::uint32_t seed = first; seed < first + plan_.burst; ++seed) {
    if (!arrives(seed, false)) return "to the guest: " + std::to_string(seed);
    if (!arrives(seed, true)) return "from the guest: " + std::to_string(seed);
  }
  return {};
}

void PacketFlow::expect_progress(std::uint64_t bursts) {
  std::unique_lock lock(mutex_);
  const std::uint64_t wanted = bursts_ + bursts;
  const bool moved =
      moved_.wait_for(lock, 2 * fakes::kPatience, [&] { return ended_ || bursts_ >= wanted; });
  EXPECT_TRUE(moved && !ended_) << "a packet was lost or changed " << problem_;
}

void PacketFlow::stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
  EXPECT_EQ(problem_, "");
}

}  // namespace integration
