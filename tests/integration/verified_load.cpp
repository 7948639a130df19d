#include "tests/integration/verified_load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "tests/fakes/failure.h"
#include "tests/integration/image.h"

namespace integration {
namespace {

constexpr std::uint32_t kBlock = 4096;
constexpr int kSliceMs = 100;  // How soon an abandoned load notices.

}  // namespace

VerifiedLoad::VerifiedLoad(fakes::BlkQueueDriver& queue, const Plan& plan)
    : queue_(queue),
      plan_(plan),
      blocks_(plan.blocks),
      block_of_slot_(plan.depth),
      random_(plan.seed) {
  for (std::size_t i = 0; i < plan.versions.size(); ++i) blocks_[i].version = plan.versions[i];
  thread_ = std::thread([this] {
    std::string problem;
    try {
      run();
    } catch (const std::exception& error) {
      problem = error.what();
    }
    const std::lock_guard lock(mutex_);
    problem_ = problem;
    ended_ = true;
    moved_.notify_all();
  });
}

VerifiedLoad::~VerifiedLoad() { abandon(); }

// A slot has its own blocks, those whose number leaves it as remainder: no two requests in flight
// ever touch the same.
void VerifiedLoad::submit(std::uint16_t slot) {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const std::uint64_t index = random_ % (plan_.blocks / plan_.depth) * plan_.depth + slot;
  Block& block = blocks_[index];
  block.writing = (random_ >> 40 & 1) != 0;
  block_of_slot_[slot] = index;
  const std::uint64_t sector = plan_.first_sector + index * (kBlock / kSector);
  const fakes::BlkSegment segment{queue_.data_addr(slot), kBlock};
  const std::span<std::byte> data = queue_.data(slot).first(kBlock);
  if (block.writing) {
    ++block.version;
    std::ranges::copy(pattern(sector, kBlock, block.version), data.begin());
  } else {
    std::ranges::fill(data, std::byte{0xcc});
  }
  using common::blk::RequestType;
  queue_.prepare(slot, block.writing ? RequestType::kOut : RequestType::kIn, sector,
                 std::span(&segment, 1), !block.writing);
}

void VerifiedLoad::check(const fakes::BlkDone& done) {
  const std::uint64_t index = block_of_slot_[done.slot];
  const Block& block = blocks_[index];
  const std::uint64_t sector = plan_.first_sector + index * (kBlock / kSector);
  fakes::require(done.status == 0, "a request failed under load");
  fakes::require(
      block.writing || is_pattern(queue_.data(done.slot).first(kBlock), sector, block.version),
      "wrong data under load at sector " + std::to_string(sector));
}

// Wakes up for the doorbell only, as a guest does: an answer without an interrupt is one lost.
std::optional<fakes::BlkDone> VerifiedLoad::next() {
  int waited_ms = 0;
  while (!abandoned_) {
    if (std::optional<fakes::BlkDone> done = queue_.harvest()) return done;
    if (plan_.poll) {
      if (std::optional<fakes::BlkDone> done = queue_.poll(kSliceMs)) return done;
    } else if (!queue_.ring().enable_interrupts()) {
      continue;
    } else {
      while (!abandoned_ && !queue_.doorbell().wait(kSliceMs)) {
        waited_ms += kSliceMs;
        fakes::require(waited_ms < plan_.patience_ms,
                       queue_.ring().has_used() ? "an interrupt was lost" : "a request was lost");
      }
      continue;
    }
    waited_ms += kSliceMs;
    fakes::require(waited_ms < plan_.patience_ms, "a request was lost");
  }
  return std::nullopt;
}

void VerifiedLoad::run() {
  std::uint16_t in_flight = 0;
  std::uint32_t since_rest = 0;
  for (std::uint16_t slot = 0; slot < plan_.depth; ++slot) {
    submit(slot);
    ++in_flight;
  }
  queue_.send();
  while (in_flight != 0) {
    const std::optional<fakes::BlkDone> done = next();
    if (!done) return;
    check(*done);
    --in_flight;
    if (!stop_) {
      submit(done->slot);
      ++in_flight;
      queue_.send();
    }
    count();
    if (plan_.rest.count() != 0 && ++since_rest == plan_.answers_before_rest && !stop_) {
      since_rest = 0;
      std::this_thread::sleep_for(plan_.rest);
    }
  }
}

void VerifiedLoad::count() {
  const std::lock_guard lock(mutex_);
  ++answered_;
  const auto now = Clock::now();
  longest_pause_ = std::max(longest_pause_, now - std::exchange(answered_at_, now));
  moved_.notify_all();
}

void VerifiedLoad::expect_progress(std::uint64_t requests) {
  std::unique_lock lock(mutex_);
  const std::uint64_t target = answered_ + requests;
  const bool moved =
      moved_.wait_for(lock, 2 * fakes::kPatience, [&] { return answered_ >= target || ended_; });
  ASSERT_EQ(problem_, "");
  ASSERT_TRUE(moved && answered_ >= target) << "the load stands still at " << answered_;
}

void VerifiedLoad::stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
  EXPECT_EQ(problem_, "");
}

std::vector<std::uint32_t> VerifiedLoad::verify_all() {
  std::vector<std::uint32_t> versions;
  std::vector<std::byte> got(kBlock);
  for (std::uint64_t index = 0; index < plan_.blocks; ++index) {
    const std::uint64_t sector = plan_.first_sector + index * (kBlock / kSector);
    fakes::require(queue_.read(sector, got) == 0, "a block cannot be read");
    fakes::require(is_pattern(got, sector, blocks_[index].version),
                   "a write was lost or torn at sector " + std::to_string(sector));
    versions.push_back(blocks_[index].version);
  }
  return versions;
}

std::uint64_t VerifiedLoad::answered() {
  const std::lock_guard lock(mutex_);
  return answered_;
}

std::chrono::microseconds VerifiedLoad::take_longest_pause() {
  const std::lock_guard lock(mutex_);
  return std::chrono::duration_cast<std::chrono::microseconds>(
      std::exchange(longest_pause_, Clock::duration::zero()));
}

std::string VerifiedLoad::problem() {
  const std::lock_guard lock(mutex_);
  return problem_;
}

void VerifiedLoad::abandon() {
  stop_ = true;
  abandoned_ = true;
  if (thread_.joinable()) thread_.join();
}

}  // namespace integration
