#include "broker/keeper/keeper.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "common/stop_pipe.h"

namespace keeper {

namespace ipc = common::ipc;
using common::Fd;
using common::FdRef;
using ipc::KeptRole;

namespace {

// What a polled descriptor stands for: the door, a broker, or from here on a thing.
constexpr std::uint32_t kTheDoor = 0;
constexpr std::uint32_t kBrokersFrom = 1;
constexpr std::uint32_t kThingsFrom = 100;

}  // namespace

Keeper::Keeper(FdRef door, Fd broker, Guests guests) noexcept : door_(door), guests_(guests) {
  brokers_[0].socket = std::move(broker);
  brokers_[0].owns = true;
}

void Keeper::run() noexcept {
  while (needed()) sleep();
}

// A listening socket and a disk for which nobody comes back would be held for ever.
bool Keeper::needed() const noexcept {
  const bool any_broker = std::any_of(brokers_.begin(), brokers_.end(),
                                      [](const Broker& each) { return each.socket.valid(); });
  return any_broker ||
         std::any_of(slots_.begin(), slots_.begin() + static_cast<std::ptrdiff_t>(used_),
                     [](const Slot& each) {
                       return each.thing.id != 0 && each.thing.role == KeptRole::kSession;
                     });
}

Keeper::Broker* Keeper::owner() noexcept {
  for (Broker& each : brokers_) {
    if (each.owns) return &each;
  }
  return nullptr;
}

// --- waiting -------------------------------------------------------------------------------------

void Keeper::watch(FdRef fd, std::uint32_t what) noexcept {
  polled_[polled_count_] = {fd.number, POLLIN, 0};
  polled_what_[polled_count_++] = what;
}

void Keeper::sleep() noexcept {
  polled_count_ = 0;
  bool room = false;
  const Broker* const first = owner();
  const bool settled = first == nullptr || first->complete;
  for (std::uint32_t i = 0; i < brokers_.size(); ++i) {
    room = room || !brokers_[i].socket.valid();
    if (brokers_[i].socket.valid() && (settled || brokers_[i].owns))
      watch(brokers_[i].socket.ref(), kBrokersFrom + i);
  }
  if (room) watch(door_, kTheDoor);
  for (std::uint32_t i = 0; owner() == nullptr && i < used_; ++i) {
    const Thing& thing = slots_[i].thing;
    if (thing.id == 0 || thing.role == KeptRole::kPlain || thing.ended) continue;
    watch(thing.fds[0].ref(), kThingsFrom + i);
  }
  if (::ppoll(polled_.data(), polled_count_, nullptr, nullptr) <= 0) return;
  for (std::size_t i = 0; i < polled_count_; ++i) {
    if (polled_[i].revents != 0) wake(polled_what_[i]);
  }
  if (owner() == nullptr) end_groups();
}

void Keeper::wake(std::uint32_t what) noexcept {
  if (what >= kThingsFrom) return process_ended(slots_[what - kThingsFrom].thing);
  if (what == kTheDoor) return let_in();
  hear(brokers_[what - kBrokersFrom]);
}

// --- brokers -------------------------------------------------------------------------------------

void Keeper::let_in() noexcept {
  Fd socket(::accept4(door_.number, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid() || !may_come_in(socket.ref())) return;
  for (Broker& each : brokers_) {
    if (each.socket.valid()) continue;
    each = {};
    each.socket = std::move(socket);
    return;
  }
}

bool Keeper::may_come_in(FdRef socket) const noexcept {
  ucred who{};
  socklen_t length = sizeof(who);
  if (::getsockopt(socket.number, SOL_SOCKET, SO_PEERCRED, &who, &length) != 0) return false;
  return who.uid == 0 || who.uid == guests_.uid;
}

void Keeper::hear(Broker& broker) noexcept {
  if (!broker.owns) catch_up();
  (void)hear_next(broker);
}

// What the owner has said, its end included, came before: a broker that asks must not be told of an
// owner that has died, or of less than that one has put here.
void Keeper::catch_up() noexcept {
  for (Broker* first = owner(); first != nullptr; first = owner()) {
    if (!hear_next(*first)) return;
  }
}

// False where there is nothing.
bool Keeper::hear_next(Broker& broker) noexcept {
  if (!broker.socket.valid()) return false;
  const auto arrival = ipc::receive_packet(broker.socket.ref(), packet_, false);
  if (arrival && *arrival == ipc::Arrival::kNothing) return false;
  const bool fine = arrival && *arrival == ipc::Arrival::kData && obey(broker, packet_);
  packet_.fds.clear();
  if (!fine) hang_up(broker);
  return true;
}

bool Keeper::obey(Broker& broker, ipc::Packet& packet) noexcept {
  if (const auto get = packet.as<ipc::KeepGet>()) return show_next(broker, get->after);
  if (const auto wish = packet.as<ipc::KeepClaim>()) return claim(broker, wish->force == 1);
  if (!broker.owns) return false;
  if (const auto thing = packet.as<ipc::KeepThing>()) return put(*thing, packet.fds);
  if (const auto gone = packet.as<ipc::KeepDrop>()) {
    drop(gone->id);
    return true;
  }
  return false;
}

void Keeper::hang_up(Broker& broker) noexcept {
  const bool owned = broker.owns;
  broker = {};
  if (owned) grant();
}

bool Keeper::claim(Broker& broker, bool force) noexcept {
  Broker* const now = owner();
  if (now == &broker) {
    broker.complete = true;
    return true;
  }
  if (now == nullptr) {
    broker.claims = true;
    grant();
    return broker.socket.valid();
  }
  if (!force) return ipc::send(broker.socket.ref(), ipc::KeepClaimed{}, {}, false).has_value();
  broker.claims = true;
  if (!ipc::send(now->socket.ref(), ipc::KeepLeave{}, {}, false)) hang_up(*now);
  return true;
}

// The first one that waits.
void Keeper::grant() noexcept {
  for (Broker& each : brokers_) {
    if (!each.claims) continue;
    ipc::KeepClaimed yes{};
    yes.kind = ipc::KeepClaimed::kKind;
    yes.granted = 1;
    each.claims = false;
    each.owns = ipc::send(each.socket.ref(), yes, {}, false).has_value();
    if (each.owns) return;
    each.socket.reset();
  }
}

// --- things --------------------------------------------------------------------------------------

Keeper::Thing* Keeper::find(std::uint64_t id) noexcept {
  for (std::size_t i = 0; i < used_; ++i) {
    if (slots_[i].thing.id == id) return &slots_[i].thing;
  }
  return nullptr;
}

Keeper::Thing* Keeper::room() noexcept {
  if (Thing* const free = find(0); free != nullptr) return free;
  if (used_ == slots_.size()) return nullptr;
  Thing* const made = std::construct_at(&slots_[used_].thing);
  made->index = static_cast<std::uint32_t>(used_++);
  return made;
}

void Keeper::clear(Thing& thing) noexcept {
  for (std::size_t i = 0; i < thing.fd_count; ++i) thing.fds[i].reset();
  thing.id = 0;
  thing.fd_count = 0;
  thing.ended = thing.told = false;
}

bool Keeper::put(const ipc::KeepThing& thing, ipc::FdList& fds) noexcept {
  constexpr std::array<std::size_t, 3> kFdsLeast = {0, 1, 2};  // Of each role.
  if (thing.id == 0 || thing.role >= kFdsLeast.size() || thing.record_bytes > thing.record.size()) {
    return false;
  }
  Thing* slot = find(thing.id);
  if (thing.update == 1) {
    if (slot == nullptr || fds.size() != 0) return false;
    write_down(*slot, thing);
    return true;
  }
  if (slot != nullptr || fds.size() < kFdsLeast[thing.role]) return false;
  slot = room();
  if (slot == nullptr) return false;
  slot->id = thing.id;
  slot->group = thing.group;
  slot->role = static_cast<KeptRole>(thing.role);
  slot->fd_count = fds.size();
  for (std::size_t i = 0; i < fds.size(); ++i) slot->fds[i] = fds.take(i);
  write_down(*slot, thing);
  return true;
}

// As it will be shown to the next broker: of an update only the record is believed.
void Keeper::write_down(Thing& slot, ipc::KeepThing thing) noexcept {
  thing.role = static_cast<std::uint32_t>(slot.role);
  thing.group = slot.group;
  thing.update = 0;
  std::memcpy(messages_[slot.index].data(), &thing, sizeof(thing));
}

void Keeper::drop(std::uint64_t id) noexcept {
  if (Thing* const thing = id == 0 ? nullptr : find(id); thing != nullptr) clear(*thing);
  while (used_ > 0 && slots_[used_ - 1].thing.id == 0) --used_;
}

bool Keeper::show_next(Broker& broker, std::uint64_t after) noexcept {
  const Thing* next = nullptr;
  for (std::size_t i = 0; i < used_; ++i) {
    const Thing& each = slots_[i].thing;
    if (each.id > after && (next == nullptr || each.id < next->id)) next = &each;
  }
  if (next == nullptr) {
    ipc::KeepNone none{};
    none.kind = ipc::KeepNone::kKind;
    none.owned = owner() != nullptr && owner() != &broker ? 1 : 0;
    return ipc::send(broker.socket.ref(), none, {}, false).has_value();
  }
  std::array<FdRef, ipc::kMessageFdsMax> fds;
  for (std::size_t i = 0; i < next->fd_count; ++i) fds[i] = next->fds[i].ref();
  const Message& message = messages_[next->index];
  return ipc::send_bytes(broker.socket.ref(), message, std::span(fds).first(next->fd_count), false)
      .has_value();
}

// --- what ends while no broker is there ----------------------------------------------------------

void Keeper::process_ended(Thing& thing) noexcept {
  if (owner() == nullptr) thing.ended = true;
}

// The VMM of a session that has ended must see its connection end only when all that its workers
// had taken is done: until then its socket is among what is kept here.
void Keeper::end_groups() noexcept {
  for (std::size_t i = 0; i < used_; ++i) {
    const Thing& session = slots_[i].thing;
    if (session.id == 0 || session.role != KeptRole::kSession || !session.ended) continue;
    end_group(session.group);
  }
}

void Keeper::end_group(std::uint64_t group) noexcept {
  const std::span<Slot> all(slots_.data(), used_);
  bool over = true;
  for (Slot& slot : all) {
    Thing& each = slot.thing;
    if (each.id == 0 || each.group != group || each.role != KeptRole::kWorker) continue;
    stop_worker(each);
    over = over && each.ended;
  }
  if (!over) return;
  for (Slot& slot : all) {
    if (slot.thing.id != 0 && slot.thing.group == group) clear(slot.thing);
  }
}

void Keeper::stop_worker(Thing& worker) noexcept {
  if (std::exchange(worker.told, true)) return;
  // One that has ended does not hear it, which is as good.
  (void)common::tell_to_stop(worker.fds[1].ref());
}

}  // namespace keeper
