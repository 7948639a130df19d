// tests/unit/worker/ring_model_test.cpp: every short history of a small split ring, honest or not,
// played on SplitRing and on a model that follows virtio 1.2, 2.7.6 to 2.7.10 literally: it counts
// in integers that never wrap, keeps no state that could be derived, and knows no shortcut. After
// each step what the device says, and what the driver sees in the used ring, must be the same.
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
#include "worker/ring.h"

namespace {

using fakes::GuestDriver;
using worker::SplitRing;
using Peek = SplitRing::Peek;
using Publish = SplitRing::Publish;

enum class Step : std::uint8_t {
  // The driver's, honest.
  kOffer,       // One more chain, shown.
  kOfferOther,  // The same with the other head.
  kWantNext,    // An interrupt with the next answer; or, without EVENT_IDX, with any.
  kWantNone,
  // The driver's, not honest.
  kOfferOutside,  // A head that the table does not have.
  kRunAhead,      // avail.idx further ahead than the ring is long.
  // The device's.
  kTake,    // Looks, and takes what there is.
  kLook,    // Looks only.
  kAnswer,  // The latest that was taken and is not answered yet: out of order.
  kShow,    // used.idx.
  kDecide,  // Whether to call.
  kSleep,   // Asks for kicks.
  kWake,    // Does not want them.
};
constexpr std::size_t kSteps = 13;
constexpr std::array<const char*, kSteps> kNames = {
    "offer", "offer the other", "want next", "want none", "offer outside", "run ahead", "take",
    "look",  "answer",          "show",      "decide",    "sleep",         "wake"};

struct Shape {
  std::uint16_t size;
  bool event_idx;
  std::uint16_t first;            // Where both indices start.
  std::vector<Step> before = {};  // What has happened before, in every history.
};

// Counts from `first` on, never wrapping.
class Model {
 public:
  explicit Model(const Shape& shape) : shape_(shape), offered_(shape.first), entries_(shape.size) {
    taken_ = answered_ = shown_ = decided_ = shape.first;
    avail_event_ = static_cast<std::uint16_t>(taken_ - 1);
  }

  struct Answer {
    std::uint16_t head;
    std::uint32_t written;
  };

  // --- the driver
  [[nodiscard]] std::uint16_t room() const {
    return static_cast<std::uint16_t>(shape_.size - (offered_ - shown_));
  }
  void offer(std::uint16_t head) { entries_.at(offered_++ % shape_.size) = head; }
  void run_ahead() { offered_ = taken_ + shape_.size + 1; }
  void want_next() {
    used_event_ = static_cast<std::uint16_t>(shown_);
    no_interrupt_ = false;
  }
  void want_none() {
    used_event_ = static_cast<std::uint16_t>(shown_ - 1);
    no_interrupt_ = true;
  }
  [[nodiscard]] std::uint16_t used_event() const { return used_event_; }
  [[nodiscard]] std::uint16_t offered() const { return static_cast<std::uint16_t>(offered_); }

  // --- the device
  // 2.7.6.1, 2.7.13: what it may find.
  Peek look() {
    if (looked_) return Peek::kHead;
    if (seen_ <= taken_) {
      if (offered_ - taken_ > shape_.size) return Peek::kFault;
      seen_ = offered_;
    }
    if (seen_ == taken_) return Peek::kEmpty;
    looked_ = entries_.at(taken_ % shape_.size);
    if (*looked_ >= shape_.size) {
      looked_.reset();
      return Peek::kFault;
    }
    return Peek::kHead;
  }
  [[nodiscard]] std::uint16_t head() const { return looked_.value_or(0xffff); }
  void take() {
    in_flight_.push_back(*looked_);
    looked_.reset();
    ++taken_;
  }
  [[nodiscard]] std::optional<std::uint16_t> answer(std::uint32_t written) {
    if (in_flight_.empty()) return std::nullopt;
    const std::uint16_t head = in_flight_.back();
    in_flight_.pop_back();
    answers_.push_back({head, written});
    ++answered_;
    return head;
  }
  bool show() { return std::exchange(shown_, answered_) != answered_; }
  // 2.7.7.2: for each of the answers since the last decision, is it the one that was named?
  Publish decide() {
    if (decided_ == shown_) return Publish::kNothing;
    bool named = false;
    for (std::uint32_t at = decided_; at != shown_; ++at) {
      named = named || static_cast<std::uint16_t>(at) == used_event_;
    }
    decided_ = shown_;
    return (shape_.event_idx ? named : !no_interrupt_) ? Publish::kCall : Publish::kQuiet;
  }
  bool sleep() {
    kicks_ = true;
    avail_event_ = static_cast<std::uint16_t>(taken_);
    return offered_ != taken_;
  }
  void wake() {
    if (std::exchange(kicks_, false)) avail_event_ = static_cast<std::uint16_t>(taken_ - 1);
  }

  // --- what the driver sees
  [[nodiscard]] std::uint16_t used_idx() const { return static_cast<std::uint16_t>(shown_); }
  [[nodiscard]] std::uint16_t avail_event() const { return avail_event_; }
  [[nodiscard]] std::uint16_t used_flags() const {
    return shape_.event_idx || kicks_ ? 0 : common::kUsedNoNotify;
  }
  [[nodiscard]] const std::vector<Answer>& answers() const { return answers_; }
  [[nodiscard]] std::uint32_t first_answer() const {
    return answered_ - static_cast<std::uint32_t>(answers_.size());
  }

 private:
  Shape shape_;
  std::uint32_t offered_;
  std::uint32_t taken_;
  std::uint32_t seen_ = 0;
  std::uint32_t answered_;
  std::uint32_t shown_;
  std::uint32_t decided_;
  std::vector<std::uint16_t> entries_;
  std::optional<std::uint16_t> looked_;
  std::vector<std::uint16_t> in_flight_;
  std::vector<Answer> answers_;
  std::uint16_t used_event_ = 0;
  bool no_interrupt_ = false;
  bool kicks_ = false;
  std::uint16_t avail_event_;
};

// One history, on both.
class Game {
 public:
  Game(fakes::GuestRam& ram, GuestDriver& driver, const Shape& shape)
      : ram_(ram),
        driver_(driver),
        memory_(ram.memory()),
        shape_(shape),
        model_(shape),
        ring_(start(driver, shape)) {}

  // False where the step says nothing here, or the ring is broken from now on: no use to go on.
  [[nodiscard]] bool play(Step step) {
    const bool goes_on = step < Step::kTake ? drive(step) : serve(step);
    if (goes_on) same_to_the_driver();
    return goes_on;
  }

 private:
  SplitRing start(GuestDriver& driver, const Shape& shape) {
    ram_.fill(driver.avail_addr(), common::avail_bytes(shape.size, true), 0);
    ram_.fill(driver.used_addr(), common::used_bytes(shape.size, true), 0);
    driver.store_avail_idx(shape.first);
    driver.store_used_idx(shape.first);
    auto start = driver.ring_start(0);
    start.next_avail = shape.first;
    SplitRing ring = SplitRing::create(memory_, start).value();
    (void)ring.begin();
    return ring;
  }
  void put(std::uint64_t at, std::uint16_t value) { ram_.put(common::GuestAddr{at}, value); }

  bool drive(Step step) {
    switch (step) {
      case Step::kOffer:
        return offer(0);
      case Step::kOfferOther:
        return offer(static_cast<std::uint16_t>(shape_.size - 1));
      case Step::kOfferOutside:
        return offer(shape_.size);
      case Step::kRunAhead:
        model_.run_ahead();
        driver_.store_avail_idx(model_.offered());
        return true;
      case Step::kWantNext:
        model_.want_next();
        break;
      default:
        model_.want_none();
        break;
    }
    driver_.store_used_event(shape_.event_idx ? model_.used_event() : 0);
    if (!shape_.event_idx) {
      put(driver_.avail_addr().value + common::kAvailFlagsOffset,
          step == Step::kWantNone ? common::kAvailNoInterrupt : 0);
    }
    return true;
  }
  bool offer(std::uint16_t head) {
    if (model_.room() == 0 || model_.room() > shape_.size) return false;
    const std::uint64_t slot = model_.offered() % shape_.size;
    put(driver_.avail_addr().value + common::kAvailRingOffset + slot * 2, head);
    model_.offer(head);
    driver_.store_avail_idx(model_.offered());
    return true;
  }

  bool serve(Step step) {
    switch (step) {
      case Step::kTake:
      case Step::kLook: {
        const Peek expected = model_.look();
        EXPECT_EQ(ring_.peek(), expected);
        if (expected != Peek::kHead) return expected == Peek::kEmpty;
        EXPECT_EQ(ring_.head(), model_.head());
        if (step == Step::kLook) return true;
        ring_.take();
        model_.take();
        return true;
      }
      case Step::kAnswer: {
        const auto head = model_.answer(++written_);
        if (!head) return false;
        ring_.add_used(*head, written_);
        return true;
      }
      case Step::kShow:
        EXPECT_EQ(ring_.show_used(), model_.show());
        return true;
      case Step::kDecide:
        EXPECT_EQ(ring_.take_call(), model_.decide());
        return true;
      case Step::kSleep:
        EXPECT_EQ(ring_.enable_kicks(), model_.sleep());
        return true;
      default:
        ring_.disable_kicks();
        model_.wake();
        return true;
    }
  }

  // Of the used ring: the index, what it says is there, and whether kicks are wanted.
  void same_to_the_driver() {
    EXPECT_EQ(driver_.used_idx(), model_.used_idx());
    EXPECT_EQ(driver_.used_flags(), model_.used_flags());
    if (shape_.event_idx) {
      EXPECT_EQ(driver_.avail_event(), model_.avail_event());
    }
    std::uint32_t at = model_.first_answer();
    const std::uint32_t left = static_cast<std::uint16_t>(model_.used_idx() - at);
    for (std::uint32_t i = 0; i < left; ++i, ++at) {
      if (model_.answers().size() - i > shape_.size) continue;  // Written over by later ones.
      const auto elem = ram_.get<common::WireUsedElem>(common::GuestAddr{
          driver_.used_addr().value + common::kUsedRingOffset + (at % shape_.size) * 8ULL});
      EXPECT_EQ(elem.id.get(), model_.answers()[i].head);
      EXPECT_EQ(elem.len.get(), model_.answers()[i].written);
    }
  }

  fakes::GuestRam& ram_;
  GuestDriver& driver_;
  common::GuestMemory memory_;
  Shape shape_;
  Model model_;
  SplitRing ring_;
  std::uint32_t written_ = 0;
};

class EveryHistory : public testing::TestWithParam<Shape> {
 protected:
  static constexpr std::size_t kLength = policy::kSanitizerBuild ? 5 : 6;

  void play_all() {
    Histories<Step, kSteps> histories(kNames, [this](const std::vector<Step>& steps) {
      Game game(ram_, driver_, GetParam());
      return std::ranges::all_of(steps, [&game](Step step) { return game.play(step); });
    });
    histories.play_all(GetParam().before, kLength);
  }

 private:
  fakes::GuestRam ram_{1U << 16};
  GuestDriver driver_{ram_, {.queue_size = GetParam().size, .event_idx = GetParam().event_idx}};
};

TEST_P(EveryHistory, IsWhatTheSpecificationSays) { play_all(); }

// A ring whose every entry has been used, and one that is full.
const std::vector<Step> kOnceRound = {Step::kOffer,  Step::kOfferOther, Step::kTake, Step::kTake,
                                      Step::kAnswer, Step::kAnswer,     Step::kShow};
const std::vector<Step> kFull = {Step::kOffer, Step::kOfferOther, Step::kTake};

std::string name_of(const Shape& shape) {
  return "size" + std::to_string(shape.size) + (shape.event_idx ? "_event_idx" : "_flags") +
         "_from" + std::to_string(shape.first) + "_after" + std::to_string(shape.before.size());
}
void PrintTo(const Shape& shape, std::ostream* out) { *out << name_of(shape); }

INSTANTIATE_TEST_SUITE_P(Ring, EveryHistory,
                         testing::Values(Shape{1, true, 0}, Shape{1, false, 0xffff},
                                         Shape{2, true, 0xffff}, Shape{2, false, 0xfffe},
                                         Shape{2, true, 0x7fff, kOnceRound},
                                         Shape{2, true, 0xfffe, kFull},
                                         Shape{2, false, 0, kOnceRound}, Shape{4, true, 0xfffd}),
                         [](const auto& one) { return name_of(one.param); });

}  // namespace
