// broker/help_text.h: what --help prints. The options' lines come from the table in settings.cpp.
#pragma once

#include <string>
#include <string_view>

namespace broker {

[[nodiscard]] std::string general_help();
[[nodiscard]] std::string blk_help();
[[nodiscard]] std::string net_help();
[[nodiscard]] std::string serve_help();
[[nodiscard]] std::string posture_help();
[[nodiscard]] std::string doctor_help();

// The lines of every option of a device, of whatever type.
[[nodiscard]] std::string device_options_help();

// "  --queue-size=N                most entries of …": the help on a line of its own where the
// option reaches into its column.
[[nodiscard]] std::string option_line(std::string_view option, std::string_view help);
[[nodiscard]] std::string audit_help();
[[nodiscard]] std::string takeover_help();
[[nodiscard]] std::string upgrade_help();

}  // namespace broker
