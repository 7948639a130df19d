// tests/unit/worker/packed_model_test.cpp: every short history of a small packed ring, honest or
// not, played on PackedRing and on a model that follows virtio 1.2, 2.8 literally: it counts
// descriptors in integers that never wrap, and knows no shortcut. After each step what the device
// says, and every byte that the driver sees, must be the same. ring_model_test.cpp does this for
// split rings.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "policy/sanitizer.h"
#include "tests/fakes/guest_driver.h"
#include "tests/unit/worker/histories.h"
#include "worker/packed_ring.h"

namespace {

using common::PackedPlace;
using common::WirePackedDesc;
using fakes::GuestDriver;
using worker::PackedRing;
using Peek = PackedRing::Peek;
using Publish = PackedRing::Publish;

enum class Step : std::uint8_t {
  // The driver's, honest.
  kOfferOne,   // A chain of one descriptor, shown.
  kOfferTwo,   // A chain of two.
  kWantNext,   // An interrupt with the next descriptor that is used; or, without EVENT_IDX, with
               // any.
  kWantLater,  // With the one after that.
  kWantNone,
  // The driver's, not honest.
  kOfferBroken,  // A list that goes on where nothing is available.
  // The device's.
  kTake,         // Looks, and takes what there is.
  kLook,         // Looks only.
  kPutBack,      // The latest that was taken.
  kAnswer,       // The latest that was taken and is not answered yet: out of order.
  kAnswerFirst,  // The first of them.
  kShow,
  kDecide,  // Whether to call.
  kSleep,   // Asks for kicks.
  kWake,    // Does not want them.
};
constexpr std::size_t kSteps = 15;
constexpr std::array<const char*, kSteps> kNames = {
    "offer one",    "offer two", "want next", "want later", "want none",
    "offer broken", "take",      "look",      "put back",   "answer",
    "answer first", "show",      "decide",    "sleep",      "wake"};

struct Shape {
  std::uint16_t size;
  bool event_idx;
  std::uint32_t first;            // So many descriptors have been offered and used before.
  std::vector<Step> before = {};  // What has happened before, in every history.
};

struct Chain {
  std::uint32_t at;  // Counted from the ring's beginning, never wrapping.
  std::uint32_t count;
  std::uint16_t id;
  std::uint16_t handle = 0;  // The device's, once it is taken.
};

// 2.8.1: the counter begins with 1, and changes with each round.
PackedPlace place_of(std::uint32_t at, std::uint16_t size) {
  return {static_cast<std::uint16_t>(at % size), at / size % 2 == 0};
}

class Model {
 public:
  explicit Model(const Shape& shape)
      : shape_(shape),
        ring_(shape.size),
        offered_(shape.first),
        taken_(shape.first),
        used_(shape.first),
        shown_(shape.first),
        decided_(shape.first) {}

  // --- the driver
  // What it writes; nothing where it has no room.
  [[nodiscard]] std::vector<std::pair<std::uint16_t, WirePackedDesc>> offer(std::uint32_t count,
                                                                            bool broken) {
    if (broken_ || offered_ - shown_ + count > shape_.size) return {};
    const auto id = static_cast<std::uint16_t>(0xfffe + chains_offered_++);
    std::vector<std::pair<std::uint16_t, WirePackedDesc>> written;
    for (std::uint32_t i = 0; i < count; ++i) {
      const PackedPlace place = place_of(offered_ + i, shape_.size);
      const bool goes_on = broken || i + 1 < count;
      const auto flags =
          static_cast<std::uint16_t>((place.wrap ? common::kPackedAvail : common::kPackedUsed) |
                                     (goes_on ? common::kDescNext : 0));
      const WirePackedDesc desc{common::Le64(4096), common::Le32(16), common::Le16(id),
                                common::Le16(flags)};
      ring_.at(place.index) = desc;
      written.emplace_back(place.index, desc);
    }
    broken_ = broken;
    if (!broken) waiting_.push_back({offered_, count, id});
    offered_ += count;
    return written;
  }
  void want(std::optional<std::uint32_t> ahead) {
    wanted_ = ahead.has_value();
    any_ = !shape_.event_idx;
    event_ = place_of(shown_ + ahead.value_or(0), shape_.size);
  }
  [[nodiscard]] PackedPlace event() const { return event_; }

  // --- the device
  [[nodiscard]] std::uint32_t free() const { return shape_.size - (taken_ - shown_); }
  [[nodiscard]] bool has_new() const { return free() != 0 && offered_ != taken_; }
  Peek look() {
    if (!has_new()) return Peek::kEmpty;
    return waiting_.empty() ? Peek::kFault : Peek::kHead;
  }
  void take(std::uint16_t handle) {
    waiting_.front().handle = handle;
    taken_ += waiting_.front().count;
    in_flight_.push_back(waiting_.front());
    waiting_.erase(waiting_.begin());
  }
  [[nodiscard]] bool put_back() {
    if (in_flight_.empty() || in_flight_.back().at + in_flight_.back().count != taken_)
      return false;
    taken_ -= in_flight_.back().count;
    waiting_.insert(waiting_.begin(), in_flight_.back());
    in_flight_.pop_back();
    return true;
  }
  // 2.8.3, 2.8.4: id, length and flags in the first descriptor that is not used yet, and as many
  // are skipped as the chain had. The first flags of those that are not shown come last.
  [[nodiscard]] std::optional<Chain> answer(bool latest, std::uint32_t written) {
    if (in_flight_.empty()) return std::nullopt;
    const auto which = latest ? in_flight_.end() - 1 : in_flight_.begin();
    const Chain chain = *which;
    in_flight_.erase(which);
    const PackedPlace place = place_of(used_, shape_.size);
    WirePackedDesc& desc = ring_.at(place.index);
    desc.len = common::Le32(written);
    desc.id = common::Le16(chain.id);
    const common::Le16 flags(
        static_cast<std::uint16_t>((place.wrap ? common::kPackedAvail | common::kPackedUsed : 0) |
                                   (written != 0 ? common::kDescWrite : 0)));
    if (used_ == shown_) {
      first_flags_ = flags;
    } else {
      desc.flags = flags;
    }
    used_ += chain.count;
    return chain;
  }
  bool show() {
    if (used_ == shown_) return false;
    ring_.at(shown_ % shape_.size).flags = first_flags_;
    shown_ = used_;
    return true;
  }
  // 2.8.10: for each descriptor that was used since the last decision, is it the one that was
  // named?
  Publish decide() {
    if (decided_ == shown_) return Publish::kNothing;
    bool named = false;
    for (std::uint32_t at = decided_; at != shown_; ++at) {
      named = named || place_of(at, shape_.size) == event_;
    }
    decided_ = shown_;
    return wanted_ && (named || any_) ? Publish::kCall : Publish::kQuiet;
  }
  void sleep() {
    kicks_ = true;
    kick_at_ = place_of(taken_, shape_.size);
  }
  void wake() { kicks_ = false; }

  // --- what the driver sees
  [[nodiscard]] const std::vector<WirePackedDesc>& ring() const { return ring_; }
  [[nodiscard]] std::vector<WirePackedDesc>& ring() { return ring_; }
  [[nodiscard]] std::uint16_t device_flags() const {
    if (!kicks_) return common::kPackedEventDisable;
    return shape_.event_idx ? common::kPackedEventDesc : common::kPackedEventEnable;
  }
  [[nodiscard]] PackedPlace kick_at() const { return kick_at_; }
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }
  [[nodiscard]] std::uint32_t base() const {
    return common::pack_vring_base({place_of(taken_, shape_.size), place_of(shown_, shape_.size)});
  }

 private:
  Shape shape_;
  std::vector<WirePackedDesc> ring_;
  std::uint32_t offered_;  // Descriptors, all of these.
  std::uint32_t taken_;
  std::uint32_t used_;
  std::uint32_t shown_;
  std::uint32_t decided_;
  std::uint32_t chains_offered_ = 0;
  bool broken_ = false;
  std::vector<Chain> waiting_;
  std::vector<Chain> in_flight_;
  common::Le16 first_flags_{};
  bool wanted_ = true;
  bool any_ = true;  // And not only with the place that is named.
  PackedPlace event_;
  bool kicks_ = false;
  PackedPlace kick_at_;
};

// One history, on both.
class Game {
 public:
  Game(fakes::GuestRam& ram, GuestDriver& driver, const Shape& shape)
      : driver_(driver.packed()),
        memory_(ram.memory()),
        shape_(shape),
        model_(shape),
        ring_(start(driver)) {}

  // False where the step says nothing here, or the ring is broken from now on: no use to go on.
  [[nodiscard]] bool play(Step step) {
    const bool goes_on = step < Step::kTake ? drive(step) : serve(step);
    if (goes_on) same_to_the_driver();
    return goes_on;
  }

 private:
  PackedRing start(GuestDriver& driver) {
    for (std::uint16_t i = 0; i < shape_.size; ++i) driver_.write_desc(i, WirePackedDesc{});
    const PackedPlace first = place_of(shape_.first, shape_.size);
    driver_.start_at(first);
    for (std::uint16_t i = 0; i < shape_.size; ++i) model_.ring()[i] = driver_.desc(i);
    driver_.store_driver_area(0, common::kPackedEventEnable);
    auto start = driver.ring_start(0);
    start.next_avail = common::pack_vring_base({first, first});
    PackedRing ring = PackedRing::create(memory_, start).value();
    (void)ring.begin();
    return ring;
  }

  bool drive(Step step) {
    switch (step) {
      case Step::kOfferOne:
        return offer(1, false);
      case Step::kOfferTwo:
        return offer(2, false);
      case Step::kOfferBroken:
        return offer(1, true);
      case Step::kWantNext:
        return want(0);
      case Step::kWantLater:
        return shape_.event_idx && want(1);
      default:
        model_.want(std::nullopt);
        driver_.store_driver_area(model_.event().word(), common::kPackedEventDisable);
        return true;
    }
  }
  bool offer(std::uint32_t count, bool broken) {
    const auto written = model_.offer(count, broken);
    // The first one last: 2.8.21.1.
    for (auto desc = written.rbegin(); desc != written.rend(); ++desc) {
      driver_.write_desc(desc->first, desc->second);
    }
    return !written.empty();
  }
  bool want(std::uint32_t ahead) {
    model_.want(ahead);
    driver_.store_driver_area(model_.event().word(), shape_.event_idx ? common::kPackedEventDesc
                                                                      : common::kPackedEventEnable);
    return true;
  }

  bool serve(Step step) {
    switch (step) {
      case Step::kTake:
      case Step::kLook:
        return look(step == Step::kTake);
      case Step::kPutBack:
        if (!model_.put_back()) return false;
        ring_.put_back(1);
        return true;
      case Step::kAnswer:
      case Step::kAnswerFirst: {
        const std::uint32_t written = answers_++ % 3;  // Nothing, now and then.
        const auto chain = model_.answer(step == Step::kAnswer, written);
        if (!chain) return false;
        ring_.add_used(chain->handle, written);
        return true;
      }
      case Step::kShow:
        EXPECT_EQ(ring_.show_used(), model_.show());
        return true;
      case Step::kDecide:
        EXPECT_EQ(ring_.take_call(), model_.decide());
        return true;
      case Step::kSleep:
        model_.sleep();
        EXPECT_EQ(ring_.enable_kicks(), model_.has_new());
        return true;
      default:
        ring_.disable_kicks();
        model_.wake();
        return true;
    }
  }
  bool look(bool take) {
    const Peek expected = model_.look();
    EXPECT_EQ(ring_.peek(), expected);
    if (expected != Peek::kHead) return expected == Peek::kEmpty;
    if (!take) return true;
    model_.take(ring_.head());
    ring_.take();
    return true;
  }

  void same_to_the_driver() {
    for (std::uint16_t i = 0; i < shape_.size; ++i) {
      const WirePackedDesc seen = driver_.desc(i);
      const WirePackedDesc& due = model_.ring()[i];
      EXPECT_EQ(seen.id.get(), due.id.get());
      EXPECT_EQ(seen.len.get(), due.len.get());
      EXPECT_EQ(seen.flags.get(), due.flags.get());
    }
    EXPECT_EQ(driver_.device_flags(), model_.device_flags());
    if (driver_.device_flags() == common::kPackedEventDesc) {
      EXPECT_EQ(driver_.device_off_wrap(), model_.kick_at().word());
    }
    EXPECT_EQ(ring_.has_new(), model_.has_new());
    EXPECT_EQ(ring_.offered(), model_.waiting());
    EXPECT_EQ(ring_.base(), model_.base());
  }

  fakes::PackedDriver& driver_;
  common::GuestMemory memory_;
  Shape shape_;
  Model model_;
  PackedRing ring_;
  std::uint32_t answers_ = 0;
};

class EveryPackedHistory : public testing::TestWithParam<Shape> {
 protected:
  static constexpr std::size_t kLength = policy::kSanitizerBuild ? 4 : 5;

  void play_all() {
    Histories<Step, kSteps> histories(kNames, [this](const std::vector<Step>& steps) {
      Game game(ram_, driver_, GetParam());
      return std::ranges::all_of(steps, [&game](Step step) { return game.play(step); });
    });
    histories.play_all(GetParam().before, kLength);
  }

 private:
  fakes::GuestRam ram_{1U << 16};
  GuestDriver driver_{
      ram_, {.queue_size = GetParam().size, .event_idx = GetParam().event_idx, .packed = true}};
};

TEST_P(EveryPackedHistory, IsWhatTheSpecificationSays) { play_all(); }

// A ring that was gone round, one that is full, and two chains in flight of which either may be
// answered first.
const std::vector<Step> kOnceRound = {Step::kOfferTwo, Step::kTake, Step::kAnswer, Step::kShow,
                                      Step::kOfferOne, Step::kTake, Step::kAnswer, Step::kShow};
const std::vector<Step> kFull = {Step::kOfferOne, Step::kOfferTwo, Step::kTake};
const std::vector<Step> kTwoInFlight = {Step::kOfferTwo, Step::kOfferOne, Step::kTake, Step::kTake};

std::string name_of(const Shape& shape) {
  return "size" + std::to_string(shape.size) + (shape.event_idx ? "_event_idx" : "_flags") +
         "_from" + std::to_string(shape.first) + "_after" + std::to_string(shape.before.size());
}
void PrintTo(const Shape& shape, std::ostream* out) { *out << name_of(shape); }

INSTANTIATE_TEST_SUITE_P(Ring, EveryPackedHistory,
                         testing::Values(Shape{1, true, 0}, Shape{1, false, 1}, Shape{2, true, 3},
                                         Shape{2, false, 2}, Shape{3, true, 5},
                                         Shape{2, true, 1, kOnceRound},
                                         Shape{3, true, 2, kOnceRound}, Shape{3, true, 4, kFull},
                                         Shape{3, false, 1, kTwoInFlight},
                                         Shape{4, true, 6, kTwoInFlight}),
                         [](const auto& one) { return name_of(one.param); });

}  // namespace
