// tests/unit/worker/histories.h: every short history of a ring, for the tests that play each on the
// ring and on a model.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

// `Step` counts from 0 to kSteps - 1.
template <typename Step, std::size_t kSteps>
class Histories {
 public:
  using Names = std::array<const char*, kSteps>;
  // Plays a history from its start. False where a step says nothing there, or the ring is broken
  // from then on: no longer history is of use.
  using Play = std::function<bool(const std::vector<Step>&)>;

  Histories(const Names& names, Play play) : names_(names), play_(std::move(play)) {}

  // All that begin like this and are up to `longer` steps longer. Stops at the first that fails.
  void play_all(std::vector<Step> begin, std::size_t longer) {
    longest_ = begin.size() + longer;
    extend(begin);
    EXPECT_GT(played_, 1000U);
  }

 private:
  void extend(std::vector<Step>& steps) {
    if (!play_(steps)) return;
    ++played_;
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "after: " << words(steps);
      return;
    }
    if (steps.size() == longest_) return;
    for (std::size_t next = 0; next < kSteps && !testing::Test::HasFailure(); ++next) {
      steps.push_back(static_cast<Step>(next));
      extend(steps);
      steps.pop_back();
    }
  }
  [[nodiscard]] std::string words(const std::vector<Step>& steps) const {
    std::string text;
    for (const Step step : steps) {
      text += std::string(names_.at(static_cast<std::size_t>(step))) + ", ";
    }
    return text;
  }

  Names names_;
  Play play_;
  std::size_t longest_ = 0;
  std::uint64_t played_ = 0;
};
