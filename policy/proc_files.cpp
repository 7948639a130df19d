#include "policy/proc_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <sstream>
#include <system_error>

#include "common/fd.h"

namespace policy {

std::string proc_path(pid_t pid, std::string_view name) {
  return "/proc/" + std::to_string(pid) + "/" + std::string(name);
}

std::string error_text(int os_errno) { return std::generic_category().message(os_errno); }

std::optional<std::string> read_file(const std::string& path) {
  const common::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return std::nullopt;
  std::string text;
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t got = ::read(file.ref().number, buffer.data(), buffer.size());
    if (got < 0) return std::nullopt;
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

std::optional<std::string> read_link(const std::string& path) {
  std::array<char, 4096> target;
  const ssize_t got = ::readlink(path.c_str(), target.data(), target.size());
  if (got < 0) return std::nullopt;
  return std::string(target.data(), static_cast<std::size_t>(got));
}

std::optional<std::vector<std::string>> list_directory(const std::string& path) {
  const std::unique_ptr<DIR, decltype([](DIR* open) { ::closedir(open); })> directory(
      ::opendir(path.c_str()));
  if (directory == nullptr) return std::nullopt;
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* const entry = ::readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return std::nullopt;
  return names;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::string printable(std::string text) {
  for (char& each : text) {
    if (each < ' ' || each > '~') each = '?';
  }
  return text;
}

std::optional<ProcStatus> read_status(pid_t pid) {
  const auto text = read_file(proc_path(pid, "status"));
  if (!text) return std::nullopt;
  ProcStatus status;
  for (const std::string& line : lines_of(*text)) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const auto value = line.find_first_not_of(" \t", colon + 1);
    status[line.substr(0, colon)] = value == std::string::npos ? "" : line.substr(value);
  }
  return status;
}

std::string value_of(const ProcStatus& status, const std::string& key) {
  const auto found = status.find(key);
  return found == status.end() ? "" : found->second;
}

pid_t parent_of(const ProcStatus& status) {
  const std::string text = value_of(status, "PPid");
  pid_t parent = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), parent);
  return parent;
}

}  // namespace policy
