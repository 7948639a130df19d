// policy/posture_text.cpp: the table that `bulkhead posture` prints.
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string_view>
#include <utility>

#include "policy/posture.h"

namespace policy {
namespace {

constexpr std::string_view role_text(ProcessRole role) {
  switch (role) {
    case ProcessRole::kBroker:
      return "broker";
    case ProcessRole::kSession:
      return "session";
    case ProcessRole::kWorker:
      return "worker";
    case ProcessRole::kOther:
      break;
  }
  return "process";
}

constexpr std::string_view state_text(LayerState state) {
  switch (state) {
    case LayerState::kEnforced:
      return "enforced";
    case LayerState::kDegraded:
      return "degraded";
    case LayerState::kAbsent:
      return "absent";
    case LayerState::kUnknown:
      break;
  }
  return "unknown";
}

std::string padded(std::string_view text, std::size_t width) {
  std::string result(text);
  if (result.size() < width) result.append(width - result.size(), ' ');
  return result;
}

std::size_t count_of(const ProcessPosture& posture, LayerState state) {
  return static_cast<std::size_t>(
      std::count_if(posture.layers.begin(), posture.layers.end(),
                    [state](const LayerView& view) { return view.state == state; }));
}

// As wide as the longest title, within reason.
std::size_t title_width(const std::vector<ProcessPosture>& postures) {
  constexpr std::size_t kLeast = 34;
  constexpr std::size_t kMost = 80;
  std::size_t width = kLeast;
  for (const ProcessPosture& posture : postures) width = std::max(width, posture.title.size());
  return std::min(width, kMost);
}

std::string summary_row(const ProcessPosture& posture, std::size_t title_width) {
  std::string layers = std::to_string(count_of(posture, LayerState::kEnforced));
  layers.append("/").append(std::to_string(posture.layers.size()));
  const bool counted = posture.descriptors.empty() || posture.descriptors[0][0] != 'c';
  std::string row = padded(std::to_string(posture.pid), 9);
  row += padded(role_text(posture.role), 9);
  row += padded(posture.title, title_width);
  row += " ";
  row += padded(layers, 8);
  row += padded(counted ? std::to_string(posture.descriptors.size()) : "?", 6);
  row += std::to_string(posture.suspicious_maps.size());
  row += "\n";
  return row;
}

// Workers of one broker look alike: they share one table as long as their states do.
bool alike(const ProcessPosture& a, const ProcessPosture& b) {
  return a.role == b.role && std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(),
                                        b.layers.end(), [](const auto& left, const auto& right) {
                                          return left.layer == right.layer &&
                                                 left.state == right.state;
                                        });
}

std::string layer_table(const ProcessPosture& posture) {
  std::string text;
  for (const LayerView& view : posture.layers) {
    text += "  " + padded(common::layer_name(view.layer), 18) + padded(state_text(view.state), 10) +
            view.reason + "\n";
  }
  return text;
}

// "3, 5-8, 12": 64 queues make hundreds of numbers.
std::string ranges_text(const std::vector<long>& numbers) {
  std::string text;
  for (std::size_t first = 0; first < numbers.size();) {
    std::size_t last = first;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(numbers[first]);
    if (last != first) text += (last == first + 1 ? ", " : "-") + std::to_string(numbers[last]);
    first = last + 1;
  }
  return text;
}

// "7 anon_inode:[eventfd]": 7 and the rest; a number below 0 for what is no such entry.
std::pair<long, std::string_view> split_descriptor(std::string_view entry) {
  long number = -1;
  const auto parsed = std::from_chars(entry.data(), entry.data() + entry.size(), number);
  if (parsed.ec != std::errc{}) return {-1, entry};
  return {number, entry.substr(static_cast<std::size_t>(parsed.ptr - entry.data()))};
}

// What tells descriptors apart that are to be listed together: sockets have numbers of their own.
std::string_view kind_of(std::string_view target) {
  return target.starts_with(" socket:[") ? " socket" : target;
}

// Descriptors of one kind on one line, where there are several.
std::vector<std::string> grouped(const std::vector<std::string>& descriptors) {
  std::vector<std::string> lines;
  std::vector<bool> listed(descriptors.size());
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    if (listed[i]) continue;
    const auto [number, target] = split_descriptor(descriptors[i]);
    std::vector<long> numbers = {number};
    for (std::size_t j = i + 1; j < descriptors.size() && number >= 0; ++j) {
      const auto [other, others_target] = split_descriptor(descriptors[j]);
      if (other < 0 || kind_of(others_target) != kind_of(target)) continue;
      numbers.push_back(other);
      listed[j] = true;
    }
    const bool alone = numbers.size() == 1;
    lines.push_back(alone ? descriptors[i] : ranges_text(numbers) + std::string(kind_of(target)));
  }
  return lines;
}

std::string list(std::string_view heading, const std::vector<std::string>& entries) {
  std::string text = "  " + padded(heading, 18);
  if (entries.empty()) return text + "none\n";
  for (std::size_t i = 0; i < entries.size(); ++i) {
    text += (i == 0 ? "" : padded("", 20)) + entries[i] + "\n";
  }
  return text;
}

std::string details(const ProcessPosture& first, const std::string& others) {
  std::string text = "\n";
  text += role_text(first.role);
  text += " ";
  text += std::to_string(first.pid);
  if (!first.title.empty()) text.append(" (").append(first.title).append(")");
  text += others;
  text += "\n";
  text += layer_table(first);
  text += list("descriptors", grouped(first.descriptors));
  text += list("executable maps", first.executable_maps);
  if (!first.suspicious_maps.empty()) text += list("WRITABLE AND EXEC", first.suspicious_maps);
  return text;
}

}  // namespace

std::string format_postures(const std::vector<ProcessPosture>& postures) {
  const std::size_t width = title_width(postures);
  std::string text = padded("PID", 9) + padded("ROLE", 9) + padded("TITLE", width) + " " +
                     padded("LAYERS", 8) + padded("FDS", 6) + "W+X\n";
  for (const ProcessPosture& posture : postures) text += summary_row(posture, width);

  for (std::size_t i = 0; i < postures.size(); ++i) {
    const auto before = postures.begin() + static_cast<std::ptrdiff_t>(i);
    const auto like_this = [&](const ProcessPosture& other) { return alike(*before, other); };
    if (std::any_of(postures.begin(), before, like_this)) continue;
    std::vector<long> others;
    for (auto each = before + 1; each != postures.end(); ++each) {
      if (like_this(*each)) others.push_back(each->pid);
    }
    text += details(*before, others.empty() ? "" : ", and alike " + ranges_text(others));
  }
  return text;
}

}  // namespace policy
