// What the words of a command line mean.
// Long because the words of every command are read here, one beside the other.
#include "broker/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "broker/config_file.h"
#include "broker/control/command.h"
#include "broker/help_text.h"
#include "broker/setting_values.h"
#include "broker/settings.h"
#include "broker/systemd.h"
#include "broker/text.h"
#include "policy/all_profiles.h"
#include "policy/permissions_text.h"

namespace broker {
namespace {

using common::fail;
using common::Result;
using Words = std::vector<std::string>;
using Outcome = Result<Command, UsageError>;

constexpr std::string_view kBackendProgramPrefix = "vhost-user-";
// QEMU docs/interop/vhost-user.json: VHostUserBackendCapabilities.
constexpr std::string_view kBlkCapabilities =
    R"({"type":"block","features":["read-only","blk-file"]})";
constexpr std::string_view kNetCapabilities = R"({"type":"net"})";
constexpr int kUsageExit = 2;

UsageError usage_error(const std::vector<std::string>& lines, int exit_code = kUsageExit) {
  UsageError error{"", exit_code};
  for (const std::string& line : lines) error.text += "bulkhead: " + line + "\n";
  return error;
}

std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool contains(const Words& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// '_' for '-' in the names of long options.
Words normalised(Words words) {
  for (std::string& word : words) {
    if (word == "--") break;
    if (!word.starts_with("--")) continue;
    const std::size_t end = std::min(word.find('='), word.size());
    std::replace(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
  }
  return words;
}

// --- one command's options -----------------------------------------------------------------------

// What was given for one option: its name without dashes, and the values in order.
struct Given {
  std::string_view name;
  std::vector<std::string> values;
};

// How CLI11 is told of an option: "--read-only,--readonly,--ro".
std::string cli_names(std::string_view name, std::string_view aliases) {
  std::string names = "--" + std::string(name);
  while (!aliases.empty()) {
    const std::size_t comma = std::min(aliases.find(','), aliases.size());
    names += ",--" + std::string(aliases.substr(0, comma));
    aliases.remove_prefix(std::min(comma + 1, aliases.size()));
  }
  return names;
}

struct OptionName {
  std::string_view name;
  bool flag = false;  // Needs no value.
  std::string_view aliases = {};
};

// "; that is an option of 'bulkhead net'", for one that a device of another type has.
std::string whose_option(std::string_view bare) {
  const Setting* setting = find_setting(bare);
  if (setting == nullptr || setting->kinds == kForAll) return {};
  return "; that is an option of 'bulkhead " +
         std::string(setting->kinds == kForNet ? "net" : "blk") + "'";
}

std::string unknown_option(const std::string& word, std::span<const OptionName> options,
                           std::string_view command) {
  const std::string help = " ('bulkhead " + std::string(command) + " --help' lists all)";
  if (!word.starts_with("-")) {
    return "do not know what to do with " + in_quotes(word) + "; every value follows an option" +
           help;
  }
  const std::string name = word.substr(0, word.find('='));
  std::vector<std::string_view> names;
  for (const OptionName& option : options) names.push_back(option.name);
  const std::string bare = name.substr(std::min(name.find_first_not_of('-'), name.size()));
  const std::string_view meant = nearest(bare, names);
  std::string line = "there is no option " + in_quotes(name);
  if (const std::string whose = whose_option(bare); !whose.empty()) return line + whose + help;
  if (!meant.empty()) line += "; did you mean --" + std::string(meant) + "?";
  return line + help;
}

bool takes_value(std::span<const OptionName> options, std::string_view word) {
  return std::any_of(options.begin(), options.end(), [&](const OptionName& option) {
    return !option.flag && word.starts_with("--") && word.substr(2) == option.name;
  });
}

// CLI11 would take the next option for the value.
Result<void, UsageError> refuse_missing_values(const Words& words,
                                               std::span<const OptionName> options) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const bool empty = word.starts_with("--") && word.find('=') == word.size() - 1;
    const bool last = i + 1 == words.size() || words[i + 1].starts_with("--");
    if (empty || (last && takes_value(options, word))) {
      const std::string name = word.substr(0, word.find('='));
      return fail(
          usage_error({clean_text(name) + " needs a value: " + clean_text(name) + "=VALUE"}));
    }
    if (takes_value(options, word)) ++i;
  }
  return {};
}

Result<std::vector<Given>, UsageError> split_options(const Words& words,
                                                     std::span<const OptionName> options,
                                                     std::string_view command) {
  TRY(refuse_missing_values(words, options));
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  std::vector<CLI::Option*> handles;
  for (const OptionName& option : options) {
    const std::string names = cli_names(option.name, option.aliases);
    CLI::Option* handle = option.flag ? app.add_flag(names) : app.add_option(names);
    handles.push_back(handle->take_all());
  }
  try {
    app.parse(Words(words.rbegin(), words.rend()));  // CLI11 takes them from the back.
  } catch (const CLI::ParseError& error) {
    return fail(usage_error({clean_text(error.what())}));
  }
  if (const Words rest = app.remaining(); !rest.empty()) {
    return fail(usage_error({unknown_option(rest.front(), options, command)}));
  }
  std::vector<Given> given;
  for (std::size_t i = 0; i < handles.size(); ++i) {
    if (handles[i]->count() > 0) given.push_back({options[i].name, handles[i]->results()});
  }
  return given;
}

std::vector<OptionName> setting_names(const std::function<bool(const Setting&)>& wanted) {
  std::vector<OptionName> names;
  for (const Setting& setting : all_settings()) {
    if (!wanted(setting)) continue;
    names.push_back({setting.name, setting.kind == ValueKind::kFlag, setting.aliases});
  }
  return names;
}

// Stores what was given for settings; other options are left to the caller.
std::vector<std::string> store_settings(const std::vector<Given>& given, const Destination& to) {
  std::vector<std::string> errors;
  for (const Given& option : given) {
    const Setting* setting = find_setting(option.name);
    if (setting == nullptr) continue;
    const std::string name = spelled(setting->name, Spelling::kCommandLine);
    if (option.values.size() > 1 && setting->kind != ValueKind::kFlag) {
      errors.push_back(name + " is given more than once; give it once");
      continue;
    }
    if (const Answer<void> stored = setting->set(to, option.values.back()); !stored) {
      errors.push_back(name + " " + stored.error());
    }
  }
  return errors;
}

// --- commands ------------------------------------------------------------------------------------

Outcome print_version() { return PrintAndExit{"bulkhead " BULKHEAD_VERSION "\n"}; }

Outcome parse_device(common::DeviceKind kind, const Words& words, int listen_fds) {
  const bool blk = kind == common::DeviceKind::kBlk;
  // QEMU docs/interop/vhost-user.rst, "Backend program conventions": whatever else is given.
  if (contains(words, "--print-capabilities")) {
    return PrintAndExit{std::string(blk ? kBlkCapabilities : kNetCapabilities) + "\n"};
  }
  if (contains(words, "--help") || contains(words, "-h")) {
    return PrintAndExit{blk ? blk_help() : net_help()};
  }
  if (contains(words, "--version") || contains(words, "-V")) return print_version();
  const auto all = setting_names([&](const Setting& setting) { return setting.is_for(kind); });
  TRY_LET(const std::vector<Given> given, split_options(words, all, kind_name(kind)));
  RunServe serve;
  DeviceConfig device;
  device.kind = kind;
  std::vector<std::string> errors = store_settings(given, Destination{serve.config, device});
  if (!errors.empty()) return fail(usage_error(errors));
  if (listen_fds == 1 && device.socket_path.empty() && device.fd < 0) device.fd = kListenFdsStart;
  errors = complete_device(device, Spelling::kCommandLine);
  if (!errors.empty()) return fail(usage_error(errors));
  serve.config.devices.push_back(std::move(device));
  return serve;
}

Outcome parse_serve(const Words& words) {
  if (contains(words, "--help") || contains(words, "-h")) return PrintAndExit{serve_help()};
  if (contains(words, "--version") || contains(words, "-V")) return print_version();
  auto options =
      setting_names([](const Setting& setting) { return setting.scope == Scope::kBroker; });
  options.push_back({"config"});
  TRY_LET(const std::vector<Given> given, split_options(words, options, "serve"));
  const auto config = std::find_if(given.begin(), given.end(),
                                   [](const Given& option) { return option.name == "config"; });
  if (config == given.end()) {
    return fail(usage_error({"serve needs --config=FILE: a TOML file that lists the devices"}));
  }
  if (config->values.size() > 1) {
    return fail(usage_error({"--config is given more than once; one file lists all devices"}));
  }
  FileAnswer file = read_config_file(config->values.front());
  if (!file) return fail(usage_error(file.error()));
  RunServe serve{*std::move(file)};
  DeviceConfig unused;
  const auto errors = store_settings(given, Destination{serve.config, unused});
  if (!errors.empty()) return fail(usage_error(errors));
  serve.config.control_by_default = true;
  serve.config.config_path = config->values.front();
  return serve;
}

// The names among the words, which are taken out: what neither is an option nor the value of one.
Words take_names(Words& words, std::span<const OptionName> options) {
  Words names;
  Words rest;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i].starts_with("-")) {
      rest.push_back(words[i]);
      if (takes_value(options, words[i]) && i + 1 < words.size()) rest.push_back(words[++i]);
    } else {
      names.push_back(words[i]);
    }
  }
  words = std::move(rest);
  return names;
}

Result<void, UsageError> check_names(const control::OperatorCommand& command, const Words& names) {
  const std::string usage = "bulkhead " + std::string(command.name);
  if (command.names == control::Names::kNone && !names.empty()) {
    return fail(usage_error({"do not know what to do with " + in_quotes(names.front()) + "; '" +
                             usage + " --help' lists all"}));
  }
  if (command.names == control::Names::kSome && names.empty()) {
    return fail(usage_error({usage + " needs the name of a device"}));
  }
  for (const std::string& name : names) {
    BrokerConfig unused;
    DeviceConfig device;
    const Destination to{unused, device};
    if (const auto legal = find_setting("name")->set(to, name); !legal) {
      return fail(usage_error({"the name of a device " + legal.error()}));
    }
  }
  return {};
}

std::vector<OptionName> names_of(const control::OperatorCommand& command) {
  std::vector<OptionName> options;
  for (const auto& option : command.options) options.push_back({option.name, option.value.empty()});
  return options;
}

Result<void, UsageError> store_options(const control::OperatorCommand& command,
                                       const std::vector<Given>& given, control::RunOperator& run) {
  for (const Given& one : given) {
    for (const auto& option : command.options) {
      if (option.name != one.name) continue;
      if (const auto set = option.set(run, one.values.back()); !set) {
        return fail(usage_error({"--" + std::string(one.name) + " " + set.error()}));
      }
    }
  }
  return {};
}

// `bulkhead add blk …`: what follows is what `bulkhead blk` takes, and the options of `add`.
Outcome parse_add(const control::OperatorCommand& command, Words words) {
  if (contains(words, "--help") || contains(words, "-h")) {
    return PrintAndExit{control::operator_help(command)};
  }
  control::RunOperator run;
  run.command = command.name;
  DeviceConfig& device = run.device;
  if (words.empty() || (words.front() != "blk" && words.front() != "net")) {
    return fail(usage_error({"add needs a type first: bulkhead add blk … or bulkhead add net …"}));
  }
  device.kind = words.front() == "blk" ? common::DeviceKind::kBlk : common::DeviceKind::kNet;
  words.erase(words.begin());
  auto options = setting_names([&](const Setting& setting) {
    return setting.scope == Scope::kDevice && setting.is_for(device.kind);
  });
  for (const OptionName& option : names_of(command)) options.push_back(option);
  TRY_LET(const std::vector<Given> given, split_options(words, options, "add"));
  BrokerConfig unused;
  std::vector<Given> of_device = given;
  std::erase_if(of_device, [](const Given& one) {
    const Setting* setting = find_setting(one.name);
    return setting == nullptr || setting->scope != Scope::kDevice;
  });
  std::vector<std::string> errors = store_settings(of_device, Destination{unused, device});
  if (errors.empty()) errors = complete_device(device, Spelling::kCommandLine);
  if (!errors.empty()) return fail(usage_error(errors));
  TRY(store_options(command, given, run));
  return run;
}

Outcome parse_operator(const control::OperatorCommand& command, Words words) {
  if (command.name == "add") return parse_add(command, std::move(words));
  if (contains(words, "--help") || contains(words, "-h")) {
    return PrintAndExit{control::operator_help(command)};
  }
  const std::vector<OptionName> options = names_of(command);
  control::RunOperator run;
  run.command = command.name;
  run.names = take_names(words, options);
  if (command.names == control::Names::kLimits && run.names.size() > 1) {
    run.changes.assign(run.names.begin() + 1, run.names.end());
    run.names.resize(1);
  }
  TRY(check_names(command, run.names));
  TRY_LET(const std::vector<Given> given, split_options(words, options, command.name));
  TRY(store_options(command, given, run));
  return run;
}

Outcome parse_posture_of_broker(Words words) {
  static constexpr std::array kOptions = {
      control::OperatorOption{"json", "", "",
                              [](control::RunOperator& run, std::string_view) -> Answer<void> {
                                run.json = true;
                                return {};
                              }},
      control::OperatorOption{
          "control-socket", "PATH", "",
          [](control::RunOperator& run, std::string_view value) -> Answer<void> {
            run.socket = value;
            return {};
          }},
      control::kTimeoutOption};
  return parse_operator({"posture", control::Names::kAny, "", "", kOptions, nullptr},
                        std::move(words));
}

bool names_process(const Words& words) {
  return std::any_of(words.begin(), words.end(), [](const std::string& word) {
    return word == "--pid" || word.starts_with("--pid=");
  });
}

Result<pid_t, UsageError> parse_pid(const Words& words, std::string_view command,
                                    const std::string& missing) {
  constexpr OptionName kOptions[] = {{"pid"}};
  TRY_LET(const std::vector<Given> given, split_options(words, kOptions, command));
  if (given.empty()) return fail(usage_error({missing}));
  const std::string& text = given.front().values.back();
  pid_t pid = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), pid);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || pid < 1) {
    return fail(usage_error({"--pid must be the number of a process, not " + in_quotes(text)}));
  }
  return pid;
}

Outcome parse_posture(const Words& words) {
  if (contains(words, "--help") || contains(words, "-h")) return PrintAndExit{posture_help()};
  if (contains(words, "--permissions")) {
    return PrintAndExit{policy::permissions_text(policy::kAllProfiles) + "\n" +
                        policy::permissions_text(policy::kBrokerProfile)};
  }
  if (!names_process(words)) return parse_posture_of_broker(words);
  TRY_LET(const pid_t pid,
          parse_pid(words, "posture",
                    "posture needs --pid=N: the process to look at, usually a broker; or "
                    "--permissions: what each kind of process may do"));
  return RunPosture{pid};
}

Outcome parse_doctor(const Words& words) {
  if (contains(words, "--help") || contains(words, "-h")) return PrintAndExit{doctor_help()};
  constexpr OptionName kOptions[] = {{"log"}};
  TRY_LET(const std::vector<Given> given, split_options(words, kOptions, "doctor"));
  return given.empty() ? RunDoctor{} : RunDoctor{given.front().values.back()};
}

// What is no option and no option's value, in order; "-" among it.
Words take_plain_words(Words& words, std::span<const OptionName> options) {
  Words plain;
  Words rest;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool option = words[i].size() > 1 && words[i].starts_with('-');
    (option ? rest : plain).push_back(words[i]);
    if (takes_value(options, words[i]) && i + 1 < words.size()) rest.push_back(words[++i]);
  }
  words = std::move(rest);
  return plain;
}

Outcome parse_audit(Words words) {
  if (contains(words, "--help") || contains(words, "-h")) return PrintAndExit{audit_help()};
  constexpr OptionName kOptions[] = {{"head"}};
  Words plain = take_plain_words(words, kOptions);
  if (plain.empty() || (plain.front() != "verify" && plain.front() != "explain")) {
    return fail(
        usage_error({"audit needs to know what to do: 'bulkhead audit verify FILE...' or "
                     "'bulkhead audit explain [EVENT] [FILE...]'"}));
  }
  RunAudit audit;
  const bool verify = plain.front() == "verify";
  audit.command.what = verify ? audit::Command::What::kVerify : audit::Command::What::kExplain;
  plain.erase(plain.begin());
  TRY_LET(const std::vector<Given> given,
          split_options(words, std::span(kOptions).first(verify ? 1 : 0), "audit"));
  if (!given.empty()) {
    audit.command.head = audit::parse_head(given.front().values.back());
    if (!audit.command.head) {
      return fail(usage_error({"--head must be EVENT:HASH as the broker's log has it, not " +
                               in_quotes(given.front().values.back())}));
    }
  }
  if (!verify && !plain.empty()) {
    audit.command.seq = parse_number<std::uint64_t>(plain.front());
    if (audit.command.seq) plain.erase(plain.begin());
  }
  if (verify && plain.empty()) {
    return fail(
        usage_error({"audit verify needs the log: all its files, or - for standard input"}));
  }
  audit.command.files = std::move(plain);
  return audit;
}

Outcome parse_upgrade(const Words& words) {
  if (contains(words, "--help") || contains(words, "-h")) return PrintAndExit{upgrade_help()};
  TRY_LET(const pid_t pid, parse_pid(words, "upgrade-workers",
                                     "upgrade-workers needs --pid=N: the broker whose workers are "
                                     "to be replaced"));
  return RunUpgrade{pid};
}

// The same command again, by a broker that takes the place of one that runs.
Outcome parse_takeover(const Words& words, int listen_fds) {
  if (words.empty() || words[0] == "takeover" || contains(words, "--help")) {
    if (contains(words, "--help")) return PrintAndExit{takeover_help()};
    return fail(
        usage_error({"takeover needs the command that the running broker was started with: "
                     "'bulkhead takeover serve --config=FILE'"}));
  }
  Words again = words;
  again.insert(again.begin(), "bulkhead");
  TRY_LET(Command command, parse_command(again, listen_fds));
  if (auto* const serve = std::get_if<RunServe>(&command); serve != nullptr) {
    if (!serve->config.keeps_orphans()) {
      return fail(
          usage_error({"takeover needs --orphans=keep: with 'end', sessions and workers "
                       "end with the broker that is to be replaced"}));
    }
    serve->config.take_over = true;
    return command;
  }
  return fail(
      usage_error({"takeover is for brokers: 'bulkhead takeover blk', 'net' or 'serve', "
                   "and the options of the one that runs"}));
}

Outcome unknown_command(const std::string& word) {
  std::vector<std::string_view> commands = {
      "blk",     "net",   "serve",  "takeover", "upgrade-workers",
      "posture", "audit", "doctor", "--help",   "--version"};
  for (const auto& command : control::operator_commands()) commands.push_back(command.name);
  const std::string what = word.starts_with("-") ? "option" : "command";
  std::string line = "there is no " + what + " " + in_quotes(word);
  const std::string_view meant = nearest(word, commands);
  if (!meant.empty()) line += "; did you mean " + std::string(meant) + "?";
  return fail(usage_error({line + " ('bulkhead --help' lists all)"}));
}

}  // namespace

Outcome parse_command(std::span<const std::string> arguments, int listen_fds) {
  Words words;
  if (!arguments.empty()) {
    words.assign(arguments.begin() + 1, arguments.end());
    const std::string called = base_name(arguments.front());
    for (const auto kind : {common::DeviceKind::kBlk, common::DeviceKind::kNet}) {
      const std::string name(kind_name(kind));
      if (called == std::string(kBackendProgramPrefix) + name) words.insert(words.begin(), name);
    }
  }
  words = normalised(std::move(words));
  if (words.empty()) {
    return fail(
        usage_error({"say what to do: 'bulkhead blk', 'bulkhead net', 'bulkhead serve', " +
                     std::string("'bulkhead posture', 'bulkhead audit' or 'bulkhead doctor'; "
                                 "'bulkhead --help' explains them")}));
  }
  const std::string command = words.front();
  words.erase(words.begin());
  if (command == "--help" || command == "-h" || command == "help") {
    return PrintAndExit{general_help()};
  }
  if (command == "--version" || command == "-V") {
    return print_version();
  }
  for (const auto kind : {common::DeviceKind::kBlk, common::DeviceKind::kNet}) {
    if (command == kind_name(kind)) return parse_device(kind, words, listen_fds);
  }
  if (command == "serve") return parse_serve(words);
  if (command == "posture") return parse_posture(words);
  if (command == "upgrade-workers") return parse_upgrade(words);
  if (command == "takeover") return parse_takeover(words, listen_fds);
  if (command == "audit") return parse_audit(std::move(words));
  if (command == "doctor") return parse_doctor(words);
  if (const auto* found = control::find_operator_command(command)) {
    return parse_operator(*found, words);
  }
  return unknown_command(command);
}

}  // namespace broker
