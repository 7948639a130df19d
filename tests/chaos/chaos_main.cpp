// bulkhead-chaos: a front-end under load while processes die and everything else changes.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

#include "tests/chaos/chaos.h"
#include "tests/fakes/failure.h"

namespace {

constexpr const char* kUsage =
    "usage: bulkhead-chaos [--events=N] [--seed=N] [--queues=N] [--engine=io_uring|fallback]\n"
    "                      [--direct=on|off] [--tracked=on|off] [--program=PATH]\n"
    "                      [--verbose]\n";

bool take(std::string_view argument, std::string_view name, std::string& value) {
  if (!argument.starts_with(name)) return false;
  value = argument.substr(name.size());
  return true;
}

bool parse(int count, char** arguments, chaos::Plan& plan) {
  for (int i = 1; i < count; ++i) {
    std::string value;
    if (take(arguments[i], "--events=", value)) {
      plan.events = static_cast<std::uint32_t>(std::strtoul(value.c_str(), nullptr, 10));
    } else if (take(arguments[i], "--seed=", value)) {
      plan.seed = std::strtoull(value.c_str(), nullptr, 10);
    } else if (take(arguments[i], "--queues=", value)) {
      plan.queues = static_cast<std::uint16_t>(std::strtoul(value.c_str(), nullptr, 10));
    } else if (take(arguments[i], "--engine=", plan.engine)) {
    } else if (take(arguments[i], "--program=", plan.program)) {
    } else if (take(arguments[i], "--direct=", value)) {
      plan.direct = value == "on";
    } else if (take(arguments[i], "--tracked=", value)) {
      plan.tracked = value == "on";
    } else if (std::string_view(arguments[i]) == "--verbose") {
      plan.verbose = true;
    } else {
      return false;
    }
  }
  return plan.events > 0 && plan.queues > 0 && plan.queues <= 64;
}

}  // namespace

int main(int count, char** arguments) {
  testing::InitGoogleTest();  // The load's own expectations.
  testing::GTEST_FLAG(throw_on_failure) = true;
  chaos::Plan plan;
  if (!parse(count, arguments, plan)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  try {
    chaos::Chaos chaos(plan);
    try {
      chaos.run();
      chaos.print_summary();
      return 0;
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "%s\n%s", failure.what(), chaos.story().c_str());
    }
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
  }
  std::fprintf(stderr, "FAILED with --seed=%llu --engine=%s --direct=%s --tracked=%s\n",
               static_cast<unsigned long long>(plan.seed), plan.engine.c_str(),
               plan.direct ? "on" : "off", plan.tracked ? "on" : "off");
  // Threads of the load may still wait for answers that do not come.
  std::_Exit(1);
}
