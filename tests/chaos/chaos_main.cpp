// bulkhead-chaos: a front-end under load while processes die and everything else changes.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <string_view>

#include "tests/chaos/cards.h"
#include "tests/chaos/chaos.h"
#include "tests/fakes/failure.h"

namespace {

constexpr const char* kUsage =
    "usage: bulkhead-chaos [--card] [--events=N] [--seed=N] [--queues=N] "
    "[--engine=io_uring|fallback]\n"
    "                      [--direct=on|off] [--tracked=on|off] [--packed=on|off]\n"
    "                      [--vary] [--round=N] [--rest-us=N] [--program=PATH] [--verbose]\n"
    "\n"
    "  --card       a network card on a tap instead of a disk; --queues are pairs then. As root\n"
    "  --round=N    a guest of its own after every N events, with the next seed: 500\n"
    "  --vary       and with the next of both engines, with and without O_DIRECT, tracking, "
    "packed\n"
    "               rings (which need tracking)\n"
    "  --rest-us=N  each queue's load rests that long after 64 answers: more events for the same\n"
    "               time of the processors\n";

struct Run {
  chaos::Plan plan;
  std::uint32_t events = 1000;
  std::uint32_t round = 500;
  bool vary = false;
};

bool take(std::string_view argument, std::string_view name, std::string& value) {
  if (!argument.starts_with(name)) return false;
  value = argument.substr(name.size());
  return true;
}

bool take(std::string_view argument, std::string_view name, std::uint64_t& number) {
  std::string value;
  if (!take(argument, name, value)) return false;
  number = std::strtoull(value.c_str(), nullptr, 10);
  return true;
}

template <typename Integer>
bool take(std::string_view argument, std::string_view name, Integer& number) {
  std::uint64_t wide = 0;
  if (!take(argument, name, wide)) return false;
  number = static_cast<Integer>(wide);
  return true;
}

bool take_switch(std::string_view argument, std::string_view name, bool& on) {
  std::string value;
  if (!take(argument, name, value)) return false;
  on = value == "on";
  return true;
}

bool take_one(std::string_view argument, Run& run) {
  chaos::Plan& plan = run.plan;
  std::uint64_t rest_us = 0;
  if (take(argument, "--rest-us=", rest_us)) {
    plan.rest = std::chrono::microseconds(rest_us);
    return true;
  }
  if (argument == "--card") return plan.card = true;
  if (argument == "--verbose") return plan.verbose = true;
  if (argument == "--vary") return run.vary = true;
  return take(argument, "--events=", run.events) || take(argument, "--round=", run.round) ||
         take(argument, "--seed=", plan.seed) || take(argument, "--queues=", plan.queues) ||
         take(argument, "--engine=", plan.engine) || take(argument, "--program=", plan.program) ||
         take_switch(argument, "--direct=", plan.direct) ||
         take_switch(argument, "--tracked=", plan.tracked) ||
         take_switch(argument, "--packed=", plan.packed);
}

bool parse(int count, char** arguments, Run& run) {
  for (int i = 1; i < count; ++i) {
    if (!take_one(arguments[i], run)) return false;
  }
  if (run.plan.packed && !run.plan.tracked) return false;
  return run.events > 0 && run.round > 0 && run.plan.queues > 0 && run.plan.queues <= 64;
}

void vary(chaos::Plan& plan) {
  plan.engine = plan.seed % 2 == 0 ? "io_uring" : "fallback";
  plan.direct = plan.seed / 2 % 2 == 0;
  plan.tracked = plan.seed / 4 % 3 != 0;
  plan.packed = plan.seed / 4 % 3 == 1;
}

std::unique_ptr<chaos::Hand> make_hand(const chaos::Plan& plan, chaos::Tally& tally) {
  if (plan.card) return std::make_unique<chaos::Cards>(plan, tally);
  return std::make_unique<chaos::Chaos>(plan, tally);
}

bool do_round(const chaos::Plan& plan, chaos::Tally& tally) {
  try {
    const std::unique_ptr<chaos::Hand> hand = make_hand(plan, tally);
    try {
      hand->run();
      return true;
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "%s\n%s", failure.what(), hand->story().c_str());
      // Threads of the load may still wait for answers that do not come.
      std::fprintf(stderr,
                   "FAILED with%s --seed=%llu --engine=%s --direct=%s --tracked=%s --packed=%s\n",
                   plan.card ? " --card" : "", static_cast<unsigned long long>(plan.seed),
                   plan.engine.c_str(), plan.direct ? "on" : "off", plan.tracked ? "on" : "off",
                   plan.packed ? "on" : "off");
      std::_Exit(1);
    }
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
  }
  return false;
}

}  // namespace

int main(int count, char** arguments) {
  testing::InitGoogleTest();  // The load's own expectations.
  testing::GTEST_FLAG(throw_on_failure) = true;
  Run run;
  if (!parse(count, arguments, run)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  chaos::Tally tally;
  for (std::uint32_t done = 0; done < run.events; done += run.plan.events) {
    run.plan.events = std::min(run.round, run.events - done);
    if (run.vary) vary(run.plan);
    if (!do_round(run.plan, tally)) return 1;
    ++run.plan.seed;
    if (run.events > run.round) {
      std::fprintf(stderr, "%u of %u events, %llu requests\n", done + run.plan.events, run.events,
                   static_cast<unsigned long long>(tally.answered));
    }
  }
  tally.print(run.plan.card);
  return 0;
}
