#include "broker/control/server.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "broker/audit/device_events.h"
#include "broker/control/wire.h"
#include "broker/doorway.h"

namespace broker::control {
namespace {

using common::ipc::Arrival;
using std::chrono::milliseconds;

// As Doorway's: the connection stays in the queue, and the loop must not spin over it.
constexpr milliseconds kAcceptPause{200};

// What one client of root's may ask for: a list of ten thousand devices is no flood.
constexpr double kRequestsPerSecond = 20'000;
constexpr double kRequestsBurst = 20'000;
// All clients of another user together: the exporter asks for each queue of each device. It is kept
// for a while when they have gone, so that nobody has more of it by coming again.
constexpr double kUsersRequestsPerSecond = 5'000;
constexpr double kUsersRequestsBurst = 50'000;
constexpr std::size_t kUsersKept = 64;
constexpr milliseconds kFloodPause{50};

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

}  // namespace

Answer<std::unique_ptr<Server>> Server::make(const BrokerConfig& config, const std::string& path,
                                             std::optional<Listener> kept) {
  TRY_LET(const AccessRules rules, access_rules(config));
  if (kept) {
    // Clients see whose it is, and by that whether anybody is there.
    TRY(listen_again(*kept));
    return std::unique_ptr<Server>(new Server(*std::move(kept), rules));
  }
  DeviceConfig socket;
  socket.socket_path = path;
  // Everybody may connect, to be told that he may not do more: who may is decided by access_of().
  socket.socket_mode = 0666;
  auto listener = listen_on(socket, SOCK_SEQPACKET);
  if (!listener) {
    return common::fail("operator's socket: " +
                        replaced(std::move(listener).error(), "--socket-path", "--control-socket"));
  }
  return std::unique_ptr<Server>(new Server(*std::move(listener), rules));
}

common::Result<void> Server::open(Services& services, Requests& requests) {
  services_ = &services;
  requests_ = &requests;
  trail_ = audit::DeviceTrail(services.trail, {}, {});
  return watch_listener();
}

void Server::look() {
  record_dropped();
  say_dropped();
}

void Server::record_dropped() {
  trail_.record_dropped();
  for (const auto& [uid, user] : users_) user->trail.record_dropped();
}

void Server::close() noexcept {
  listener_watch_.reset();
  accept_pause_.reset();
  kept_.reset();
  listener_.fd.reset();
  remove_socket(listener_);
}

std::string Server::name_of(ClientId client) const {
  const auto found = clients_.find(client);
  return found == clients_.end() ? "an operator who has gone" : found->second.name;
}

void Server::record_request(ClientId client, std::string_view command, std::string_view device) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return;
  trail_.record(audit::operator_asked(found->second.peer, command, device));
}

// --- who comes in --------------------------------------------------------------------------------

common::Result<void> Server::watch_listener() {
  TRY_LET(listener_watch_, services_->loop.watch(listener_.fd.ref(), EPOLLIN,
                                                 [this](std::uint32_t) { accept_one(); }));
  return {};
}

void Server::accept_one() {
  auto accepted = accept_from(listener_.fd.ref());
  if (!accepted) {
    complain(accepted.error());
    listener_watch_.reset();
    accept_pause_ = services_->loop.after(kAcceptPause, [this] {
      if (!watch_listener()) complain("nobody can connect any more");
    });
    return;
  }
  if (!accepted->valid()) return;
  const auto peer = peer_of(accepted->ref());
  if (!peer) return refuse(*std::move(accepted), "somebody", peer.error());
  let_in(*std::move(accepted), *peer);
}

void Server::let_in(common::Fd socket, const Peer& peer) {
  const std::string who = describe_peer(peer);
  const Access access = access_of(rules_, peer.uid, groups_of(socket.ref(), peer.gid));
  if (access == Access::kNone) {
    trail_.record(
        audit::operator_refused(peer, {}, {}, "this user may neither look nor change anything"));
    return refuse(std::move(socket), who,
                  "this user may neither look nor change anything; be root, or a member of the "
                  "broker's --control-group or --control-read-group");
  }
  if (!has_room_for(access, peer)) {
    return refuse(std::move(socket), who,
                  "too many clients are connected; end some, or try again later");
  }
  const ClientId id = next_id_++;
  clients_.emplace(id, Client{std::move(socket),
                              access,
                              peer,
                              who,
                              is_owner(rules_, peer.uid),
                              user_of(peer),
                              false,
                              false,
                              {},
                              {}});
  watch(id);
}

bool Server::has_room_for(Access access, const Peer& peer) const {
  const bool owner = is_owner(rules_, peer.uid);
  std::size_t alike = 0;
  std::size_t of_user = 0;
  for (const auto& [id, client] : clients_) {
    if (client.owner == owner && client.access == access) ++alike;
    if (client.peer.uid == peer.uid) ++of_user;
  }
  if (owner) return alike < kOwnersMax;
  const std::size_t most = access == Access::kChange ? kChangersMax : kReadersMax;
  return alike < most && of_user < kClientsOfUserMax;
}

std::shared_ptr<Server::User> Server::user_of(const Peer& peer) {
  const bool owner = is_owner(rules_, peer.uid);
  if (const auto known = users_.find(peer.uid); !owner && known != users_.end()) {
    return known->second;
  }
  auto user =
      std::make_shared<User>(User{owner ? Budget(kRequestsPerSecond, kRequestsBurst)
                                        : Budget(kUsersRequestsPerSecond, kUsersRequestsBurst),
                                  audit::DeviceTrail(services_->trail, {}, {})});
  if (owner) return user;
  if (users_.size() >= kUsersKept) forget_users();
  users_.emplace(peer.uid, user);
  return user;
}

void Server::forget_users() {
  record_dropped();
  std::erase_if(users_, [](const auto& one) { return one.second.use_count() == 1; });
}

void Server::refuse(common::Fd socket, const std::string& who, const std::string& why) {
  complain(who + " refused: " + why);
  const Told refusal = told(Outcome::kRefused, why);
  (void)common::ipc::send_bytes(socket.ref(), std::as_bytes(std::span(&refusal, 1)), {}, false);
  hang_up(std::move(socket));
}

// --- who is in -----------------------------------------------------------------------------------

// A client that waits for an answer is only watched for its end.
void Server::watch(ClientId id) {
  Client& client = clients_.at(id);
  client.watch.reset();
  auto watched =
      services_->loop.watch(client.socket.ref(), client.waiting ? 0U : std::uint32_t{EPOLLIN},
                            [this, id](std::uint32_t) { on_event(id); });
  if (!watched) return drop(id, "cannot be watched");
  client.watch = *std::move(watched);
}

// One packet each time, so that a client that floods us has its turn like everybody else.
void Server::on_event(ClientId id) {
  Client& client = clients_.at(id);
  if (client.waiting) return drop(id, "");
  alignas(8) std::array<std::byte, kMessageBytesMax> buffer;
  common::ipc::FdList fds;
  const auto received = common::ipc::receive(client.socket.ref(), buffer, fds, false);
  if (!received || received->arrival == Arrival::kClosed) return drop(id, "");
  if (received->arrival == Arrival::kNothing) return;
  if (received->arrival == Arrival::kTruncated) {
    services_->closer.close(fds);
    answer(id, told(Outcome::kMalformed, "larger than any message"));
    return drop(id, "it sent more than any message has");
  }
  if (!client.user->budget.take()) {
    client.watch.reset();
    client.pause = services_->loop.after(kFloodPause, [this, id] { watch(id); });
  }
  take(id, std::span(buffer).first(received->bytes), fds);
  services_->closer.close(fds);
}

void Server::take(ClientId id, std::span<const std::byte> packet, common::ipc::FdList& fds) {
  Client& client = clients_.at(id);
  client.waiting = true;
  const Refusal refusal = take_request(*requests_, {id, client.access}, packet, fds);
  if (refusal.refused()) {
    complain(name_of(id) + ": " + refusal.text);
    client.user->trail.record(audit::operator_refused(client.peer, {}, {}, refusal.text));
    answer(id, told(refusal.outcome, refusal.text));
    if (refusal.outcome == Outcome::kMalformed) drop(id, "");
    return;
  }
  // Answered already, most of the time. It may be gone by now, too.
  const auto found = clients_.find(id);
  if (found == clients_.end() || !found->second.waiting) return;
  found->second.late = true;
  watch(id);
}

void Server::answer_bytes(ClientId id, std::span<const std::byte> bytes) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  Client& client = found->second;
  if (!common::ipc::send_bytes(client.socket.ref(), bytes, {}, false)) {
    return drop(id, "it asks and does not read the answers");
  }
  client.waiting = false;
  if (std::exchange(client.late, false) && !client.pause.active()) watch(id);
}

void Server::drop(ClientId id, const std::string& why) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  if (!why.empty()) complain(found->second.name + " dropped: " + why);
  // Other users' is told from time to time.
  if (found->second.owner) found->second.user->trail.record_dropped();
  found->second.watch.reset();
  hang_up(std::move(found->second.socket));
  clients_.erase(found);
}

// What was sent and not read is closed with a socket, and may hold descriptors whose closing takes
// as long as the sender likes. Most of the time there is nothing, and no thread is needed.
void Server::hang_up(common::Fd socket) {
  (void)::shutdown(socket.ref().number, SHUT_RDWR);
  char byte = 0;
  if (::recv(socket.ref().number, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) <= 0) return;
  services_->closer.close(std::move(socket));
}

// Whoever may connect may do so in a loop: he must not fill the log.
void Server::complain(const std::string& line) {
  if (!complaints_.take()) return;
  say_dropped();
  services_->log.warn("", "operator's socket: " + line);
}

void Server::say_dropped() {
  const std::uint64_t dropped = complaints_.take_dropped();
  if (dropped == 0) return;
  services_->log.warn(
      "", "operator's socket: " + std::to_string(dropped) + " refusals were not logged");
}

}  // namespace broker::control
