// broker/socket.h: the unix sockets that VMMs come over: made, taken over, connected, and asked who
// is at the other end. Not trusted: who connects, and what lies at a socket's path.
//
// Every descriptor from here is CLOEXEC and non-blocking.
#pragma once

#include <sys/types.h>

#include <string>

#include "broker/config.h"
#include "common/fd.h"

namespace broker {

// A socket that listens. `path` is empty for one that was handed to us (it is not ours to remove).
struct Listener {
  common::Fd fd;
  std::string path;
  dev_t device = 0;  // Identity of the socket file we made.
  ino_t inode = 0;
};

// Listens on `config.socket_path`. A socket file that nobody serves any more is replaced; one that
// somebody serves, and anything that is no socket (a symbolic link too), is refused. Owner, group
// and mode are set before anybody they keep out could connect.
// `type`: SOCK_STREAM, as vhost-user has it, or SOCK_SEQPACKET.
[[nodiscard]] Answer<Listener> listen_on(const DeviceConfig& config, int type);
[[nodiscard]] Answer<Listener> listen_on(const DeviceConfig& config);

// Whether listen_on() would do, as far as can be told without doing it. `served_by_us`: that
// somebody serves it is no error.
[[nodiscard]] Answer<void> inspect_socket(const DeviceConfig& config, bool served_by_us);
// The takeover socket: packets, and of this user only (mode 0600).
[[nodiscard]] Answer<Listener> listen_for_brokers(const std::string& path);

// On what an earlier broker has left: clients see from now on that it is ours (SO_PEERCRED).
[[nodiscard]] Answer<void> listen_again(const Listener& listener);

// The socket file that is there, as if we had made it: remove_socket() removes it.
[[nodiscard]] Answer<Listener> find_socket(const std::string& path);

// Removes the socket file if it is still the one that listen_on() made.
void remove_socket(const Listener& listener) noexcept;

// Takes over the inherited descriptor `number` (--fd): a listening or a connected unix stream
// socket; anything else is refused, and then not closed.
struct AdoptedFd {
  bool listening = false;
  common::Fd fd;
};
[[nodiscard]] Answer<AdoptedFd> adopt_fd(int number);

// One try to connect to a socket that the VMM listens on (--client). Never waits.
[[nodiscard]] Answer<common::Fd> connect_to(const std::string& path);

// Accepts one connection. An empty Fd where there is none (any more).
[[nodiscard]] Answer<common::Fd> accept_from(common::FdRef listener);

// The process that connected, as the kernel saw it then. `label` is its security label (SELinux,
// AppArmor, Smack), empty where the host has none.
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string label;
};
[[nodiscard]] Answer<Peer> peer_of(common::FdRef connected);

}  // namespace broker
