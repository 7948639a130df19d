#include "policy/seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>

#include "common/fd.h"
#include "policy/forensic.h"
#include "policy/sanitizer.h"

namespace policy {
namespace {

using common::fail_errno;
using common::Result;
using common::ipc::FilterInstruction;

using Context = std::unique_ptr<std::remove_pointer_t<scmp_filter_ctx>,
                                decltype([](void* context) { ::seccomp_release(context); })>;

// libseccomp returns negative errno values.
Result<void> check(int result, const char* what) {
  if (result < 0) return fail_errno(what, -result);
  return {};
}

scmp_arg_cmp compare(const ArgLimit& limit) {
  switch (limit.test) {
    case ArgLimit::Test::kEquals:
      return {limit.index, SCMP_CMP_EQ, limit.value, 0};
    case ArgLimit::Test::kMaskedEquals:
      return {limit.index, SCMP_CMP_MASKED_EQ, limit.mask, limit.value};
    case ArgLimit::Test::kAtMost:
      return {limit.index, SCMP_CMP_LE, limit.value, 0};
    case ArgLimit::Test::kAny:
      break;
  }
  return {limit.index, SCMP_CMP_GE, 0, 0};
}

Result<void> add_rule(scmp_filter_ctx context, const SyscallRule& rule) {
  std::array<scmp_arg_cmp, kArgLimitsMax> compares{};
  unsigned count = 0;
  for (const ArgLimit& limit : rule.limits) {
    if (limit.test != ArgLimit::Test::kAny) compares[count++] = compare(limit);
  }
  return check(
      ::seccomp_rule_add_exact_array(context, SCMP_ACT_ALLOW, rule.number, count, compares.data()),
      "seccomp: add a rule");
}

// Through a memfd, since libseccomp exports into descriptors only (2.6 has memory as well).
Result<std::vector<FilterInstruction>> export_instructions(scmp_filter_ctx context) {
  const common::Fd file(::memfd_create("filter", MFD_CLOEXEC));
  if (!file.valid()) return fail_errno("seccomp: memfd_create", errno);
  TRY(check(::seccomp_export_bpf(context, file.ref().number), "seccomp: export"));

  const off_t bytes = ::lseek(file.ref().number, 0, SEEK_END);
  if (bytes < 0) return fail_errno("seccomp: size of the filter", errno);
  const std::size_t count = static_cast<std::size_t>(bytes) / sizeof(FilterInstruction);
  std::vector<FilterInstruction> instructions(count);
  const std::size_t wanted = count * sizeof(FilterInstruction);
  const ssize_t got = ::pread(file.ref().number, instructions.data(), wanted, 0);
  if (got < 0 || static_cast<std::size_t>(got) != wanted) {
    return fail_errno("seccomp: read the filter back", got < 0 ? errno : EIO);
  }
  return instructions;
}

Result<void> install(std::span<const FilterInstruction> filter, unsigned flags) {
  static_assert(sizeof(FilterInstruction) == sizeof(sock_filter));
  const struct {  // struct sock_fprog
    unsigned short count;
    const FilterInstruction* instructions;
  } program{static_cast<unsigned short>(filter.size()), filter.data()};
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  // With TSYNC a positive result is a thread that could not be brought along.
  if (result == 0) return {};
  return fail_errno("install the broker's seccomp filter", result < 0 ? errno : EBUSY);
}

// `foreign`: what becomes of other architectures' calls (int 0x80, x32).
Result<Context> start_filter(std::uint32_t otherwise, std::uint32_t foreign) {
  Context context(::seccomp_init(otherwise));
  if (context == nullptr) return fail_errno("seccomp: no memory", ENOMEM);
  TRY(check(::seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, foreign),
            "seccomp: foreign architectures"));
  return context;
}

Result<void> add_rules(scmp_filter_ctx context, std::span<const SyscallRule> rules) {
  for (const SyscallRule& rule : rules) TRY(add_rule(context, rule));
  return {};
}

// Allows everything but these, whatever their arguments: another filter decides about the rest.
Result<std::vector<FilterInstruction>> compile_exceptions(std::span<const int> numbers,
                                                          std::uint32_t action) {
  TRY_LET(const Context context, start_filter(SCMP_ACT_ALLOW, SCMP_ACT_ALLOW));
  for (const int number : numbers) {
    TRY(check(::seccomp_rule_add_exact(context.get(), action, number, 0), "seccomp: add a rule"));
  }
  return export_instructions(context.get());
}

bool lists(std::span<const SyscallRule> rules, int number) {
  return std::any_of(rules.begin(), rules.end(),
                     [number](const SyscallRule& rule) { return rule.number == number; });
}

// Only for handing over the listener: neither the profile's nor a sanitizer's.
std::vector<SyscallRule> hand_over_rules(const Profile& profile) {
  std::vector<SyscallRule> rules;
  for (const SyscallRule& rule : kHandOverSyscalls) {
    if (lists(profile.syscalls, rule.number) || lists(kSanitizerSyscalls, rule.number)) continue;
    rules.push_back(rule);
  }
  return rules;
}

}  // namespace

Result<ForensicFilters> compile_forensic(const Profile& profile) {
  const std::vector<SyscallRule> handing_over = hand_over_rules(profile);
  TRY_LET(const Context context, start_filter(SCMP_ACT_NOTIFY, SCMP_ACT_KILL_PROCESS));
  TRY(add_rules(context.get(), profile.syscalls));
  TRY(add_rules(context.get(), kSanitizerSyscalls));
  TRY(add_rules(context.get(), handing_over));
  std::vector<int> over;
  over.reserve(handing_over.size());
  for (const SyscallRule& rule : handing_over) over.push_back(rule.number);

  ForensicFilters filters;
  TRY_LET(filters.waiting, export_instructions(context.get()));
  TRY_LET(filters.closing, compile_exceptions(over, SCMP_ACT_KILL_PROCESS));
  if (filters.waiting.size() + filters.closing.size() > common::ipc::kFilterInstructionsMax) {
    return fail_errno("seccomp: the filters are too long", ENOSPC);
  }
  return filters;
}

Result<std::vector<FilterInstruction>> compile_filter(const Profile& profile) {
  const bool refuses = profile.otherwise == Profile::Otherwise::kRefuse;
  TRY_LET(
      const Context context,
      start_filter(refuses ? SCMP_ACT_ERRNO(EPERM) : SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_PROCESS));
  TRY(add_rules(context.get(), profile.syscalls));
  TRY(add_rules(context.get(), profile.by_chance));
  TRY(add_rules(context.get(), kSanitizerSyscalls));
  for (const int number : profile.not_there) {
    TRY(add_rule(context.get(), {number, {}, ""}));  // compile_absence()'s answer is the stricter.
  }
  if (refuses) {
    // A tree: this one is long, and runs before the filter of every child as well.
    TRY(check(::seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2), "seccomp: optimise"));
  }
  TRY_LET(auto instructions, export_instructions(context.get()));
  if (!refuses && instructions.size() > common::ipc::kFilterInstructionsMax) {
    return fail_errno("seccomp: the filter is too long", ENOSPC);
  }
  return instructions;
}

Result<std::vector<FilterInstruction>> compile_absence(const Profile& profile) {
  return compile_exceptions(profile.not_there, SCMP_ACT_ERRNO(ENOSYS));
}

// What is not there is asked for on purpose, so it leaves no record: whoever makes us ask could
// fill the log with them. Hence a filter of its own.
Result<void> install_own_filter(const Profile& profile) {
  TRY_LET(const auto absence, compile_absence(profile));
  TRY_LET(const auto list, compile_filter(profile));
  if (!profile.not_there.empty()) TRY(install(absence, SECCOMP_FILTER_FLAG_TSYNC));
  return install(list, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG);
}

std::string syscall_name(int number) {
  const std::unique_ptr<char, decltype([](char* text) { std::free(text); })> name(
      ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number));
  return name == nullptr ? "#" + std::to_string(number) : name.get();
}

}  // namespace policy
