// Each real profile's filter, run in user space against its table: for every number, architecture,
// and for arguments that are just not those of the table.
#include "policy/seccomp.h"

#include <gtest/gtest.h>
#include <linux/audit.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "policy/sanitizer.h"
#include "tests/escape/bpf_evaluator.h"
#include "tests/escape/profiles.h"
#include "tests/escape/table_model.h"

namespace policy {
namespace {

using common::ipc::FilterInstruction;
using escape::Arguments;

constexpr std::uint32_t kNumbers = 1024;
constexpr std::uint32_t kX32 = 0x40000000;

using escape::kProfiles;

bool table_allows(const Profile& profile, std::uint32_t number, const Arguments& arguments) {
  const auto signed_number = static_cast<int>(number);
  return escape::allows(profile.syscalls, signed_number, arguments) ||
         escape::allows(profile.by_chance, signed_number, arguments) ||
         escape::allows(kSanitizerSyscalls, signed_number, arguments);
}

// Arguments that satisfy a rule, and then each argument moved a little or far.
Arguments satisfying(const SyscallRule& rule) {
  Arguments arguments{};
  for (const ArgLimit& limit : rule.limits) {
    if (limit.test != ArgLimit::Test::kAny) arguments[limit.index] = limit.value;
  }
  return arguments;
}

std::vector<Arguments> neighbours(const Arguments& centre) {
  constexpr std::uint64_t kHigh = std::uint64_t{1} << 32;
  std::vector<Arguments> all = {centre};
  for (std::size_t i = 0; i < centre.size(); ++i) {
    const std::uint64_t value = centre[i];
    for (const std::uint64_t other :
         {value + 1, value - 1, value | kHigh, value | (kHigh << 31), value ^ 1, value ^ 0x80,
          value ^ 0x80000000U, ~value, std::uint64_t{0}, ~std::uint64_t{0}, value + 1024}) {
      all.push_back(centre);
      all.back()[i] = other;
    }
  }
  return all;
}

class Filter : public testing::TestWithParam<const Profile*> {
 protected:
  void SetUp() override {
    auto compiled = compile_filter(*GetParam());
    ASSERT_TRUE(compiled) << compiled.error().what;
    filter_ = *std::move(compiled);
  }
  [[nodiscard]] std::optional<std::uint32_t> run(std::uint32_t number, std::uint32_t arch,
                                                 const Arguments& arguments) const {
    seccomp_data data{};
    data.nr = static_cast<int>(number);
    data.arch = arch;
    data.instruction_pointer = 0x7f0012345678;
    std::copy(arguments.begin(), arguments.end(), data.args);
    return escape::evaluate(filter_, data);
  }
  void expect_as_the_table(std::uint32_t number, const Arguments& arguments) const {
    const std::uint32_t expected =
        table_allows(*GetParam(), number, arguments) ? SECCOMP_RET_ALLOW : SECCOMP_RET_KILL_PROCESS;
    ASSERT_EQ(run(number, AUDIT_ARCH_X86_64, arguments), expected)
        << syscall_name(static_cast<int>(number)) << testing::PrintToString(arguments);
  }
  std::vector<FilterInstruction> filter_;
};

TEST_P(Filter, AgreesWithTheTableForEveryNumber) {
  for (std::uint32_t number = 0; number < kNumbers; ++number) expect_as_the_table(number, {});
}

TEST_P(Filter, AgreesWithTheTableForEveryNumberWithLargeArguments) {
  constexpr std::uint64_t kAll = ~std::uint64_t{0};
  for (std::uint32_t number = 0; number < kNumbers; ++number) {
    expect_as_the_table(number, {kAll, kAll, kAll, kAll, kAll, kAll});
  }
}

TEST_P(Filter, AgreesWithTheTableAroundEachRule) {
  for (const auto& rules : {GetParam()->syscalls, GetParam()->by_chance}) {
    for (const SyscallRule& rule : rules) {
      const auto number = static_cast<std::uint32_t>(rule.number);
      ASSERT_TRUE(table_allows(*GetParam(), number, satisfying(rule)));
      for (const Arguments& arguments : neighbours(satisfying(rule))) {
        expect_as_the_table(number, arguments);
      }
    }
  }
}

TEST_P(Filter, KillsEveryCallOfTheX32Table) {
  for (std::uint32_t number = 0; number < kNumbers; ++number) {
    ASSERT_EQ(run(number | kX32, AUDIT_ARCH_X86_64, {}), SECCOMP_RET_KILL_PROCESS) << number;
  }
}

TEST_P(Filter, KillsEveryCallOfForeignArchitectures) {
  for (const auto arch : std::initializer_list<std::uint32_t>{AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64,
                                                              AUDIT_ARCH_ARM, 0}) {
    for (std::uint32_t number = 0; number < kNumbers; ++number) {
      ASSERT_EQ(run(number, arch, {}), SECCOMP_RET_KILL_PROCESS) << number;
    }
  }
}

TEST_P(Filter, KillsNumbersThatNoTableHas) {
  for (const std::uint32_t number : {0x3fffffffU, 0x7fffffffU, 0x80000000U, 0xffffffffU}) {
    ASSERT_EQ(run(number, AUDIT_ARCH_X86_64, {}), SECCOMP_RET_KILL_PROCESS) << number;
  }
}

TEST_P(Filter, FitsIntoTheOrder) {
  EXPECT_GT(filter_.size(), 4U);
  EXPECT_LE(filter_.size(), common::ipc::kFilterInstructionsMax);
}

INSTANTIATE_TEST_SUITE_P(OfEachProfile, Filter, testing::ValuesIn(kProfiles), [](const auto& each) {
  std::string name(each.param->name);
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

// --- the broker's own, which its children inherit ------------------------------------------------

class BrokersFilter : public testing::Test {
 protected:
  void SetUp() override {
    auto compiled = compile_filter(kBroker);
    ASSERT_TRUE(compiled) << compiled.error().what;
    filter_ = *std::move(compiled);
  }
  [[nodiscard]] std::optional<std::uint32_t> run(std::uint32_t number,
                                                 const Arguments& arguments) const {
    seccomp_data data{};
    data.nr = static_cast<int>(number);
    data.arch = AUDIT_ARCH_X86_64;
    std::copy(arguments.begin(), arguments.end(), data.args);
    return escape::evaluate(filter_, data);
  }
  static std::uint32_t by_the_table(std::uint32_t number, const Arguments& arguments) {
    if (number == SYS_clone3) return SECCOMP_RET_ALLOW;  // The other filter's business.
    return table_allows(kBroker, number, arguments) ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EPERM;
  }
  std::vector<FilterInstruction> filter_;
};

TEST_F(BrokersFilter, AgreesWithTheTableForEveryNumber) {
  constexpr std::uint64_t kAll = ~std::uint64_t{0};
  for (std::uint32_t number = 0; number < kNumbers; ++number) {
    ASSERT_EQ(run(number, {}), by_the_table(number, {})) << number;
    const Arguments large = {kAll, kAll, kAll, kAll, kAll, kAll};
    ASSERT_EQ(run(number, large), by_the_table(number, large)) << number;
  }
}

TEST_F(BrokersFilter, AgreesWithTheTableAroundEachRule) {
  for (const SyscallRule& rule : kBroker.syscalls) {
    const auto number = static_cast<std::uint32_t>(rule.number);
    for (const Arguments& arguments : neighbours(satisfying(rule))) {
      ASSERT_EQ(run(number, arguments), by_the_table(number, arguments))
          << syscall_name(rule.number) << testing::PrintToString(arguments);
    }
  }
}

// Of two filters the stricter answer counts: whatever is missing here is missing there.
TEST_F(BrokersFilter, TakesNothingFromWhatItsChildrenMay) {
  for (const Profile* const profile : kProfiles) {
    if (profile == &kExporter) continue;  // No child of a broker.
    for (const SyscallRule& rule : profile->syscalls) {
      for (const Arguments& arguments : neighbours(satisfying(rule))) {
        const auto number = static_cast<std::uint32_t>(rule.number);
        if (!table_allows(*profile, number, arguments)) continue;
        ASSERT_EQ(run(number, arguments), SECCOMP_RET_ALLOW)
            << profile->name << ": " << syscall_name(rule.number)
            << testing::PrintToString(arguments);
      }
    }
  }
}

TEST_F(BrokersFilter, HasAnotherBesideItInWhichClone3IsNotThere) {
  const auto absence = compile_absence(kBroker);
  ASSERT_TRUE(absence);
  filter_ = *absence;
  for (std::uint32_t number = 0; number < kNumbers; ++number) {
    const bool gone = number == SYS_clone3;
    ASSERT_EQ(run(number, {}), gone ? SECCOMP_RET_ERRNO | ENOSYS : SECCOMP_RET_ALLOW) << number;
  }
}

TEST_F(BrokersFilter, RefusesWhatABrokerNeverDoes) {
  if (kSanitizerBuild) return;  // Sanitizers do some of this, and such a broker has no filter.
  for (const int number : {SYS_open,
                           SYS_creat,
                           SYS_execve,
                           SYS_fork,
                           SYS_vfork,
                           SYS_ptrace,
                           SYS_process_vm_readv,
                           SYS_process_vm_writev,
                           SYS_pidfd_getfd,
                           SYS_setns,
                           SYS_unshare,
                           SYS_keyctl,
                           SYS_bpf,
                           SYS_init_module,
                           SYS_kexec_load,
                           SYS_userfaultfd,
                           SYS_perf_event_open,
                           SYS_open_by_handle_at,
                           SYS_chroot,
                           SYS_chown,
                           SYS_link,
                           SYS_symlink,
                           SYS_mknod,
                           SYS_fsopen,
                           SYS_move_mount,
                           SYS_memfd_secret,
                           SYS_personality}) {
    EXPECT_EQ(run(static_cast<std::uint32_t>(number), {}), SECCOMP_RET_ERRNO | EPERM)
        << syscall_name(number);
  }
  constexpr std::uint64_t kTruncate = 01000;  // O_TRUNC
  EXPECT_EQ(run(SYS_openat, {0, 0, kTruncate}), SECCOMP_RET_ERRNO | EPERM);
  constexpr std::uint64_t kExecutable = 4;  // PROT_EXEC
  EXPECT_EQ(run(SYS_mmap, {0, 0, kExecutable}), SECCOMP_RET_ERRNO | EPERM);
  EXPECT_EQ(run(SYS_mprotect, {0, 0, kExecutable}), SECCOMP_RET_ERRNO | EPERM);
}

TEST(Profiles, KeepTheirPromisedLengths) {
  const auto different = [](const Profile& profile) {
    std::vector<int> numbers;
    for (const SyscallRule& rule : profile.syscalls) numbers.push_back(rule.number);
    std::sort(numbers.begin(), numbers.end());
    return std::unique(numbers.begin(), numbers.end()) - numbers.begin();
  };
  EXPECT_EQ(different(kWorkerBlkUring), 2);
  EXPECT_LE(different(kWorkerBlkFallback), 9);
  EXPECT_LE(different(kWorkerBlkFallbackDirect), 9);
  EXPECT_EQ(different(kWorkerNetReceiveUring), 2);
  EXPECT_EQ(different(kWorkerNetTransmitUring), 2);
  EXPECT_LE(different(kWorkerNetReceiveFallback), 6);
  EXPECT_LE(different(kWorkerNetTransmitFallback), 6);
  EXPECT_LE(different(kWorkerNetControl), 6);
  EXPECT_LE(different(kSession), 8);
}

TEST(CompileFilter, RefusesARuleWithAnArgumentThatDoesNotExist) {
  constexpr SyscallRule kRules[] = {{SYS_close, {arg_is(6, 1)}, "nobody"}};
  const auto filter = compile_filter({.name = "wrong",
                                      .may = "",
                                      .must_never = "",
                                      .syscalls = kRules,
                                      .uring_opcodes = {},
                                      .descriptors = {}});
  ASSERT_FALSE(filter);
  EXPECT_EQ(filter.error().os_errno, EINVAL);
}

TEST(CompileFilter, RefusesAFilterThatIsTooLong) {
  std::vector<SyscallRule> rules;
  for (std::uint64_t i = 0; i < 300; ++i) rules.push_back({SYS_dup, {arg_is(0, i)}, "nobody"});
  const auto filter = compile_filter({.name = "long",
                                      .may = "",
                                      .must_never = "",
                                      .syscalls = rules,
                                      .uring_opcodes = {},
                                      .descriptors = {}});
  ASSERT_FALSE(filter);
  EXPECT_EQ(filter.error().os_errno, ENOSPC);
}

TEST(SyscallName, KnowsThisArchitecture) {
  EXPECT_EQ(syscall_name(SYS_openat), "openat");
  EXPECT_EQ(syscall_name(SYS_io_uring_enter), "io_uring_enter");
  EXPECT_EQ(syscall_name(999), "#999");
  EXPECT_EQ(syscall_name(-1), "#-1");
}

// --forensic: as two filters every profile still fits into a message.
TEST(Forensic, EveryProfileFitsWithTheFilterThatClosesIt) {
  for (const Profile* profile : kAllProfiles) {
    const auto filters = compile_forensic(*profile);
    ASSERT_TRUE(filters.has_value()) << profile->name;
    EXPECT_GT(filters->waiting.size(), filters->closing.size()) << profile->name;
    EXPECT_GT(filters->closing.size(), 0U) << profile->name;
  }
}

}  // namespace
}  // namespace policy
