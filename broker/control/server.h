// broker/control/server.h: the operator's socket: who connects, how many at once, how often each
// may ask, and that nobody can make the broker wait.
//
// Not trusted: whoever connects, and what lies at the socket's path.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "broker/audit/device_trail.h"
#include "broker/budget.h"
#include "broker/control/access.h"
#include "broker/control/messages.h"
#include "broker/control/requests.h"
#include "broker/event_loop.h"
#include "broker/keep.h"
#include "broker/services.h"
#include "broker/socket.h"

namespace broker::control {

// Places are apart, so that neither who may only look nor a whole group of users who may change
// keeps root and the broker's own user out.
inline constexpr std::size_t kReadersMax = 32;
inline constexpr std::size_t kChangersMax = 32;
inline constexpr std::size_t kOwnersMax = 32;
// Of one user who is neither.
inline constexpr std::size_t kClientsOfUserMax = 16;

class Server {
 public:
  // Listens from here on; whoever connects waits until open(). `kept`: where an earlier broker
  // listened.
  [[nodiscard]] static Answer<std::unique_ptr<Server>> make(const BrokerConfig& config,
                                                            const std::string& path,
                                                            std::optional<Listener> kept = {});
  ~Server() { remove_socket(listener_); }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // `requests` outlives the server's clients.
  [[nodiscard]] common::Result<void> open(Services& services, Requests& requests);
  [[nodiscard]] const Listener& listener() const noexcept { return listener_; }
  // Kept for the next broker until close().
  void keep(Kept kept) noexcept { kept_ = std::move(kept); }
  // Lets nobody in any more. Who is connected still gets answers.
  void close() noexcept;

  template <Message T>
  void answer(ClientId client, const T& message) {
    answer_bytes(client, std::as_bytes(std::span(&message, 1)));
  }
  [[nodiscard]] bool has(ClientId client) const { return clients_.contains(client); }
  [[nodiscard]] std::size_t client_count() const noexcept { return clients_.size(); }
  // "pid 12 (bulkhead) uid 0".
  [[nodiscard]] std::string name_of(ClientId client) const;
  // From time to time: tells how many refusals were not.
  void look();
  // For the audit trail: this client has asked for a change, and may.
  void record_request(ClientId client, std::string_view command, std::string_view device);

 private:
  // What all clients of a user have together, and each of an owner's for itself: how often they
  // may ask, and what the audit trail has of it.
  struct User {
    Budget budget;
    audit::DeviceTrail trail;
  };
  struct Client {
    common::Fd socket;
    Access access = Access::kNone;
    Peer peer;
    std::string name;
    bool owner = false;  // Root, or the broker's own user.
    std::shared_ptr<User> user;
    bool waiting = false;  // For our answer: nothing is read meanwhile.
    bool late = false;     // And only its end is watched for.
    EventLoop::Registration watch;
    EventLoop::Registration pause;
  };

  Server(Listener listener, AccessRules rules) : listener_(std::move(listener)), rules_(rules) {}
  [[nodiscard]] common::Result<void> watch_listener();
  void accept_one();
  void let_in(common::Fd socket, const Peer& peer);
  [[nodiscard]] bool has_room_for(Access access, const Peer& peer) const;
  [[nodiscard]] std::shared_ptr<User> user_of(const Peer& peer);
  void forget_users();
  void record_dropped();
  void refuse(common::Fd socket, const std::string& who, const std::string& why);
  void watch(ClientId id);
  void on_event(ClientId id);
  void take(ClientId id, std::span<const std::byte> packet, common::ipc::FdList& fds);
  void answer_bytes(ClientId id, std::span<const std::byte> bytes);
  void drop(ClientId id, const std::string& why);
  void hang_up(common::Fd socket);
  void complain(const std::string& line);
  void say_dropped();

  Listener listener_;
  Kept kept_;
  AccessRules rules_;
  Services* services_ = nullptr;  // From open() on.
  Requests* requests_ = nullptr;
  // Of no device. Its refusals are strangers', and bounded: they do not hide those of users.
  audit::DeviceTrail trail_;
  ClientId next_id_ = 1;
  std::map<ClientId, Client> clients_;
  std::map<uid_t, std::shared_ptr<User>> users_;  // Who are not owners.
  Budget complaints_{1, 20};
  EventLoop::Registration listener_watch_;
  EventLoop::Registration accept_pause_;
};

}  // namespace broker::control
