#include "broker/doorway.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "broker/audit/device_events.h"
#include "broker/text.h"
#include "common/sys.h"

namespace broker {
namespace {

using std::chrono::milliseconds;

// --client: the first retry comes soon, since VMM and back-end are mostly started together.
constexpr milliseconds kConnectDelayMin{100};
constexpr milliseconds kConnectDelayMax{2000};

// accept() fails for want of descriptors: the connection stays in the queue, and the loop must not
// spin over it.
constexpr milliseconds kAcceptPause{200};

// What the process calls itself: for the eye only, since it may say anything.
std::string command_of(pid_t pid) {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/comm", static_cast<int>(pid));
  const common::Fd file(::open(path.data(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (pid <= 0 || !file.valid()) return {};
  std::array<char, 32> name{};
  const ssize_t got = ::read(file.ref().number, name.data(), name.size());
  if (got <= 0) return {};
  std::string_view text(name.data(), static_cast<std::size_t>(got));
  if (text.back() == '\n') text.remove_suffix(1);
  return std::string(text);
}

}  // namespace

std::string describe_peer(const Peer& peer) {
  const std::string command = command_of(peer.pid);
  return "pid " + std::to_string(peer.pid) +
         (command.empty() ? "" : " (" + clean_text(command) + ")") + " uid " +
         std::to_string(peer.uid) + (peer.label.empty() ? "" : " (" + clean_text(peer.label) + ")");
}

Answer<std::unique_ptr<Doorway>> Doorway::make(const DeviceConfig& config,
                                               std::optional<Listener> kept) {
  std::unique_ptr<Doorway> door(new Doorway(config));
  if (kept) {
    door->listener_ = *std::move(kept);
    return door;
  }
  if (config.fd >= 0) {
    TRY_LET(AdoptedFd adopted, adopt_fd(config.fd));
    if (adopted.listening) {
      door->listener_.fd = std::move(adopted.fd);
    } else {
      door->kind_ = Kind::kConnected;
      door->handed_ = std::move(adopted.fd);
    }
  } else if (config.client) {
    door->kind_ = Kind::kClient;
  } else {
    TRY_LET(door->listener_, listen_on(config));
  }
  return door;
}

Doorway::~Doorway() { close(); }

common::Result<void> Doorway::open(Services& services, DeviceLog& log, Arrived arrived,
                                   bool serving) {
  services_ = &services;
  log_ = &log;
  arrived_ = std::move(arrived);
  switch (kind_) {
    case Kind::kListening:
      return watch_listener();
    case Kind::kClient:
      if (!serving) connect_later();
      return {};
    case Kind::kConnected:
      // Not from within the caller's own call.
      timer_ = services.loop.after(milliseconds(0), [this] { let_in(std::move(handed_)); });
      return {};
  }
  return {};
}

void Doorway::next(bool serving) {
  if (kind_ == Kind::kListening && listener_.fd.valid() && !watch_listener()) pause_accepting();
  if (kind_ != Kind::kClient || serving) return;
  // A VMM that takes the connection and drops it at once is not called again at once.
  if (std::chrono::steady_clock::now() - connected_at_ > kConnectDelayMax) {
    connect_delay_ = kConnectDelayMin;
  }
  connect_later();
}

void Doorway::close() noexcept {
  watch_.reset();
  timer_.reset();
  if (listener_.fd.valid()) {
    kept_.reset();
    listener_.fd.reset();
    remove_socket(listener_);
  }
  handed_.reset();
}

std::string Doorway::describe() const {
  switch (kind_) {
    case Kind::kListening:
      if (config_.fd >= 0) return "listening on descriptor " + std::to_string(config_.fd);
      return "listening on " + config_.socket_path;
    case Kind::kConnected:
      return "connected on descriptor " + std::to_string(config_.fd);
    case Kind::kClient:
      return "connecting to " + config_.socket_path;
  }
  return "";
}

common::Result<void> Doorway::watch_listener() {
  if (watch_.active()) return {};
  TRY_LET(watch_, services_->loop.watch(listener_.fd.ref(), EPOLLIN,
                                        [this](std::uint32_t) { accept_one(); }));
  return {};
}

void Doorway::accept_one() {
  auto accepted = accept_from(listener_.fd.ref());
  if (!accepted) {
    refuse(accepted.error());
    return pause_accepting();
  }
  if (accepted->valid()) let_in(*std::move(accepted));
}

void Doorway::pause_accepting() {
  watch_.reset();
  timer_ = services_->loop.after(kAcceptPause, [this] { next(true); });
}

// At once, then after 100 ms, 200 ms, … 2 s.
void Doorway::connect_later() {
  timer_ = services_->loop.after(connect_delay_, [this] { connect_once(); });
  connect_delay_ = std::clamp(connect_delay_ * 2, kConnectDelayMin, kConnectDelayMax);
}

void Doorway::connect_once() {
  auto socket = connect_to(config_.socket_path);
  if (socket) {
    connect_failure_told_ = false;
    connected_at_ = std::chrono::steady_clock::now();
    return let_in(*std::move(socket));
  }
  // Once: a VMM that is not up yet may take hours.
  if (!std::exchange(connect_failure_told_, true)) {
    services_->log.warn(config_.name, socket.error() + "; trying again until it works");
  }
  connect_later();
}

void Doorway::let_in(common::Fd socket) {
  auto peer = peer_of(socket.ref());
  if (!peer) {
    refuse("connection refused: " + peer.error());
    log_->record(audit::Event(audit::Kind::kVmmRefused).with(audit::Key::kCause, peer.error()));
    services_->closer.close(std::move(socket));
    if (kind_ == Kind::kClient) connect_later();
    return;
  }
  Visitor visitor{std::move(socket), *std::move(peer), {}, {}};
  visitor.command = command_of(visitor.peer.pid);
  visitor.name = describe_peer(visitor.peer);
  const std::vector<uid_t>& allowed = config_.allow_uids;
  if (!allowed.empty() &&
      std::find(allowed.begin(), allowed.end(), visitor.peer.uid) == allowed.end()) {
    refuse("connection from " + visitor.name +
           " refused: its uid is not among those of --allow-uid");
    log_->record(audit::vmm_came(audit::Kind::kVmmRefused, visitor.peer, visitor.command,
                                 "its uid is not among those of --allow-uid"));
    services_->closer.close(std::move(visitor.socket));
    if (kind_ == Kind::kClient) connect_later();
    return;
  }
  watch_.reset();
  arrived_(std::move(visitor));
}

// Whoever may connect may do so in a loop: he must not fill the log.
void Doorway::refuse(const std::string& line) {
  if (!refusals_.take()) return;
  if (const std::uint64_t dropped = refusals_.take_dropped(); dropped != 0) {
    services_->log.warn(config_.name, std::to_string(dropped) + " refusals were not logged");
  }
  services_->log.warn(config_.name, line);
}

}  // namespace broker
