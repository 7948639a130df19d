#include "tests/chaos/cards.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "tests/fakes/failure.h"

namespace chaos {
namespace {

using fakes::VhostRequest;

constexpr const char* kTap = "tap0";
constexpr unsigned kMtu = 4000;
// What a worker has under way at once: its batch, kTapBatchMax (worker/tap_engine.h).
constexpr std::uint64_t kUnderWayMost = 32;
// So many frames of each queue after each event: more than are under way of a queue that sends.
constexpr std::uint64_t kProgress = 8;
constexpr std::uint64_t kFarAddr = 1ULL << 40;
constexpr std::uint64_t kFarBytes = 1 << 20;

fakes::NetClient::Options options_of(const Plan& plan) {
  fakes::NetClient::Options options;
  options.pairs = plan.queues;
  options.packed = plan.packed;
  options.tracked = plan.tracked;
  // A frame fills up to two buffers.
  options.receive = {.size = 512, .slots = 512};
  options.transmit = {.size = 128, .slots = 48, .slot_bytes = 4096};
  options.offer_buffers = false;  // The flows do.
  return options;
}

// "bulkhead-worker-net: NAME/3", or the session.
bool queue_of(pid_t pid, std::uint32_t& queue) {
  const std::string title = fakes::command_line_of(pid);
  const auto slash = title.rfind('/');
  if (!title.starts_with("bulkhead-worker-net") || slash == std::string::npos) return false;
  queue = static_cast<std::uint32_t>(std::strtoul(title.c_str() + slash + 1, nullptr, 10));
  return true;
}

}  // namespace

Cards::Cards(const Plan& plan, Tally& tally) : Hand(plan, tally, "bulkhead-worker-net") {
  add_event({"disconnect", [this] { disconnect(); }, false, 2});
  add_event({"swap call eventfds", [this] { swap_calls(); }, false, 4});
  add_event({"change the memory table", [this] { change_memory(); }, false, 4});
  add_event({"pause a queue", [this] { pause_queue(); }, false, 3});
  add_event({"pause a pair", [this] { pause_pair(); }, false, 2});
  add_event({"stop and start a ring", [this] { stop_and_start_ring(); }, false, 3});
  add_event({"reset the card", [this] { reset_card(); }, false, 2});
  add_event({"take the tap down and up", [this] { take_tap_down(); }, false, 2});
  fakes::make_tap(kTap, {.mtu = kMtu});
  start_broker();
  client_ = std::make_unique<fakes::NetClient>(socket_, options_of(plan_));
  start_flows();
}

// --- events --------------------------------------------------------------------------------------

void Cards::disconnect() {
  client_->vhost().disconnect();
  reconnect();
}

void Cards::swap_calls() {
  const std::uint32_t queue = pick(client_->queues());
  const std::uint32_t times = 1 + pick(30);
  for (std::uint32_t i = 0; i < times; ++i) {
    client_->vhost().set_vring_fd(VhostRequest::kSetVringCall, queue,
                                  client_->queue(queue).doorbell().replace());
  }
  client_->queue(queue).doorbell().drop_old();
}

void Cards::change_memory() {
  const fakes::VmRegion more{kFarAddr, kFarBytes, 1ULL << 50, 0};
  client_->vhost().add_mem_reg(more, client_->memory().file(0));
  if (pick(2) == 0) {
    client_->vhost().rem_mem_reg(more);
  } else {
    client_->vhost().set_mem_table(client_->memory());
  }
}

void Cards::pause_queue() {
  const std::uint32_t queue = pick(client_->queues());
  client_->enable(queue, false);
  client_->enable(queue, true);
}

// Where its tap has more queues, the kernel spreads packets over the others meanwhile.
void Cards::pause_pair() {
  const std::uint32_t pair = pick(plan_.queues);
  to_guest_.allow_losses(Ledger::kAnyNumber);
  client_->enable_pair(pair, false);
  client_->enable_pair(pair, true);
}

void Cards::stop_and_start_ring() {
  const std::uint32_t queue = pick(client_->queues());
  const std::uint32_t base = client_->stop_queue(queue);
  const bool drained = plan_.packed ? (base & 0xffff) == base >> 16
                                    : base == client_->queue(queue).ring().base_of_used();
  fakes::require(drained, "a stopped ring has packets under way");
  client_->start_queue(queue, base);
  client_->enable(queue, true);
}

void Cards::reset_card() {
  start_anew([this] {
    for (std::uint32_t queue = 0; queue < client_->queues(); ++queue) {
      (void)client_->stop_queue(queue);
      client_->queue(queue).reset();
    }
    client_->start_all();
  });
}

// The guest's queues get on all the same: what they send is dropped, and given back.
void Cards::take_tap_down() {
  link_changes();
  to_guest_.allow_losses(Ledger::kAnyNumber);
  for (const auto& sender : senders_) sender->ledger().allow_losses(Ledger::kAnyNumber);
  host_->expect_down();
  fakes::ip({"link", "set", kTap, "down"});
  for (const auto& sender : senders_) sender->expect_progress(kProgress);
  fakes::ip({"link", "set", kTap, "up"});
}

// --- the hand's ----------------------------------------------------------------------------------

std::vector<std::string> Cards::arguments() const {
  return {"net", std::string("--tap-name=") + kTap};
}

void Cards::some_message() {
  switch (pick(4)) {
    case 0:
      return swap_calls();
    case 1:
      return change_memory();
    case 2:
      return pause_queue();
    default:
      return stop_and_start_ring();
  }
}

void Cards::before_event() {
  victims_.clear();
  const bool link_changed = std::chrono::steady_clock::now() < link_settles_at_;
  if (plan_.queues > 1 || link_changed) to_guest_.allow_losses(Ledger::kAnyNumber);
}

void Cards::about_to_kill(const std::vector<pid_t>& victims) {
  for (const pid_t pid : victims) {
    std::uint32_t queue = 0;
    if (!queue_of(pid, queue)) continue;
    victims_.push_back(pid);
    if (queue % 2 == 0) {
      to_guest_.allow_losses(kUnderWayMost);
    } else {
      SendingFlow& sender = *senders_.at(queue / 2);
      sender.ledger().allow_repeats(sender.first_out(), kUnderWayMost);
    }
  }
}

// The kernel acts on a link that has changed up to a second later.
void Cards::link_changes() {
  link_settles_at_ = std::chrono::steady_clock::now() + std::chrono::seconds(3);
}

// QEMU's card with packed rings is not served again before its guest has reset it.
void Cards::reconnect() {
  link_changes();
  to_guest_.allow_losses(Ledger::kAnyNumber);
  if (!plan_.packed) {
    return try_until_let_in([this] { return client_->reconnect(socket_); });
  }
  start_anew([this] { try_until_let_in([this] { return client_->reconnect(socket_, true); }); });
}

void Cards::start_anew(const std::function<void()>& meanwhile) {
  to_guest_.allow_losses(Ledger::kAnyNumber);
  std::vector<std::unique_lock<std::mutex>> held;
  for (std::uint32_t queue = 0; queue < client_->queues(); ++queue) {
    held.push_back(flow(queue).hold());
  }
  meanwhile();
  for (const auto& sender : senders_) sender->ledger().allow_losses(Ledger::kAnyNumber);
  for (std::uint32_t queue = 0; queue < client_->queues(); ++queue) flow(queue).was_reset();
}

void Cards::expect_progress() {
  for (const pid_t pid : victims_) {
    fakes::require(fakes::wait_gone(pid), "a worker that was killed, or replaced, is still there");
  }
  for (std::uint32_t queue = 0; queue < client_->queues(); ++queue) {
    flow(queue).expect_progress(kProgress);
  }
  for (const auto& sender : senders_) sender->ledger().settle();
  to_guest_.settle();
  complaint_.raise();
}

double Cards::take_longest_pause_ms() {
  double longest = 0;
  for (std::uint32_t queue = 0; queue < client_->queues(); ++queue) {
    const auto pause = flow(queue).take_longest_pause();
    longest = std::max(longest, static_cast<double>(pause.count()) / 1000);
  }
  return longest;
}

void Cards::end_epoch(bool last) {
  complaint_.raise();
  if (!last) return;
  host_->stop_sending();
  for (const auto& sender : senders_) sender->stop();
  complaint_.raise();
  to_guest_.finish();
  const auto add = [this](Ledger& ledger) {
    tally_.answered += ledger.arrivals();
    tally_.repeated += ledger.repeats();
    tally_.lost += ledger.losses();
  };
  add(to_guest_);
  for (const auto& sender : senders_) {
    sender->ledger().finish();
    add(sender->ledger());
  }
  complaint_.raise();
}

void Cards::start_flows() {
  host_ = std::make_unique<HostFlow>(kTap, to_guest_, plan_.rest);
  for (std::uint32_t pair = 0; pair < plan_.queues; ++pair) {
    receivers_.push_back(std::make_unique<ReceivingFlow>(client_->receive_queue(pair), 2 * pair,
                                                         to_guest_, complaint_, plan_.rest));
    senders_.push_back(std::make_unique<SendingFlow>(client_->transmit_queue(pair), 2 * pair + 1,
                                                     complaint_, plan_.rest));
  }
  host_->start(
      [this](const Stamp& stamp) {
        fakes::require(stamp.queue % 2 == 1 && stamp.queue / 2 < senders_.size(),
                       "a frame of a queue that there is not");
        senders_[stamp.queue / 2]->ledger().arrived(stamp.number);
      },
      complaint_);
}

QueueFlow& Cards::flow(std::uint32_t queue) {
  if (queue % 2 == 0) return *receivers_.at(queue / 2);
  return *senders_.at(queue / 2);
}

}  // namespace chaos
