#include "broker/session/workers.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>

#include "broker/session/wait.h"
#include "common/checked.h"
#include "common/dirty_log_wire.h"
#include "common/ipc/worker_messages.h"
#include "common/virtqueue_wire.h"

namespace session {

using common::FdRef;
using common::ipc::EventCode;
using common::ipc::QueueOutcome;
using common::ipc::SessionExit;
using State = QueueLink::State;

// Linux refuses to pass on descriptors (ETOOMANYREFS) while this user has more of them under way,
// sent and not yet received, than RLIMIT_NOFILE allows a process to hold: 1024 here, and maybe the
// same 1024 for broker and VMM, where all of them run as one user.
constexpr std::size_t kDescriptorsUnderWayMax = 516;
static_assert(common::kMemoryRegionsMax + common::ipc::RingStart::kFdsMax <=
              kDescriptorsUnderWayMax);

namespace {

// QEMU names it always; who sets no VHOST_VRING_F_LOG means the ring itself.
std::uint64_t log_used_addr(const Vring& ring, const RingPlaces& places) noexcept {
  return ring.logs_used_ring() ? ring.addresses->log : places.used.value;
}

}  // namespace

bool Device::is_suspended() const noexcept {
  const std::span<const Vring> all(rings.data(), queue_count);
  return std::none_of(all.begin(), all.end(), [](const Vring& ring) { return ring.started; });
}

Outcome<RingPlaces> Device::locate(std::uint32_t queue) const noexcept {
  const Vring& ring = rings[queue];
  return session::locate(queue, *ring.addresses, ring.size, features.driver_bits(), memory);
}

Outcome<void> Device::check_start(std::uint32_t queue) const noexcept {
  const Vring& ring = rings[queue];
  if (!ring.is_wanted(features) || ring.waits_for_memory) return {};
  if (memory.empty()) return violation(EventCode::kNoMemory, queue);
  TRY(check_size(queue, ring.size, features));
  TRY(check_base(queue, ring, features));
  TRY_LET(const RingPlaces places, locate(queue));
  return check_log(queue, places);
}

Outcome<void> Device::check_log(std::uint32_t queue, const RingPlaces& places) const noexcept {
  const Vring& ring = rings[queue];
  const auto place = log.place();
  if (!place || !wants_log(ring)) return {};
  const auto used_end = common::checked_add(log_used_addr(ring, places),
                                            used_part_bytes(ring.size, features.driver_bits()));
  const MemoryRegion& last = memory.regions().back().place;
  const std::uint64_t end = std::max(last.guest_addr + last.bytes, used_end.value_or(UINT64_MAX));
  const std::uint64_t needed = common::dirty_log::bytes_for(end);
  if (needed > place->bytes) {
    return violation(EventCode::kLogTooSmall, queue, needed, place->bytes);
  }
  return {};
}

Outcome<void> Device::check_logs() const noexcept {
  for (std::uint32_t queue = 0; queue < queue_count; ++queue) TRY(check_start(queue));
  return {};
}

void Device::mark_rings_without_memory() noexcept {
  for (std::uint32_t queue = 0; queue < queue_count; ++queue) {
    rings[queue].waits_for_memory = rings[queue].is_wanted(features) && !locate(queue);
  }
}

// Every link makes one step, then we wait for whoever has to answer: with 64 rings, 64 workers
// drain or start at the same time.
Outcome<void> Workers::settle() noexcept {
  TRY(make_own_inflight());
  while (true) {
    bool settled = true;
    waits_for_features_ = false;
    for (std::uint32_t queue = 0; queue < device_.queue_count; ++queue) {
      TRY(step(queue));
      settled = settled && links_[queue].is_settled();
    }
    if (settled && !waits_for_features_) break;
    TRY(wait_for_someone());
  }
  announce_config();
  return {};
}

Outcome<void> Workers::step(std::uint32_t queue) noexcept {
  QueueLink& link = links_[queue];
  if (!link.is_settled()) return {};
  const auto wanted = wanted_setup(queue);
  if (link.state() == State::kServing) {
    if (wanted && *wanted == link.setup()) return {};
    link.closing();
    common::ipc::CloseQueue close{};
    close.kind = common::ipc::CloseQueue::kKind;
    close.queue = queue;
    return broker_.send(close);
  }
  const auto setup = wanted ? wanted : finishing_setup(queue);
  // Without room somebody is under way still, and settle() comes back here.
  if (!setup || !workers_know(queue, *setup) || !has_room_for_start()) return {};
  TRY_LET(const bool told, tell_features());
  if (!told) {
    waits_for_features_ = true;  // Their ends will wake us.
    return {};
  }
  // Firmware and the system that it boots acknowledge different features.
  if (announced_features_ != device_.features.driver_bits()) {
    announced_features_ = device_.features.driver_bits();
    broker_.report(EventCode::kConnected, device_.features.bits(), device_.features.protocol());
  }
  link.opening(*setup);
  common::ipc::OpenQueue open{};
  open.kind = common::ipc::OpenQueue::kKind;
  open.queue = queue;
  return broker_.send(open);
}

// An older broker has taken over, and its workers know nothing of packed rings: such a ring goes on
// as long as its worker lives, and waits then for a broker that has others.
bool Workers::workers_know(std::uint32_t queue, const RingSetup& setup) noexcept {
  if (!setup.packed() || broker_speaks_ >= common::ipc::kIpcPackedRings) return true;
  if (!std::exchange(told_of_old_workers_, true))
    broker_.report(EventCode::kQueueNotStarted, queue);
  return false;
}

bool Workers::has_room_for_start() const noexcept {
  const std::size_t each = device_.memory.regions().size() + common::ipc::RingStart::kFdsMax;
  const auto under_way = static_cast<std::size_t>(
      std::count_if(links_.begin(), links_.end(), [](const QueueLink& link) {
        return link.state() == State::kOpening || link.state() == State::kStarting;
      }));
  return (under_way + 1) * each <= kDescriptorsUnderWayMax;
}

// What the broker does about them (a tap's offloads) concerns all queues, so no worker may run that
// was made for others. All of those are ending by now: the features are part of what they were
// started with.
Outcome<bool> Workers::tell_features() noexcept {
  const std::uint64_t bits = device_.features.driver_bits();
  if (!device_.wants_features || told_features_ == bits) return true;
  const std::span<const QueueLink> all(links_.data(), device_.queue_count);
  if (std::any_of(all.begin(), all.end(),
                  [](const QueueLink& link) { return link.state() != State::kNone; })) {
    return false;
  }
  common::ipc::DriverFeatures message{};
  message.kind = common::ipc::DriverFeatures::kKind;
  message.features = bits;
  TRY(broker_.send(message));
  told_features_ = bits;
  return true;
}

std::optional<RingSetup> Workers::wanted_setup(std::uint32_t queue) const noexcept {
  if (!device_.rings[queue].is_wanted(device_.features)) return std::nullopt;
  return setup_of(queue);
}

// A drained ring has nothing in flight, also if its worker died while it drained.
std::optional<RingSetup> Workers::finishing_setup(std::uint32_t queue) const noexcept {
  const Vring& ring = device_.rings[queue];
  if (!ring.unfinished || !ring.can_run(device_.features)) return std::nullopt;
  return setup_of(queue);
}

std::optional<RingSetup> Workers::setup_of(std::uint32_t queue) const noexcept {
  const Vring& ring = device_.rings[queue];
  const auto places = device_.locate(queue);
  // No fault at this point: memory that holds the ring may come back with the next message.
  if (!places) return std::nullopt;
  RingSetup setup;
  setup.size = ring.size;
  setup.desc = places->desc;
  setup.avail = places->avail;
  setup.used = places->used;
  setup.features = device_.features.driver_bits();
  setup.writable_config = device_.config.writable();
  setup.memory_generation = device_.memory.generation();
  setup.config_generation = device_.config.generation();
  setup.ring_generation = ring.generation;
  setup.inflight_generation = device_.inflight.generation();
  if (device_.wants_log(ring) && device_.log.place()) {
    setup.logs = true;
    setup.log_used_addr = log_used_addr(ring, *places);
    setup.log_generation = device_.log.generation();
  }
  return setup;
}

// Returns after at least one packet was dealt with.
Outcome<void> Workers::wait_for_someone() noexcept {
  std::array<pollfd, common::kQueuesMax + 2> sockets;
  std::array<std::uint32_t, common::kQueuesMax + 2> queues{};
  std::size_t count = 0;
  sockets[count++] = {broker_.socket().number, POLLIN, 0};
  for (std::uint32_t queue = 0; queue < device_.queue_count; ++queue) {
    if (!links_[queue].socket().valid()) continue;
    queues[count] = queue;
    sockets[count++] = {links_[queue].socket().number, POLLIN, 0};
  }
  const std::size_t vmm = count++;
  sockets[vmm] = {vmm_.number, 0, 0};  // POLLHUP only.
  if (!wait(std::span(sockets).first(count), Patience::kForEver)) {
    return end_with(SessionExit::kHostFault);
  }
  // Whoever asked is gone, and a broker that could answer perhaps, too.
  const bool others =
      std::any_of(sockets.begin(), sockets.begin() + static_cast<std::ptrdiff_t>(vmm),
                  [](const pollfd& each) { return each.revents != 0; });
  if (!others && (sockets[vmm].revents & POLLHUP) != 0) return end_with(SessionExit::kPeerClosed);
  // Workers first: a worker that said "serving" and then died is told apart from one that never
  // got so far.
  for (std::size_t i = 1; i < vmm; ++i) {
    if (sockets[i].revents != 0) TRY(take_answer(queues[i]));
  }
  if (sockets[0].revents != 0) TRY(take_broker_packet());
  return {};
}

Outcome<void> Workers::take_answer(std::uint32_t queue) noexcept {
  TRY_LET(const bool serving_now, links_[queue].take_answer());
  if (!serving_now) return {};
  Vring& ring = device_.rings[queue];
  if (std::exchange(ring.owes_call, false) && ring.call.valid()) signal(ring.call.ref());
  if (device_.wants_log(ring) && !links_[queue].log_counts()) ring.ran_unlogged = true;
  // It has seen to the region before it said so; if it dies now, what it leaves there counts.
  ring.unfinished = ring.forgets_inflight = ring.base_is_newer = false;
  common::ipc::QueueServing serving{};
  serving.kind = common::ipc::QueueServing::kKind;
  serving.queue = queue;
  return broker_.send(serving);
}

Outcome<void> Workers::call_changed(std::uint32_t queue) noexcept {
  QueueLink& link = links_[queue];
  Vring& ring = device_.rings[queue];
  if (link.state() != State::kServing) return {};
  // A worker that was started without interrupts never rings any, so it cannot be given one.
  if (device_.call_swap_in_place && link.had_call() && ring.call.valid()) {
    common::ipc::SwapCall swap{};
    swap.kind = common::ipc::SwapCall::kKind;
    swap.queue = queue;
    const std::array<FdRef, 1> fds = {ring.call.ref()};
    TRY(broker_.send(swap, fds));
    swapping_ = queue;
    while (swapping_) TRY(wait_for_someone());
    if (swapped_) return {};
  }
  ++ring.generation;
  ring.owes_call = true;
  return {};
}

Outcome<void> Workers::make_own_inflight() noexcept {
  if (device_.inflight.has_own() || own_inflight_refused_) return {};
  bool needed = false;
  for (std::uint32_t queue = 0; queue < device_.queue_count && !needed; ++queue) {
    needed = !inflight_place(queue) && wanted_setup(queue).has_value();
  }
  if (!needed) return {};
  // For rings of either kind: what the next driver will want is not known.
  const RingKind largest = device_.features.offers_packed() ? RingKind::kPacked : RingKind::kSplit;
  TRY_LET(common::Fd file,
          make_inflight(inflight_file_bytes(largest, device_.queue_count, device_.queue_size_max)));
  own_inflight_refused_ = !file.valid();
  if (file.valid()) device_.inflight.set_own(std::move(file), largest, device_.queue_size_max);
  return {};
}

std::optional<InflightRegion::Place> Workers::inflight_place(std::uint32_t queue) const noexcept {
  return device_.inflight.place(kind_of(device_.features), queue, device_.rings[queue].size);
}

Outcome<common::Fd> Workers::make_inflight(std::uint64_t bytes) noexcept {
  common::ipc::MakeInflight make{};
  make.kind = common::ipc::MakeInflight::kKind;
  make.bytes = inflight_bytes_ = bytes;
  TRY(broker_.send(make));
  awaits_inflight_ = true;
  while (awaits_inflight_) TRY(wait_for_someone());
  return std::move(made_inflight_);
}

Outcome<void> Workers::take_broker_packet() noexcept {
  common::ipc::Packet packet;
  TRY_LET(const bool arrived, broker_.receive(packet));
  if (!arrived) return {};
  return dispatch(packet);
}

Outcome<void> Workers::dispatch(common::ipc::Packet& packet) noexcept {
  if (const auto opened = packet.as<common::ipc::QueueOpened>()) {
    return on_opened(opened->queue, packet.fds.take(0));
  }
  if (const auto ended = packet.as<common::ipc::QueueEnded>()) return on_ended(*ended);
  if (const auto changed = packet.as<common::ipc::ConfigChanged>()) return on_config(*changed);
  if (const auto resume = packet.as<common::ipc::Resume>()) return on_resume(*resume);
  if (const auto replace = packet.as<common::ipc::ReplaceWorker>()) {
    on_replace(replace->queue);
    return {};
  }
  if (packet.as<common::ipc::InflightMade>() && std::exchange(awaits_inflight_, false)) {
    made_inflight_ = packet.fds.size() == 1 ? packet.fds.take(0) : common::Fd();
    return {};
  }
  const auto swapped = packet.as<common::ipc::CallSwapped>();
  if (!swapped || swapping_ != swapped->queue) return end_with(SessionExit::kHostFault);
  swapped_ = swapped->swapped == 1;
  swapping_.reset();
  return {};
}

Outcome<void> Workers::on_opened(std::uint32_t queue, common::Fd socket) noexcept {
  if (queue >= device_.queue_count || links_[queue].state() != State::kOpening) {
    return end_with(SessionExit::kHostFault);
  }
  const Vring& ring = device_.rings[queue];
  links_[queue].start(std::move(socket), ring, device_.memory, inflight_place(queue), device_.log);
  return {};
}

Outcome<void> Workers::on_ended(const common::ipc::QueueEnded& ended) noexcept {
  const std::uint32_t queue = ended.queue;
  if (queue >= device_.queue_count || links_[queue].state() == State::kNone ||
      ended.outcome > static_cast<std::uint32_t>(QueueOutcome::kGaveUp)) {
    return end_with(SessionExit::kHostFault);
  }
  const State state = links_[queue].state();
  const auto outcome = static_cast<QueueOutcome>(ended.outcome);
  const bool kept_records = links_[queue].has_inflight();
  links_[queue].ended();
  if (state == State::kOpening || state == State::kStarting) {
    // It has not looked at the ring, so the next one is started as this one was.
    if (outcome == QueueOutcome::kDied) return {};
    ++failed_starts_;
    break_ring(queue, EventCode::kQueueNotStarted, 0);
    return {};
  }
  Vring& ring = device_.rings[queue];
  const bool overridden = std::exchange(ring.base_overrides_worker, false);
  ring.forgets_inflight = ring.forgets_inflight || overridden;
  // `next_avail` may be a hijacked worker's, and reaches nobody but the guest to which it belongs.
  // However it ended: a VM that is paused and goes on starts the ring again from here, and what its
  // guest offered before this may lie in memory that is used for other things by now.
  const auto got_to = outcome != QueueOutcome::kNotStarted
                          ? links_[queue].setup().base_from(ended.next_avail)
                          : std::nullopt;
  if (got_to && overridden && ring.stopped_at) ring.stopped_at = got_to;
  if (got_to && !overridden) ring.base = got_to;
  switch (outcome) {
    case QueueOutcome::kStopped:
      // One that dies may not have marked everything that it was told to.
      if (links_[queue].log_counts()) ring.ran_unlogged = false;
      ring.base_is_newer = true;
      if (state == State::kClosing) return {};
      break;
    case QueueOutcome::kDied:
      // settle() starts another one; how often, the broker decides.
      ring.unfinished = kept_records && !overridden;
      if (kept_records || overridden) return {};
      break;
    case QueueOutcome::kGuestFault:
      break_ring(queue, EventCode::kQueueFault, 0);
      return {};
    case QueueOutcome::kNotStarted:
    case QueueOutcome::kGaveUp:
      break;
  }
  break_ring(queue, EventCode::kQueueDied, ended.outcome);
  return {};
}

// Why it broke, the broker knows from the worker's status page; `detail` is only an outcome.
void Workers::break_ring(std::uint32_t queue, EventCode code, std::uint64_t detail) noexcept {
  Vring& ring = device_.rings[queue];
  ring.broken = true;
  device_.needs_reset = true;
  if (ring.error.valid()) signal(ring.error.ref());
  broker_.report(code, queue, detail);
}

void Workers::on_replace(std::uint32_t queue) noexcept {
  if (queue < device_.queue_count && links_[queue].state() == State::kServing) {
    ++device_.rings[queue].generation;
  }
}

Outcome<void> Workers::on_config(const common::ipc::ConfigChanged& changed) noexcept {
  if (changed.config_bytes > changed.config.size()) return end_with(SessionExit::kHostFault);
  device_.config.replace(std::span(changed.config).first(changed.config_bytes));
  device_.config_change_pending = true;
  told_of_no_channel_ = false;
  return {};
}

// Never waits and asks for no answer: front-ends exist that do not give one, and one that does not
// read its channel must not stop its rings.
void Workers::announce_config() noexcept {
  constexpr std::uint64_t kNeeded = kProtocolConfig | kProtocolBackendReq;
  if (!device_.config_change_pending || device_.is_suspended()) return;
  if (!device_.backend_channel.valid() || !device_.features.has_protocol(kNeeded)) {
    if (!std::exchange(told_of_no_channel_, true)) broker_.report(EventCode::kConfigNotTold);
    return;
  }
  device_.config_change_pending = false;
  const Header message{kBackendConfigChange, kFlagVersion, 0};
  const auto sent = common::ipc::send_bytes(device_.backend_channel.ref(),
                                            std::as_bytes(std::span(&message, 1)), {}, false);
  if (!sent && sent.error().os_errno != EAGAIN) device_.backend_channel.reset();
}

// Another broker has no answer ready to what the one before was asked.
Outcome<void> Workers::ask_again() noexcept {
  if (awaits_inflight_) {
    common::ipc::MakeInflight make{};
    make.kind = common::ipc::MakeInflight::kKind;
    make.bytes = inflight_bytes_;
    TRY(broker_.send(make));
  }
  if (!swapping_) return {};
  common::ipc::SwapCall swap{};
  swap.kind = common::ipc::SwapCall::kKind;
  swap.queue = *swapping_;
  const std::array<FdRef, 1> fds = {device_.rings[*swapping_].call.ref()};
  return broker_.send(swap, fds);
}

}  // namespace session
