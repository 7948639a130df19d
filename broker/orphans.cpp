#include "broker/orphans.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "broker/death.h"
#include "common/stop_pipe.h"
#include "common/sys.h"

namespace broker {

namespace ipc = common::ipc;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

namespace {

// SIGKILL takes effect at once, unless the process waits for a disk that does not answer.
constexpr milliseconds kKillPatience{1000};

common::Fd copy_of(common::FdRef fd) {
  auto copy = common::duplicate(fd);
  return copy ? *std::move(copy) : common::Fd();
}

}  // namespace

void Orphans::add(ipc::KeptRole role, std::span<const common::Fd> fds) {
  if (role == ipc::KeptRole::kPlain || fds.empty()) return;
  Process process{copy_of(fds[0].ref()), {}};
  if (role == ipc::KeptRole::kWorker && fds.size() > 1) process.stop = copy_of(fds[1].ref());
  if (process.pidfd.valid()) processes_.push_back(std::move(process));
}

bool Orphans::end(milliseconds patience) {
  for (const Process& each : processes_) {
    const bool told = each.stop.valid() && common::tell_to_stop(each.stop.ref());
    if (!told) kill_child(each.pidfd.ref());
  }
  if (wait(patience)) return true;
  for (const Process& each : processes_) kill_child(each.pidfd.ref());
  return wait(kKillPatience);
}

bool Orphans::wait(milliseconds patience) {
  const auto end = Clock::now() + patience;
  while (!processes_.empty()) {
    const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
    if (left <= milliseconds(0)) return false;
    pollfd ended{processes_.back().pidfd.ref().number, POLLIN, 0};
    const int ready = ::poll(&ended, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 1) processes_.pop_back();
  }
  return true;
}

}  // namespace broker
