#include "policy/exec_label.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>

#include "common/fd.h"
#include "policy/proc_files.h"

namespace policy {
namespace {

constexpr const char* kExecAttribute = "/proc/thread-self/attr/exec";
constexpr const char* kOwnAttribute = "/proc/thread-self/attr/current";
// Four numbers fill a range; nobody has use for more than some dozens.
constexpr std::size_t kLevelBytesMax = 1024;

// "s0", "c1023": a letter and a number without leading zeros.
bool take_number(std::string_view& text, char letter) {
  if (text.empty() || text.front() != letter) return false;
  text.remove_prefix(1);
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto digits = static_cast<std::size_t>(end - text.data());
  if (error != std::errc{} || (digits > 1 && text.front() == '0')) return false;
  text.remove_prefix(digits);
  return true;
}

bool take(std::string_view& text, char wanted) {
  if (text.empty() || text.front() != wanted) return false;
  text.remove_prefix(1);
  return true;
}

// "s0" or "s0:c1,c5.c8"
bool is_level(std::string_view text) {
  if (text.size() > kLevelBytesMax || !take_number(text, 's')) return false;
  if (text.empty()) return true;
  if (!take(text, ':')) return false;
  do {
    if (!take_number(text, 'c')) return false;
    if (take(text, '.') && !take_number(text, 'c')) return false;
  } while (take(text, ','));
  return text.empty();
}

// The part of that number, the fourth with all that follows; empty where there is none.
std::string_view part_of(std::string_view label, int number) {
  for (int i = 0; i < number; ++i) {
    const std::size_t colon = label.find(':');
    if (colon == label.npos) return {};
    label.remove_prefix(colon + 1);
  }
  return number == 3 ? label : label.substr(0, label.find(':'));
}

common::Result<void> write_attribute(std::string_view text) {
  const common::Fd file(::open(kExecAttribute, O_WRONLY | O_CLOEXEC));
  if (!file.valid()) return common::fail_errno("open attr/exec", errno);
  // Nothing at all takes back what was set.
  const ssize_t wrote = ::write(file.ref().number, text.data(), text.size());
  if (wrote != static_cast<ssize_t>(text.size())) {
    return common::fail_errno("give a process the VMM's SELinux level (attr/exec)",
                              wrote < 0 ? errno : EIO);
  }
  return {};
}

}  // namespace

std::optional<std::string> level_in(std::string_view label) {
  const std::string_view range = part_of(label, 3);
  const std::string_view low = range.substr(0, range.find('-'));
  if (!is_level(low)) return std::nullopt;
  return std::string(low);
}

std::string label_for(std::string_view own, std::string_view type, std::string_view peer) {
  if (part_of(own, 2) != kBrokerType || !level_in(own)) return {};
  const auto level = level_in(peer);
  if (!level) return {};
  return std::string(part_of(own, 0)) + ":" + std::string(part_of(own, 1)) + ":" +
         std::string(type) + ":" + *level;
}

std::string own_label() {
  std::string label = read_file(kOwnAttribute).value_or("");
  // The kernel ends it with a zero, AppArmor's with a newline.
  return label.substr(0, std::min(label.find('\0'), label.find('\n')));
}

common::Result<ExecLabel> ExecLabel::set(const std::string& label) {
  if (label.empty()) return ExecLabel(false);
  TRY(write_attribute(label));
  return ExecLabel(true);
}

ExecLabel::~ExecLabel() {
  // A process of another VMM would get it, too.
  if (set_ && !write_attribute({})) __builtin_trap();
}

}  // namespace policy
