// worker/blk_main.cpp: the process that serves one virtqueue of one block device of one guest.
//
// May:        move bytes between that guest's memory and one disk that the broker opened for it,
//             and ring that guest's bell.
// Must never: open, map, fork, exec, connect, or hold anything of another guest.
// Trusts:     the broker. Trusts neither the guest nor the session: both may be hostile.
//
// Stages, each of which gives something up:
//   1. enter:  the broker's packets only. Root, ids, capabilities, file system are gone after it.
//   2. set up: the session's packets: guest memory is mapped, the engine made, every request slot
//              allocated. No byte of the guest's is looked at: we could still do damage.
//   3. seal:   no descriptors (or the few of the fallback engine), no new memory, a handful of
//              system calls. There is no way back.
//   4. serve:  only now is a byte of the guest's believed enough to be checked.
#include <memory>

#include "common/ipc/worker_messages.h"
#include "common/status_page.h"
#include "worker/blk_queue.h"
#include "worker/blk_start.h"
#include "worker/leave.h"
#include "worker/rate_map.h"
#include "worker/stages.h"

namespace {

using common::StatusPage;
using common::ipc::WorkerExit;

// Stage 2. What it made is never destroyed: the process ends with it.
struct Worker {
  worker::Orders orders;
  worker::RateMap rates;
  worker::Guest guest;
  worker::Machine machine;
  std::unique_ptr<worker::BlkQueue> queue;
};

void set_up(const worker::Entered& entered, Worker& made) noexcept {
  StatusPage& page = entered.page;
  made.orders = expect(worker::receive_orders(entered.control), page);
  made.rates = expect(worker::map_rates(entered.order.rate_memories, made.guest), page);
  expect(worker::receive_guest(entered.control, made.guest), page);
  made.machine = expect(worker::make_engine(made.orders, made.guest), page);
  made.queue = worker::BlkQueue::create({.memory = made.guest.map.memory(),
                                         .device = made.orders.device,
                                         .ring = made.guest.ring,
                                         .engine = made.machine.engine.get(),
                                         .status = &page,
                                         .inflight = made.guest.inflight.bytes(),
                                         .log = made.guest.log.bytes(),
                                         .rates = made.rates.memories});
  if (!made.queue) worker::leave(WorkerExit::kStartRefused);
}

}  // namespace

int main() {
  const worker::Entered entered = worker::enter_stage();
  Worker made;
  set_up(entered, made);
  worker::seal_stage(entered, made.guest, worker::limits_for(made.orders), made.machine.keep);

  const WorkerExit outcome = made.queue->run();
  entered.page.stage.store(common::Stage::kEnding, std::memory_order_relaxed);
  worker::leave(outcome);
}
