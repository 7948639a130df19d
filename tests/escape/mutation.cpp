#include "tests/escape/mutation.h"

#include <linux/io_uring.h>

#include <optional>

#include "policy/all_profiles.h"
#include "policy/permissions_text.h"
#include "policy/seccomp.h"

namespace escape {
namespace {

using policy::ArgLimit;
using policy::Profile;
using policy::SyscallRule;

// Operations that would hurt if a ring were allowed them.
constexpr std::uint8_t kForeignOpcodes[] = {IORING_OP_OPENAT,    IORING_OP_SOCKET,
                                            IORING_OP_RECVMSG,   IORING_OP_MSG_RING,
                                            IORING_OP_URING_CMD, IORING_OP_FILES_UPDATE};

struct Mutation {
  const Profile* profile = nullptr;
  std::string text;
  std::vector<SyscallRule> syscalls;
  std::vector<std::uint8_t> opcodes;
};

Mutation copy_of(const Profile& profile, const std::string& what) {
  return {&profile,
          std::string(profile.name) + ": " + what,
          {profile.syscalls.begin(), profile.syscalls.end()},
          {profile.uring_opcodes.begin(), profile.uring_opcodes.end()}};
}

void add_mutations_of_rows(const Profile& profile, std::vector<Mutation>& all) {
  for (std::size_t row = 0; row < profile.syscalls.size(); ++row) {
    const SyscallRule& rule = profile.syscalls[row];
    const std::string name =
        policy::syscall_name(rule.number) + " (" + policy::limits_text(rule) + ")";
    Mutation without = copy_of(profile, "without " + name);
    without.syscalls.erase(without.syscalls.begin() + static_cast<std::ptrdiff_t>(row));
    all.push_back(std::move(without));
    for (std::size_t limit = 0; limit < rule.limits.size(); ++limit) {
      if (rule.limits[limit].test == ArgLimit::Test::kAny) continue;
      Mutation wider =
          copy_of(profile, name + " with any arg" + std::to_string(rule.limits[limit].index));
      wider.syscalls[row].limits[limit] = {};
      all.push_back(std::move(wider));
    }
  }
}

void add_mutations_of_rings(const Profile& profile, std::vector<Mutation>& all) {
  for (std::size_t i = 0; i < profile.uring_opcodes.size(); ++i) {
    Mutation without =
        copy_of(profile, "without ring " + policy::opcode_name(profile.uring_opcodes[i]));
    without.opcodes.erase(without.opcodes.begin() + static_cast<std::ptrdiff_t>(i));
    all.push_back(std::move(without));
  }
  if (profile.uring_opcodes.empty()) return;
  for (const std::uint8_t opcode : kForeignOpcodes) {
    Mutation wider = copy_of(profile, "with ring operation " + std::to_string(opcode));
    wider.opcodes.push_back(opcode);
    all.push_back(std::move(wider));
  }
}

std::vector<Mutation> every_mutation() {
  std::vector<Mutation> all;
  for (const Profile* const profile : policy::kAllProfiles) {
    add_mutations_of_rows(*profile, all);
    add_mutations_of_rings(*profile, all);
  }
  return all;
}

struct Chosen {
  Mutation mutation;
  Profile profile;
};

std::optional<Chosen>& chosen() {
  static std::optional<Chosen> one;
  return one;
}

}  // namespace

std::vector<std::string> list_mutations() {
  std::vector<std::string> texts;
  for (const Mutation& mutation : every_mutation()) texts.push_back(mutation.text);
  return texts;
}

void choose_mutation(std::size_t index) {
  auto& one = chosen();
  one.emplace(Chosen{every_mutation().at(index), {}});
  one->profile = *one->mutation.profile;
  one->profile.syscalls = one->mutation.syscalls;
  one->profile.uring_opcodes = one->mutation.opcodes;
}

const Profile& mutated(const Profile& profile) {
  const auto& one = chosen();
  return one && one->mutation.profile == &profile ? one->profile : profile;
}

}  // namespace escape
