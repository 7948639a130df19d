// broker/foreign_close.h: closes descriptors that somebody untrusted chose.
//
// close() is not always quick: closing a file on a FUSE mount waits for the answer of the file
// system's process, which may be the attacker's own. Such a close happens on a thread of its own,
// so that the loop, and with it every other device, goes on.
//
// There are 32 threads at most; what comes while all are busy waits for the next that is not. So
// whoever has files whose closing never ends, which takes a FUSE mount of his own on this host, can
// make the broker keep those 32 threads, and from then on each descriptor that strangers hand over:
// some for each connection he makes, up to the broker's limit. That cannot be undone (the kernel
// lets nobody out of such a close), but it stops no device that is served.
#pragma once

#include <memory>
#include <mutex>
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
  // Shared with the threads, which may outlive us: one whose close hangs stays for ever.
  struct Work {
    std::mutex mutex;
    std::vector<int> waiting;
    int threads = 0;
  };
  static void close_all(Work& work);
  void close_on_thread(const std::vector<int>& numbers);
  std::shared_ptr<Work> work_ = std::make_shared<Work>();
};

// True if it is an eventfd, which nothing can delay the closing of.
[[nodiscard]] bool is_eventfd(common::FdRef fd) noexcept;

}  // namespace broker
