// broker/ring_messenger.h: the broker's own io_uring, which does nothing but send
// IORING_OP_MSG_RING into workers' rings: the only way to reach a sealed worker, which holds no
// descriptor.
//
// Not trusted: the worker at the other end. It may be stuck for ever, so nothing here waits:
// answers come as events of the loop, and may never come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "broker/event_loop.h"
#include "common/fd.h"
#include "common/result.h"
#include "common/shared_region.h"

namespace broker {

class RingMessenger {
 public:
  // `result` >= 0, or a negative errno: EBADFD where the worker has not enabled its ring yet,
  // EOWNERDEAD where it is gone.
  using Done = std::function<void(int result)>;

  // A ring that can do nothing else: restricted to MSG_RING and to changing its own file table.
  [[nodiscard]] static common::Result<std::unique_ptr<RingMessenger>> create(EventLoop& loop);
  RingMessenger(const RingMessenger&) = delete;
  RingMessenger& operator=(const RingMessenger&) = delete;

  // A message under way. abandon() it where `done` must not be called any more.
  using Ticket = std::uint64_t;

  // A completion with ipc::kRingStop in `ring`.
  [[nodiscard]] common::Result<Ticket> send_stop(common::FdRef ring, Done done);

  // `eventfd` into slot ipc::kSlotCall of `ring`, and a completion with ipc::kRingCallSwapped.
  // EBUSY while kSwapsMax of them are unanswered.
  [[nodiscard]] common::Result<Ticket> send_call(common::FdRef ring, common::FdRef eventfd,
                                                 Done done);

  void abandon(Ticket ticket) noexcept;

  // SEND_FD reads from our own registered table: one slot for each message under way.
  static constexpr std::uint32_t kSwapsMax = 256;

 private:
  struct Pending {
    Done done;
    int slot = -1;  // To be emptied once the answer is there.
  };
  struct Mapped {
    common::SharedRegion rings;
    common::SharedRegion entries;
    std::uint32_t sq_tail, sq_mask, sq_array;
    std::uint32_t cq_head, cq_tail, cq_mask, cqes;
  };

  RingMessenger(common::Fd ring, Mapped mapped);
  struct Message {
    common::FdRef ring;
    std::uint64_t command;
    std::uint64_t user_data;  // What the worker sees.
    int source_slot = -1;
  };
  [[nodiscard]] common::Result<Ticket> submit(const Message& message, Pending pending);
  [[nodiscard]] common::Result<void> set_slot(std::uint32_t slot, int number) noexcept;
  void on_completions();
  void finish(std::uint64_t ticket, int result);
  [[nodiscard]] std::uint32_t* word(std::uint32_t offset) const noexcept;

  common::Fd ring_;
  Mapped mapped_;
  Ticket next_ticket_ = 1;
  std::unordered_map<Ticket, Pending> pending_;
  std::vector<int> free_slots_;
  EventLoop::Registration watch_;
};

}  // namespace broker
