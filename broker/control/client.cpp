#include "broker/control/client.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "broker/text.h"
#include "common/ipc/channel.h"

namespace broker::control {
namespace {

using common::fail;

std::string connect_failed(const std::string& path, int os_errno) {
  const std::string what = "cannot reach a broker at " + in_quotes(path) + ": ";
  switch (os_errno) {
    case ENOENT:
    case ECONNREFUSED:
      return what + "nobody listens there; start bulkhead serve, or give its --control-socket=PATH";
    case EACCES:
    case EPERM:
      return what + "this user may not reach the socket's directory; be root";
    case EAGAIN:
      return what + "it lets nobody in; is it stopped? See systemctl status bulkhead";
    case EPROTOTYPE:
      return what + "that is a device's socket, not the operator's";
    default:
      return what + errno_text(os_errno);
  }
}

// For connecting, too. Zero: for ever.
// syscalls: setsockopt
void limit_waiting(common::FdRef socket, std::chrono::milliseconds patience) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience);
  const timeval limit{.tv_sec = seconds.count(), .tv_usec = (patience - seconds).count() * 1000};
  for (const int which : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    (void)::setsockopt(socket.number, SOL_SOCKET, which, &limit, sizeof(limit));
  }
}

// Who listens; the socket may be kept for the next one (broker/keep.h). 0: nobody knows.
pid_t listener_of(common::FdRef socket) {
  ucred owner{};
  socklen_t size = sizeof(owner);
  const bool known =
      ::getsockopt(socket.number, SOL_SOCKET, SO_PEERCRED, &owner, &size) == 0 && owner.pid > 0;
  return known ? owner.pid : 0;
}

bool is_dead(pid_t pid) {
  if (pid == 0) return false;
  // Other than a signal of no number, no security module has a say in it.
  const common::Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  return !process.valid() && errno == ESRCH;
}

std::string dead_text(const std::string& path, pid_t pid) {
  return "the broker at " + in_quotes(path) + ", pid " + std::to_string(pid) +
         ", has died. The sessions and workers that it has left go on serving their VMMs; start "
         "bulkhead serve again, and it goes on with them. Its log says what it died of";
}

std::string seconds_text(std::chrono::milliseconds time) {
  return std::to_string(std::chrono::ceil<std::chrono::seconds>(time).count()) + " s";
}

Answer<common::Fd> connected(const std::string& path, std::chrono::milliseconds patience) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return fail("--control-socket must have 1 to " + std::to_string(sizeof(address.sun_path) - 1) +
                " bytes, not " + in_quotes(path));
  }
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  common::Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return fail("cannot make a unix socket: " + errno_text(errno));
  limit_waiting(fd.ref(), patience);
  if (::connect(fd.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) !=
      0) {
    return fail(connect_failed(path, errno));
  }
  return fd;
}

}  // namespace

Name name_room(std::string_view name) noexcept {
  Name room{};
  put_text(room, name);
  return room;
}

std::vector<DeviceReply> in_use(const std::vector<DeviceReply>& devices) {
  std::vector<DeviceReply> used;
  std::copy_if(devices.begin(), devices.end(), std::back_inserter(used),
               [](const DeviceReply& device) { return device.connected != 0; });
  return used;
}

// syscalls: socket, connect
Answer<Client> Client::connect(const std::string& path, Duration patience, Look look) {
  TRY_LET(common::Fd fd, connected(path, patience));
  const pid_t broker = look == Look::kAtBroker ? listener_of(fd.ref()) : 0;
  if (is_dead(broker)) return fail(dead_text(path, broker));
  return Client(std::move(fd), path, patience, broker);
}

bool broker_has_died(const std::string& path) {
  const auto fd = connected(path, kAnswerPatience);
  return fd && is_dead(listener_of(fd->ref()));
}

std::string Client::no_answer() const {
  if (is_dead(broker_)) return dead_text(path_, broker_);
  const std::string who = broker_ == 0 ? "" : ", pid " + std::to_string(broker_) + ",";
  return "the broker at " + in_quotes(path_) + who + " has not answered for " +
         seconds_text(waits_) +
         "; is it stopped, or starting still? See systemctl status bulkhead, and its log. The "
         "sessions and workers that it has started go on serving their VMMs";
}

Answer<std::vector<std::byte>> Client::exchange(std::span<const std::byte> request,
                                                std::span<const common::FdRef> fds,
                                                Duration takes) {
  const Duration wait = takes == kForEver ? Duration{0} : patience_ + takes;
  if (std::exchange(waits_, wait) != wait) limit_waiting(socket_.ref(), wait);
  // One that refuses us has said why and closed before we ask: its words are still there.
  const auto sent = common::ipc::send_bytes(socket_.ref(), request, fds, true);
  std::vector<std::byte> packet(kMessageBytesMax);
  common::ipc::FdList unwanted;
  const auto received = common::ipc::receive(socket_.ref(), packet, unwanted, true);
  if (received && received->arrival == common::ipc::Arrival::kNothing) return fail(no_answer());
  if (!received || received->arrival != common::ipc::Arrival::kData) {
    const int os_errno = !sent ? sent.error().os_errno : received ? 0 : received.error().os_errno;
    return fail("the broker at " + in_quotes(path_) + " has ended the connection" +
                (os_errno == 0 ? std::string() : ": " + errno_text(os_errno)) +
                "; its log says why");
  }
  packet.resize(received->bytes);
  return packet;
}

Answer<Told> Client::told_of(std::span<const std::byte> packet) const {
  if (const auto answer = as<Told>(packet)) return *answer;
  return fail(
      "the broker at " + in_quotes(path_) +
      " speaks another version of this protocol; use the bulkhead that it was started from");
}

std::string Client::words_of(const Told& answer) {
  std::string text = clean_text(shown(answer.text));
  switch (static_cast<Outcome>(answer.outcome)) {
    case Outcome::kRefused:
      return "refused: " + text;
    case Outcome::kMalformed:
      return "the broker does not understand this request (" + text +
             "); use the bulkhead that it was started from";
    case Outcome::kDone:
    case Outcome::kNotFound:
    case Outcome::kFailed:
      break;
  }
  return text;
}

Answer<std::vector<DeviceReply>> Client::devices() {
  std::vector<DeviceReply> all;
  AskDevice next;
  next.next = 1;
  while (true) {
    TRY_LET(const std::optional<DeviceReply> reply, ask<DeviceReply>(next));
    if (!reply) return all;
    all.push_back(*reply);
    next.name = reply->name;
  }
}

Answer<std::vector<QueueReply>> Client::queues(const std::vector<DeviceReply>& devices) {
  std::vector<QueueReply> all;
  for (const DeviceReply& device : devices) {
    AskQueue next;
    next.name = device.name;
    while (true) {
      TRY_LET(const std::optional<QueueReply> reply, ask<QueueReply>(next));
      if (!reply) break;
      if (reply->queue < next.first) return fail(std::string("the broker repeats itself"));
      all.push_back(*reply);
      if (reply->queue == UINT32_MAX) break;
      next.first = reply->queue + 1;
    }
  }
  return all;
}

Answer<DeviceReply> Client::device(const std::string& name) {
  AskDevice exact;
  exact.name = name_room(name);
  TRY_LET(const std::optional<DeviceReply> reply, ask<DeviceReply>(exact));
  if (reply) return *reply;
  return fail("there is no device " + in_quotes(name) + " ('bulkhead list' shows all)");
}

}  // namespace broker::control
