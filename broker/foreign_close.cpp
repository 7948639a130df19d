#include "broker/foreign_close.h"

#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace broker {
namespace {

constexpr int kThreadsMax = 32;

}  // namespace

void ForeignCloser::close(common::Fd fd) {
  if (!fd.valid() || is_eventfd(fd.ref())) return;  // Its destructor is quick.
  close_on_thread({fd.release()});
}

void ForeignCloser::close(common::ipc::FdList& fds) {
  std::vector<int> numbers;
  for (std::size_t i = 0; i < fds.size(); ++i) {
    common::Fd fd = fds.take(i);
    if (fd.valid() && !is_eventfd(fd.ref())) numbers.push_back(fd.release());
  }
  fds.clear();
  if (!numbers.empty()) close_on_thread(numbers);
}

// A thread for each, so that none waits for one that hangs while there may be another.
void ForeignCloser::close_on_thread(const std::vector<int>& numbers) {
  for (const int number : numbers) {
    {
      const std::lock_guard lock(work_->mutex);
      work_->waiting.push_back(number);
      if (work_->threads == kThreadsMax) continue;
      ++work_->threads;
    }
    try {
      std::thread([work = work_] { close_all(*work); }).detach();
    } catch (const std::system_error&) {
      // No thread to be had: the next one takes it along.
      const std::lock_guard lock(work_->mutex);
      --work_->threads;
    }
  }
}

void ForeignCloser::close_all(Work& work) {
  std::unique_lock lock(work.mutex);
  while (!work.waiting.empty()) {
    common::Fd fd(work.waiting.back());
    work.waiting.pop_back();
    lock.unlock();
    fd.reset();
    lock.lock();
  }
  --work.threads;
}

bool is_eventfd(common::FdRef fd) noexcept {
  // The kernel writes this name; that of a file on a file system would begin with a slash.
  std::array<char, 64> path{};
  std::array<char, 64> target{};
  std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", fd.number);
  const ssize_t length = ::readlink(path.data(), target.data(), target.size());
  if (length <= 0) return false;
  return std::string_view(target.data(), static_cast<std::size_t>(length)) ==
         "anon_inode:[eventfd]";
}

}  // namespace broker
