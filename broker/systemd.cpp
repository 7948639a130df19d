#include "broker/systemd.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "common/fd.h"
#include "common/ipc/channel.h"

namespace broker {
namespace {

// The whole variable as a number, or -1.
std::int64_t number_from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return -1;
  const std::string_view view(text);
  std::int64_t number = -1;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), number);
  return error == std::errc() && end == view.data() + view.size() ? number : -1;
}

struct ManagerAddress {
  sockaddr_un address{};
  socklen_t bytes = 0;
};

ManagerAddress address_of(std::string_view name) {
  ManagerAddress to;
  to.address.sun_family = AF_UNIX;
  name.copy(to.address.sun_path, sizeof(to.address.sun_path) - 1);
  const bool abstract = name.front() == '@';
  if (abstract) to.address.sun_path[0] = '\0';
  // An abstract name ends where the address does; a path has its terminating zero.
  to.bytes =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (abstract ? 0U : 1U));
  return to;
}

}  // namespace

ServiceManager ServiceManager::from_environment() {
  ServiceManager manager;
  if (const char* address = std::getenv("NOTIFY_SOCKET"); address != nullptr) {
    const bool usable = address[0] == '/' || (address[0] == '@' && address[1] != '\0');
    if (usable && std::strlen(address) < sizeof(sockaddr_un::sun_path)) manager.address_ = address;
    ::unsetenv("NOTIFY_SOCKET");
  }
  // sd_watchdog_enabled(3): without WATCHDOG_PID it is for whoever has the variable.
  const std::int64_t interval_us = number_from_environment("WATCHDOG_USEC");
  const bool ours = std::getenv("WATCHDOG_PID") == nullptr ||
                    number_from_environment("WATCHDOG_PID") == ::getpid();
  if (interval_us > 0 && ours) manager.watchdog_ = std::chrono::microseconds(interval_us);
  for (const char* name : {"WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
  return manager;
}

void ServiceManager::notify(std::string_view state) const noexcept {
  if (!present()) return;
  const ManagerAddress to = address_of(address_);
  const common::Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return;
  // Nothing can be done about a manager that does not listen, and serving goes on without it.
  (void)::sendto(fd.ref().number, state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                 reinterpret_cast<const sockaddr*>(&to.address), to.bytes);
}

common::Fd ServiceManager::connect() const noexcept {
  if (!present()) return {};
  const ManagerAddress to = address_of(address_);
  common::Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto* const raw = reinterpret_cast<const sockaddr*>(&to.address);
  if (fd.valid() && ::connect(fd.ref().number, raw, to.bytes) != 0) fd.reset();
  return fd;
}

void ServiceManager::tell(common::FdRef connected, std::string_view state) noexcept {
  if (!connected.valid()) return;
  (void)common::ipc::send_bytes(connected, std::as_bytes(std::span(state)), {}, false);
}

int take_listen_fds() {
  // LISTEN_PID: so that a child that inherits our environment does not take our sockets for its
  // own.
  const bool ours = number_from_environment("LISTEN_PID") == ::getpid();
  const std::int64_t count = number_from_environment("LISTEN_FDS");
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  constexpr std::int64_t kCountMax = 1 << 20;  // No process has more descriptors.
  return ours && count > 0 && count <= kCountMax ? static_cast<int>(count) : 0;
}

}  // namespace broker
