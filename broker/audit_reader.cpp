#include "broker/audit_reader.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <utility>

namespace broker {
namespace {

constexpr std::size_t kRecentMax = 64;
constexpr std::size_t kRecordBytesMax = 8192;  // MAX_AUDIT_MESSAGE_LENGTH is 8970.
constexpr std::chrono::milliseconds kGrace{50};
#if defined(__x86_64__)
constexpr std::uint32_t kNativeArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kNativeArch = AUDIT_ARCH_AARCH64;
#endif

// BPF loads half words as big-endian; netlink headers have the host's byte order.
constexpr std::uint32_t as_loaded(std::uint16_t type) noexcept {
  return std::endian::native == std::endian::little ? std::byteswap(type) : type;
}

// Only AUDIT_SECCOMP gets through: a host that audits much must not keep the broker busy.
common::Result<void> attach_filter(common::FdRef socket) {
  std::array<sock_filter, 4> code = {{
      {BPF_LD | BPF_H | BPF_ABS, 0, 0, offsetof(nlmsghdr, nlmsg_type)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, as_loaded(AUDIT_SECCOMP)},
      {BPF_RET | BPF_K, 0, 0, UINT32_MAX},
      {BPF_RET | BPF_K, 0, 0, 0},
  }};
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::setsockopt(socket.number, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0) {
    return common::fail_errno("filter audit records", errno);
  }
  return {};
}

// The number after " name=", taking the last one: the fields before it are partly the process's own
// words (its name), those after it are the kernel's.
template <typename Number>
std::optional<Number> field(std::string_view text, std::string_view name, int base = 10) {
  const std::size_t at = text.rfind(name);
  if (at == std::string_view::npos) return std::nullopt;
  const char* const first = text.data() + at + name.size();
  Number value = 0;
  const auto [end, error] = std::from_chars(first, text.data() + text.size(), value, base);
  if (error != std::errc() || end == first) return std::nullopt;
  return value;
}

}  // namespace

std::optional<SeccompKill> parse_seccomp_record(std::string_view text) {
  // "audit(…): auid=… uid=… gid=… ses=… pid=812 comm=… exe=… sig=31 arch=… syscall=257 compat=0 …"
  const std::size_t words_begin = text.find(" comm=");
  if (words_begin == std::string_view::npos) return std::nullopt;
  const std::string_view kernels = text.substr(words_begin);
  const auto pid = field<int>(text.substr(0, words_begin), " pid=");
  const auto system_call = field<int>(kernels, " syscall=");
  constexpr int kRefused = 0;
  if (!pid || !system_call || field<int>(kernels, " sig=") == kRefused) return std::nullopt;
  const auto arch = field<std::uint32_t>(kernels, " arch=", 16);
  return SeccompKill{*pid, *system_call, field<std::uint64_t>(kernels, " ip=0x", 16).value_or(0),
                     !arch || *arch == kNativeArch};
}

common::Result<std::unique_ptr<AuditReader>> AuditReader::open(EventLoop& loop) {
  common::Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_AUDIT));
  if (!socket.valid()) return common::fail_errno("audit socket", errno);
  TRY(attach_filter(socket.ref()));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = 1U << (AUDIT_NLGRP_READLOG - 1);
  if (::bind(socket.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) !=
      0) {
    return common::fail_errno("join the audit group", errno);
  }
  std::unique_ptr<AuditReader> reader(new AuditReader(loop, std::move(socket)));
  TRY_LET(reader->watch_,
          loop.watch(reader->socket_.ref(), EPOLLIN,
                     [self = reader.get()](std::uint32_t) { self->on_readable(); }));
  return reader;
}

void AuditReader::find(pid_t pid, Answer answer) {
  on_readable();  // What has come, but whose event has not been handled yet.
  const auto known = std::find_if(recent_.rbegin(), recent_.rend(),
                                  [pid](const SeccompKill& kill) { return kill.pid == pid; });
  if (known != recent_.rend()) return answer(*known);
  const auto question = questions_.insert(questions_.end(), {pid, std::move(answer), {}});
  question->timer = loop_.after(kGrace, [this, question] { give_up(question); });
}

void AuditReader::on_readable() {
  // Bounded: the loop comes back for the rest.
  for (std::size_t i = 0; i < kRecentMax; ++i) {
    alignas(nlmsghdr) std::array<char, kRecordBytesMax> buffer;
    sockaddr_nl from{};
    socklen_t from_bytes = sizeof(from);
    const ssize_t got = ::recvfrom(socket_.ref().number, buffer.data(), buffer.size(), MSG_DONTWAIT,
                                   reinterpret_cast<sockaddr*>(&from), &from_bytes);
    if (got < 0 && errno == ENOBUFS) continue;  // Records were lost; so be it.
    if (got < static_cast<ssize_t>(NLMSG_HDRLEN)) return;
    nlmsghdr header{};
    std::memcpy(&header, buffer.data(), sizeof(header));
    if (from.nl_pid != 0 || header.nlmsg_type != AUDIT_SECCOMP) continue;  // 0: the kernel.
    const std::string_view text(buffer.data() + NLMSG_HDRLEN,
                                static_cast<std::size_t>(got) - NLMSG_HDRLEN);
    if (const auto kill = parse_seccomp_record(text)) learn(*kill);
  }
}

void AuditReader::learn(const SeccompKill& kill) {
  recent_.push_back(kill);
  if (recent_.size() > kRecentMax) recent_.pop_front();
  const auto question = std::find_if(questions_.begin(), questions_.end(),
                                     [&](const Question& asked) { return asked.pid == kill.pid; });
  if (question == questions_.end()) return;
  const Answer answer = std::move(question->answer);
  questions_.erase(question);
  answer(kill);
}

void AuditReader::give_up(std::list<Question>::iterator question) {
  const Answer answer = std::move(question->answer);
  questions_.erase(question);
  answer(std::nullopt);
}

}  // namespace broker
