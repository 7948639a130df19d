// tests/escape/mutation.h: one permission more, or one less, than policy/ says: for asking whether
// the escape tests would notice. `tests/escape/mutate` goes through all of them.
#pragma once

#include <string>
#include <vector>

#include "policy/profile.h"

namespace escape {

// Every change of one row, limit or ring operation of every profile, in words.
[[nodiscard]] std::vector<std::string> list_mutations();

// From now on mutated() makes this one; an index of list_mutations().
void choose_mutation(std::size_t index);

// `profile` as it is installed: itself, unless the mutation that was chosen concerns it. The tests
// go on comparing with the tables as they are.
[[nodiscard]] const policy::Profile& mutated(const policy::Profile& profile);

}  // namespace escape
