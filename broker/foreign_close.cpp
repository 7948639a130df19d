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

// Beyond so many that hang, descriptors are left open instead: an attacker uses up our descriptors,
// which are limited too, but never stops the loop.
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
  if (!numbers.empty()) close_on_thread(std::move(numbers));
}

void ForeignCloser::close_on_thread(std::vector<int> numbers) {
  if (threads_->fetch_add(1) < kThreadsMax) {
    try {
      std::thread([numbers = std::move(numbers), threads = threads_] {
        for (const int number : numbers) common::Fd(number).reset();
        threads->fetch_sub(1);
      }).detach();
      return;
    } catch (const std::system_error&) {
      // No thread to be had: left open, as above.
    }
  }
  threads_->fetch_sub(1);
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
