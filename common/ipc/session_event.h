// common/ipc/session_event.h: what a session can tell an operator, as codes.
//
// Each code has one sentence in broker/event_text.cpp, with the remedy where users make that
// mistake; `numbers` are filled into it in the order given here. Adding a code: here, there, and in
// the test that names it.
#pragma once

#include <cstdint>

namespace common::ipc {

// How a session ends: also its exit code.
enum class SessionExit : int {
  kPeerClosed = 0,  // The VMM closed the connection.
  kViolation = 10,  // The front-end broke the protocol; an EventCode said how.
  kBrokerGone = 11,
  kPosture = 12,    // A layer of the jail is missing and strict was asked for.
  kHostFault = 13,  // Setting up failed.
};

enum class EventCode : std::uint32_t {
  kNone = 0,

  // Violations: the session ends after one of these. First number: the request's id.
  kBadVersion = 1,       // request, flags word
  kUnknownRequest,       // request
  kPayloadSize,          // request, size, expected (0 where it varies)
  kTooManyFds,           // request, count, most allowed
  kTooFewFds,            // request, count, least needed
  kFdsTruncated,         // request: more descriptors than any message may carry
  kClosedMidMessage,     // request (0: in a header), bytes got, bytes wanted
  kBadQueueIndex,        // request, index, queues
  kBadQueueSize,         // request, index, size
  kBadVringBase,         // request, index, base
  kBadFeatures,          // request, bits that were not offered
  kBadProtocolFeatures,  // request, bits that were not offered
  kBadFdType,            // request, queue or region, st_mode
  kBadConfigRange,       // request, offset, size
  kConfigNotWritable,    // request, offset, size: refused, and here the session goes on
  kRegionCount,          // request, count, descriptors that came
  kRegionOverlaps,       // request, guest address, size
  kRegionWraps,          // request, guest address, size
  kRegionEmpty,          // request, guest address
  kRegionBeyondFile,     // request, offset + size, file size
  kRegionNotFound,       // request, guest address, size
  kRegionTooMany,        // request, count
  kNoMemory,             // queue: a ring starts and no memory was shared
  kRingUnmapped,         // queue, part (0 desc, 1 avail, 2 used), address
  kRingMisaligned,       // queue, part, address
  kNotNegotiated,        // request: needs a protocol feature that was not acknowledged
  kReplyFailed,          // request, errno
  kBadStatus,            // request, status
  kBadInflight,          // request, field (0 queues, 1 queue size, 2 size, 3 offset), value
  kLogBeyondFile,        // offset, size, file size: of a migration's log
  kLogTooSmall,          // queue, bytes needed, bytes: likewise

  // Information: the session goes on.
  kConnected = 100,  // features, protocol features
  kQueueFault,       // queue, WorkerFault, detail: the guest broke a ring
  kQueueDied,        // queue, outcome
  kQueueNotStarted,  // queue, WorkerFault, detail: the worker refused what it was given
  kDeviceReset,      //
  kIgnoredRequest,   // request: legal and without effect here
  kRefusedRequest,   // request, errno: answered with an error
  kConfigNotTold,    // : the front-end has no channel on which to hear of a new configuration
  kDirtyLog,         // 1: a migration's log is kept from now on; 0: no more
  kEventsDropped,    // count: more events than the limit for one session
};

}  // namespace common::ipc
