// common/ipc/jail_order.h: the first packet of every jailed process, from the broker.
//
// Trust: the broker wrote it into the socket before anyone else held the other end, so a session or
// worker may believe it. Nothing that comes later on that socket is believed.
#pragma once

#include <array>
#include <cstdint>

#include "common/ipc/message.h"
#include "common/layers.h"

namespace common::ipc {

// One classic BPF instruction, bit for bit a kernel `struct sock_filter`.
struct FilterInstruction {
  std::uint16_t code;
  std::uint8_t jump_true;
  std::uint8_t jump_false;
  std::uint32_t operand;
};
inline constexpr std::size_t kFilterInstructionsMax = 240;

// Where a process hands over its listener, with --forensic (policy/forensic.h).
inline constexpr int kForensicFd = 15;

// jailed process to broker, over kForensicFd, once: the descriptor that tells of system calls.
struct ForensicListener {
  static constexpr std::uint32_t kKind = 0x002;
  static constexpr std::size_t kFdsMin = 1;
  static constexpr std::size_t kFdsMax = 1;
  std::uint32_t kind = kKind;
  std::uint32_t unused = 0;
};
static_assert(Message<ForensicListener>);

struct JailOrder {
  static constexpr std::uint32_t kKind = 0x001;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t version = kIpcVersion;
  std::uint32_t strict;      // 1: end with WorkerFault::kPosture unless every layer holds.
  std::uint32_t namespaces;  // CLONE_NEW* that the broker's clone() has given us.
  std::uint32_t uid;         // Without a user namespace: the uid and gid to become; else unused.
  std::uint32_t gid;
  std::uint32_t change_ids;  // 1: uid and gid above are to be taken on.
  std::uint32_t probe;       // 1: take on the whole jail, seal, and exit: the broker is looking
                             // what this host allows.
  std::uint32_t filter_count;
  std::uint32_t same_uid =
      0;  // 1: our uid outside is the broker's own, who could not give another.
  std::uint32_t outlives_broker = 0;  // 1: it is no reason to end that the broker does.
  // With --forensic, how many instructions of a second filter follow the first; else 0.
  std::uint32_t closing_count = 0;
  std::uint32_t in_cgroup = 0;     // 1: born in a cgroup of its device with limits.
  CoreScheduling core_scheduling;  // kRequired: end with WorkerFault::kPosture without a cookie.
  std::int32_t core_refusal = 0;   // An errno: why a worker is promised no cookie.
  // A worker's: how many of WorkerFd::kRates and kGroupRates are there (rate_page.h).
  std::uint32_t rate_memories = 0;
  std::uint64_t core_cookie = 0;  // The session's, which the broker has given us; 0: make one.
  std::array<FilterInstruction, kFilterInstructionsMax> filter;
};
static_assert(Message<JailOrder>);

}  // namespace common::ipc
