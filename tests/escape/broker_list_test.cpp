// tests/escape/broker_list_test.cpp: the broker's own lists, each of the four: what its filter
// answers, by the kernel for all that is on none of its rows, and by evaluation of what is
// installed for each row and what is just beside it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "policy/broker.h"
#include "policy/sanitizer.h"
#include "policy/seccomp.h"
#include "tests/escape/bpf_evaluator.h"
#include "tests/escape/mutation.h"
#include "tests/escape/table_model.h"

namespace escape {
namespace {

using policy::Profile;
using policy::SyscallRule;

struct List {
  const char* name;
  const Profile* profile;
};
void PrintTo(const List& list, std::ostream* out) { *out << list.name; }

class BrokersList : public testing::TestWithParam<List> {};
INSTANTIATE_TEST_SUITE_P(
    Each, BrokersList,
    testing::Values(List{"Plain", &policy::kBroker}, List{"Adding", &policy::kBrokerThatAdds},
                    List{"WithCgroups", &policy::kBrokerWithCgroups},
                    List{"AddingWithCgroups", &policy::kBrokerThatAddsWithCgroups}),
    [](const auto& each) { return each.param.name; });

bool has_row(const Profile& profile, int number) {
  const auto is = [number](const SyscallRule& rule) { return rule.number == number; };
  return std::any_of(profile.syscalls.begin(), profile.syscalls.end(), is) ||
         std::any_of(profile.by_chance.begin(), profile.by_chance.end(), is);
}

bool by_the_table(const Profile& profile, int number, const Arguments& arguments) {
  // The other filter's business: there it fails with ENOSYS.
  const auto& elsewhere = profile.not_there;
  return std::find(elsewhere.begin(), elsewhere.end(), number) != elsewhere.end() ||
         allows(profile.syscalls, number, arguments) ||
         allows(profile.by_chance, number, arguments);
}

// In a process that has the list, as a broker does; its exit code.
int in_a_broker(const Profile& profile, const std::function<int()>& attempt) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) ::_exit(1);
    if (!policy::install_own_filter(mutated(profile))) ::_exit(2);
    ::_exit(attempt());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

constexpr int kAsItShould = 42;
constexpr int kNumbers = 1024;
constexpr unsigned kX32 = 0x40000000;

// Not with a sanitizer, which makes calls of its own: such a broker has no list.
TEST_P(BrokersList, RefusesEveryNumberThatIsNotOnIt) {
  if (policy::kSanitizerBuild) return;
  const Profile& profile = *GetParam().profile;
  EXPECT_EQ(in_a_broker(profile,
                        [&] {
                          for (int number = 0; number < kNumbers; ++number) {
                            // 335 and 336 are the kernel's own (forbidden_test.cpp).
                            if (has_row(profile, number) || number == 335 || number == 336)
                              continue;
                            const bool none = number == SYS_clone3;
                            errno = 0;
                            if (::syscall(number, 0, 0, 0, 0, 0, 0) != -1) return 3;
                            if (errno != (none ? ENOSYS : EPERM)) return 4;
                          }
                          return kAsItShould;
                        }),
            kAsItShould);
}

TEST_P(BrokersList, KillsForTheX32Table) {
  if (policy::kSanitizerBuild) return;
  const auto attempt = [] { return static_cast<int>(::syscall(kX32 | SYS_getpid)); };
  EXPECT_EQ(in_a_broker(*GetParam().profile, attempt), 128 + SIGSYS);
}

// Each argument a little or far from what a row says.
std::vector<Arguments> beside(const SyscallRule& rule) {
  constexpr std::uint64_t kHigh = std::uint64_t{1} << 32;
  Arguments centre{};
  for (const policy::ArgLimit& limit : rule.limits) {
    if (limit.test != policy::ArgLimit::Test::kAny) centre[limit.index] = limit.value;
  }
  std::vector<Arguments> all = {centre};
  for (std::size_t i = 0; i < centre.size(); ++i) {
    const std::uint64_t value = centre[i];
    for (const std::uint64_t other :
         {value + 1, value - 1, value | kHigh, value ^ 1, value ^ 0x80, value ^ 0x80000000U, ~value,
          std::uint64_t{0}, ~std::uint64_t{0}, value + 1024}) {
      all.push_back(centre);
      all.back()[i] = other;
    }
  }
  return all;
}

TEST_P(BrokersList, AnswersAsItsPageSaysAroundEachRow) {
  if (policy::kSanitizerBuild) return;  // Whose run-time may make calls of its own.
  const Profile& profile = *GetParam().profile;
  const auto filter = policy::compile_filter(mutated(profile));
  ASSERT_TRUE(filter) << filter.error().what;
  std::vector<SyscallRule> rows(profile.syscalls.begin(), profile.syscalls.end());
  rows.insert(rows.end(), profile.by_chance.begin(), profile.by_chance.end());
  for (const SyscallRule& rule : rows) {
    for (const Arguments& arguments : beside(rule)) {
      seccomp_data data{};
      data.nr = rule.number;
      data.arch = AUDIT_ARCH_X86_64;
      std::copy(arguments.begin(), arguments.end(), data.args);
      const std::uint32_t refused = SECCOMP_RET_ERRNO | EPERM;
      ASSERT_EQ(evaluate(*filter, data),
                by_the_table(profile, rule.number, arguments) ? SECCOMP_RET_ALLOW : refused)
          << policy::syscall_name(rule.number) << testing::PrintToString(arguments);
    }
  }
}

// What the shorter list is for: a broker of the devices that it was started with opens no other
// disk, tap or device, and changes no interface.
TEST(BrokersListWithoutAdding, OpensNoNewDiskOrTap) {
  using policy::kBroker;
  for (const int number : {SYS_openat2, SYS_statx, SYS_fstatfs, SYS_fchownat, SYS_rename, SYS_fsync,
                           SYS_shutdown, SYS_getpeername}) {
    EXPECT_FALSE(has_row(kBroker, number)) << policy::syscall_name(number);
    EXPECT_TRUE(has_row(policy::kBrokerThatAdds, number)) << policy::syscall_name(number);
  }
  for (const std::uint64_t request : {std::uint64_t{TUNSETIFF}, std::uint64_t{SIOCSIFFLAGS}}) {
    EXPECT_FALSE(by_the_table(kBroker, SYS_ioctl, {0, request}));
    EXPECT_TRUE(by_the_table(policy::kBrokerThatAdds, SYS_ioctl, {0, request}));
  }
  EXPECT_FALSE(by_the_table(kBroker, SYS_socket, {AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0}));
}

}  // namespace
}  // namespace escape
