// worker/net_main.cpp: the process that serves one virtqueue of one network card of one guest.
//
// May:        move packets one way between that guest's memory and one queue of its tap (or, for
//             the control virtqueue, ask the broker in numbers), and ring that guest's bell.
// Must never: open, map, fork, exec, connect, configure the tap, or hold anything of another guest.
// Trusts:     the broker. Trusts neither the guest nor the session: both may be hostile.
//
// Stages: as in blk_main.cpp. Enter, set up, seal, serve.

#include <memory>

#include "common/ipc/worker_messages.h"
#include "common/status_page.h"
#include "worker/leave.h"
#include "worker/net_control.h"
#include "worker/net_receive.h"
#include "worker/net_start.h"
#include "worker/net_transmit.h"
#include "worker/rate_map.h"
#include "worker/stages.h"

namespace {

using common::StatusPage;
using common::ipc::NetRole;
using common::ipc::WorkerExit;

// Stage 2. What it made is never destroyed: the process ends with it. One of the last three.
struct Worker {
  worker::NetOrders orders;
  worker::RateMap rates;
  worker::Guest guest;
  worker::NetMachine machine;
  std::unique_ptr<worker::ControlLink> link;
  std::unique_ptr<worker::NetReceive> receive;
  std::unique_ptr<worker::NetTransmit> transmit;
  std::unique_ptr<worker::NetControl> control;
};

void make_queue(Worker& made, StatusPage& page) noexcept {
  const worker::NetQueueParts parts{.memory = made.guest.map.memory(),
                                    .device = made.orders.device,
                                    .ring = made.guest.ring,
                                    .engine = made.machine.engine.get(),
                                    .status = &page,
                                    .log = made.guest.log.bytes(),
                                    .rates = made.rates.memories};
  switch (made.orders.role()) {
    case NetRole::kReceive:
      made.receive = worker::NetReceive::create(parts);
      break;
    case NetRole::kTransmit:
      made.transmit = worker::NetTransmit::create(parts);
      break;
    case NetRole::kControl:
      made.link = std::make_unique<worker::BrokerControlLink>(
          worker::at(common::ipc::WorkerFd::kDevice), *made.machine.engine);
      made.control = worker::NetControl::create(parts, *made.link);
      break;
  }
}

void set_up(const worker::Entered& entered, Worker& made) noexcept {
  StatusPage& page = entered.page;
  made.orders = expect(worker::receive_net_orders(entered.control), page);
  made.rates = expect(worker::map_rates(entered.order.rate_memories, made.guest), page);
  expect(worker::receive_guest(entered.control, made.guest), page);
  made.machine = expect(worker::make_tap_engine(made.orders, made.guest), page);
  make_queue(made, page);
  if (!made.receive && !made.transmit && !made.control) worker::leave(WorkerExit::kStartRefused);
}

WorkerExit serve(const Worker& made) noexcept {
  if (made.receive) return made.receive->run();
  return made.transmit ? made.transmit->run() : made.control->run();
}

}  // namespace

int main() {
  const worker::Entered entered = worker::enter_stage();
  Worker made;
  set_up(entered, made);
  worker::seal_stage(entered, made.guest, worker::limits_for(made.orders), made.machine.keep);

  const WorkerExit outcome = serve(made);
  entered.page.stage.store(common::Stage::kEnding, std::memory_order_relaxed);
  worker::leave(outcome);
}
