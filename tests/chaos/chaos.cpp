#include "tests/chaos/chaos.h"

#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "tests/fakes/failure.h"
#include "tests/integration/image.h"

namespace chaos {
namespace {

using fakes::VhostRequest;

constexpr std::uint64_t kBlocks = 64;
constexpr std::uint64_t kSectorsOfQueue = 8 * kBlocks;
// What change_memory() adds lies far beyond everything else, and a log has to have bits for it.
constexpr std::uint64_t kFarAddr = 1ULL << 40;
constexpr std::uint64_t kFarBytes = 1 << 20;
// So many requests of each queue after each event.
constexpr std::uint64_t kProgress = 8;

}  // namespace

Chaos::Chaos(const Plan& plan, Tally& tally)
    : Hand(plan, tally, "bulkhead-worker-blk"), versions_(plan.queues) {
  add_event({"disconnect", [this] { disconnect(); }, true, 2});
  add_event({"swap call eventfds", [this] { swap_calls(); }, false, 4});
  add_event({"change the memory table", [this] { change_memory(); }, false, 4});
  add_event({"pause a queue", [this] { pause_queue(); }, false, 3});
  add_event({"stop and start a ring", [this] { stop_and_start_ring(); }, false, 3});
  add_event({"grow the disk", [this] { grow_disk(); }, false, 2});
  add_event({"switch a migration's log", [this] { switch_log(); }, false, 4});
  add_event({"migrate to another broker", [this] { migrate(); }, false, 2});
  integration::make_image(images_.file("disk.img"), plan_.queues * kBlocks * 4096);
  start_broker();
  fakes::BlkClient::Options options;
  options.queues = plan_.queues;
  options.shape.slots = 8;
  options.shape.slot_bytes = 4096;
  options.shape.packed = options.forgets_places = plan_.packed;
  if (!plan_.tracked) options.protocol_features = ~fakes::kProtocolInflight;
  client_ = std::make_unique<fakes::BlkClient>(socket_, options);
  start_loads();
}

// --- events --------------------------------------------------------------------------------------

void Chaos::disconnect() {
  client_->vhost().disconnect();
  reconnect();
}

void Chaos::swap_calls() {
  const std::uint32_t queue = pick(plan_.queues);
  const std::uint32_t times = 1 + pick(30);
  for (std::uint32_t i = 0; i < times; ++i) {
    client_->vhost().set_vring_fd(VhostRequest::kSetVringCall, queue,
                                  client_->queue(queue).doorbell().replace());
  }
  client_->queue(queue).doorbell().drop_old();
}

void Chaos::change_memory() {
  const fakes::VmRegion more{kFarAddr, kFarBytes, 1ULL << 50, 0};
  client_->vhost().add_mem_reg(more, client_->memory().file(2));
  if (pick(2) == 0) {
    client_->vhost().rem_mem_reg(more);
  } else {
    client_->send_memory();
  }
}

void Chaos::pause_queue() {
  const std::uint32_t queue = pick(plan_.queues);
  client_->enable(queue, false);
  client_->enable(queue, true);
}

bool Chaos::is_drained(std::uint32_t queue, std::uint32_t base) {
  if (plan_.packed) return (base & 0xffff) == base >> 16;
  return base == client_->queue(queue).driver().used_idx();
}

void Chaos::stop_and_start_ring() {
  const std::uint32_t queue = pick(plan_.queues);
  const std::uint32_t base = client_->stop_ring(queue);
  fakes::require(is_drained(queue, base), "a stopped ring has requests in flight");
  client_->restart_ring(queue, base);
}

// The broker sees it when it looks next, in some event that comes later.
void Chaos::grow_disk() {
  const std::string path = images_.file("disk.img");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) + (1 << 20));
}

// A migration begins, goes on with another log, or is given up.
void Chaos::switch_log() {
  if (log_) fakes::require(log_->nothing_outside_changed(), "written outside of the log");
  if (log_ && pick(2) == 0) {
    client_->log_writes(false);
    log_.reset();
    return;
  }
  constexpr std::uint64_t kBytes = (kFarAddr + kFarBytes) / fakes::kLogPageBytes / 8;
  const auto old = std::exchange(log_, std::make_unique<fakes::DirtyLog>(kBytes, pick(9000)));
  client_->set_log(*log_);
  client_->log_writes(true);
}

// The front-end is the same one; its guest goes on at a broker that did not know it.
void Chaos::migrate() {
  collect_pauses();
  leaving_ = std::move(broker_);
  image_is_anothers_ = true;
  start_broker();
  image_is_anothers_ = false;
  for (std::uint32_t queue = 0; queue < plan_.queues; ++queue) {
    const std::uint32_t base = client_->stop_ring(queue);
    fakes::require(is_drained(queue, base), "a stopped ring has requests in flight");
  }
  disconnect();
  leaving_->signal(SIGTERM);
  fakes::require(leaving_->wait_exit() == 0, "the source's broker does not end well");
  leaving_.reset();
}

// --- means ---------------------------------------------------------------------------------------

void Chaos::some_message() {
  switch (pick(5)) {
    case 0:
      return swap_calls();
    case 1:
      return change_memory();
    case 2:
      return pause_queue();
    case 3:
      return switch_log();
    default:
      return stop_and_start_ring();
  }
}

std::vector<std::string> Chaos::arguments() const {
  return {"blk", "--blk-file=" + images_.file("disk.img"),
          std::string("--direct=") + (plan_.direct ? "on" : "off"),
          std::string("--lock=") + (image_is_anothers_ ? "off" : "on")};
}

void Chaos::end_epoch(bool last) {
  stop_loads();
  if (!last) start_loads();
}

void Chaos::start_loads() {
  for (std::uint16_t queue = 0; queue < plan_.queues; ++queue) {
    loads_.push_back(std::make_unique<integration::VerifiedLoad>(
        client_->queue(queue), integration::VerifiedLoad::Plan{
                                   .first_sector = queue * kSectorsOfQueue,
                                   .blocks = kBlocks,
                                   .depth = 8,
                                   .versions = versions_[queue],
                                   .seed = random_() | 1,
                                   .rest = plan_.rest,
                               }));
  }
}

void Chaos::stop_loads() {
  for (std::uint16_t queue = 0; queue < plan_.queues; ++queue) {
    loads_[queue]->stop();
    fakes::require(loads_[queue]->problem().empty(), loads_[queue]->problem());
    tally_.answered += loads_[queue]->answered();
    versions_[queue] = loads_[queue]->verify_all();
  }
  loads_.clear();
}

void Chaos::expect_progress() {
  for (const auto& load : loads_) {
    load->expect_progress(kProgress);
    fakes::require(load->problem().empty(), load->problem());
  }
}

double Chaos::take_longest_pause_ms() {
  double longest = 0;
  for (const auto& load : loads_) {
    longest = std::max(longest, static_cast<double>(load->take_longest_pause().count()) / 1000);
  }
  return longest;
}

void Chaos::reconnect() {
  try_until_let_in([this] { return client_->reconnect(socket_); });
  if (log_) client_->set_log(*log_);  // In QEMU's order: the rings first.
}

}  // namespace chaos
