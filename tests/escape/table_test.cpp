// tests/escape/table_test.cpp: the tables of policy/, row by row, against the kernel: what a row
// says works in the jail, and one step beside each of its limits is death.
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "policy/all_profiles.h"
#include "policy/permissions_text.h"
#include "policy/sanitizer.h"
#include "policy/seccomp.h"
#include "tests/escape/run_escapee.h"
#include "tests/escape/table_model.h"

namespace escape {
namespace {

using policy::ArgLimit;
using policy::Profile;
using policy::SyscallRule;

constexpr std::uint64_t kHighBit = std::uint64_t{1} << 32;

// As far as a row lets an argument go. Pointers that no row limits are null: EFAULT is an answer.
Arguments utmost_arguments(const SyscallRule& rule) {
  Arguments arguments{};
  if (rule.number == SYS_ppoll) arguments[2] = kText;  // Zeros: no time, rather than for ever.
  for (const ArgLimit& limit : rule.limits) {
    if (limit.test != ArgLimit::Test::kAny) arguments[limit.index] = limit.value;
  }
  return arguments;
}

// The nearest values that a limit must not let pass, and one that only 64 bits tell apart.
std::vector<std::uint64_t> beside(const ArgLimit& limit) {
  switch (limit.test) {
    case ArgLimit::Test::kAny:
      return {};
    case ArgLimit::Test::kEquals:
      return {limit.value + 1, limit.value - 1, limit.value | kHighBit};
    case ArgLimit::Test::kMaskedEquals: {
      const std::uint64_t lowest = limit.mask & (~limit.mask + 1);
      return {limit.value | lowest, limit.value | kHighBit};
    }
    case ArgLimit::Test::kAtMost:
      return {limit.value + 1, limit.value | kHighBit, ~std::uint64_t{0}};
  }
  return {};
}

struct Try {
  const Profile* profile;
  std::string name;
  int number;
  Arguments arguments;
};
void PrintTo(const Try& each, std::ostream* out) { *out << each.name; }

std::string words_only(std::string text) {
  for (char& each : text) {
    if (std::isalnum(static_cast<unsigned char>(each)) == 0) each = '_';
  }
  return text;
}

// What a sanitizer's own list allows says nothing about the row.
bool is_sanitizers(int number) {
  return std::any_of(policy::kSanitizerSyscalls.begin(), policy::kSanitizerSyscalls.end(),
                     [&](const auto& rule) { return rule.number == number; });
}

std::vector<SyscallRule> all_rows(const Profile& profile) {
  std::vector<SyscallRule> rows(profile.syscalls.begin(), profile.syscalls.end());
  rows.insert(rows.end(), profile.by_chance.begin(), profile.by_chance.end());
  return rows;
}

template <typename Visit>
void for_each_row(Visit visit) {
  for (const Profile* const profile : policy::kAllProfiles) {
    const std::vector<SyscallRule> rows = all_rows(*profile);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      const SyscallRule& rule = rows[row];
      if (is_sanitizers(rule.number)) continue;
      visit(*profile, rule,
            std::string(profile->name) + " row " + std::to_string(row) + " " +
                policy::syscall_name(rule.number));
    }
  }
}

std::vector<Try> every_row() {
  std::vector<Try> tries;
  for_each_row([&](const Profile& profile, const SyscallRule& rule, const std::string& name) {
    if (rule.number == SYS_exit_group) return;  // EachProfile.CanStillLeave
    tries.push_back({&profile, words_only(name), rule.number, utmost_arguments(rule)});
  });
  return tries;
}

std::vector<Try> every_step_beside() {
  std::vector<Try> tries;
  for_each_row([&](const Profile& profile, const SyscallRule& rule, const std::string& name) {
    for (const ArgLimit& limit : rule.limits) {
      for (const std::uint64_t value : beside(limit)) {
        Arguments arguments = utmost_arguments(rule);
        arguments[limit.index] = value;
        if (allows(all_rows(profile), rule.number, arguments)) continue;  // Another row's.
        tries.push_back(
            {&profile,
             words_only(name + " arg" + std::to_string(limit.index) + " " + std::to_string(value)),
             rule.number, arguments});
      }
    }
  });
  return tries;
}

class RowOfATable : public testing::TestWithParam<Try> {};
TEST_P(RowOfATable, IsPermitted) {
  const Try& each = GetParam();
  auto escapee =
      Escapee::start({.profile = each.profile},
                     try_system_call(static_cast<std::uint64_t>(each.number), each.arguments));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kCameBack);
}
INSTANTIATE_TEST_SUITE_P(Every, RowOfATable, testing::ValuesIn(every_row()),
                         [](const auto& each) { return each.param.name; });

class BesideALimit : public testing::TestWithParam<Try> {};
TEST_P(BesideALimit, IsDeath) {
  const Try& each = GetParam();
  auto escapee =
      Escapee::start({.profile = each.profile},
                     try_system_call(static_cast<std::uint64_t>(each.number), each.arguments));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kKilledBySeccomp);
}
INSTANTIATE_TEST_SUITE_P(Every, BesideALimit, testing::ValuesIn(every_step_beside()),
                         [](const auto& each) { return each.param.name; });

// --- rings ---------------------------------------------------------------------------------------

struct RingTry {
  const Profile* profile;
  std::string name;
  std::uint8_t opcode;
};
void PrintTo(const RingTry& each, std::ostream* out) { *out << each.name; }

std::vector<RingTry> ring_operations(bool listed) {
  std::vector<RingTry> tries;
  for (const Profile* const profile : policy::kAllProfiles) {
    if (profile->uring_opcodes.empty()) continue;
    for (std::uint8_t opcode = 0; opcode < IORING_OP_LAST; ++opcode) {
      const auto& list = profile->uring_opcodes;
      if ((std::find(list.begin(), list.end(), opcode) != list.end()) != listed) continue;
      tries.push_back(
          {profile, words_only(std::string(profile->name) + " " + std::to_string(opcode)), opcode});
    }
  }
  return tries;
}

// On the device's slot, without memory or length: what is allowed gets some other answer, and at
// once. POLL_ADD takes the length for flags; without any it would wait.
std::int64_t answer_to(const RingTry& each) {
  constexpr int kDevice = 2;
  const std::uint32_t length = each.opcode == IORING_OP_POLL_ADD ? 2 : 0;
  auto escapee = Escapee::start({.profile = each.profile},
                                try_ring(each.opcode, IOSQE_FIXED_FILE, kDevice, length));
  if (!escapee) return 0;
  EXPECT_EQ(escapee->wait(), kCameBack);
  return escapee->result();
}

class OperationOfARing : public testing::TestWithParam<RingTry> {};
TEST_P(OperationOfARing, IsPermitted) { EXPECT_NE(answer_to(GetParam()), -EACCES); }
INSTANTIATE_TEST_SUITE_P(Every, OperationOfARing, testing::ValuesIn(ring_operations(true)),
                         [](const auto& each) { return each.param.name; });

class OtherOperation : public testing::TestWithParam<RingTry> {};
TEST_P(OtherOperation, IsRefused) { EXPECT_EQ(answer_to(GetParam()), -EACCES); }
INSTANTIATE_TEST_SUITE_P(Every, OtherOperation, testing::ValuesIn(ring_operations(false)),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace escape
