// broker/config_file.h: the configuration file of `bulkhead serve`. toml++ lives in config_file.cpp
// only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "broker/config.h"

namespace broker {

// Either a configuration, or every mistake of the file, one line each: "file:line:column: what is
// wrong; what to do".
using FileAnswer = common::Result<BrokerConfig, std::vector<std::string>>;

// And what lies in its drop-in directory, in the order of the names there.
[[nodiscard]] FileAnswer read_config_file(const std::string& path);

// That file alone.
[[nodiscard]] FileAnswer read_one_config_file(const std::string& path);

// The *.toml of a directory, by name; none where there is no such directory.
[[nodiscard]] Answer<std::vector<std::string>> toml_files_in(const std::string& directory);

// "/etc/bulkhead/bulkhead.d" of "/etc/bulkhead/bulkhead.toml".
[[nodiscard]] std::string drop_in_directory(const std::string& path);

// `name` stands for the file in the errors.
[[nodiscard]] FileAnswer parse_config(std::string_view text, const std::string& name);

}  // namespace broker
