#include "broker/ring_messenger.h"

#include <linux/io_uring.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/ipc/worker_messages.h"
#include "common/uring_sys.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
namespace uring = common::uring;

// Each message is submitted at once, so the queue holds one; completions of all that may be under
// way fit, and the kernel keeps what does not.
constexpr std::uint32_t kEntries = 8;
constexpr std::uint32_t kCompletions = 1024;

common::Result<void> restrict_and_enable(common::FdRef ring) {
  std::array<io_uring_restriction, 2> rules{};
  rules[0].opcode = IORING_RESTRICTION_SQE_OP;
  rules[0].sqe_op = IORING_OP_MSG_RING;
  rules[1].opcode = IORING_RESTRICTION_REGISTER_OP;
  rules[1].register_op = IORING_REGISTER_FILES_UPDATE;
  if (uring::reg(ring.number, IORING_REGISTER_RESTRICTIONS, rules.data(), rules.size()) != 0) {
    return common::fail_errno("restrict the broker's ring", errno);
  }
  if (uring::reg(ring.number, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) != 0) {
    return common::fail_errno("enable the broker's ring", errno);
  }
  return {};
}

common::Result<void> make_file_table(common::FdRef ring, std::uint32_t slots) {
  io_uring_rsrc_register table{};
  table.nr = slots;
  table.flags = IORING_RSRC_REGISTER_SPARSE;
  if (uring::reg(ring.number, IORING_REGISTER_FILES2, &table, sizeof(table)) != 0) {
    return common::fail_errno("register the broker's file table", errno);
  }
  return {};
}

}  // namespace

common::Result<std::unique_ptr<RingMessenger>> RingMessenger::create(EventLoop& loop) {
  io_uring_params params{};
  params.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
  params.cq_entries = kCompletions;
  common::Fd ring(uring::setup(kEntries, &params));
  if (!ring.valid()) return common::fail_errno("io_uring_setup", errno);
  // One mapping for both queues since 5.4; a worker's engine needs 6.1.
  if ((params.features & IORING_FEAT_SINGLE_MMAP) == 0) {
    return common::fail_errno("io_uring without IORING_FEAT_SINGLE_MMAP", ENOSYS);
  }

  Mapped mapped{};
  const std::uint64_t ring_bytes =
      std::max<std::uint64_t>(params.sq_off.array + params.sq_entries * sizeof(std::uint32_t),
                              params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe));
  using Access = common::SharedRegion::Access;
  TRY_LET(mapped.rings, common::SharedRegion::map(ring.ref(), IORING_OFF_SQ_RING, ring_bytes,
                                                  Access::kReadWrite));
  TRY_LET(mapped.entries,
          common::SharedRegion::map(ring.ref(), IORING_OFF_SQES,
                                    params.sq_entries * sizeof(io_uring_sqe), Access::kReadWrite));
  mapped.sq_tail = params.sq_off.tail;
  mapped.sq_mask = params.sq_off.ring_mask;
  mapped.sq_array = params.sq_off.array;
  mapped.cq_head = params.cq_off.head;
  mapped.cq_tail = params.cq_off.tail;
  mapped.cq_mask = params.cq_off.ring_mask;
  mapped.cqes = params.cq_off.cqes;

  TRY(make_file_table(ring.ref(), kSwapsMax));
  TRY(restrict_and_enable(ring.ref()));
  std::unique_ptr<RingMessenger> messenger(new RingMessenger(std::move(ring), std::move(mapped)));
  TRY_LET(messenger->watch_,
          loop.watch(messenger->ring_.ref(), EPOLLIN,
                     [self = messenger.get()](std::uint32_t) { self->on_completions(); }));
  return messenger;
}

RingMessenger::RingMessenger(common::Fd ring, Mapped mapped)
    : ring_(std::move(ring)), mapped_(std::move(mapped)) {
  for (std::uint32_t slot = 0; slot < kSwapsMax; ++slot) {
    free_slots_.push_back(static_cast<int>(slot));
  }
}

common::Result<RingMessenger::Ticket> RingMessenger::send_stop(common::FdRef ring, Done done) {
  return submit({ring, IORING_MSG_DATA, ipc::kRingStop}, {std::move(done)});
}

common::Result<RingMessenger::Ticket> RingMessenger::send_call(common::FdRef ring,
                                                               common::FdRef eventfd, Done done) {
  if (free_slots_.empty()) return common::fail_errno("too many call swaps under way", EBUSY);
  const int slot = free_slots_.back();
  TRY(set_slot(static_cast<std::uint32_t>(slot), eventfd.number));
  free_slots_.pop_back();
  auto ticket =
      submit({ring, IORING_MSG_SEND_FD, ipc::kRingCallSwapped, slot}, {std::move(done), slot});
  if (!ticket) free_slots_.push_back(slot);
  return ticket;
}

// The answer will still come, and empty the slot.
void RingMessenger::abandon(Ticket ticket) noexcept {
  if (const auto found = pending_.find(ticket); found != pending_.end()) found->second.done = {};
}

common::Result<RingMessenger::Ticket> RingMessenger::submit(const Message& message,
                                                            Pending pending) {
  const Ticket ticket = next_ticket_++;
  const std::uint32_t tail = *word(mapped_.sq_tail);  // Ours alone to change.
  const std::uint32_t index = tail & *word(mapped_.sq_mask);
  io_uring_sqe entry{};
  entry.opcode = IORING_OP_MSG_RING;
  entry.fd = message.ring.number;
  entry.addr = message.command;
  entry.off = message.user_data;
  entry.user_data = ticket;
  if (message.source_slot >= 0) {
    entry.addr3 = static_cast<__u64>(message.source_slot);
    entry.file_index = ipc::kSlotCall + 1;  // Counted from one: zero means "no slot".
  }
  std::memcpy(mapped_.entries.bytes().data() + index * sizeof(entry), &entry, sizeof(entry));
  *word(mapped_.sq_array + index * static_cast<std::uint32_t>(sizeof(std::uint32_t))) = index;
  __atomic_store_n(word(mapped_.sq_tail), tail + 1, __ATOMIC_RELEASE);

  pending_.emplace(ticket, std::move(pending));
  int submitted = 0;
  do {
    submitted = uring::enter(ring_.ref().number, 1, 0, 0, nullptr, 0);
  } while (submitted < 0 && errno == EINTR);
  if (submitted == 1) return ticket;

  // The kernel took nothing: take the entry back, so that the next submission does not send it.
  const int os_errno = submitted < 0 ? errno : EAGAIN;
  __atomic_store_n(word(mapped_.sq_tail), tail, __ATOMIC_RELEASE);
  pending_.erase(ticket);
  return common::fail_errno("submit a ring message", os_errno);
}

common::Result<void> RingMessenger::set_slot(std::uint32_t slot, int number) noexcept {
  io_uring_files_update update{};
  update.offset = slot;
  update.fds = reinterpret_cast<std::uintptr_t>(&number);
  if (uring::reg(ring_.ref().number, IORING_REGISTER_FILES_UPDATE, &update, 1) != 1) {
    return common::fail_errno("change the broker's file table", errno);
  }
  return {};
}

void RingMessenger::on_completions() {
  while (true) {
    const std::uint32_t head = *word(mapped_.cq_head);
    // Acquire: the entry that this tail announces is read after it.
    if (head == __atomic_load_n(word(mapped_.cq_tail), __ATOMIC_ACQUIRE)) return;
    io_uring_cqe entry{};
    const std::uint32_t index = head & *word(mapped_.cq_mask);
    std::memcpy(&entry, mapped_.rings.bytes().data() + mapped_.cqes + index * sizeof(entry),
                sizeof(entry));
    __atomic_store_n(word(mapped_.cq_head), head + 1, __ATOMIC_RELEASE);
    finish(entry.user_data, entry.res);
  }
}

void RingMessenger::finish(std::uint64_t ticket, int result) {
  const auto found = pending_.find(ticket);
  if (found == pending_.end()) return;
  const Pending pending = std::move(found->second);
  pending_.erase(found);
  if (pending.slot >= 0) {
    // A slot that cannot be emptied is not used again: it would keep the eventfd, no more.
    if (set_slot(static_cast<std::uint32_t>(pending.slot), -1)) {
      free_slots_.push_back(pending.slot);
    }
  }
  if (pending.done) pending.done(result);
}

std::uint32_t* RingMessenger::word(std::uint32_t offset) const noexcept {
  return reinterpret_cast<std::uint32_t*>(mapped_.rings.bytes().data() + offset);
}

}  // namespace broker
