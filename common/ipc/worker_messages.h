// common/ipc/worker_messages.h: what a worker is told, by the broker first and then by the session.
//
// One packet socket. The broker writes JailOrder and the device's start message into it, then hands
// the other end to the session: so the worker believes these two, and from then on nothing.
#pragma once

#include <array>
#include <cstdint>

#include "common/ipc/message.h"
#include "common/virtio_blk_wire.h"
#include "common/virtio_net_wire.h"

namespace common::ipc {

// Descriptors of a worker at exec, before it seals itself. policy/worker_*.h says what is left.
enum class WorkerFd : int {
  kControl = 3,  // Packets: this file.
  kStatusPage = 4,
  kDevice = 5,          // The disk (or the tap queue).
  kEngine = 6,          // io_uring: the ring. Fallback: as kStop.
  kDeviceBuffered = 7,  // Only where BlkStart::has_buffered: the same disk without O_DIRECT.
  // io_uring: the reading end of a pipe, for whoever does not have the ring. Readable means stop,
  // and so does its end: then there is neither a broker nor a keeper any more.
  kStop = 8,
  kRates = 9,        // JailOrder::rate_memories: memory of the device's rate limits,
  kGroupRates = 10,  // and of its group's.
};

// broker to worker, after JailOrder.
struct BlkStart {
  static constexpr std::uint32_t kKind = 0x201;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t engine;            // EngineKind.
  std::uint64_t capacity_sectors;  // 512-byte sectors; requests beyond are refused.
  std::uint32_t read_only;         // 1: the descriptor cannot write either.
  std::uint32_t direct;            // 1: kDevice is O_DIRECT.
  std::uint32_t memory_alignment;  // Bytes: what O_DIRECT asks of buffer addresses.
  std::uint32_t offset_alignment;  // Bytes: what O_DIRECT asks of offsets and lengths.
  std::uint32_t has_buffered;      // 1: kDeviceBuffered is there for what is not aligned.
  std::uint32_t discard;           // 1: offered.
  std::uint32_t write_zeroes;      // 1: offered.
  std::uint32_t block_device;      // 1: a block device, not a regular file.
  std::uint32_t poll_us;           // Longest busy poll before sleeping; 0 for none.
  std::uint32_t tsc_per_us;        // Ticks of the CPU's time stamp counter per microsecond.
  std::array<std::uint8_t, blk::kIdBytes> serial;
  std::uint32_t unused = 0;
};
static_assert(Message<BlkStart>);

// What one virtqueue of a network card is for (virtio 1.2, 5.1.2).
enum class NetRole : std::uint32_t { kReceive = 0, kTransmit = 1, kControl = 2 };

// Pair i has virtqueues 2i and 2i + 1; the control virtqueue follows the last pair, or the first
// where MQ was not negotiated.
[[nodiscard]] constexpr NetRole net_role(std::uint32_t queue, std::uint32_t pairs_max,
                                         std::uint64_t driver_features) noexcept {
  const std::uint32_t pairs = (driver_features & net::kFeatureMq) != 0 ? pairs_max : 1;
  const bool control = queue == 2 * pairs && (driver_features & net::kFeatureCtrlVq) != 0;
  return control ? NetRole::kControl : static_cast<NetRole>(queue % 2);
}

// broker to worker, after JailOrder.
//
// WorkerFd::kDevice of a receive or transmit worker is the tap queue of its pair: with a header of
// 12 bytes before each packet (IFF_VNET_HDR, TUNSETVNETHDRSZ 12), little endian (TUNSETVNETLE where
// the host is not), O_NONBLOCK. EngineKind::kIoUring only where the tap takes RWF_NOWAIT (Linux
// 6.4): pwritev2() of one byte with it fails with EINVAL there, and with EOPNOTSUPP where not.
// A control worker has no tap and no ring: its kDevice is a packet socket to the broker, which
// carries NetControl one way and NetControlDone the other, and its engine is kFallback.
struct NetStart {
  static constexpr std::uint32_t kKind = 0x206;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t engine;      // EngineKind.
  std::uint32_t role;        // NetRole.
  std::uint32_t pairs;       // Most pairs of queues: what a driver may ask to use.
  std::uint32_t mtu;         // As the configuration space has it; 0: MTU is not offered.
  std::uint32_t poll_us;     // Longest busy poll before sleeping; 0 for none.
  std::uint32_t tsc_per_us;  // Ticks of the CPU's time stamp counter per microsecond.
  std::uint32_t unused = 0;
};
static_assert(Message<NetStart>);

// What a guest asks of its card by the control virtqueue, as far as the broker has to do it.
enum class NetCommand : std::uint32_t {
  kPairs = 1,     // `value`: how many pairs are to be used, 1 to NetStart::pairs.
  kOffloads = 2,  // `value`: of net::kGuestOffloads, only what was negotiated.
  // What the guest wants to receive, always as a whole. `value`: bit n is kRx command n (so bit
  // net::kRxPromisc is promiscuous mode). Best effort (5.1.6.5.1): receiving more is allowed.
  kReceiveFilter = 3,
};

// worker to broker, from a control worker only and one at a time. The worker parses what a guest
// wrote: hostile.
inline constexpr std::uint32_t kNetFilterMacsMax = 64;
struct NetControl {
  static constexpr std::uint32_t kKind = 0x207;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t command;  // NetCommand.
  std::uint64_t value;
  net::Mac own_mac;          // kReceiveFilter: what MAC_ADDR_SET said; zeros where it did not.
  std::uint16_t unicasts;    // kReceiveFilter: how many of `macs`, from the start, are unicast,
  std::uint32_t multicasts;  // and how many after them multicast.
  std::uint32_t turn = 0;    // Another one each time: the answer has it, too.
  std::array<net::Mac, kNetFilterMacsMax> macs;
};
static_assert(Message<NetControl>);

// broker to worker: the answer to the NetControl of that turn. One may be answered twice: a broker
// that takes another's place does again what that one may not have answered (version 3).
struct NetControlDone {
  static constexpr std::uint32_t kKind = 0x208;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t accepted;  // 1: done. 0: refused, which the guest is told.
  std::uint32_t turn;
  std::uint32_t unused = 0;
};
static_assert(Message<NetControlDone>);

// broker to worker, after BlkStart or NetStart and only with EngineKind::kIoUring: where the parts
// of the inherited ring are (struct io_sqring_offsets and io_cqring_offsets: only its creator is
// told).
struct UringLayout {
  static constexpr std::uint32_t kKind = 0x205;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t sq_entries, cq_entries, no_sq_array;
  std::uint32_t sq_head, sq_tail, sq_mask, sq_flags, sq_array;
  std::uint32_t cq_head, cq_tail, cq_mask, cq_overflow, cqes;
};
static_assert(Message<UringLayout>);

// session to worker: part of the memory table, and its descriptors in the same order. Sent until
// `first + count == total`.
struct MemoryRegions {
  static constexpr std::uint32_t kKind = 0x202;
  static constexpr std::size_t kFdsMin = 1;
  static constexpr std::size_t kFdsMax = 8;
  struct Region {
    std::uint64_t guest_addr;
    std::uint64_t bytes;
    std::uint64_t file_offset;
  };
  std::uint32_t kind = kKind;
  std::uint32_t total;
  std::uint32_t first;
  std::uint32_t count;
  std::array<Region, kFdsMax> regions;
};
static_assert(Message<MemoryRegions>);

// session to worker, last: the ring. One descriptor for each of has_kick, has_call, has_inflight
// and has_log, in that order. The worker maps, seals itself, answers Serving, and only then looks
// at the ring, at once and without waiting for a kick.
struct RingStart {
  static constexpr std::uint32_t kKind = 0x203;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 4;
  std::uint32_t kind = kKind;
  std::uint32_t queue_size;
  std::uint64_t desc_addr;   // Guest-physical.
  std::uint64_t avail_addr;  // Of a packed ring: the driver's event area,
  std::uint64_t used_addr;   // and the device's.
  std::uint64_t features;    // Acknowledged by the driver.
  std::uint32_t next_avail;  // The index to take next. Of a packed ring: a PackedBase.
  std::uint32_t has_kick;    // 0: the front-end wants the ring polled.
  std::uint32_t has_call;    // 0: the front-end wants no interrupts.
  // Where this queue's part of the in-flight file is (inflight_wire.h), and for how many heads.
  std::uint32_t has_inflight;
  std::uint64_t inflight_offset;
  std::uint32_t inflight_entries;
  // 1: it may know of requests that were taken and not answered. They come first, and where it was
  // in use before, it says better than next_avail what comes after them.
  std::uint32_t inflight_resume;
  std::array<std::uint8_t, 8> writable_config;  // SessionStart's writable bytes, as they are now.
  // 1: the VMM migrates, and its log of written pages (dirty_log_wire.h) is here in that file.
  std::uint32_t has_log;
  // 1: it does not know what those before us have written: mark all of the guest's memory first.
  std::uint32_t log_everything;
  std::uint64_t log_offset;
  std::uint64_t log_bytes;
  std::uint64_t log_used_addr;  // Where the log has the used ring: as a rule, used_addr.
};
static_assert(Message<RingStart>);

// worker to session: sealed; what follows is the guest's. The io_uring worker closes its end before
// it seals, so end-of-file right after Serving is as it should be.
struct Serving {
  static constexpr std::uint32_t kKind = 0x204;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t unused = 0;
};
static_assert(Message<Serving>);

// Why a worker ended, or refused to start; on its status page with two numbers and an errno, and in
// words in broker/event_text.cpp.
enum class WorkerFault : std::uint32_t {
  kNone = 0,

  // The guest broke virtio; the queue stops. Details as noted.
  kAvailJump = 1,          // avail index, ours: further ahead than the ring is long
  kHeadOutsideTable,       // head, queue size
  kIndexOutsideTable,      // index, table entries
  kChainTooLong,           // head, limit: longer than allowed, or it loops
  kUnknownDescFlags,       // flags, head
  kIndirectNotNegotiated,  // head
  kNestedIndirect,         // head
  kIndirectTableSize,      // bytes, head
  kIndirectAndNext,        // head
  kReadableAfterWritable,  // head
  kUnmappedBuffer,         // guest address, length
  kTotalOverflow,          // head
  kNoStatusByte,           // head: no writable byte for the status
  kRequestTooShort,        // bytes readable, head: less than a request header
  kWrongDirection,         // head, role: a chain that cannot be received into, or not sent from
  kBufferTooSmall,         // head, bytes: a receive buffer that does not even hold the header
  kChainNotAvailable,      // place, flags: a packed ring's list goes on where nothing is available

  // What the session passed on was wrong.
  kBadMessage = 100,  // kind, size
  kRingUnmapped,      // part (0 desc, 1 avail, 2 used), guest address
  kKickUnreadable,    // : the kick descriptor is no eventfd
  kMapFailed,         // guest address, bytes
  kInflightUnmapped,  // offset, bytes: the in-flight file cannot be mapped there
  kInflightBroken,    // field (worker/inflight.cpp), value: the in-flight region is not sound
  kLogUnmapped,       // offset, bytes: the file with the migration's log cannot be mapped there
  kLogTooSmall,       // bytes needed, bytes: the log has no bits for some of the guest's memory

  // The host's or ours.
  kEngine = 200,    // step
  kPosture,         // layer
  kJail,            // step
  kCallUnwritable,  //
  kTapGone,         // role: the interface was removed
};

// A worker's exit codes. Everything else (signals, other codes) is a death.
enum class WorkerExit : int {
  kStopped = 0,
  kGuestFault = 20,
  kStartRefused = 21,
  kHostFault = 22,
};

// io_uring engine: the ring's registered files, and what the broker sends into it by MSG_RING. The
// broker puts a new call eventfd into kSlotCall and a completion with kRingCallSwapped with it.
inline constexpr std::uint32_t kSlotKick = 0;
inline constexpr std::uint32_t kSlotCall = 1;
inline constexpr std::uint32_t kSlotDevice = 2;
inline constexpr std::uint32_t kSlotDeviceBuffered = 3;
inline constexpr std::uint32_t kSlotStop = 4;
inline constexpr std::uint32_t kSlotCount = 5;

// user_data of the broker's messages. A worker's own completions have the top byte zero.
inline constexpr std::uint64_t kRingStop = 0xff00'0000'0000'0001ULL;
inline constexpr std::uint64_t kRingCallSwapped = 0xff00'0000'0000'0002ULL;

// How the broker creates a worker's ring, and how the worker maps it.
inline constexpr std::uint32_t kRingEntries = 256;             // Submission queue.
inline constexpr std::uint32_t kRingCompletionEntries = 4096;  // More than can ever be in flight.
inline constexpr std::uint32_t kRingThreads = 4;  // Kernel threads for what would block; one more
                                                  // for what is no file.

}  // namespace common::ipc
