#include "tests/fakes/vhost_frontend.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "common/ipc/channel.h"
#include "tests/fakes/failure.h"

namespace fakes {
namespace {

constexpr int kPatienceMs = static_cast<int>(std::chrono::milliseconds(kPatience).count());
constexpr std::size_t kFdsMost = 253;  // The kernel's SCM_MAX_FD.

common::Fd connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  require(path.size() < sizeof(address.sun_path), "socket path too long: " + path);
  std::copy(path.begin(), path.end(), address.sun_path);
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    common::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    require_call(fd.valid(), "socket");
    if (::connect(fd.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
        0) {
      return fd;
    }
    require_call((errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN) &&
                     std::chrono::steady_clock::now() < give_up,
                 "connect to " + path);
    // No event says that a socket file begins to listen; callers that know it listens never wait.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Fills `to`, and `file` with the descriptor that comes along. False at end of file (also in the
// middle), fails after kPatience.
bool receive_all(common::FdRef socket, std::span<std::byte> to, common::Fd* file = nullptr) {
  while (!to.empty()) {
    pollfd waiting{socket.number, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, kPatienceMs);
    if (ready < 0 && errno == EINTR) continue;
    require(ready != 0, "the back-end did not answer");
    common::ipc::FdList fds;
    const auto got = common::ipc::receive(socket, to, fds, true);
    if (!got && got.error().os_errno == ECONNRESET) return false;
    require(got.has_value() && got->arrival != common::ipc::Arrival::kTruncated,
            "receive from the back-end");
    if (got->arrival == common::ipc::Arrival::kClosed) return false;
    require(fds.size() == 0 || (file != nullptr && fds.size() == 1),
            "a descriptor that was not asked for");
    if (fds.size() == 1) *file = fds.take(0);
    to = to.subspan(got->bytes);
  }
  return true;
}

void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
  const std::size_t at = to.size();
  to.resize(at + bytes.size());
  std::ranges::copy(bytes, to.begin() + static_cast<std::ptrdiff_t>(at));
}

template <typename T>
void append(std::vector<std::byte>& to, const T& value) {
  append(to, bytes_of(value));
}

std::string name_of(VhostRequest request) {
  return "request " + std::to_string(static_cast<std::uint32_t>(request));
}

}  // namespace

std::uint64_t VhostReply::u64() const {
  std::uint64_t value = 0;
  require(payload.size() == sizeof(value), "a reply has the wrong size");
  std::memcpy(&value, payload.data(), sizeof(value));
  return value;
}

VhostFrontend::VhostFrontend(const std::string& socket_path) : socket_(connect_to(socket_path)) {}

bool VhostFrontend::send_bytes(std::span<const std::byte> bytes,
                               std::span<const common::FdRef> fds) {
  require(fds.size() <= kFdsMost, "the kernel passes no more than 253 descriptors at once");
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kFdsMost * sizeof(int))> control{};
  bool with_fds = !fds.empty();
  while (!bytes.empty()) {
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (with_fds) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* const first = CMSG_FIRSTHDR(&message);
      first->cmsg_level = SOL_SOCKET;
      first->cmsg_type = SCM_RIGHTS;
      first->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      for (std::size_t i = 0; i < fds.size(); ++i) {
        std::memcpy(CMSG_DATA(first) + i * sizeof(int), &fds[i].number, sizeof(int));
      }
    }
    const ssize_t sent = ::sendmsg(socket_.ref().number, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return false;
    require_call(sent >= 0, "send to the back-end");
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
    with_fds = false;
  }
  return true;
}

bool VhostFrontend::send_raw(const VhostHeader& header, std::span<const std::byte> payload,
                             std::span<const common::FdRef> fds) {
  std::vector<std::byte> message;
  append(message, header);
  append(message, payload);
  return send_bytes(message, fds);
}

std::optional<VhostReply> VhostFrontend::receive() {
  VhostReply reply;
  if (!receive_all(socket_.ref(), std::as_writable_bytes(std::span(&reply.header, 1)),
                   &reply.file)) {
    return std::nullopt;
  }
  require(reply.header.size <= 65536, "a reply of an absurd size");
  reply.payload.resize(reply.header.size);
  if (!receive_all(socket_.ref(), reply.payload)) return std::nullopt;
  return reply;
}

bool VhostFrontend::hung_up() {
  std::array<std::byte, 4096> rest;
  while (receive_all(socket_.ref(), std::span(rest).first(1))) {
  }
  return true;
}

void VhostFrontend::request(VhostRequest request, std::span<const std::byte> payload,
                            std::span<const common::FdRef> fds) {
  if (acks_) {
    require(request_for_ack(request, payload, fds) == 0, name_of(request) + " was refused");
    return;
  }
  const VhostHeader header{.request = static_cast<std::uint32_t>(request),
                           .flags = kVhostVersion,
                           .size = static_cast<std::uint32_t>(payload.size())};
  require(send_raw(header, payload, fds), "the back-end hung up at " + name_of(request));
}

std::uint64_t VhostFrontend::request_for_ack(VhostRequest request,
                                             std::span<const std::byte> payload,
                                             std::span<const common::FdRef> fds) {
  const VhostHeader header{.request = static_cast<std::uint32_t>(request),
                           .flags = kVhostVersion | kVhostNeedReply,
                           .size = static_cast<std::uint32_t>(payload.size())};
  require(send_raw(header, payload, fds), "the back-end hung up at " + name_of(request));
  const std::optional<VhostReply> reply = receive();
  require(reply.has_value(), "the back-end hung up instead of acknowledging " + name_of(request));
  require(reply->header.request == header.request &&
              reply->header.flags == (kVhostVersion | kVhostReply),
          "wrong header in the acknowledgement of " + name_of(request));
  return reply->u64();
}

VhostReply VhostFrontend::ask(VhostRequest request, std::span<const std::byte> payload,
                              std::span<const common::FdRef> fds) {
  const VhostHeader header{.request = static_cast<std::uint32_t>(request),
                           .flags = kVhostVersion | (need_reply_on_gets_ ? kVhostNeedReply : 0),
                           .size = static_cast<std::uint32_t>(payload.size())};
  require(send_raw(header, payload, fds), "the back-end hung up at " + name_of(request));
  std::optional<VhostReply> reply = receive();
  require(reply.has_value(), "the back-end hung up instead of answering " + name_of(request));
  // QEMU, DPDK and SPDK compare these for equality: version 1, reply, and nothing else.
  require(reply->header.request == header.request &&
              reply->header.flags == (kVhostVersion | kVhostReply),
          "wrong header in the reply to " + name_of(request));
  return *std::move(reply);
}

VhostFrontend::InflightFile VhostFrontend::get_inflight_fd(std::uint16_t queues,
                                                           std::uint16_t queue_size) {
  InflightFile got;
  got.description.queues = queues;
  got.description.queue_size = queue_size;
  VhostReply reply = ask(VhostRequest::kGetInflightFd, bytes_of(got.description));
  require(reply.payload.size() == sizeof(got.description),
          "GET_INFLIGHT_FD's reply has the wrong size");
  std::memcpy(&got.description, reply.payload.data(), sizeof(got.description));
  require(reply.file.valid() == (got.description.mmap_bytes != 0),
          "GET_INFLIGHT_FD answers with a size or a file alone");
  got.file = std::move(reply.file);
  return got;
}

void VhostFrontend::set_log_base(const VhostLog& description, common::FdRef file) {
  const std::array<common::FdRef, 1> fds = {file};
  const VhostReply reply = ask(VhostRequest::kSetLogBase, bytes_of(description), fds);
  require(std::ranges::equal(reply.payload, bytes_of(description)),
          "SET_LOG_BASE is answered with something else than its description");
}

void VhostFrontend::set_inflight_fd(const VhostInflight& description, common::FdRef file) {
  request(VhostRequest::kSetInflightFd, bytes_of(description), std::span(&file, 1));
}

void VhostFrontend::set_u64(VhostRequest request, std::uint64_t value) {
  this->request(request, bytes_of(value));
}

void VhostFrontend::set_vring(VhostRequest request, std::uint32_t index, std::uint32_t value) {
  this->request(request, bytes_of(VringState{index, value}));
}

void VhostFrontend::set_mem_table(const VmMemory& memory) {
  set_mem_table(memory.regions(), memory.files());
}

void VhostFrontend::set_mem_table(std::span<const VmRegion> regions,
                                  std::span<const common::FdRef> fds) {
  request(VhostRequest::kSetMemTable, mem_table_payload(regions), fds);
}

void VhostFrontend::add_mem_reg(const VmRegion& region, common::FdRef file) {
  request(VhostRequest::kAddMemReg, mem_reg_payload(region), std::span(&file, 1));
}

void VhostFrontend::rem_mem_reg(const VmRegion& region) {
  request(VhostRequest::kRemMemReg, mem_reg_payload(region));
}

void VhostFrontend::set_vring_addr(const VringAddr& addr) {
  request(VhostRequest::kSetVringAddr, bytes_of(addr));
}

std::uint32_t VhostFrontend::get_vring_base(std::uint32_t index) {
  const VhostReply reply = ask(VhostRequest::kGetVringBase, bytes_of(VringState{index, 0}));
  VringState state;
  require(reply.payload.size() == sizeof(state), "GET_VRING_BASE's reply has the wrong size");
  std::memcpy(&state, reply.payload.data(), sizeof(state));
  require(state.index == index, "GET_VRING_BASE answered for another ring");
  return state.value;
}

void VhostFrontend::set_vring_fd(VhostRequest request, std::uint32_t index, common::FdRef fd) {
  const std::uint64_t value = index | (fd.valid() ? 0 : kVhostNoFd);
  const std::span<const common::FdRef> fds(&fd, fd.valid() ? 1 : 0);
  this->request(request, bytes_of(value), fds);
}

std::vector<std::byte> VhostFrontend::get_config(std::uint32_t offset, std::uint32_t size,
                                                 std::uint32_t flags) {
  std::vector<std::byte> payload;
  append(payload, offset);
  append(payload, size);
  append(payload, flags);
  const std::size_t head = payload.size();
  payload.resize(head + size);
  const VhostReply reply = ask(VhostRequest::kGetConfig, payload);
  require(reply.payload.size() == payload.size(), "GET_CONFIG was refused");
  require(std::equal(payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(head),
                     reply.payload.begin()),
          "GET_CONFIG's reply echoes other numbers");
  return {reply.payload.begin() + static_cast<std::ptrdiff_t>(head), reply.payload.end()};
}

void VhostFrontend::set_config(std::uint32_t offset, std::span<const std::byte> bytes,
                               std::uint32_t flags) {
  request(VhostRequest::kSetConfig, config_payload(offset, bytes, flags));
}

std::vector<std::byte> config_payload(std::uint32_t offset, std::span<const std::byte> bytes,
                                      std::uint32_t flags) {
  std::vector<std::byte> payload;
  append(payload, offset);
  append(payload, static_cast<std::uint32_t>(bytes.size()));
  append(payload, flags);
  append(payload, bytes);
  return payload;
}

std::vector<std::byte> mem_table_payload(std::span<const VmRegion> regions) {
  std::vector<std::byte> payload;
  append(payload, static_cast<std::uint32_t>(regions.size()));
  append(payload, std::uint32_t{0});
  for (const VmRegion& region : regions) append(payload, region);
  return payload;
}

std::vector<std::byte> mem_reg_payload(const VmRegion& region) {
  std::vector<std::byte> payload;
  append(payload, std::uint64_t{0});
  append(payload, region);
  return payload;
}

}  // namespace fakes
