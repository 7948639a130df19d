#include "broker/state_dir.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "broker/config_file.h"
#include "broker/device_text.h"
#include "broker/text.h"
#include "common/fd.h"

namespace broker {
namespace {

using common::fail;

constexpr std::string_view kHead =
    "# Written by bulkhead when this device was added; 'bulkhead remove' takes it away.\n";

std::unexpected<std::string> failed(std::string_view what, const std::string& path) {
  return fail("cannot " + std::string(what) + " " + in_quotes(path) + ": " + errno_text(errno));
}

// Of the directory, so that a new name is there after a crash, too.
void flush_directory_of(const std::string& file) {
  const std::string path = file.substr(0, file.rfind('/') + 1);
  const common::Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.valid()) (void)::fsync(directory.ref().number);
}

}  // namespace

// The name has no '/' (set_name), but may begin with a dot.
std::string StateDir::file_of(const std::string& name) const {
  return path_ + "/device-" + name + ".toml";
}

bool StateDir::keeps(const DeviceConfig& device) const {
  return !path_.empty() && device.fd < 0 && device.tap_fds.empty();
}

Answer<void> StateDir::keep(const DeviceConfig& device) const {
  return replace_file(file_of(device.name), std::string(kHead) + device_toml(device));
}

Answer<void> replace_file(const std::string& path, const std::string& text) {
  const std::string aside = path + "~";
  (void)::unlink(aside.c_str());
  {
    const common::Fd file(
        ::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file.valid()) return failed("make", aside);
    if (::write(file.ref().number, text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
        ::fsync(file.ref().number) != 0) {
      auto error = failed("write", aside);
      (void)::unlink(aside.c_str());
      return error;
    }
  }
  if (::rename(aside.c_str(), path.c_str()) != 0) return failed("make", path);
  flush_directory_of(path);
  return {};
}

Answer<void> StateDir::forget(const std::string& name) const {
  return path_.empty() ? Answer<void>{} : remove_file(file_of(name));
}

Answer<void> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) == 0) {
    flush_directory_of(path);
    return {};
  }
  if (errno == ENOENT) return {};
  return failed("remove", path);
}

StateDir::Kept StateDir::read() const {
  Kept kept;
  if (path_.empty()) return kept;
  const auto files = toml_files_in(path_);
  if (!files) {
    kept.complaints.push_back(files.error());
    return kept;
  }
  for (const std::string& file : *files) {
    FileAnswer answer = read_one_config_file(file);
    if (!answer) {
      for (std::string& line : answer.error()) kept.complaints.push_back(std::move(line));
      continue;
    }
    for (DeviceConfig& device : answer->devices) kept.devices.push_back(std::move(device));
  }
  return kept;
}

}  // namespace broker
