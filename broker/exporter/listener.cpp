#include "broker/exporter/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "broker/systemd.h"
#include "broker/text.h"

namespace broker::exporter {
namespace {

constexpr int kBacklog = 16;

struct Address {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

bool read_port(std::string_view text, std::uint16_t& port) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc{} && end == text.data() + text.size();
}

bool read_v4(const std::string& host, std::uint16_t port, Address& address) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  if (::inet_pton(AF_INET, host.c_str(), &in.sin_addr) != 1) return false;
  if ((ntohl(in.sin_addr.s_addr) >> 24) != IN_LOOPBACKNET) return false;
  std::memcpy(&address.storage, &in, sizeof(in));
  address.bytes = sizeof(in);
  return true;
}

bool read_v6(const std::string& host, std::uint16_t port, Address& address) {
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(port);
  if (host != "[::1]") return false;
  in.sin6_addr = in6addr_loopback;
  std::memcpy(&address.storage, &in, sizeof(in));
  address.bytes = sizeof(in);
  return true;
}

Answer<Address> read_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  Address address;
  std::uint16_t port = 0;
  if (colon != text.npos && read_port(std::string_view(text).substr(colon + 1), port)) {
    const std::string host = text.substr(0, colon);
    if (read_v4(host, port, address) || read_v6(host, port, address)) return address;
  }
  return common::fail(
      "--listen must be a loopback address and a port, 127.0.0.1:9821 or "
      "[::1]:9821, not " +
      in_quotes(text) + "; to let others in, put a server before it that asks who they are");
}

}  // namespace

Answer<common::Fd> listen_on_loopback(const std::string& address) {
  TRY_LET(const Address at, read_address(address));
  common::Fd fd(::socket(at.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto failed = [&](std::string_view what) {
    return common::fail("cannot listen on " + in_quotes(address) + ": " + std::string(what) + ": " +
                        errno_text(errno));
  };
  if (!fd.valid()) return failed("socket");
  const int yes = 1;
  (void)::setsockopt(fd.ref().number, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  const auto* const raw = reinterpret_cast<const sockaddr*>(&at.storage);
  if (::bind(fd.ref().number, raw, at.bytes) != 0) return failed("bind");
  if (::listen(fd.ref().number, kBacklog) != 0) return failed("listen");
  return fd;
}

Answer<common::Fd> take_activated() {
  const int count = take_listen_fds();
  if (count == 0) return common::Fd();
  if (count > 1) {
    return common::fail("systemd has passed " + std::to_string(count) +
                        " sockets; let bulkhead-exporter.socket have one ListenStream= only");
  }
  common::Fd fd(kListenFdsStart);
  int listens = 0;
  socklen_t bytes = sizeof(listens);
  if (::getsockopt(fd.ref().number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 ||
      listens == 0) {
    return common::fail(std::string("what systemd has passed is no socket that listens"));
  }
  (void)::fcntl(fd.ref().number, F_SETFD, FD_CLOEXEC);
  (void)::fcntl(fd.ref().number, F_SETFL, O_NONBLOCK);
  return fd;
}

}  // namespace broker::exporter
