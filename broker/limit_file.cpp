#include "broker/limit_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "broker/limit_text.h"
#include "broker/settings.h"
#include "broker/state_dir.h"
#include "broker/text.h"

namespace broker {
namespace {

using common::fail;

constexpr std::string_view kHead =
    "# Written by bulkhead: what 'bulkhead limit' has set on what the configuration lists.\n"
    "# What it is, its name, its type, its limits in the configuration, its limits now.\n";
constexpr std::size_t kFileBytesMax = 16U << 20;

std::string text_or_none(const DeviceLimits& limits, common::DeviceKind kind) {
  const std::string text = limits_text(limits, kind);
  return text.empty() ? "none" : text;
}

// What the configuration says of it now; null where it lists no such thing.
const DeviceLimits* configured_in(const BrokerConfig& config, const LimitEntry& entry) {
  if (entry.group) {
    const auto found = std::find_if(config.groups.begin(), config.groups.end(),
                                    [&entry](const GroupConfig& group) {
                                      return group.name == entry.name && group.kind == entry.kind;
                                    });
    return found == config.groups.end() ? nullptr : &found->limits;
  }
  const auto found = std::find_if(config.devices.begin(), config.devices.end(),
                                  [&entry](const DeviceConfig& device) {
                                    return device.name == entry.name && device.kind == entry.kind;
                                  });
  return found == config.devices.end() ? nullptr : &found->limits;
}

}  // namespace

std::string limit_line(const LimitEntry& entry) {
  return std::string(entry.group ? "group " : "device ") + entry.name + " " +
         std::string(kind_name(entry.kind)) + " " + text_or_none(entry.configured, entry.kind) +
         " " + text_or_none(entry.limits, entry.kind);
}

Answer<LimitEntry> parse_limit_line(std::string_view line) {
  std::istringstream words{std::string(line)};
  std::string what;
  std::string kind;
  std::string configured;
  std::string limits;
  std::string rest;
  LimitEntry entry;
  words >> what >> entry.name >> kind >> configured >> limits;
  const bool complete = !words.fail() && !(words >> rest);
  if (!complete || (what != "group" && what != "device") || (kind != "blk" && kind != "net")) {
    return fail("is no line of this file: " + in_quotes(line));
  }
  entry.group = what == "group";
  entry.kind = kind == "blk" ? common::DeviceKind::kBlk : common::DeviceKind::kNet;
  TRY_LET(entry.name, parse_name(entry.name));
  TRY_LET(entry.configured, parse_limits(configured, entry.kind));
  TRY_LET(entry.limits, parse_limits(limits, entry.kind));
  return entry;
}

Answer<void> LimitFile::keep(const std::vector<LimitEntry>& entries) const {
  if (path_.empty()) return {};
  std::string text(kHead);
  for (const LimitEntry& entry : entries) text += limit_line(entry) + "\n";
  return replace_file(path_, text);
}

LimitFile::Kept LimitFile::read() const {
  Kept kept;
  if (path_.empty()) return kept;
  std::ifstream file(path_);
  std::string line;
  std::size_t bytes = 0;
  while (std::getline(file, line)) {
    bytes += line.size();
    if (line.empty() || line.front() == '#') continue;
    const auto entry = parse_limit_line(line);
    if (entry && bytes <= kFileBytesMax) {
      kept.entries.push_back(*entry);
    } else if (kept.complaint.empty()) {
      kept.complaint = in_quotes(path_) + " " +
                       (entry ? std::string("is too long") : entry.error()) +
                       "; that limit is as configured. Set it again with 'bulkhead limit'";
    }
    if (bytes > kFileBytesMax) break;
  }
  return kept;
}

std::vector<LimitEntry> still_valid(std::vector<LimitEntry> entries, const BrokerConfig& config) {
  std::erase_if(entries, [&config](const LimitEntry& entry) {
    const DeviceLimits* const configured = configured_in(config, entry);
    return configured == nullptr || *configured != entry.configured;
  });
  return entries;
}

}  // namespace broker
