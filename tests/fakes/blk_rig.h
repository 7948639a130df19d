// tests/fakes/blk_rig.h: a guest, a disk and a BlkQueue between them, in one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <numeric>

#include "common/ipc/worker_messages.h"
#include "common/status_page.h"
#include "common/virtio_blk_wire.h"
#include "tests/fakes/blk_driver.h"
#include "tests/fakes/guest_driver.h"
#include "tests/fakes/logged_ram.h"
#include "tests/fakes/rates.h"
#include "tests/fakes/scripted_engine.h"
#include "worker/blk_queue.h"

namespace fakes {

struct BlkRig {
  static constexpr std::uint64_t kSectors = 2048;  // 1 MiB
  static constexpr std::uint64_t kAllFeatures =
      common::blk::kFeatureFlush | common::blk::kFeatureConfigWce | common::blk::kFeatureDiscard |
      common::blk::kFeatureWriteZeroes | common::blk::kFeatureBlkSize;

  explicit BlkRig(const GuestDriver::Options& options = {}, std::uint64_t sectors = kSectors)
      : ring(ram, options), blk(ram, ring), engine(sectors * common::kSectorBytes) {
    device.kind = common::ipc::BlkStart::kKind;
    device.capacity_sectors = sectors;
    device.memory_alignment = 1;
    device.offset_alignment = 1;
    device.discard = 1;
    device.write_zeroes = 1;
    device.tsc_per_us = 1000;
    for (std::size_t i = 0; i < device.serial.size(); ++i) {
      device.serial[i] = static_cast<std::uint8_t>('A' + i);
    }
  }

  // Ready to run; null where the ring was refused.
  [[nodiscard]] std::unique_ptr<worker::BlkQueue> make_queue() {
    common::ipc::RingStart start = ring.ring_start(features);
    start.writable_config[0] = write_back ? 1 : 0;
    if (log != nullptr) log->describe(start);
    return worker::BlkQueue::create({.memory = ram.memory(),
                                     .device = device,
                                     .ring = start,
                                     .engine = &engine,
                                     .status = &status,
                                     .log = log != nullptr ? log->bits() : std::span<std::byte>(),
                                     .rates = {rates.view(), {}}});
  }

  // Shows the device what was added and serves until nothing is left to do.
  [[nodiscard]] common::ipc::WorkerExit serve() {
    (void)ring.publish();
    return make_queue()->run();
  }

  // The one answer there is.
  [[nodiscard]] BlkAnswer only_answer() {
    (void)serve();
    const auto answer = blk.next();
    return answer.value_or(BlkAnswer{});
  }

  [[nodiscard]] std::uint64_t count(common::Counter counter) const {
    return status.counters[static_cast<std::size_t>(counter)].load();
  }
  [[nodiscard]] common::ipc::WorkerFault fault() const {
    return static_cast<common::ipc::WorkerFault>(status.fault.load());
  }

  // Fills the disk so that each sector says its number.
  void number_sectors() {
    for (std::size_t at = 0; at < engine.disk().size(); ++at) {
      engine.disk()[at] = static_cast<std::byte>(at / common::kSectorBytes);
    }
  }

  GuestRam ram;
  GuestDriver ring;
  BlkDriver blk;
  ScriptedEngine engine;
  common::StatusPage status{};
  common::ipc::BlkStart device{};
  std::uint64_t features = kAllFeatures;
  bool write_back = true;
  LoggedRam* log = nullptr;  // A migration is under way.
  Rates rates;
};

}  // namespace fakes
