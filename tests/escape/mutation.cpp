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
  std::vector<SyscallRule> by_chance;
  std::vector<std::uint8_t> opcodes;
  std::vector<int> not_there;
};

Mutation copy_of(const Profile& profile, const std::string& what) {
  return {&profile,
          std::string(profile.name) + ": " + what,
          {profile.syscalls.begin(), profile.syscalls.end()},
          {profile.by_chance.begin(), profile.by_chance.end()},
          {profile.uring_opcodes.begin(), profile.uring_opcodes.end()},
          {profile.not_there.begin(), profile.not_there.end()}};
}

// From the row `first` on.
void add_mutations_of_rows(const Profile& profile, std::vector<SyscallRule> Mutation::*rows,
                           std::vector<Mutation>& all, std::size_t first = 0) {
  const std::vector<SyscallRule> rules = copy_of(profile, "").*rows;
  for (std::size_t row = first; row < rules.size(); ++row) {
    const SyscallRule& rule = rules[row];
    const std::string name =
        policy::syscall_name(rule.number) + " (" + policy::limits_text(rule) + ")";
    Mutation without = copy_of(profile, "without " + name);
    (without.*rows).erase((without.*rows).begin() + static_cast<std::ptrdiff_t>(row));
    all.push_back(std::move(without));
    for (std::size_t limit = 0; limit < rule.limits.size(); ++limit) {
      if (rule.limits[limit].test == ArgLimit::Test::kAny) continue;
      Mutation wider =
          copy_of(profile, name + " with any arg" + std::to_string(rule.limits[limit].index));
      (wider.*rows)[row].limits[limit] = {};
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

// Of the shortest of its lists, of what the longest has beside it, and of what is on none.
void add_mutations_of_the_broker(std::vector<Mutation>& all) {
  using policy::kBroker;
  using policy::kBrokerThatAddsWithCgroups;
  add_mutations_of_rows(kBroker, &Mutation::syscalls, all);
  add_mutations_of_rows(kBroker, &Mutation::by_chance, all);
  add_mutations_of_rows(kBrokerThatAddsWithCgroups, &Mutation::syscalls, all,
                        kBroker.syscalls.size());
  add_mutations_of_rows(kBrokerThatAddsWithCgroups, &Mutation::by_chance, all,
                        kBroker.by_chance.size());
  for (const Profile* const profile : {&kBroker, &policy::kBrokerThatAdds}) {
    Mutation mutation = copy_of(*profile, "clone3 refused, not absent");
    mutation.not_there.clear();
    all.push_back(std::move(mutation));
  }
}

std::vector<Mutation> every_mutation() {
  std::vector<Mutation> all;
  for (const Profile* const profile : policy::kAllProfiles) {
    add_mutations_of_rows(*profile, &Mutation::syscalls, all);
    add_mutations_of_rows(*profile, &Mutation::by_chance, all);
    add_mutations_of_rings(*profile, all);
  }
  add_mutations_of_the_broker(all);
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
  one->profile.by_chance = one->mutation.by_chance;
  one->profile.uring_opcodes = one->mutation.opcodes;
  one->profile.not_there = one->mutation.not_there;
}

const Profile& mutated(const Profile& profile) {
  const auto& one = chosen();
  return one && one->mutation.profile == &profile ? one->profile : profile;
}

}  // namespace escape
