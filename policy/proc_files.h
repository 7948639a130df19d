// policy/proc_files.h: reading /proc. Functions that return an optional leave the reason in errno.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace policy {

[[nodiscard]] std::string proc_path(pid_t pid, std::string_view name);
[[nodiscard]] std::string error_text(int os_errno);

[[nodiscard]] std::optional<std::string> read_file(const std::string& path);
[[nodiscard]] std::optional<std::string> read_link(const std::string& path);
// Names without . and ..
[[nodiscard]] std::optional<std::vector<std::string>> list_directory(const std::string& path);

[[nodiscard]] std::vector<std::string> lines_of(const std::string& text);
[[nodiscard]] std::vector<std::string> words_of(const std::string& text);
// Everything but plain ASCII as '?': text from processes that we do not trust.
[[nodiscard]] std::string printable(std::string text);

// /proc/PID/status as key and value.
using ProcStatus = std::map<std::string, std::string>;
[[nodiscard]] std::optional<ProcStatus> read_status(pid_t pid);
[[nodiscard]] std::string value_of(const ProcStatus& status, const std::string& key);
[[nodiscard]] pid_t parent_of(const ProcStatus& status);

}  // namespace policy
