// policy/exporter.h: everything the exporter may do once it is sealed, all on this page.
//
// It reads HTTP from whoever can reach its port, with a library's parser, and asks the operator's
// socket as one who may look. So anything else is its death, and what the library does with
// descriptors is pinned like what we do: the two that stay have fixed numbers, and those that come
// and go are below kExporterDescriptorsMax.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <cstdint>

#include "policy/profile.h"

namespace policy {

enum class ExporterFd : std::uint8_t {
  kLog = 2,  // Beside 0 and 1, which are /dev/null.
  kListener = 3,
  kEvents = 4,  // libmicrohttpd's epoll.
};

// Its own, 16 connections, one to the broker, and room for those that are being closed.
inline constexpr std::uint64_t kExporterDescriptorsMax = 64;
inline constexpr ArgLimit kExporterAnyFd = arg_at_most(0, kExporterDescriptorsMax - 1);
inline constexpr ArgLimit kExporterListener =
    arg_is(0, static_cast<std::uint64_t>(ExporterFd::kListener));
inline constexpr ArgLimit kExporterEvents =
    arg_is(0, static_cast<std::uint64_t>(ExporterFd::kEvents));
// Of receiving and of sending: they differ in the lowest bit.
inline constexpr ArgLimit kExporterTimeLimit = arg_with(2, SO_RCVTIMEO, 1);
static_assert(SO_SNDTIMEO == (SO_RCVTIMEO | 1));
inline constexpr std::uint64_t kPrivateMemory = MAP_PRIVATE | MAP_ANONYMOUS;

inline constexpr SyscallRule kExporterSyscalls[] = {
    // --- whoever asks ----------------------------------------------------------------------------
    {SYS_epoll_wait, {kExporterEvents}, "broker/exporter/http.cpp: turn"},
    {SYS_epoll_ctl, {kExporterEvents}, "broker/exporter/http.cpp: turn"},
    {SYS_accept4,
     {kExporterListener, arg_is(3, SOCK_CLOEXEC | SOCK_NONBLOCK)},
     "broker/exporter/http.cpp: turn"},
    // From whom it came nobody asks: no room for an address.
    {SYS_recvfrom, {kExporterAnyFd, arg_is(3, 0), arg_is(4, 0)}, "broker/exporter/http.cpp: turn"},
    // The rest of a page that a slow client's buffer had no room for; to nobody but that client.
    {SYS_sendto,
     {kExporterAnyFd, arg_within(3, MSG_NOSIGNAL | MSG_MORE), arg_is(4, 0), arg_is(5, 0)},
     "broker/exporter/http.cpp: turn"},
    {SYS_setsockopt,
     {kExporterAnyFd, arg_is(1, IPPROTO_TCP), arg_is(2, TCP_NODELAY)},
     "broker/exporter/http.cpp: turn"},
    {SYS_shutdown,
     {kExporterAnyFd, arg_at_most(1, SHUT_RDWR)},
     "broker/exporter/http.cpp: cut_off_late"},
    {SYS_close, {kExporterAnyFd}, "common/fd.h: reset"},

    // --- the broker ------------------------------------------------------------------------------
    // No other kind of socket: devices' are of streams, and there is no network to reach.
    {SYS_socket,
     {arg_is(0, AF_UNIX), arg_is(1, SOCK_SEQPACKET | SOCK_CLOEXEC), arg_is(2, 0)},
     "broker/control/client.cpp: connect"},
    {SYS_setsockopt,
     {kExporterAnyFd, arg_is(1, SOL_SOCKET), kExporterTimeLimit},
     "broker/control/client.cpp: limit_waiting"},
    {SYS_connect,
     {kExporterAnyFd, arg_is(2, sizeof(sockaddr_un))},
     "broker/control/client.cpp: connect"},
    // To whoever asks, too.
    {SYS_sendmsg,
     {kExporterAnyFd, arg_within(2, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE)},
     "common/ipc/channel.cpp: send_bytes"},
    {SYS_recvmsg,
     {kExporterAnyFd, arg_within(2, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)},
     "common/ipc/channel.cpp: receive"},

    // --- memory: a page is as long as there are devices ------------------------------------------
    {SYS_brk, {}, "broker/exporter/main.cpp: read_page"},
    {SYS_mmap,
     {arg_within(2, PROT_READ | PROT_WRITE), arg_is(3, kPrivateMemory)},
     "broker/exporter/main.cpp: read_page"},
    {SYS_munmap, {}, "broker/exporter/main.cpp: read_page"},
};

// What a whole run may do without.
inline constexpr SyscallRule kExporterByChance[] = {
    // Hosts without a usable vDSO.
    {SYS_clock_gettime, {}, "broker/exporter/http.cpp: turn"},
    // Why it ends.
    {SYS_write,
     {arg_is(0, static_cast<std::uint64_t>(ExporterFd::kLog))},
     "broker/exporter/main.cpp: complain"},
    {SYS_exit_group, {kExitCode}, "broker/exporter/main.cpp: leave"},
};

inline constexpr int kExporterFds[] = {0, 1, static_cast<int>(ExporterFd::kLog),
                                       static_cast<int>(ExporterFd::kListener),
                                       static_cast<int>(ExporterFd::kEvents)};

inline constexpr Profile kExporter{
    .name = "exporter",
    .may = "answer HTTP on one socket, and ask the operator's socket for what is counted",
    .must_never = "hold anything of a device or a guest, open, reach a network, fork, exec",
    .syscalls = kExporterSyscalls,
    .uring_opcodes = {},
    .descriptors = kExporterFds,
    .by_chance = kExporterByChance,
};

}  // namespace policy
