// policy/posture_text.cpp: the table that `bulkhead posture` prints.
#include <algorithm>
#include <cstddef>
#include <string_view>

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

std::string summary_row(const ProcessPosture& posture) {
  std::string layers = std::to_string(count_of(posture, LayerState::kEnforced));
  layers.append("/").append(std::to_string(posture.layers.size()));
  const bool counted = posture.descriptors.empty() || posture.descriptors[0][0] != 'c';
  std::string row = padded(std::to_string(posture.pid), 9);
  row += padded(role_text(posture.role), 9);
  row += padded(posture.title, 34);
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
  text += list("descriptors", first.descriptors);
  text += list("executable maps", first.executable_maps);
  if (!first.suspicious_maps.empty()) text += list("WRITABLE AND EXEC", first.suspicious_maps);
  return text;
}

}  // namespace

std::string format_postures(const std::vector<ProcessPosture>& postures) {
  std::string text = padded("PID", 9) + padded("ROLE", 9) + padded("TITLE", 34) + " " +
                     padded("LAYERS", 8) + padded("FDS", 6) + "W+X\n";
  for (const ProcessPosture& posture : postures) text += summary_row(posture);

  for (std::size_t i = 0; i < postures.size(); ++i) {
    const auto before = postures.begin() + static_cast<std::ptrdiff_t>(i);
    const auto like_this = [&](const ProcessPosture& other) { return alike(*before, other); };
    if (std::any_of(postures.begin(), before, like_this)) continue;
    std::string others;
    for (auto each = before + 1; each != postures.end(); ++each) {
      if (like_this(*each))
        others += (others.empty() ? ", and alike " : ", ") + std::to_string(each->pid);
    }
    text += details(*before, others);
  }
  return text;
}

}  // namespace policy
