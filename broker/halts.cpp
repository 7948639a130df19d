#include "broker/halts.h"

#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "broker/settings.h"
#include "broker/state_dir.h"
#include "broker/text.h"
#include "policy/proc_files.h"

namespace broker {
namespace {

using common::fail;

// Nothing that begins or ends like this is a device's own file (state_dir.h).
constexpr std::string_view kPrefix = "halted-";
constexpr std::string_view kSuffix = ".state";
constexpr std::string_view kDrained = "drained\n";
constexpr std::string_view kStopped = "stopped\n";

Answer<Halt> halt_in(const std::string& path) {
  const auto text = policy::read_file(path);
  if (!text) return fail("cannot read " + in_quotes(path));
  if (*text == kDrained) return Halt::kDrain;
  if (*text == kStopped) return Halt::kStop;
  return fail(in_quotes(path) + " does not say what became of its device");
}

}  // namespace

std::string Halts::file_of(const std::string& device) const {
  return directory_ + "/" + std::string(kPrefix) + device + std::string(kSuffix);
}

Answer<void> Halts::keep(const std::string& device, Halt halt) const {
  if (directory_.empty()) return {};
  const std::string path = file_of(device);
  if (halt != Halt::kNone) {
    return replace_file(path, std::string(halt == Halt::kDrain ? kDrained : kStopped));
  }
  return remove_file(path);
}

Halts::Kept Halts::read() const {
  Kept kept;
  if (directory_.empty()) return kept;
  const auto names = policy::list_directory(directory_);
  if (!names) return kept;  // It is the devices' own directory, whose reader says so.
  for (const std::string& name : *names) {
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    const auto device =
        parse_name(name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size()));
    const auto halt = device ? halt_in(directory_ + "/" + name) : fail(device.error());
    if (halt) {
      kept.halts[*device] = *halt;
    } else {
      kept.complaints.push_back(halt.error() + "; the device is served. Delete the file");
    }
  }
  return kept;
}

}  // namespace broker
