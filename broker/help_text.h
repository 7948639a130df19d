// broker/help_text.h: what --help prints. The options' lines come from the table in settings.cpp.
#pragma once

#include <string>

namespace broker {

[[nodiscard]] std::string general_help();
[[nodiscard]] std::string blk_help();
[[nodiscard]] std::string net_help();
[[nodiscard]] std::string serve_help();
[[nodiscard]] std::string posture_help();

}  // namespace broker
