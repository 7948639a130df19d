// broker/control/command.h: the commands that speak to a running broker: their table, which --help,
// man pages and completions are made of, and what was asked for, as the command line has it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/config.h"
#include "broker/control/messages.h"

namespace broker::control {

// What one command was given.
struct RunOperator {
  std::string command;
  std::vector<std::string> names;  // Of devices.
  std::string socket = kDefaultSocket;
  bool json = false;
  bool force = false;
  bool all = false;
  bool replace = false;
  bool dry_run = false;
  bool once = false;
  std::uint32_t interval_ms = 1000;
  std::string output;  // A file; empty: stdout.
  std::string config = kDefaultConfig;
  bool from_file = false;  // Look there, and ask no broker.
  std::string vmm;         // Of `snippet`.
  DeviceConfig device;     // Of `add`.
  bool group = false;
  std::vector<std::string> changes;  // Of `limit`.
  std::uint32_t timeout_s = 10;
  [[nodiscard]] std::chrono::milliseconds patience() const {
    return std::chrono::seconds(timeout_s);
  }
};

struct OperatorOption {
  std::string_view name;   // "json".
  std::string_view value;  // What its value is called; empty: it has none.
  std::string_view help;
  // Stores it. An error continues "--json …".
  Answer<void> (*set)(RunOperator& run, std::string_view value);
};

// Of every command.
[[nodiscard]] Answer<void> set_timeout(RunOperator& run, std::string_view value);
inline constexpr OperatorOption kTimeoutOption = {
    "timeout-s", "N", "give up a broker that has not answered for so many seconds [10]",
    set_timeout};

// Of devices, after the command. kLimits: one, perhaps, and then what is to be changed.
enum class Names : std::uint8_t { kNone, kAny, kSome, kLimits };

struct OperatorCommand {
  std::string_view name;
  Names names;
  std::string_view summary;  // Of `bulkhead --help`.
  std::string_view prose;    // Of its own.
  std::span<const OperatorOption> options;
  int (*run)(const RunOperator& run);  // The exit code.
};

[[nodiscard]] std::span<const OperatorCommand> operator_commands();
// Null where there is none.
[[nodiscard]] const OperatorCommand* find_operator_command(std::string_view name);

[[nodiscard]] std::string operator_help(const OperatorCommand& command);
// The lines of `bulkhead --help`.
[[nodiscard]] std::string operator_summaries();

}  // namespace broker::control
