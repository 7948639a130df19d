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

inline constexpr std::size_t kReadersMax = 32;
inline constexpr std::size_t kChangersMax = 32;

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
  // For the audit trail: this client has asked for a change, and may.
  void record_request(ClientId client, std::string_view command, std::string_view device);

 private:
  struct Client {
    common::Fd socket;
    Access access = Access::kNone;
    Peer peer;
    std::string name;
    Budget budget;
    bool waiting = false;  // For our answer: nothing is read meanwhile.
    bool late = false;     // And only its end is watched for.
    EventLoop::Registration watch;
    EventLoop::Registration pause;
  };

  Server(Listener listener, AccessRules rules) : listener_(std::move(listener)), rules_(rules) {}
  [[nodiscard]] common::Result<void> watch_listener();
  void accept_one();
  void let_in(common::Fd socket, const Peer& peer);
  void refuse(common::Fd socket, const std::string& who, const std::string& why);
  void watch(ClientId id);
  void on_event(ClientId id);
  void take(ClientId id, std::span<const std::byte> packet, common::ipc::FdList& fds);
  void answer_bytes(ClientId id, std::span<const std::byte> bytes);
  void drop(ClientId id, const std::string& why);
  void hang_up(common::Fd socket);
  void complain(const std::string& line);
  void record_refusal(const Peer& peer, std::string_view why);

  Listener listener_;
  Kept kept_;
  AccessRules rules_;
  Services* services_ = nullptr;  // From open() on.
  Requests* requests_ = nullptr;
  audit::DeviceTrail trail_;  // Of no device; bounded, for clients' sake.
  ClientId next_id_ = 1;
  std::map<ClientId, Client> clients_;
  Budget complaints_{1, 20};
  EventLoop::Registration listener_watch_;
  EventLoop::Registration accept_pause_;
};

}  // namespace broker::control
