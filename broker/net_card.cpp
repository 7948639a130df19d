#include "broker/net_card.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <span>
#include <utility>

#include "broker/net_card_state.h"
#include "broker/net_config.h"
#include "broker/tap_control.h"
#include "broker/text.h"
#include "common/ipc/channel.h"
#include "common/sys.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
namespace net = common::net;
using common::Result;
using ipc::NetRole;

QueueRole queue_role(NetRole role) {
  switch (role) {
    case NetRole::kReceive:
      return QueueRole::kReceive;
    case NetRole::kTransmit:
      return QueueRole::kTransmit;
    case NetRole::kControl:
      break;
  }
  return QueueRole::kControl;
}
using std::chrono::milliseconds;

// A queue of which the worker is replaced (memory was added) runs again within milliseconds, and
// must not lose what waits in it; one that stays stopped must not keep it for ever. Then, too, the
// guest has been reset: what its old driver asked for is forgotten.
constexpr milliseconds kStoppedFor{1000};

// A network worker has few packets under way at once, and a card many workers: of larger rings a
// broker whose locked memory is limited to the usual 8 MiB could not have 128.
constexpr std::uint32_t kRingCompletions = 512;

// A driver sends some ten commands when it starts, and one when its user changes something.
constexpr double kCommandsPerSecond = 20;
constexpr double kCommandsBurst = 200;
constexpr milliseconds kCommandsPause{100};

// RFC 903, as QEMU and the kernel announce a host that has moved: "request reverse" for itself.
using RarpFrame = std::array<std::uint8_t, net::kHeaderBytes + 60>;
RarpFrame rarp_frame(const std::array<std::uint8_t, 6>& mac) {
  constexpr std::array<std::uint8_t, 10> kTypeAndHead = {0x80, 0x35, 0, 1, 0x08, 0, 6, 4, 0, 3};
  RarpFrame frame{};
  auto* to = frame.begin() + net::kHeaderBytes;
  to = std::fill_n(to, mac.size(), std::uint8_t{0xff});
  to = std::copy(mac.begin(), mac.end(), to);
  to = std::copy(kTypeAndHead.begin(), kTypeAndHead.end(), to);
  to = std::copy(mac.begin(), mac.end(), to);  // Sender, whose IP address is not known: 0.
  std::copy(mac.begin(), mac.end(), to + 4);   // Target: the same.
  return frame;
}

}  // namespace

NetCard::NetCard(Tap tap, const DeviceConfig& config, std::function<std::uint32_t()> tsc_per_us)
    : tap_(std::move(tap)),
      config_(config),
      tsc_per_us_(std::move(tsc_per_us)),
      pairs_(tap_.queues.size()),
      mtu_(
          net_worker_start(tap_, config_, NetRole::kReceive, common::EngineKind::kFallback, 0).mtu),
      control_budget_(kCommandsPerSecond, kCommandsBurst) {
  if (!tap_.left) return;
  for (Pair& pair : pairs_) pair.attached.reset();
}

std::vector<common::FdRef> NetCard::files() const {
  std::vector<common::FdRef> files;
  files.reserve(tap_.queues.size());
  for (const common::Fd& queue : tap_.queues) files.push_back(queue.ref());
  return files;
}

// --- queues --------------------------------------------------------------------------------------

NetRole NetCard::role_of(std::uint32_t queue) const noexcept {
  return ipc::net_role(queue, static_cast<std::uint32_t>(pairs_.size()), features_);
}

Result<WorkerRecipe> NetCard::worker_recipe(std::uint32_t queue, common::EngineKind engine) {
  const NetRole role = role_of(queue);
  WorkerRecipe recipe;
  recipe.engine = role == NetRole::kControl ? common::EngineKind::kFallback : engine;
  recipe.profile = &net_profile(role, recipe.engine);
  recipe.role = queue_role(role);
  recipe.ring_completions = kRingCompletions;
  recipe.ticks_per_us = tsc_per_us_();
  ipc::NetStart start = net_worker_start(tap_, config_, role, recipe.engine, recipe.ticks_per_us);
  start.mtu = mtu_;
  const auto bytes = std::as_bytes(std::span(&start, 1));
  recipe.start_message.assign(bytes.begin(), bytes.end());
  common::FdRef device;
  if (role == NetRole::kControl) {
    TRY_LET(device, connect_control(queue));
  } else {
    if (queue / 2 >= pairs_.size()) return common::fail_errno("no such pair", EINVAL);
    device = tap_.queues[queue / 2].ref();
  }
  set_running(queue, true);
  TRY(follow_pairs());
  recipe.descriptors.push_back({device, static_cast<int>(ipc::WorkerFd::kDevice)});
  return recipe;
}

void NetCard::set_running(std::uint32_t queue, bool running) {
  if (control_queue_ == queue || queue / 2 >= pairs_.size()) return;
  Pair& pair = pairs_[queue / 2];
  (queue % 2 == 0 ? pair.receives : pair.transmits) = running;
}

void NetCard::queue_ended(std::uint32_t queue) {
  set_running(queue, false);
  if (control_queue_ == queue) end_control();
  if (const auto followed = follow_pairs(); !followed && world_) {
    world_->say(Level::kWarn, std::string("cannot ") + followed.error().what + ": " +
                                  errno_text(followed.error().os_errno));
  }
}

// Packets are spread over the queues that are attached: those of pairs that run, and that the guest
// uses.
Result<void> NetCard::follow_pairs() {
  const bool any_runs =
      std::any_of(pairs_.begin(), pairs_.end(), [](const Pair& pair) { return pair.runs(); });
  if (!any_runs) {
    if (world_ && !detach_timer_.active()) {
      detach_timer_ = world_->loop.after(kStoppedFor, [this] { detach_all(); });
    }
    return {};
  }
  detach_timer_.reset();
  if (control_queue_ && pairs_used_ == 0) pairs_used_ = 1;  // 5.1.6.5.5: until the driver says.
  const std::size_t used = pairs_used_ == 0 ? pairs_.size() : pairs_used_;
  // New ones first: somebody should be there for every packet.
  for (const bool wanted : {true, false}) {
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      if ((pairs_[i].runs() && i < used) == wanted) TRY(attach(i, wanted));
    }
  }
  try_rarp();
  return {};
}

Result<void> NetCard::attach(std::size_t pair, bool attached) {
  if (pairs_[pair].attached == attached) return {};
  // What came while nobody listened is no news any more; where a queue can be detached, the kernel
  // has dropped it. Of what an earlier broker has left, somebody may have listened all the time.
  const bool known = pairs_[pair].attached.has_value();
  if (attached && known && !tap_.multiqueue) discard_packets(tap_.queues[pair].ref());
  TRY(attach_queue(tap_, pair, attached));
  pairs_[pair].attached = attached;
  return {};
}

void NetCard::detach_all() {
  detach_timer_.reset();
  for (std::size_t i = 0; i < pairs_.size(); ++i) (void)attach(i, false);
  pairs_used_ = 0;
  clear_receive_filter(tap_);
  apply_offloads(features_);
  save();
}

// --- what the session says -----------------------------------------------------------------------

void NetCard::vmm_came(ipc::SessionStart& start) {
  const net::WireConfig space = net_config_space(tap_, config_);
  std::memcpy(start.config.data(), &space, sizeof(space));
  mtu_ = start.mtu_max;
  set_carrier(tap_, true);
}

void NetCard::vmm_gone() {
  features_ = 0;
  rarp_.reset();
  end_control();
  for (Pair& pair : pairs_) pair.receives = pair.transmits = false;
  detach_all();
  set_carrier(tap_, false);
}

void NetCard::release() {
  vmm_gone();
  link_watch_.reset();
  // Whoever opens it next expects a cable.
  set_carrier(tap_, true);
  tap_.queues.clear();
}

// The same again: only to be sure, and the guest may have changed its offloads since.
void NetCard::driver_features(std::uint64_t features) {
  if (features == features_) return;
  features_ = features;
  pairs_used_ = 0;
  apply_offloads(features_);
  save();
}

void NetCard::apply_offloads(std::uint64_t features) {
  const auto set = set_offloads(tap_, tap_offloads(tap_, features));
  if (!set && world_) {
    world_->say(Level::kError, "cannot choose the tap's offloads (" +
                                   errno_text(set.error().os_errno) +
                                   "); the guest may be sent packets that it cannot read");
  }
}

void NetCard::send_rarp(const std::array<std::uint8_t, 6>& mac) {
  rarp_ = mac;
  try_rarp();
  if (rarp_) save();
}

void NetCard::try_rarp() {
  const auto pair = std::find_if(pairs_.begin(), pairs_.end(),
                                 [](const Pair& each) { return each.attached == true; });
  if (!rarp_ || pair == pairs_.end()) return;
  RarpFrame frame = rarp_frame(*std::exchange(rarp_, std::nullopt));
  const iovec part{frame.data(), frame.size()};
  const auto index = static_cast<std::size_t>(pair - pairs_.begin());
  // One that does not get through is lost, as on any network.
  const ssize_t sent = ::writev(tap_.queues[index].ref().number, &part, 1);
  (void)sent;
  save();
}

// --- an earlier broker ---------------------------------------------------------------------------

std::vector<std::byte> NetCard::state() const {
  NetCardState state{};
  const net::WireConfig space = net_config_space(tap_, config_);
  state.index = static_cast<std::uint32_t>(tap_.index);
  state.pairs = static_cast<std::uint32_t>(pairs_.size());
  state.mtu = tap_.mtu;
  state.offloads = tap_.offloads;
  state.macvtap = tap_.macvtap ? 1 : 0;
  state.multiqueue = tap_.multiqueue ? 1 : 0;
  state.nowait = tap_.nowait ? 1 : 0;
  state.rarp_waits = rarp_ ? 1 : 0;
  state.rarp = rarp_.value_or(MacAddress{});
  state.mac = tap_.mac;
  state.guest_mac = space.mac;
  tap_.name.copy(state.name.data(), state.name.size() - 1);
  source_of(config_).copy(state.source.data(), state.source.size() - 1);
  state.pairs_used = pairs_used_;
  state.features = features_;
  const auto bytes = std::as_bytes(std::span(&state, 1));
  return {bytes.begin(), bytes.end()};
}

void NetCard::save() const {
  if (world_) world_->state_changed();
}

Result<void> NetCard::vmm_back(Left& left) {
  const auto state = read_card_state(left.state);
  if (!state || state->pairs != pairs_.size()) return common::fail_errno("read its card", EPROTO);
  features_ = state->features;
  pairs_used_ = state->pairs_used;
  if (state->rarp_waits == 1) rarp_ = state->rarp;
  for (const Left::Queue& queue : left.queues) {
    if (queue.role == QueueRole::kControl) {
      control_queue_ = queue.index;
    } else if (queue.index / 2 >= pairs_.size()) {
      return common::fail_errno("a worker of no pair", EPROTO);
    } else {
      set_running(queue.index, true);
    }
  }
  if (!control_queue_) return {};
  const auto kept =
      std::find_if(left.controls.rbegin(), left.controls.rend(), [this](const KeptThing& each) {
        return each.record.numbers[0] == *control_queue_ && !each.fds.empty();
      });
  // Of the guest's commands nothing could be done any more.
  if (kept == left.controls.rend()) return common::fail_errno("a control worker alone", EPROTO);
  control_ = std::move(kept->fds[0]);
  const std::array<common::FdRef, 1> fds = {control_.ref()};
  kept_control_ = world_->keep_on(*kept, fds);
  return {};
}

// Its workers and the kernel have gone on: only what the last broker had no time for is done. What
// waits for an answer from the control worker's socket is read from now on.
void NetCard::vmm_goes_on() {
  Result<void> done = follow_pairs();
  if (done && control_.valid()) done = watch_control();
  if (!done) {
    world_->say(Level::kWarn, std::string("cannot ") + done.error().what + ": " +
                                  errno_text(done.error().os_errno));
  }
}

// --- the control virtqueue -----------------------------------------------------------------------

Result<common::FdRef> NetCard::connect_control(std::uint32_t queue) {
  end_control();
  TRY_LET(auto ends, common::make_packet_pair());
  control_ = std::move(ends.first);
  control_theirs_ = std::move(ends.second);
  control_queue_ = queue;
  if (world_) {
    TRY(watch_control());
    KeptRecord record = make_record(KeptType::kControl, config_.name);
    record.numbers[0] = queue;
    const std::array<common::FdRef, 1> fds = {control_.ref()};
    TRY_LET(kept_control_, world_->keep_for_vmm(record, fds));
    // By then the worker has it.
    world_->loop.post([this, number = control_theirs_.ref().number] {
      if (control_theirs_.ref().number == number) control_theirs_.reset();
    });
  }
  return control_theirs_.ref();
}

Result<void> NetCard::watch_control() {
  TRY_LET(control_watch_,
          world_->loop.watch(control_.ref(), EPOLLIN, [this](std::uint32_t) { on_control(); }));
  return {};
}

void NetCard::end_control() {
  control_watch_.reset();
  control_timer_.reset();
  kept_control_.reset();
  control_.reset();
  control_theirs_.reset();
  control_queue_.reset();
}

namespace {

// It stays in the socket until it is answered: if this broker dies before that, the next one does
// it again. Descriptors, which no worker may send, stay there, too.
common::Result<ipc::NetControl, int> next_command(common::FdRef socket) {
  std::array<std::byte, sizeof(ipc::NetControl) + 1> bytes{};
  const ssize_t got = ::recv(socket.number, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0) return common::fail(errno);
  ipc::NetControl command{};
  std::memcpy(&command, bytes.data(), sizeof(command));
  const bool sound = got == sizeof(command) && command.kind == ipc::NetControl::kKind;
  if (!sound) return common::fail(EPROTO);
  return command;
}

}  // namespace

void NetCard::on_control() {
  if (!control_budget_.take()) return pause_control();
  const auto command = next_command(control_.ref());
  if (!command) {
    if (command.error() == EAGAIN) return;
    // It has ended, or is none of ours any more: without its socket it can do nothing.
    control_watch_.reset();
    kept_control_.reset();
    control_.reset();
    return;
  }
  ipc::NetControlDone done{};
  done.kind = ipc::NetControlDone::kKind;
  done.turn = command->turn;
  done.accepted = perform(*command) ? 1 : 0;
  (void)ipc::send(control_.ref(), done, {}, false);
  ipc::Packet answered;
  (void)ipc::receive_packet(control_.ref(), answered, false);
}

// The worker waits for its answer, and the guest with it; everybody else goes on.
void NetCard::pause_control() {
  control_watch_.reset();
  control_timer_ = world_->loop.after(kCommandsPause, [this] { (void)watch_control(); });
}

bool NetCard::perform(const ipc::NetControl& command) {
  switch (static_cast<ipc::NetCommand>(command.command)) {
    case ipc::NetCommand::kPairs:
      return set_pairs(command.value);
    case ipc::NetCommand::kOffloads: {
      // 5.1.6.5.6.2: only what was negotiated.
      if ((command.value & ~(features_ & net::kGuestOffloads)) != 0) return false;
      const std::uint64_t features = (features_ & ~net::kGuestOffloads) | command.value;
      return set_offloads(tap_, tap_offloads(tap_, features)).has_value();
    }
    case ipc::NetCommand::kReceiveFilter:
      return set_receive_filter(command);
  }
  return false;
}

bool NetCard::set_pairs(std::uint64_t pairs) {
  if (pairs < 1 || pairs > pairs_.size() || (features_ & net::kFeatureMq) == 0) return false;
  pairs_used_ = static_cast<std::uint32_t>(pairs);
  save();
  return follow_pairs().has_value();
}

bool NetCard::set_receive_filter(const ipc::NetControl& command) {
  const auto wants = [&](std::uint8_t mode) { return (command.value >> mode & 1) != 0; };
  const std::size_t listed = std::size_t{command.unicasts} + command.multicasts;
  if (listed > command.macs.size()) return false;
  if (tap_.macvtap || wants(net::kRxPromisc) || wants(net::kRxAllUni)) {
    clear_receive_filter(tap_);
    return true;
  }
  // The kernel compares the first few exactly and takes the rest for multicast.
  std::vector<MacAddress> macs;
  const bool own = command.own_mac != net::Mac{};
  macs.push_back(own ? command.own_mac : net_config_space(tap_, config_).mac);
  macs.insert(macs.end(), command.macs.begin(), command.macs.begin() + command.unicasts);
  macs.push_back({0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
  macs.insert(macs.end(), command.macs.begin() + command.unicasts,
              command.macs.begin() + static_cast<std::ptrdiff_t>(listed));
  broker::set_receive_filter(tap_, macs, wants(net::kRxAllMulti));
  return true;
}

// --- the interface -------------------------------------------------------------------------------

Result<void> NetCard::opens(World&& world) {
  world_.emplace(std::move(world));
  if (tap_.index == 0) {
    world_->say(Level::kInfo, "tap " + clean_text(tap_.name) +
                                  " is in another network namespace; what happens to it there "
                                  "cannot be seen from here");
    return {};
  }
  TRY_LET(link_watch_,
          LinkWatch::start(world_->loop, tap_.index, [this](const Link& link) { on_link(link); }));
  if (!tap_.up) say_link_state(false);
  // What happened since it was opened.
  const auto link = find_link(tap_.name);
  if (!link) return {};
  if (*link && (*link)->index == tap_.index) {
    on_link(**link);
  } else if (tap_.left) {
    Link gone;
    gone.index = tap_.index;
    gone.deleted = true;
    on_link(gone);
  }
  return {};
}

void NetCard::on_link(const Link& link) {
  if (gone_) return;
  const std::string was = clean_text(tap_.name);
  if (link.deleted) {
    gone_ = true;
    world_->say(Level::kError, "interface " + was +
                                   " is gone: the guest has no network; make it again, and start "
                                   "Bulkhead again");
  } else if (link.index != tap_.index) {
    return;  // Another has its name now: the watch tells what has become of ours.
  } else if (link.name != tap_.name) {
    tap_.name = link.name;
    world_->say(Level::kInfo,
                "interface " + was + " is called " + clean_text(link.name) + " now, and goes on");
  }
  const bool up = link.up && !link.deleted;
  if (up == tap_.up) return;
  tap_.up = up;
  if (!link.deleted) say_link_state(up);
  const net::WireConfig space = net_config_space(tap_, config_);
  world_->config_changed(std::as_bytes(std::span(&space, 1)));
}

void NetCard::say_link_state(bool up) {
  const std::string name = clean_text(tap_.name);
  if (up) return world_->say(Level::kInfo, "interface " + name + " is up again");
  world_->say(Level::kWarn, "interface " + name +
                                " is down, and the guest's packets are dropped; set it up: ip link "
                                "set " +
                                name + " up");
}

}  // namespace broker
