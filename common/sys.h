// common/sys.h: the system calls that make descriptors or wait for them, each returning a Result.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "common/fd.h"
#include "common/result.h"

namespace common {

// CLOEXEC and non-blocking.
[[nodiscard]] Result<Fd> make_eventfd() noexcept;

// Anonymous memory of exactly `bytes`, sealed against shrinking and growing, so that whoever maps
// it cannot be killed by the other side's ftruncate(). `name` shows in /proc/PID/maps.
[[nodiscard]] Result<Fd> make_sealed_memfd(const char* name, std::uint64_t bytes) noexcept;

// A connected pair of SOCK_SEQPACKET sockets, CLOEXEC, blocking.
[[nodiscard]] Result<std::pair<Fd, Fd>> make_packet_pair() noexcept;

// Another descriptor for the same open file, CLOEXEC, numbered `lowest` or above.
[[nodiscard]] Result<Fd> duplicate(FdRef fd, int lowest = 0) noexcept;

[[nodiscard]] Result<void> set_nonblocking(FdRef fd, bool on) noexcept;

}  // namespace common
