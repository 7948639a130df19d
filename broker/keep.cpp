#include "broker/keep.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "broker/death.h"
#include "broker/text.h"
#include "common/sys.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
using common::fail;
using common::Fd;
using common::FdRef;
using std::chrono::milliseconds;

// A keeper answers within microseconds. A broker that is asked to leave ends its turn first.
constexpr milliseconds kAnswerPatience{5000};
constexpr milliseconds kLeavePatience{10000};
// It takes what it is sent at once; one that does not has hung.
constexpr timeval kSendPatience{2, 0};
constexpr int kSettlePatienceMs = 1000;

std::string keeper_error(const std::string& what) {
  return "the keeper, which holds what is served for the next broker, " + what;
}

Answer<Fd> connect_to_keeper(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return Fd();
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail("cannot make a unix socket: " + errno_text(errno));
  if (::connect(fd.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
      0) {
    return fd;
  }
  // Nobody there, or something that is no keeper, which binding to the path will tell.
  if (errno == ENOENT || errno == ECONNREFUSED || errno == EPROTOTYPE || errno == ENOTSOCK) {
    return Fd();
  }
  return fail("cannot connect to the takeover socket " + in_quotes(path) + ": " +
              errno_text(errno) + "; it is for the user that runs the broker");
}

std::vector<Fd> take_all(ipc::FdList& list) {
  std::vector<Fd> fds;
  fds.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) fds.push_back(list.take(i));
  return fds;
}

}  // namespace

// --- what was there before us --------------------------------------------------------------------

Answer<KeeperLink> KeeperLink::find(const std::string& path) {
  KeeperLink link;
  TRY_LET(link.socket_, connect_to_keeper(path));
  return link;
}

Answer<void> KeeperLink::receive(ipc::Packet& packet, milliseconds patience) const {
  pollfd socket{socket_.ref().number, POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&socket, 1, static_cast<int>(patience.count()));
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) return fail(keeper_error("does not answer; end what is left and start again"));
  const auto arrival = ipc::receive_packet(socket_.ref(), packet, false);
  if (!arrival || *arrival != ipc::Arrival::kData) {
    return fail(keeper_error("does not talk to this user; start as the user that ran the broker"));
  }
  return {};
}

Answer<KeeperLink::Left> KeeperLink::read_all() const {
  Left left;
  ipc::KeepGet get{};
  get.kind = ipc::KeepGet::kKind;
  while (true) {
    if (!ipc::send(socket_.ref(), get)) {
      return fail(keeper_error("has hung up; start as the user that ran the broker"));
    }
    ipc::Packet packet;
    TRY(receive(packet, kAnswerPatience));
    if (const auto none = packet.as<ipc::KeepNone>()) {
      left.owned = none->owned == 1;
      return left;
    }
    const auto message = packet.as<ipc::KeepThing>();
    if (!message || message->id <= get.after) {
      return fail(keeper_error("is of another version; end what is left and start again"));
    }
    get.after = message->id;
    std::vector<Fd> fds = take_all(packet.fds);
    if (auto sound = check_kept(*message, fds); !sound) {
      left.unsound.push_back({message->id,
                              message->group,
                              static_cast<ipc::KeptRole>(message->role),
                              std::move(sound).error(),
                              {},
                              std::move(fds)});
      if (message->record_bytes == sizeof(KeptRecord)) {
        std::memcpy(static_cast<void*>(&left.unsound.back().record), message->record.data(),
                    sizeof(KeptRecord));
      }
      continue;
    }
    TRY_LET(KeptThing thing, read_kept(*message, std::move(fds)));
    left.things.push_back(std::move(thing));
  }
}

Answer<void> KeeperLink::claim(bool force) const {
  ipc::KeepClaim wish{};
  wish.kind = ipc::KeepClaim::kKind;
  wish.force = force ? 1 : 0;
  if (!ipc::send(socket_.ref(), wish)) return fail(keeper_error("has hung up"));
  ipc::Packet packet;
  TRY(receive(packet, kLeavePatience));
  const auto answer = packet.as<ipc::KeepClaimed>();
  if (answer && answer->granted == 1) return {};
  return fail("another broker has just taken over what is served here");
}

void KeeperLink::drop(std::uint64_t id) const noexcept {
  ipc::KeepDrop message{};
  message.kind = ipc::KeepDrop::kKind;
  message.id = id;
  (void)ipc::send(socket_.ref(), message).has_value();
}

// --- the keeper ----------------------------------------------------------------------------------

Answer<std::unique_ptr<Keep>> Keep::start(EventLoop& loop, Jailer& jailer, Listener door,
                                          Events events) {
  std::unique_ptr<Keep> keep(new Keep(loop, jailer, std::move(events)));
  keep->door_ = std::move(door);
  TRY(keep->start_keeper());
  return keep;
}

Answer<std::unique_ptr<Keep>> Keep::adopt(EventLoop& loop, Jailer& jailer, KeeperLink link,
                                          const std::string& path, Events events) {
  std::unique_ptr<Keep> keep(new Keep(loop, jailer, std::move(events)));
  keep->socket_ = link.take_socket();
  TRY_LET(keep->door_, find_socket(path));
  TRY(keep->watch());
  return keep;
}

// The door goes with the keeper; one that takes its place opens another, and is told of all that is
// kept: once, or it takes us for one that does not know what it says.
Answer<void> Keep::start_keeper() {
  const Fd door = std::move(door_.fd);
  auto started = jailer_.start_keeper(door.ref());
  if (!started) {
    return fail(keeper_error(std::string("cannot be started: ") + started.error().what + ": " +
                             errno_text(started.error().os_errno)));
  }
  keeper_ = *std::move(started);
  socket_ = std::move(keeper_.socket);
  TRY(watch());
  bool heard = true;
  for (const auto& [id, copy] : copies_) heard = heard && send(id, copy, false);
  if (!heard || !put_keeper()) return fail(keeper_error("does not answer"));
  return {};
}

// What it is, for the next broker's posture.
bool Keep::put_keeper() {
  KeptRecord record = make_record(KeptType::kKeeper, "keeper");
  record.numbers[0] = static_cast<std::uint64_t>(keeper_.child.pid);
  const std::array<FdRef, 2> fds = {keeper_.child.pidfd.ref(), keeper_.page_file.ref()};
  return put(next_id(), 0, record, fds);
}

Answer<void> Keep::adopt_keeper(KeptThing thing) {
  keeper_.child.pid = static_cast<pid_t>(thing.record.numbers[0]);
  keeper_.child.pidfd = std::move(thing.fds[0]);
  keeper_.page_file = std::move(thing.fds[1]);
  if (const auto page = keeper_.map_page(); !page) {
    return fail(keeper_error("has no status page: " + errno_text(page.error().os_errno)));
  }
  const std::array<FdRef, 2> fds = {keeper_.child.pidfd.ref(), keeper_.page_file.ref()};
  adopt_thing(thing, fds);
  return {};
}

Answer<void> Keep::watch() {
  since_ = std::chrono::steady_clock::now();
  (void)::setsockopt(socket_.ref().number, SOL_SOCKET, SO_SNDTIMEO, &kSendPatience,
                     sizeof(kSendPatience));
  auto watch = loop_.watch(socket_.ref(), EPOLLIN, [this](std::uint32_t) { on_packet(); });
  if (!watch) return fail(keeper_error("cannot be watched: " + errno_text(watch.error().os_errno)));
  watch_ = *std::move(watch);
  return {};
}

void Keep::settle() noexcept {
  ipc::KeepGet get{};
  get.kind = ipc::KeepGet::kKind;
  get.after = last_id_;
  if (!socket_.valid() || !ipc::send(socket_.ref(), get)) return;
  pollfd socket{socket_.ref().number, POLLIN, 0};
  while (::poll(&socket, 1, kSettlePatienceMs) == 1) {
    ipc::Packet packet;
    const auto arrival = ipc::receive_packet(socket_.ref(), packet, false);
    // That it is gone is on_packet()'s to find.
    if (!arrival || *arrival != ipc::Arrival::kData || packet.as<ipc::KeepNone>()) return;
    if (packet.as<ipc::KeepLeave>()) loop_.post([this] { events_.leave(); });
  }
}

// What was dropped is let go of before we end: whoever starts next wants the tap, or the lock.
Keep::~Keep() {
  watch_.reset();
  settle();
  remove_socket(door_);
  socket_.reset();
  // It ends by itself where it has nothing to keep.
  pollfd end{keeper_.child.pidfd.ref().number, POLLIN, 0};
  if (end.fd >= 0) (void)::poll(&end, 1, kSettlePatienceMs);
  if (end.fd >= 0) (void)reap(keeper_.child.pidfd.ref());
}

void Keep::on_packet() {
  ipc::Packet packet;
  const auto arrival = ipc::receive_packet(socket_.ref(), packet, false);
  if (arrival && *arrival == ipc::Arrival::kNothing) return;
  if (!arrival || *arrival != ipc::Arrival::kData) return on_lost();
  if (packet.as<ipc::KeepLeave>()) events_.leave();
}

void Keep::on_lost() {
  watch_.reset();
  socket_.reset();
  if (keeper_.child.pidfd.valid()) {
    kill_child(keeper_.child.pidfd.ref());
    (void)reap(keeper_.child.pidfd.ref());
    keeper_ = {};
  }
  std::erase_if(copies_, [](const auto& each) {
    return static_cast<KeptType>(each.second.record.type) == KeptType::kKeeper;
  });
  const std::string path = door_.path;
  if (std::chrono::steady_clock::now() - since_ > kForgetAfter) restarts_left_ = kRestarts;
  bool again = restarts_left_-- > 0;
  if (again) {
    remove_socket(door_);
    auto door = listen_for_brokers(path);
    again = door.has_value();
    if (again) door_ = *std::move(door);
    again = again && start_keeper();
  }
  if (again && complete_) complete();
  given_up_ = !again;
  events_.lost(again);
}

// --- things --------------------------------------------------------------------------------------

bool Keep::send(Id id, const Copy& what, bool update) {
  ipc::KeepThing message{};
  message.kind = ipc::KeepThing::kKind;
  message.id = id;
  message.group = what.group;
  message.update = update ? 1 : 0;
  message.role = static_cast<std::uint32_t>(role_of(static_cast<KeptType>(what.record.type)));
  message.record_bytes = sizeof(what.record);
  std::memcpy(message.record.data(), &what.record, sizeof(what.record));
  const std::span<const FdRef> fds = update ? std::span<const FdRef>() : std::span(what.fds);
  return socket_.valid() && ipc::send(socket_.ref(), message, fds).has_value();
}

bool Keep::put(Id id, Id group, const KeptRecord& record, std::span<const FdRef> fds) {
  if (copies_.size() >= ipc::kKeptThingsMax) return false;
  const auto [copy, fresh] =
      copies_.insert_or_assign(id, Copy{group, record, {fds.begin(), fds.end()}});
  if (given_up_ || send(id, copy->second, false)) return true;
  copies_.erase(copy);
  return false;
}

void Keep::adopt_thing(const KeptThing& thing, std::span<const FdRef> fds) {
  last_id_ = std::max({last_id_, thing.id, thing.group});
  copies_.insert_or_assign(thing.id, Copy{thing.group, thing.record, {fds.begin(), fds.end()}});
}

void Keep::update(Id id, const KeptRecord& record) {
  const auto found = copies_.find(id);
  if (found == copies_.end()) return;
  found->second.record = record;
  (void)send(id, found->second, true);
}

void Keep::complete() {
  ipc::KeepClaim message{};
  message.kind = ipc::KeepClaim::kKind;
  complete_ = ipc::send(socket_.ref(), message).has_value();
}

void Keep::drop(Id id) noexcept {
  copies_.erase(id);
  ipc::KeepDrop message{};
  message.kind = ipc::KeepDrop::kKind;
  message.id = id;
  if (socket_.valid()) (void)ipc::send(socket_.ref(), message).has_value();
}

void Kept::reset() noexcept {
  if (keep_ != nullptr) std::exchange(keep_, nullptr)->drop(id_);
}

common::Result<Kept> keep_thing(Keep* keep, Keep::Id group, const KeptRecord& record,
                                std::span<const FdRef> fds) {
  if (keep == nullptr) return Kept();
  const Keep::Id id = keep->next_id();
  const bool leads = static_cast<KeptType>(record.type) == KeptType::kConnection;
  if (!keep->put(id, leads ? id : group, record, fds)) {
    return common::fail_errno("hand a descriptor to the keeper", ENOSPC);
  }
  return Kept(keep, id);
}

}  // namespace broker
