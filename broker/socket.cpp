#include "broker/socket.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <optional>
#include <string_view>
#include <vector>

#include "broker/text.h"
#include "common/sys.h"

namespace broker {
namespace {

using common::fail;
using common::Fd;
using common::FdRef;

// A device serves one VMM; the others wait only until they are told so.
constexpr int kBacklog = 16;
// SELinux labels have dozens of bytes; this is what the kernel bounds extended attributes with.
constexpr std::size_t kLabelBytesMax = 4096;

Answer<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path) ||
      path.find('\0') != std::string::npos) {
    return fail("socket path " + in_quotes(path) + " must have 1 to " +
                std::to_string(sizeof(address.sun_path) - 1) + " bytes; use a shorter one");
  }
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

std::string magic_path(FdRef fd) { return "/proc/self/fd/" + std::to_string(fd.number); }

// --- owner and group -----------------------------------------------------------------------------

std::optional<std::uint32_t> as_number(std::string_view text) {
  std::uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, number);
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return number;
}

constexpr std::size_t kNameBufferBytes =
    16384;  // As sysconf(_SC_GETPW_R_SIZE_MAX) suggests, times 16.

// What chown() takes for "leave it".
constexpr uid_t kLeaveUid = static_cast<uid_t>(-1);
constexpr gid_t kLeaveGid = static_cast<gid_t>(-1);

Answer<uid_t> find_user(const std::string& name) {
  if (name.empty()) return kLeaveUid;
  if (const auto number = as_number(name)) return *number;
  std::vector<char> buffer(kNameBufferBytes);
  passwd entry{};
  passwd* found = nullptr;
  ::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) {
    return fail("there is no user " + in_quotes(name) +
                " to own the socket; give a user that exists, " +
                "or a number, with --socket-owner");
  }
  return found->pw_uid;
}

Answer<gid_t> find_group(const std::string& name) {
  if (name.empty()) return kLeaveGid;
  if (const auto number = as_number(name)) return *number;
  std::vector<char> buffer(kNameBufferBytes);
  group entry{};
  group* found = nullptr;
  ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) {
    return fail("there is no group " + in_quotes(name) +
                " for the socket; give a group that exists, " + "or a number, with --socket-group");
  }
  return found->gr_gid;
}

// --- what lies at the path already ---------------------------------------------------------------

enum class Occupant : std::uint8_t { kNobody, kStale, kLive };

bool same_file(const struct stat& left, const struct stat& right) {
  return left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

// Asks the kernel whether any socket is bound to this file, without connecting to it: with the
// wrong socket type the answer is EPROTOTYPE where there is one and ECONNREFUSED where there is
// none. A server that takes a single connection would mistake a trial connection for its VMM.
Answer<Occupant> occupant_of(FdRef socket_file, const std::string& path) {
  const Fd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  TRY_LET(const sockaddr_un address, address_of(magic_path(socket_file)));
  if (!probe.valid()) return fail("cannot make a socket: " + errno_text(errno));
  if (::connect(probe.ref().number, generic(address), sizeof(address)) == 0) return Occupant::kLive;
  if (errno == ECONNREFUSED) return Occupant::kStale;
  if (errno == EPROTOTYPE) return Occupant::kLive;
  return fail("cannot tell whether " + in_quotes(path) + " is in use: " + errno_text(errno) +
              "; remove it or give another --socket-path");
}

// Moved aside before it is removed: whoever made a new socket here in the meantime keeps it.
Answer<void> remove_stale(const std::string& path, const struct stat& stale) {
  const std::string aside = path + "~" + std::to_string(::getpid());
  if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, aside.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == ENOENT) return {};
    return fail("cannot replace the unused socket " + in_quotes(path) + ": " + errno_text(errno));
  }
  struct stat moved {};
  if (::lstat(aside.c_str(), &moved) == 0 && !same_file(moved, stale)) {
    (void)::renameat2(AT_FDCWD, aside.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE);
    return fail("another process is just making " + in_quotes(path) +
                "; give every device its own " + "--socket-path");
  }
  (void)::unlink(aside.c_str());
  return {};
}

// What is to be replaced at this path, or nothing where there is nothing.
Answer<std::optional<struct stat>> stale_at(const std::string& path) {
  const Fd there(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!there.valid()) {
    if (errno == ENOENT) return std::nullopt;
    return fail("cannot use socket path " + in_quotes(path) + ": " + errno_text(errno));
  }
  struct stat status {};
  if (::fstat(there.ref().number, &status) != 0 || !S_ISSOCK(status.st_mode)) {
    return fail(in_quotes(path) +
                " exists and is no socket; remove it or give another --socket-path");
  }
  TRY_LET(const Occupant occupant, occupant_of(there.ref(), path));
  if (occupant == Occupant::kLive) {
    return fail("another process serves " + in_quotes(path) +
                "; stop it or give another --socket-path");
  }
  return status;
}

Answer<void> make_way(const std::string& path) {
  TRY_LET(const std::optional<struct stat> stale, stale_at(path));
  return stale ? remove_stale(path, *stale) : Answer<void>();
}

// --- a new one -----------------------------------------------------------------------------------

std::string bind_failed(const std::string& path, int os_errno) {
  const std::string what = "cannot make socket " + in_quotes(path) + ": ";
  if (os_errno == EADDRINUSE) return what + "another process made it just now";
  if (os_errno == ENOENT) return what + "its directory does not exist; make it first";
  if (os_errno == EACCES || os_errno == EPERM) {
    return what + "no permission to write to its directory; give another --socket-path";
  }
  return what + errno_text(os_errno);
}

// The file that bind() made, still with the mode nobody else gives a socket.
Answer<Fd> open_own_socket_file(Listener& listener) {
  Fd file(::open(listener.path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (!file.valid() || ::fstat(file.ref().number, &status) != 0 || !S_ISSOCK(status.st_mode) ||
      (status.st_mode & 07777) != 0 || status.st_uid != ::geteuid()) {
    return fail("socket " + in_quotes(listener.path) + " was replaced while it was made; " +
                "use a directory that only this user can write to");
  }
  listener.device = status.st_dev;
  listener.inode = status.st_ino;
  return file;
}

Answer<void> give_access(FdRef file, const DeviceConfig& config, uid_t owner, gid_t group) {
  if ((owner != kLeaveUid || group != kLeaveGid) &&
      ::fchownat(file.number, "", owner, group, AT_EMPTY_PATH) != 0) {
    return fail("cannot give socket " + in_quotes(config.socket_path) + " to " +
                (config.socket_owner.empty() ? "" : "user " + in_quotes(config.socket_owner)) +
                (config.socket_owner.empty() || config.socket_group.empty() ? "" : " and ") +
                (config.socket_group.empty() ? "" : "group " + in_quotes(config.socket_group)) +
                ": " + errno_text(errno) +
                "; start as root or leave out --socket-owner and --socket-group");
  }
  if (::chmod(magic_path(file).c_str(), config.socket_mode) != 0) {
    return fail("cannot set the mode of socket " + in_quotes(config.socket_path) + ": " +
                errno_text(errno));
  }
  return {};
}

}  // namespace

Answer<Listener> listen_on(const DeviceConfig& config) { return listen_on(config, SOCK_STREAM); }

Answer<Listener> listen_on(const DeviceConfig& config, int type) {
  TRY_LET(const sockaddr_un address, address_of(config.socket_path));
  TRY_LET(const uid_t owner, find_user(config.socket_owner));
  TRY_LET(const gid_t group, find_group(config.socket_group));
  TRY(make_way(config.socket_path));

  Listener listener;
  Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // bind() gives the file the mode of the socket itself: with none, nobody gets in until the owner
  // is right, and no umask has to be changed for the whole process.
  if (!fd.valid() || ::fchmod(fd.ref().number, 0) != 0) {
    return fail("cannot make a unix socket: " + errno_text(errno));
  }
  if (::bind(fd.ref().number, generic(address), sizeof(address)) != 0) {
    return fail(bind_failed(config.socket_path, errno));
  }
  listener.path = config.socket_path;
  TRY_LET(const Fd file, open_own_socket_file(listener));
  Answer<void> ready = give_access(file.ref(), config, owner, group);
  if (ready && ::listen(fd.ref().number, kBacklog) != 0) {
    ready = fail("cannot listen on " + in_quotes(config.socket_path) + ": " + errno_text(errno));
  }
  if (!ready) {
    remove_socket(listener);
    return fail(std::move(ready).error());
  }
  listener.fd = std::move(fd);
  return listener;
}

Answer<void> inspect_socket(const DeviceConfig& config, bool served_by_us) {
  TRY(address_of(config.socket_path));
  TRY(find_user(config.socket_owner));
  TRY(find_group(config.socket_group));
  if (served_by_us) return {};
  TRY(stale_at(config.socket_path));
  const std::size_t slash = config.socket_path.rfind('/');
  const std::string directory = slash == std::string::npos
                                    ? "."
                                    : config.socket_path.substr(0, std::max<std::size_t>(slash, 1));
  if (::faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    return fail(bind_failed(config.socket_path, errno));
  }
  return {};
}

Answer<Listener> listen_for_brokers(const std::string& path) {
  DeviceConfig socket;
  socket.socket_path = path;
  socket.socket_mode = 0600;
  return listen_on(socket, SOCK_SEQPACKET);
}

Answer<void> listen_again(const Listener& listener) {
  if (::listen(listener.fd.ref().number, kBacklog) == 0) return {};
  return fail("cannot listen on " + in_quotes(listener.path) + ": " + errno_text(errno));
}

Answer<Listener> find_socket(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) {
    return fail("socket " + in_quotes(path) + " is not there any more");
  }
  Listener listener;
  listener.path = path;
  listener.device = status.st_dev;
  listener.inode = status.st_ino;
  return listener;
}

void remove_socket(const Listener& listener) noexcept {
  if (listener.path.empty()) return;
  struct stat status {};
  if (::lstat(listener.path.c_str(), &status) != 0) return;
  const bool ours = S_ISSOCK(status.st_mode) && status.st_dev == listener.device &&
                    status.st_ino == listener.inode;
  if (ours) (void)::unlink(listener.path.c_str());
}

// --- sockets that others made --------------------------------------------------------------------

namespace {

// The option's value, or -1 where `fd` has none.
int socket_option(FdRef fd, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  return ::getsockopt(fd.number, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

// Whether the socket listens, or why it is of no use.
Answer<bool> check_adopted(FdRef fd, const std::string& name) {
  if (::fcntl(fd.number, F_GETFD) < 0) {
    return fail(name + " is not open; pass a socket under that number to this process");
  }
  const int type = socket_option(fd, SO_TYPE);
  if (type < 0) return fail(name + " is no socket; pass a unix stream socket");
  if (socket_option(fd, SO_DOMAIN) != AF_UNIX || type != SOCK_STREAM) {
    return fail(name + " is another kind of socket; pass a unix stream socket");
  }
  if (socket_option(fd, SO_ACCEPTCONN) == 1) return true;
  sockaddr_un peer{};
  socklen_t length = sizeof(peer);
  if (::getpeername(fd.number, reinterpret_cast<sockaddr*>(&peer), &length) != 0) {
    return fail(name + " neither listens nor is connected; call listen() on it, or connect it");
  }
  return false;
}

}  // namespace

Answer<AdoptedFd> adopt_fd(int number) {
  const std::string name = "--fd=" + std::to_string(number);
  const FdRef fd{number};
  TRY_LET(const bool listening, check_adopted(fd, name));
  if (::fcntl(number, F_SETFD, FD_CLOEXEC) != 0 || !common::set_nonblocking(fd, true)) {
    return fail(name + " cannot be prepared: " + errno_text(errno));
  }
  return AdoptedFd{listening, Fd(number)};
}

Answer<Fd> connect_to(const std::string& path) {
  TRY_LET(const sockaddr_un address, address_of(path));
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return fail("cannot make a unix socket: " + errno_text(errno));
  if (::connect(fd.ref().number, generic(address), sizeof(address)) == 0) return fd;
  if (errno == ENOENT || errno == ECONNREFUSED) return fail("nobody listens on " + in_quotes(path));
  return fail("cannot connect to " + in_quotes(path) + ": " + errno_text(errno));
}

Answer<Fd> accept_from(FdRef listener) {
  Fd fd(::accept4(listener.number, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid()) return fd;
  // ECONNABORTED: it has gone already. The next event brings the next one.
  if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) return Fd();
  return fail("cannot accept a connection: " + errno_text(errno));
}

Answer<Peer> peer_of(FdRef connected) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(connected.number, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return fail("cannot ask who connected: " + errno_text(errno));
  }
  Peer peer{credentials.pid, credentials.uid, credentials.gid, {}};
  std::string label(kLabelBytesMax, '\0');
  length = static_cast<socklen_t>(label.size());
  // ENOPROTOOPT where no security module labels sockets.
  if (::getsockopt(connected.number, SOL_SOCKET, SO_PEERSEC, label.data(), &length) == 0) {
    peer.label = label.substr(0, label.find('\0'));
  }
  return peer;
}

}  // namespace broker
