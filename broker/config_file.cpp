// Long because toml++ is included here alone: every table and every value is read here.
#include "broker/config_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "broker/limit_text.h"
#include "broker/rates.h"
#include "broker/settings.h"
#include "broker/text.h"
#include "broker/toml_guard.h"
#include "common/fd.h"

// Header-only, and errors as values: no exception of the library's crosses this file.
#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

namespace broker {
namespace {

using common::fail;

constexpr std::size_t kFileBytesMax = 16 << 20;
constexpr std::size_t kDropInsMax = kDevicesMax;
// A file that is wrong everywhere is not worth more lines than fit a screen.
constexpr std::size_t kErrorsMax = 50;

// What is wrong, and where, in the order of the files and their lines at the end.
class Errors {
 public:
  // What is added from here on is in this file.
  void enter(const std::string& file) { files_.push_back(clean_text(file)); }
  void add(std::size_t line, std::size_t column, std::string text) {
    entries_.emplace_back(files_.size() - 1, line, column, std::move(text));
  }
  void add(const toml::source_region& where, std::string text) {
    add(where.begin.line, where.begin.column, std::move(text));
  }
  // Somewhere else than in the last file.
  void add_in(std::size_t file, const toml::source_region& where, std::string text) {
    entries_.emplace_back(file, where.begin.line, where.begin.column, std::move(text));
  }
  [[nodiscard]] std::size_t file() const { return files_.size() - 1; }
  // About the file as a whole.
  void add(std::string text) { add(0, 0, std::move(text)); }
  [[nodiscard]] bool empty() const { return entries_.empty(); }
  [[nodiscard]] std::size_t count() const { return entries_.size(); }
  // "bulkhead.toml:12".
  [[nodiscard]] std::string place(const toml::source_region& where) const {
    return files_.back() + ":" + std::to_string(where.begin.line);
  }

  [[nodiscard]] std::vector<std::string> lines() {
    std::sort(entries_.begin(), entries_.end());
    std::vector<std::string> out;
    for (const auto& [file, line, column, text] : entries_) {
      if (out.size() == kErrorsMax) {
        out.push_back(files_[file] + ": and " + std::to_string(entries_.size() - kErrorsMax) +
                      " more");
        break;
      }
      std::string said = files_[file];
      if (line != 0) said.append(":").append(std::to_string(line) + ":" + std::to_string(column));
      out.push_back(said.append(": ").append(text));
    }
    return out;
  }

 private:
  using Entry = std::tuple<std::size_t, std::size_t, std::size_t, std::string>;
  std::vector<std::string> files_;
  std::vector<Entry> entries_;
};

// --- values --------------------------------------------------------------------------------------

std::string_view type_in_words(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "a number";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::table:
      return "a table";
    case toml::node_type::none:
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time:
      break;
  }
  return "a date";
}

std::unexpected<std::string> wrong_type(std::string_view wanted, const toml::node& node) {
  return fail("must be " + std::string(wanted) + ", not " + std::string(type_in_words(node)));
}

Answer<std::string> numbers_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  const toml::array* array = node.as_array();
  if (array == nullptr || array->empty()) {
    return wrong_type("a number or an array of numbers", node);
  }
  std::string text;
  for (const toml::node& element : *array) {
    const auto* number = element.as_integer();
    if (number == nullptr) return wrong_type("an array of numbers", element);
    if (!text.empty()) text += ',';
    text += std::to_string(number->get());
  }
  return text;
}

Answer<std::string> mode_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  const auto* number = node.as_integer();
  // 660 would be meant as octal and read as decimal.
  const bool octal = number != nullptr && (number->flags() & toml::value_flags::format_as_octal) !=
                                              toml::value_flags::none;
  if (!octal || number->get() < 0) return fail(R"(must be octal: "0660" or 0o660)");
  std::string digits;
  for (auto rest = number->get(); rest > 0; rest /= 8) {
    digits.insert(digits.begin(), static_cast<char>('0' + rest % 8));
  }
  return digits.empty() ? "0" : digits;
}

// One limit of a table, as on the command line.
Answer<std::string> limit_value(std::string_view key, const toml::node& node) {
  const std::string name(key);
  if (const auto* number = node.as_integer()) return name + "=" + std::to_string(number->get());
  if (const auto* text = node.as_string()) {
    if (text->get().find(',') == std::string::npos) return name + "=" + text->get();
  }
  return wrong_type("a number, or a text like \"50M\"", node);
}

Answer<std::string> limits_text_of(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  const toml::table* table = node.as_table();
  if (table == nullptr) {
    return wrong_type("a table like { iops = 1000, bps = \"50M\" }, or a string", node);
  }
  std::string text;
  for (const auto& [key, value] : *table) {
    const Answer<std::string> one = limit_value(key.str(), value);
    if (!one) return fail(std::string(key.str()) + " " + one.error());
    text += (text.empty() ? "" : ",") + *one;
  }
  return text.empty() ? "none" : text;
}

// The value as the command line would have it.
Answer<std::string> as_text(const toml::node& node, ValueKind kind) {
  switch (kind) {
    case ValueKind::kText:
      if (const auto* text = node.as_string()) return text->get();
      return wrong_type("a string (in quotes)", node);
    case ValueKind::kNumber:
      if (const auto* number = node.as_integer()) return std::to_string(number->get());
      return wrong_type("a number (without quotes)", node);
    case ValueKind::kSwitch:
    case ValueKind::kFlag:
      if (const auto* flag = node.as_boolean()) return std::string(flag->get() ? "on" : "off");
      if (const auto* text = node.as_string()) return text->get();
      return wrong_type("true or false", node);
    case ValueKind::kMode:
      return mode_text(node);
    case ValueKind::kNumbers:
      return numbers_text(node);
    case ValueKind::kLimits:
      return limits_text_of(node);
  }
  return wrong_type("something else", node);
}

// --- tables --------------------------------------------------------------------------------------

std::string unknown_key(std::string_view key, std::string_view meant) {
  std::string text = "there is no key " + in_quotes(key);
  if (!meant.empty()) text += "; did you mean " + spelled(meant, Spelling::kFile) + "?";
  return text + " ('bulkhead blk --help' and 'bulkhead net --help' list all)";
}

std::string misplaced(const Setting& setting) {
  const std::string name = spelled(setting.name, Spelling::kFile);
  if (setting.scope == Scope::kBroker) {
    return name + " is for the whole broker; put it before the first [[device]] or into [broker]";
  }
  return name + " is for one device; put it into a [[device]] table";
}

// Keys that were given already, whatever their spelling.
using Seen = std::set<const Setting*>;

void store(const Setting& setting, const toml::node& node, Seen& seen, const Destination& to,
           Errors& errors) {
  const std::string name = spelled(setting.name, Spelling::kFile);
  if (!seen.insert(&setting).second) {
    errors.add(node.source(), name + " is given more than once; give it once");
    return;
  }
  const Answer<std::string> text = as_text(node, setting.kind);
  if (!text) {
    errors.add(node.source(), name + " " + text.error());
    return;
  }
  if (const Answer<void> stored = setting.set(to, *text); !stored) {
    errors.add(node.source(), name + " " + stored.error());
  }
}

void store_or_refuse(const toml::key& key, const toml::node& node, Scope scope, Seen& seen,
                     const Destination& to, Errors& errors) {
  const Setting* setting = find_setting(key.str());
  if (setting == nullptr) {
    errors.add(key.source(), unknown_key(key.str(), suggest_setting(key.str())));
  } else if (setting->scope != scope) {
    errors.add(key.source(), misplaced(*setting));
  } else {
    store(*setting, node, seen, to, errors);
  }
}

common::DeviceKind read_type(const toml::table& table, Errors& errors) {
  const toml::node* node = table.get("type");
  if (node == nullptr) return common::DeviceKind::kBlk;
  const auto* text = node->as_string();
  for (const auto kind : {common::DeviceKind::kBlk, common::DeviceKind::kNet}) {
    if (text != nullptr && text->get() == kind_name(kind)) return kind;
  }
  errors.add(node->source(), "type must be \"blk\" (a disk) or \"net\" (a network card)");
  return common::DeviceKind::kBlk;
}

void store_of_device(const toml::key& key, const toml::node& node, Seen& seen,
                     const Destination& to, Errors& errors) {
  const Setting* setting = find_setting(key.str());
  if (setting == nullptr || setting->is_for(to.device.kind)) {
    return store_or_refuse(key, node, Scope::kDevice, seen, to, errors);
  }
  const auto other = to.device.kind == common::DeviceKind::kBlk ? common::DeviceKind::kNet
                                                                : common::DeviceKind::kBlk;
  errors.add(key.source(), spelled(setting->name, Spelling::kFile) + " is for type = \"" +
                               std::string(kind_name(other)) + "\", and this device is \"" +
                               std::string(kind_name(to.device.kind)) +
                               "\"; change the one or leave out the other");
}

DeviceConfig read_device(const toml::table& table, BrokerConfig& broker, Errors& errors) {
  DeviceConfig device;
  Seen seen;
  const std::size_t errors_before = errors.count();
  device.kind = read_type(table, errors);
  for (const auto& [key, node] : table) {
    if (key.str() == "type") continue;
    store_of_device(key, node, seen, Destination{broker, device}, errors);
  }
  // What a device lacks is only worth saying if what it has is right.
  if (errors.count() != errors_before) return device;
  for (std::string& error : complete_device(device, Spelling::kFile)) {
    errors.add(table.source(), std::move(error));
  }
  return device;
}

// Who claimed a value first.
struct Owner {
  std::string device;
  std::string place;
  bool shared;
};
using Owners = std::map<std::pair<std::string_view, std::string>, Owner>;

// Where a device says this; the table where it does not, as with a name that was not chosen.
const toml::source_region& source_of(const toml::table& table, std::string_view setting) {
  for (const auto& [key, node] : table) {
    const Setting* found = find_setting(key.str());
    if (found != nullptr && found->name == setting) return node.source();
  }
  return table.source();
}

void refuse_clashes(const DeviceConfig& device, const toml::table& table, Owners& owners,
                    Errors& errors) {
  for (Claim& claim : claims_of(device)) {
    const std::string value = claim.value;
    const auto [entry, inserted] =
        owners.try_emplace({claim.setting, std::move(claim.value)}, device.name,
                           errors.place(table.source()), claim.shared);
    if (inserted || (entry->second.shared && claim.shared)) continue;
    errors.add(source_of(table, claim.setting),
               "two devices have the " + spelled(claim.setting, Spelling::kFile) + " " +
                   in_quotes(value) + " (the first is " + in_quotes(entry->second.device) + " at " +
                   entry->second.place + "); give each its own" +
                   (claim.setting == "name" ? ": name = \"…\"" : ""));
  }
}

// One configuration, out of one file or several.
struct Reading {
  BrokerConfig broker;
  Seen seen;  // Of the broker: a setting may stand once, at the top or in [broker] of one file.
  Owners owners;
  Errors errors;
  // Where each device that is in a group says so, by its place in broker.devices: looked at when
  // all files are read.
  struct Member {
    std::size_t device;
    std::size_t file;
    toml::source_region where;
  };
  std::vector<Member> members;
  std::map<std::string, std::string> group_places;
};

void read_devices(const toml::node& node, Reading& reading) {
  BrokerConfig& broker = reading.broker;
  Owners& owners = reading.owners;
  Errors& errors = reading.errors;
  const toml::array* array = node.as_array();
  if (array == nullptr) {
    errors.add(node.source(), "write [[device]] with two brackets: one such table for each device");
    return;
  }
  if (broker.devices.size() + array->size() > kDevicesMax) {
    errors.add(node.source(), "one broker serves at most " + std::to_string(kDevicesMax) +
                                  " devices; start another for the rest");
    return;
  }
  for (const toml::node& element : *array) {
    const toml::table* table = element.as_table();
    if (table == nullptr) {
      errors.add(element.source(), "a device must be a [[device]] table");
      continue;
    }
    const std::size_t errors_before = errors.count();
    DeviceConfig device = read_device(*table, broker, errors);
    if (errors.count() == errors_before) refuse_clashes(device, *table, owners, errors);
    if (!device.limit_group.empty()) {
      reading.members.push_back(
          {broker.devices.size(), errors.file(), source_of(*table, "limit-group")});
    }
    broker.devices.push_back(std::move(device));
  }
}

// --- groups --------------------------------------------------------------------------------------

Answer<void> store_of_group(std::string_view key, const toml::node& node, GroupConfig& group) {
  if (key == "name" || key == "tenant") {
    TRY_LET(const std::string text, as_text(node, ValueKind::kText));
    TRY_LET((key == "name" ? group.name : group.tenant), parse_name(text));
    return {};
  }
  if (key == "type") return {};  // It decides how the rest is read, and was first.
  if (key != "limits" && key != "limit") {
    return fail(std::string("is no key of a group; there are name, type, tenant and limits"));
  }
  TRY_LET(const std::string text, as_text(node, ValueKind::kLimits));
  TRY_LET(group.limits, parse_limits(text, group.kind));
  return {};
}

GroupConfig read_group(const toml::table& table, Errors& errors) {
  GroupConfig group;
  group.kind = read_type(table, errors);
  for (const auto& [key, node] : table) {
    const Answer<void> stored = store_of_group(key.str(), node, group);
    if (!stored) errors.add(key.source(), std::string(key.str()) + " " + stored.error());
  }
  if (table.get("name") == nullptr) {
    errors.add(table.source(),
               "the group has no name; give name, which devices have as "
               "limit_group");
  }
  return group;
}

void read_groups(const toml::node& node, Reading& reading) {
  const toml::array* array = node.as_array();
  if (array == nullptr) {
    reading.errors.add(node.source(),
                       "write [[group]] with two brackets: one such table for each group");
    return;
  }
  for (const toml::node& element : *array) {
    const toml::table* table = element.as_table();
    if (table == nullptr) {
      reading.errors.add(element.source(), "a group must be a [[group]] table");
      continue;
    }
    GroupConfig group = read_group(*table, reading.errors);
    const std::string place = reading.errors.place(table->source());
    const auto [first, inserted] = reading.group_places.try_emplace(group.name, place);
    if (!inserted && !group.name.empty()) {
      reading.errors.add(table->source(), "two groups have the name " + in_quotes(group.name) +
                                              " (the first is at " + first->second +
                                              "); give each its own");
    }
    reading.broker.groups.push_back(std::move(group));
  }
}

void check_members(Reading& reading) {
  for (const Reading::Member& member : reading.members) {
    const DeviceConfig& device = reading.broker.devices[member.device];
    const auto& groups = reading.broker.groups;
    const auto found = std::find_if(groups.begin(), groups.end(), [&](const GroupConfig& group) {
      return group.name == device.limit_group;
    });
    const std::string objection =
        group_objection(device, found == groups.end() ? nullptr : &*found);
    if (!objection.empty()) reading.errors.add_in(member.file, member.where, objection);
  }
}

void read_broker(const toml::node& node, Reading& reading) {
  const toml::table* table = node.as_table();
  if (table == nullptr) {
    reading.errors.add(node.source(), "broker must be a table: [broker]");
    return;
  }
  DeviceConfig unused;
  for (const auto& [key, value] : *table) {
    store_or_refuse(key, value, Scope::kBroker, reading.seen, Destination{reading.broker, unused},
                    reading.errors);
  }
}

void read_root(const toml::table& root, Reading& reading) {
  DeviceConfig unused;
  for (const auto& [key, node] : root) {
    if (key.str() == "device") {
      read_devices(node, reading);
    } else if (key.str() == "broker") {
      read_broker(node, reading);
    } else if (key.str() == "group") {
      read_groups(node, reading);
    } else if (key.str() == "devices" || key.str() == "Device") {
      reading.errors.add(key.source(), unknown_key(key.str(), "device"));
    } else {
      store_or_refuse(key, node, Scope::kBroker, reading.seen, Destination{reading.broker, unused},
                      reading.errors);
    }
  }
}

void read_text_of(std::string_view text, const std::string& name, Reading& reading) {
  reading.errors.enter(name);
  if (const auto objection = find_toml_objection(text)) {
    reading.errors.add(objection->line, objection->column, objection->text);
    return;
  }
  toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    reading.errors.add(parsed.error().source(), clean_text(parsed.error().description()));
    return;
  }
  read_root(parsed.table(), reading);
}

// --- files ---------------------------------------------------------------------------------------

std::string cannot_read(const std::string& path, int os_errno) {
  return "cannot read " + in_quotes(path) + ": " + errno_text(os_errno);
}

Answer<std::string> read_text(const std::string& path) {
  // A pipe is as good as a file: the shell's <(…) makes one.
  const common::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  struct stat status {};
  if (!file.valid() || ::fstat(file.ref().number, &status) != 0) {
    return fail(cannot_read(path, errno));
  }
  if (S_ISREG(status.st_mode) && (status.st_mode & S_IWOTH) != 0) {
    return fail(in_quotes(path) +
                " may be written by every user, who could have us open any disk; "
                "take that away: chmod o-w FILE");
  }
  std::string text;
  std::array<char, 65536> chunk;
  while (true) {
    const ssize_t got = ::read(file.ref().number, chunk.data(), chunk.size());
    if (got < 0) return fail(cannot_read(path, errno));
    if (got == 0) return text;
    text.append(chunk.data(), static_cast<std::size_t>(got));
    if (text.size() > kFileBytesMax) {
      return fail(in_quotes(path) + " has more than " + std::to_string(kFileBytesMax) +
                  " bytes, which no list of devices needs");
    }
  }
}

// `whole`: these are all the groups that there are.
FileAnswer finish(Reading reading, bool whole) {
  if (whole) check_members(reading);
  const BrokerConfig& broker = reading.broker;
  const bool can_grow = !broker.control_socket.value_or("").empty() || !broker.state_dir.empty();
  if (reading.errors.empty() && broker.devices.empty() && !can_grow) {
    reading.errors.add(
        "lists no device; add a [[device]] table, or control_socket = \"…\": then "
        "devices can be added while it runs");
  }
  if (!reading.errors.empty()) return fail(reading.errors.lines());
  return std::move(reading.broker);
}

}  // namespace

FileAnswer parse_config(std::string_view text, const std::string& name) {
  Reading reading;
  read_text_of(text, name, reading);
  return finish(std::move(reading), true);
}

std::string drop_in_directory(const std::string& path) {
  constexpr std::string_view kSuffix = ".toml";
  return path.substr(0, path.size() - (path.ends_with(kSuffix) ? kSuffix.size() : 0)) + ".d";
}

Answer<std::vector<std::string>> toml_files_in(const std::string& directory) {
  std::vector<std::string> files;
  std::error_code error;
  std::filesystem::directory_iterator entry(directory, error);
  if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) {
    return files;
  }
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.ends_with(".toml") && !name.starts_with(".")) files.push_back(entry->path().string());
  }
  if (error) return fail(cannot_read(directory, error.value()));
  if (files.size() > kDropInsMax) {
    return fail(in_quotes(directory) + " has more than " + std::to_string(kDropInsMax) +
                " files; list several devices in one");
  }
  std::sort(files.begin(), files.end());
  return files;
}

FileAnswer read_one_config_file(const std::string& path) {
  const Answer<std::string> text = read_text(path);
  if (!text) return fail(std::vector<std::string>{text.error()});
  Reading reading;
  read_text_of(*text, path, reading);
  return finish(std::move(reading), false);
}

FileAnswer read_config_file(const std::string& path) {
  Reading reading;
  const auto drop_ins = toml_files_in(drop_in_directory(path));
  if (!drop_ins) return fail(std::vector<std::string>{drop_ins.error()});
  std::vector<std::string> files{path};
  files.insert(files.end(), drop_ins->begin(), drop_ins->end());
  std::vector<std::string> unreadable;
  for (const std::string& file : files) {
    const Answer<std::string> text = read_text(file);
    if (text) {
      read_text_of(*text, file, reading);
    } else {
      unreadable.push_back(text.error());
    }
  }
  if (unreadable.empty()) return finish(std::move(reading), true);
  for (std::string& line : reading.errors.lines()) unreadable.push_back(std::move(line));
  return fail(std::move(unreadable));
}

}  // namespace broker
