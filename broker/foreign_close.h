// broker/foreign_close.h: closes descriptors that somebody untrusted chose.
//
// close() is not always quick: closing a file on a FUSE mount waits for the answer of the file
// system's process, which may be the attacker's own. Such a close happens on a thread of its own,
// so that the loop, and with it every other device, goes on.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "common/fd.h"
#include "common/ipc/channel.h"

namespace broker {

class ForeignCloser {
 public:
  void close(common::Fd fd);
  // All that came with a packet and was not taken.
  void close(common::ipc::FdList& fds);

 private:
  void close_on_thread(std::vector<int> numbers);
  // Shared with the threads, which may outlive us: one whose close hangs stays for ever.
  std::shared_ptr<std::atomic<int>> threads_ = std::make_shared<std::atomic<int>>(0);
};

// True if it is an eventfd, which nothing can delay the closing of.
[[nodiscard]] bool is_eventfd(common::FdRef fd) noexcept;

}  // namespace broker
