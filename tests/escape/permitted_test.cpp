// tests/escape/permitted_test.cpp: what is permitted works in the jail, and what a ring or a limit
// refuses is refused with an error, not with a death.
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>

#include <cerrno>
#include <string>
#include <vector>

#include "policy/session.h"
#include "policy/worker_blk.h"
#include "policy/worker_net.h"
#include "tests/escape/run_escapee.h"

namespace escape {
namespace {

using policy::kSession;
using policy::kWorkerBlkFallback;
using policy::kWorkerBlkUring;
using policy::kWorkerNetControl;
using policy::kWorkerNetReceiveFallback;
using policy::kWorkerNetReceiveUring;
using policy::kWorkerNetTransmitFallback;
using policy::kWorkerNetTransmitUring;

struct Case {
  const char* name;
  const policy::Profile* profile;
  EscapeOrder order;
  std::int64_t result;
};
void PrintTo(const Case& each, std::ostream* out) { *out << each.name; }

constexpr int kKick = 0;
constexpr int kCall = 1;
constexpr int kDisk = 2;

std::vector<Case> every_case() {
  const auto call = [](std::uint64_t number, std::array<std::uint64_t, 6> arguments) {
    return try_system_call(number, arguments);
  };
  constexpr std::uint8_t kFixed = IOSQE_FIXED_FILE;
  return {
      // Sealed, and still able to work.
      {"FallbackRingsTheCall", &kWorkerBlkFallback, call(SYS_write, {9, kScratch, 8}), 8},
      {"FallbackFindsNoKick", &kWorkerBlkFallback, call(SYS_read, {8, kScratch, 8}), -EAGAIN},
      {"FallbackSyncs", &kWorkerBlkFallback, call(SYS_fdatasync, {5}), 0},
      {"FallbackPunches", &kWorkerBlkFallback,
       call(SYS_fallocate, {5, policy::kPunchHole, 0, 4096}), 0},
      {"SessionFindsNothingToSend", &kSession, call(SYS_sendmsg, {900, kScratch, 0}), -EBADF},
      {"SessionClosesWhatIsOpen", &kSession, call(SYS_close, {3}), 0},
      {"RingReadsTheDisk", &kWorkerBlkUring, try_ring(IORING_OP_READ, kFixed, kDisk), 512},
      {"RingWritesTheDisk", &kWorkerBlkUring, try_ring(IORING_OP_WRITE, kFixed, kDisk), 512},
      {"RingRingsTheCall", &kWorkerBlkUring, try_ring(IORING_OP_WRITE, kFixed, kCall, 8), 8},
      {"RingSyncs", &kWorkerBlkUring, try_ring(IORING_OP_FSYNC, kFixed, kDisk, 0), 0},

      // What the ring's own restrictions refuse: seccomp cannot see it.
      {"RingOpens", &kWorkerBlkUring, try_ring(IORING_OP_OPENAT, kFixed, kDisk), -EACCES},
      {"RingOpensWithoutAFile", &kWorkerBlkUring, try_ring(IORING_OP_OPENAT, 0, -100), -EACCES},
      {"RingMakesASocket", &kWorkerBlkUring, try_ring(IORING_OP_SOCKET, kFixed, 1), -EACCES},
      {"RingConnects", &kWorkerBlkUring, try_ring(IORING_OP_CONNECT, kFixed, kDisk), -EACCES},
      {"RingSends", &kWorkerBlkUring, try_ring(IORING_OP_SENDMSG, kFixed, kDisk), -EACCES},
      {"RingReceives", &kWorkerBlkUring, try_ring(IORING_OP_RECVMSG, kFixed, kDisk), -EACCES},
      {"RingSplices", &kWorkerBlkUring, try_ring(IORING_OP_SPLICE, kFixed, kDisk), -EACCES},
      {"RingUnlinks", &kWorkerBlkUring, try_ring(IORING_OP_UNLINKAT, kFixed, kDisk), -EACCES},
      {"RingStats", &kWorkerBlkUring, try_ring(IORING_OP_STATX, kFixed, kDisk), -EACCES},
      {"RingUpdatesItsFiles", &kWorkerBlkUring, try_ring(IORING_OP_FILES_UPDATE, kFixed, kDisk),
       -EACCES},
      {"RingMessagesAnother", &kWorkerBlkUring, try_ring(IORING_OP_MSG_RING, kFixed, kDisk),
       -EACCES},
      {"RingCommandsADriver", &kWorkerBlkUring, try_ring(IORING_OP_URING_CMD, kFixed, kDisk),
       -EACCES},
      {"RingAdvisesMemory", &kWorkerBlkUring, try_ring(IORING_OP_MADVISE, kFixed, kDisk), -EACCES},
      {"RingDoesNothing", &kWorkerBlkUring, try_ring(IORING_OP_NOP, kFixed, kDisk), -EACCES},
      {"RingReadsAPlainDescriptor", &kWorkerBlkUring, try_ring(IORING_OP_READ, 0, 5), -EACCES},
      {"RingReadsAsynchronously", &kWorkerBlkUring,
       try_ring(IORING_OP_READ, kFixed | IOSQE_ASYNC, kDisk), -EACCES},
      {"RingLinks", &kWorkerBlkUring, try_ring(IORING_OP_READ, kFixed | IOSQE_IO_LINK, kDisk),
       -EACCES},
      {"RingSelectsABuffer", &kWorkerBlkUring,
       try_ring(IORING_OP_READ, kFixed | IOSQE_BUFFER_SELECT, kDisk), -EACCES},
      {"RingReadsASlotThatIsNotThere", &kWorkerBlkUring, try_ring(IORING_OP_READ, kFixed, 3),
       -EBADF},
      {"RingReadsANegativeSlot", &kWorkerBlkUring, try_ring(IORING_OP_READ, kFixed, -1), -EBADF},
      {"RingUsesAnUnknownOpcode", &kWorkerBlkUring, try_ring(200, kFixed, kDisk), -EINVAL},

      // The image cannot grow.
      {"RingWritesBeyondTheDisk", &kWorkerBlkUring,
       try_ring(IORING_OP_WRITE, kFixed, kDisk, 512, kDiskBytes), -EFBIG},
  };
}

// Network workers: their own way, and not the other.
std::vector<Case> every_net_case() {
  const auto call = [](std::uint64_t number, std::array<std::uint64_t, 6> arguments) {
    return try_system_call(number, arguments);
  };
  constexpr std::uint8_t kFixed = IOSQE_FIXED_FILE;
  return {
      {"ReceiveReadsTheTap", &kWorkerNetReceiveFallback, call(SYS_readv, {5, kScratch, 1}), 0},
      {"ReceiveRingsTheCall", &kWorkerNetReceiveFallback, call(SYS_write, {9, kScratch, 8}), 8},
      {"TransmitWritesTheTap", &kWorkerNetTransmitFallback, call(SYS_writev, {5, kScratch, 1}), 0},
      {"TransmitRingsTheCall", &kWorkerNetTransmitFallback, call(SYS_write, {9, kScratch, 8}), 8},
      {"ControlAsksTheBroker", &kWorkerNetControl, call(SYS_write, {5, kScratch, 416}), 416},
      {"ControlHasNoAnswerYet", &kWorkerNetControl, call(SYS_read, {5, kScratch, 16}), -EAGAIN},
      {"ReceiveRingRingsTheCall", &kWorkerNetReceiveUring,
       try_ring(IORING_OP_WRITE, kFixed, kCall, 8), 8},
      {"ReceiveRingWritesInPieces", &kWorkerNetReceiveUring,
       try_ring(IORING_OP_WRITEV, kFixed, kDisk, 1), -EACCES},
      {"ReceiveRingReadsNothing", &kWorkerNetReceiveUring,
       try_ring(IORING_OP_READ, kFixed, kDisk, 0), 0},
      {"TransmitRingWritesTheTap", &kWorkerNetTransmitUring,
       try_ring(IORING_OP_WRITEV, kFixed, kDisk, 1), 0},
      {"TransmitRingReadsTheTap", &kWorkerNetTransmitUring, try_ring(IORING_OP_READ, kFixed, kDisk),
       -EACCES},
      {"TransmitRingReadsTheTapInPieces", &kWorkerNetTransmitUring,
       try_ring(IORING_OP_READV, kFixed, kDisk, 1), -EACCES},
      {"TransmitRingReceivesFromTheTap", &kWorkerNetTransmitUring,
       try_ring(IORING_OP_RECVMSG, kFixed, kDisk, 1), -EACCES},
      {"TransmitRingCommandsTheTap", &kWorkerNetTransmitUring,
       try_ring(IORING_OP_URING_CMD, kFixed, kDisk), -EACCES},
      {"TransmitRingSyncs", &kWorkerNetTransmitUring, try_ring(IORING_OP_FSYNC, kFixed, kDisk, 0),
       -EACCES},
      {"TransmitRingSplices", &kWorkerNetTransmitUring, try_ring(IORING_OP_SPLICE, kFixed, kDisk),
       -EACCES},
  };
}

class PermittedCall : public testing::TestWithParam<Case> {};

TEST_P(PermittedCall, ComesBack) {
  auto escapee = Escapee::start({.profile = GetParam().profile}, GetParam().order);
  ASSERT_TRUE(escapee);
  ASSERT_EQ(escapee->wait(), kCameBack);
  EXPECT_EQ(escapee->result(), GetParam().result);
}

INSTANTIATE_TEST_SUITE_P(JailedNet, PermittedCall, testing::ValuesIn(every_net_case()),
                         [](const auto& each) { return each.param.name; });
INSTANTIATE_TEST_SUITE_P(Jailed, PermittedCall, testing::ValuesIn(every_case()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace escape
