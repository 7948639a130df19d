#include "broker/control/command.h"

#include <array>

#include "broker/control/run.h"
#include "broker/control/snippet.h"
#include "broker/help_text.h"
#include "broker/setting_values.h"
#include "broker/settings.h"

namespace broker::control {
namespace {

template <bool RunOperator::*Member>
Answer<void> set_flag(RunOperator& run, std::string_view) {
  run.*Member = true;
  return {};
}

Answer<void> set_output(RunOperator& run, std::string_view value) {
  TRY_LET(run.output, text_within(value, kFilePathBytesMax));
  return {};
}

Answer<void> set_interval(RunOperator& run, std::string_view value) {
  TRY_LET(run.interval_ms, number_within<std::uint32_t>(value, 10, 3'600'000));
  return {};
}

Answer<void> set_config(RunOperator& run, std::string_view value) {
  TRY_LET(run.config, text_within(value, kFilePathBytesMax));
  return {};
}

Answer<void> set_file(RunOperator& run, std::string_view value) {
  run.from_file = true;
  return set_config(run, value);
}

Answer<void> set_vmm(RunOperator& run, std::string_view value) {
  if (("|" + std::string(kVmms) + "|").find("|" + std::string(value) + "|") == std::string::npos) {
    return common::fail("must be one of " + std::string(kVmms));
  }
  run.vmm = value;
  return {};
}

Answer<void> set_socket(RunOperator& run, std::string_view value) {
  TRY_LET(run.socket, text_within(value, kSocketPathBytesMax));
  return {};
}

constexpr OperatorOption kSocket = {
    "control-socket", "PATH", "the operator's socket of the broker [/run/bulkhead/control.sock]",
    set_socket};
constexpr OperatorOption kJson = {"json", "", "for programs: one JSON object, bulkhead-status(8)",
                                  set_flag<&RunOperator::json>};

constexpr std::array kPlain = {kJson, kTimeoutOption, kSocket};
constexpr std::array kMeasuring = {
    OperatorOption{"output", "FILE",
                   "write there, all at once, for node_exporter's textfile collector", set_output},
    kJson, kTimeoutOption, kSocket};
constexpr std::array kFollowing = {
    OperatorOption{"once", "", "end after those there are", set_flag<&RunOperator::once>}, kJson,
    kTimeoutOption, kSocket};
constexpr std::array kWatching = {
    OperatorOption{"once", "", "end after one interval", set_flag<&RunOperator::once>},
    OperatorOption{"interval-ms", "N", "look that often, in milliseconds [1000]", set_interval},
    kJson, kTimeoutOption, kSocket};
constexpr std::array kAdding = {
    OperatorOption{"replace", "", "in place of the device of that name, if there is one",
                   set_flag<&RunOperator::replace>},
    OperatorOption{"force", "", "though a VMM uses that", set_flag<&RunOperator::force>}, kJson,
    kTimeoutOption, kSocket};
constexpr OperatorOption kConfig = {"config", "FILE",
                                    "the configuration [/etc/bulkhead/bulkhead.toml]", set_config};
constexpr std::array kChecking = {kConfig, kJson, kTimeoutOption, kSocket};
constexpr std::array kApplying = {
    kConfig,
    OperatorOption{"dry-run", "", "only say what would be done", set_flag<&RunOperator::dry_run>},
    OperatorOption{"force", "", "cut off VMMs that use what is removed or replaced",
                   set_flag<&RunOperator::force>},
    kJson,
    kTimeoutOption,
    kSocket};
constexpr std::array kPasting = {
    OperatorOption{"for", kVmms, "the virtual machine monitor", set_vmm},
    OperatorOption{"config", "FILE", "look the device up there, and ask no broker", set_file},
    kJson, kTimeoutOption, kSocket};
constexpr std::array kLimiting = {
    OperatorOption{"group", "", "NAME is a group of devices", set_flag<&RunOperator::group>}, kJson,
    kTimeoutOption, kSocket};
constexpr std::array kForceful = {
    OperatorOption{"force", "", "cut off the VMM that uses it, after 2 s at most",
                   set_flag<&RunOperator::force>},
    kJson, kTimeoutOption, kSocket};
constexpr std::array kStopping = {
    OperatorOption{"all", "", "end the broker and all it serves, as SIGTERM does",
                   set_flag<&RunOperator::all>},
    OperatorOption{"force", "", "give workers 2 s, not 30, for what they have taken",
                   set_flag<&RunOperator::force>},
    kJson, kTimeoutOption, kSocket};

constexpr OperatorCommand kCommands[] = {
    {"status", Names::kNone, "ask a running broker how it is",
     R"(Shows the broker that listens on the operator's socket: its version, how long it runs, how
many devices it serves, and what this user may do.
)",
     kPlain, run_status},
    {"list", Names::kAny, "show the devices it serves",
     R"(Shows the devices of the broker, or those that are named: each one's state, the VMM that
uses it, its workers, and how many layers of the jail hold.
)",
     kPlain, run_list},
    {"add", Names::kSome, "have it serve another device",
     R"(Has the broker serve a disk (add blk) or a network card (add net), with the options of
'bulkhead blk' and 'bulkhead net'. Descriptors (--fd, --tap-fd) are passed to the broker,
which can so use what it could not open itself.
)",
     kAdding, run_add},
    {"apply", Names::kNone, "have it serve what a file lists now",
     R"(Compares FILE and its drop-in files with what the broker serves, and has it add, replace,
change or remove what differs; every other device goes on. A device that a VMM uses is only
cut off by force, and one that was added by 'bulkhead add' stays unless FILE lists it.
SIGHUP has the broker do the same with its own file, without force.
)",
     kApplying, run_apply},
    {"check", Names::kNone, "tell what is wrong with a file",
     R"(Reads FILE and its drop-in files as 'bulkhead serve' would, looks at every image, interface
and socket without changing anything, and tries the jail on this host: says for each device
whether it would be served, and in which posture. Run it as the user of the broker. A broker
that serves the device already is asked, so that it is not mistaken for another user of the
image.
)",
     kChecking, run_check},
    {"remove", Names::kSome, "take devices away from it",
     R"(Ends these devices: their sockets go, their disks and taps are free. One that a VMM uses is
only removed by force. A device of the configuration file comes back with the next start.
)",
     kForceful, run_remove},
    {"stop", Names::kAny, "stop devices, or the broker",
     R"(Stops these devices: what their workers have taken is finished (for 30 s at most), then
their VMMs see the connection end. They stay in the list, and 'bulkhead start' serves them
again.
)",
     kStopping, run_stop},
    {"drain", Names::kSome, "let no VMM in any more",
     R"(Closes the sockets of these devices. A VMM that uses one is served until it goes; then the
device is stopped.
)",
     kPlain, run_drain},
    {"start", Names::kSome, "serve stopped devices again",
     R"(Opens the disks or taps of these devices again, and listens on their sockets.
)",
     kPlain, run_start},
    {"resize", Names::kSome, "look at the size of disks now",
     R"(Looks at the size of the images or block devices now, not within 2 s, and tells the VMMs.
Make them larger first: truncate -s 20G FILE, or lvextend.
)",
     kPlain, run_resize},
    {"snippet", Names::kSome, "print what attaches them to a VMM",
     R"(Prints the lines that attach these devices to a virtual machine monitor: for its command
line, or its configuration. Sizes of memory, and how many queues a guest has use for, are
yours to change.
)",
     kPasting, run_snippet},
    {"limit", Names::kLimits, "show or change how much guests may use",
     R"(Changes how many requests (iops), packets, or bytes (bps) a second may pass, of one device
or of a group of devices, while it is used: iops=1000 bps=50M. Reads and writes apart:
read-iops, write-bps; of a network card packets, rx-packets, tx-bps. A burst may pass at
once: iops-burst=500, or burst=200ms for all that are named; else what passes in 100 ms.
iops=none takes one away, none all of them. What is not named stays. Without a change it
shows them, without a name all.
)",
     kLimiting, run_limit},
    {"metrics", Names::kNone, "print its counters for Prometheus",
     R"(Prints what its devices have done, in Prometheus' text format. Counters begin anew with the
broker.
)",
     kMeasuring, run_metrics},
    {"events", Names::kNone, "follow what it logs",
     R"(Prints the last lines of the broker's log (at most 1024 are kept) and every new one, until
the broker ends.
)",
     kFollowing, run_events},
    {"top", Names::kNone, "show what its devices do now",
     R"(Shows requests or packets and bytes a second of every device, the busiest first, again each
second.
)",
     kWatching, run_top},
};

std::string arguments_of(const OperatorCommand& command) {
  switch (command.names) {
    case Names::kNone:
      return "";
    case Names::kAny:
      return " [NAME]...";
    case Names::kLimits:
      return " [NAME [LIMIT=N|none]...]";
    case Names::kSome:
      return command.name == "add" ? " blk|net" : " NAME...";
  }
  return "";
}

}  // namespace

Answer<void> set_timeout(RunOperator& run, std::string_view value) {
  TRY_LET(run.timeout_s, number_within<std::uint32_t>(value, 1, 3600));
  return {};
}

std::span<const OperatorCommand> operator_commands() { return kCommands; }

const OperatorCommand* find_operator_command(std::string_view name) {
  for (const OperatorCommand& command : kCommands) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

std::string operator_help(const OperatorCommand& command) {
  std::string text = "Usage: bulkhead " + std::string(command.name) + arguments_of(command) +
                     " [OPTION]...\n\n" + std::string(command.prose);
  if (command.name == "add") text += "\nThe device:\n" + device_options_help();
  text += "\nOptions:\n";
  for (const OperatorOption& option : command.options) {
    std::string shown = "--" + std::string(option.name);
    if (!option.value.empty()) shown += "=" + std::string(option.value);
    text += option_line(shown, option.help);
  }
  return text + option_line("--help", "this text") +
         "\nExit status: 0, or 1 where it could not be done, 2 for wrong usage.\n";
}

std::string operator_summaries() {
  std::string text;
  for (const OperatorCommand& command : kCommands) {
    std::string line = "  bulkhead " + std::string(command.name) + arguments_of(command);
    line.resize(std::max<std::size_t>(line.size() + 4, 65), ' ');
    text += line + std::string(command.summary) + "\n";
  }
  return text;
}

}  // namespace broker::control
