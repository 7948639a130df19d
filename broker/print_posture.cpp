#include "broker/print_posture.h"

#include <signal.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "broker/text.h"
#include "policy/posture.h"

namespace broker {
namespace {

int complain(const std::string& text) {
  std::fprintf(stderr, "bulkhead: %s\n", text.c_str());
  return 1;
}

std::string read_failed(pid_t pid, const common::Error& error) {
  const std::string process = "process " + std::to_string(pid);
  if (error.os_errno == ENOENT || error.os_errno == ESRCH) return process + " has ended meanwhile";
  std::string text = "cannot look at " + process + ": " + error.what;
  if (error.os_errno != 0) text += ": " + errno_text(error.os_errno);
  if (error.os_errno == EACCES || error.os_errno == EPERM) {
    text += "; run this as root, or as the user of the broker";
  }
  return text;
}

}  // namespace

int print_posture(pid_t pid) {
  // EPERM: it is there.
  if (::kill(pid, 0) != 0 && errno == ESRCH) {
    return complain("there is no process " + std::to_string(pid) +
                    "; give the pid of a running bulkhead");
  }
  std::vector<policy::ProcessPosture> postures;
  std::vector<pid_t> all = policy::process_tree(pid);
  const std::size_t children_end = all.size();
  const std::vector<pid_t> adopted = policy::held_processes(pid, all);
  all.insert(all.end(), adopted.begin(), adopted.end());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const pid_t one = all[i];
    auto posture = policy::read_posture(one, nullptr);
    if (posture) {
      if (i >= children_end) posture->title += " (adopted)";
      postures.push_back(*std::move(posture));
    } else if (one == pid) {
      return complain(read_failed(one, posture.error()));
    }
    // A child that is gone by now has no posture any more.
  }
  if (postures.empty()) return complain("process " + std::to_string(pid) + " has ended meanwhile");
  const std::string table = policy::format_postures(postures);
  const bool written = std::fputs(table.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  return written ? 0 : complain("cannot write to stdout: " + errno_text(errno));
}

}  // namespace broker
