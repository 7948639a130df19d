// broker/device_model.h: all that the rest of the broker knows of a device type. Each type has one
// function that makes one of these (blk_config.h: make_blk_model, net_config.h: make_net_model);
// nothing else asks what a device is.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/device_hooks.h"
#include "broker/queue_book.h"
#include "broker/stats_report.h"
#include "common/device_kind.h"
#include "common/ipc/session_broker.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "policy/profile.h"
#include "policy/spawn.h"

namespace broker {

// What one worker of this type is started with, besides what every worker has (control socket,
// status page, engine).
struct WorkerRecipe {
  const policy::Profile* profile = nullptr;  // Constant data: policy/worker_*.h.
  common::EngineKind engine = common::EngineKind::kFallback;
  QueueRole role = QueueRole::kRequests;
  std::uint32_t ticks_per_us = 0;  // What the worker is told; 0: nobody knows.
  std::uint32_t ring_completions = common::ipc::kRingCompletionEntries;
  std::vector<std::byte> start_message;           // The packet after JailOrder.
  std::vector<policy::DescriptorAt> descriptors;  // Borrowed from the model.
  std::uint32_t rate_memories = 0;  // Of WorkerFd::kRates and kGroupRates among them (rates.h).
};

struct DeviceModel {
  common::DeviceKind kind = common::DeviceKind::kBlk;
  std::string summary;  // For the start line: "/images/a.img, 10.0 GiB, 64 queues, direct off".
  common::ipc::SessionStart session_start{};  // `call_swap_in_place` is the host's to say.
  // What is served, for the audit trail; as the kernel knows it now.
  struct Backing {
    std::string path;       // Links resolved; of a card, the device that its queues are opened by.
    std::string interface;  // A card's.
    std::string mac;        // The guest's card.
    bool read_only = false;
    dev_t rdev = 0;  // Where the path is a device.
  };
  Backing backing;
  dev_t io_device = 0;       // A disk's: the block device that does its I/O.
  dev_t backing_device = 0;  // What is served: decides the uid of its processes.
  ino_t backing_inode = 0;
  // Why its workers cannot use io_uring, though the host has it; empty where they can.
  std::string uring_objection;
  // Every profile that its workers can have.
  std::function<std::vector<const policy::Profile*>(common::EngineKind engine)> worker_profiles;
  // A worker is about to be started for this queue.
  std::function<common::Result<WorkerRecipe>(std::uint32_t queue, common::EngineKind engine)>
      worker_recipe;
  std::shared_ptr<DeviceHooks> hooks = std::make_shared<DeviceHooks>();
  // The line of --stats-interval.
  std::string (*stats_line)(const CounterTotals& delta, double seconds,
                            std::size_t workers) = format_stats;
  // Looks at what is served, which others may have changed. Says what the operator should read, and
  // whether the guest must be told that `session_start`'s configuration has become this.
  struct Change {
    std::string text;  // Empty: nothing has changed.
    bool is_error = false;
    std::optional<common::ipc::SessionStart> start;
  };
  std::function<Change()> look_for_change = [] { return Change{}; };
  // What is open of it, for the next broker (keep.h): a disk's, or a tap's queues.
  std::function<std::vector<common::FdRef>()> files = [] { return std::vector<common::FdRef>(); };
  // No worker is left: lets somebody else have what is served. Nothing else may be called after it.
  std::function<void()> release;
};

}  // namespace broker
