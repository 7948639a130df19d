// common/ipc/session_broker.h: every message between a session and the broker.
//
// Trust: a session parses what a VMM sends, so the broker treats it as hostile. No message names a
// device, a path or a VM: the broker knows for which device it started this session, and a session
// that could choose could choose wrongly.
#pragma once

#include <array>
#include <cstdint>

#include "common/ipc/message.h"
#include "common/ipc/session_event.h"

namespace common::ipc {

// Descriptors of a session at exec. It keeps the first two; the status page is mapped and closed.
// Every later descriptor comes over one of its sockets.
enum class SessionFd : int {
  kBroker = 3,  // Packets: this file.
  kVmm = 4,     // Stream: vhost-user.
  kStatusPage = 5,
};

inline constexpr std::size_t kConfigBytesMax = 256;

// broker to session, once, after JailOrder. What the device is: the session knows no device types.
struct SessionStart {
  static constexpr std::uint32_t kKind = 0x101;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t device_kind;      // DeviceKind.
  std::uint64_t device_features;  // All virtio bits offered; the session adds vhost-user's own.
  std::uint32_t queues_max;       // Virtqueues there can be: GET_QUEUE_NUM.
  std::uint32_t queue_size_max;
  std::uint32_t config_bytes;        // How many of `config` are the device's; zeros follow.
  std::uint32_t writable_offset;     // The bytes of `config` that SET_CONFIG may change:
  std::uint32_t writable_bytes;      // at most 8 of them (the cache mode of a disk).
  std::uint32_t call_swap_in_place;  // 1: SwapCall works; 0: a new call eventfd needs a new worker.
  std::uint64_t writable_needs;  // Without these features a driver reads the writable bytes as 0.
  // vhost-user's protocol features that not every device type has, as masks: RARP and MTU. The
  // session offers them beside its own.
  std::uint64_t protocol_features = 0;
  std::uint32_t mtu_max = 0;         // NET_SET_MTU beyond it is refused; only with that feature.
  std::uint32_t wants_features = 0;  // 1: DriverFeatures is to be sent.
  std::array<std::uint8_t, kConfigBytesMax> config;
};
static_assert(Message<SessionStart>);

// session to broker, where SessionStart::wants_features is 1: the virtio bits that the driver has
// acknowledged (vhost-user's own removed). Sent before the first OpenQueue that follows them and
// again whenever they have changed by then, so what has to be done to the host's side (a tap's
// offloads) is done before a worker runs.
struct DriverFeatures {
  static constexpr std::uint32_t kKind = 0x10b;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t unused = 0;
  std::uint64_t features;
};
static_assert(Message<DriverFeatures>);

// session to broker: NET_SET_MTU, which a front-end sends before it starts the rings. Already
// checked: between net::kMtuMin and SessionStart::mtu_max. For the workers that start from now on.
struct HostMtu {
  static constexpr std::uint32_t kKind = 0x10c;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t mtu;
};
static_assert(Message<HostMtu>);

// session to broker: SEND_RARP. A guest that cannot announce itself has moved here: tell the
// network where `mac` is now. The broker builds the frame; these six bytes are all that it takes.
struct SendRarp {
  static constexpr std::uint32_t kKind = 0x10d;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::array<std::uint8_t, 6> mac;
  std::array<std::uint8_t, 2> unused;
};
static_assert(Message<SendRarp>);

// session to broker. Start a worker for this queue of my device. Answered by QueueOpened, or by
// QueueEnded if that failed. At most one worker per queue: a second OpenQueue ends the session.
struct OpenQueue {
  static constexpr std::uint32_t kKind = 0x102;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t queue;
};
static_assert(Message<OpenQueue>);

// broker to session, one descriptor: our end of a packet socket whose other end the new worker
// holds. The guest memory and the eventfds go over it, so they never pass through the broker.
struct QueueOpened {
  static constexpr std::uint32_t kKind = 0x103;
  static constexpr std::size_t kFdsMin = 1;
  static constexpr std::size_t kFdsMax = 1;
  std::uint32_t kind = kKind;
  std::uint32_t queue;
};
static_assert(Message<QueueOpened>);

// session to broker. The worker has told the session that it is sealed and serves: for the log.
struct QueueServing {
  static constexpr std::uint32_t kKind = 0x104;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t queue;
};
static_assert(Message<QueueServing>);

// session to broker. Let that worker finish what it has taken and end. Answered by QueueEnded (once
// only, even where the worker ended by itself meanwhile).
struct CloseQueue {
  static constexpr std::uint32_t kKind = 0x105;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t queue;
};
static_assert(Message<CloseQueue>);

// broker to session. The worker is gone and reaped. `next_avail` is how far it had got by its own
// word (a number the worker chose: hostile if the worker was); not valid where `outcome` is
// kNotStarted.
struct QueueEnded {
  static constexpr std::uint32_t kKind = 0x106;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t queue;
  std::uint32_t outcome;  // QueueOutcome.
  std::uint32_t next_avail;
};
static_assert(Message<QueueEnded>);

enum class QueueOutcome : std::uint32_t {
  kStopped = 0,     // Drained on request.
  kGuestFault = 1,  // The guest broke the ring: the queue stays stopped until it is started anew.
  kDied = 2,        // Killed, crashed, or a fault of the host: what it had taken is not answered.
                    // Another may be started; the broker has waited as long as it wants to.
  kNotStarted = 3,  // The broker could not start it.
  kGaveUp = 4,      // Like kDied, and no other is to be started: it happened too often, or it was a
                    // violation of the jail (--on-worker-violation=stop).
};

// session to broker, one descriptor: the new call eventfd of a running worker, to be put in the old
// one's place. Only where SessionStart said call_swap_in_place. Answered by CallSwapped always.
struct SwapCall {
  static constexpr std::uint32_t kKind = 0x107;
  static constexpr std::size_t kFdsMin = 1;
  static constexpr std::size_t kFdsMax = 1;
  std::uint32_t kind = kKind;
  std::uint32_t queue;
};
static_assert(Message<SwapCall>);

// broker to session. `swapped` 1: the worker rings the new eventfd from now on (and has rung it
// once already, in case the old one swallowed an interrupt). 0: it could not be done; replace the
// worker.
struct CallSwapped {
  static constexpr std::uint32_t kKind = 0x108;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t queue;
  std::uint32_t swapped;
  std::uint32_t unused = 0;
};
static_assert(Message<CallSwapped>);

// session to broker, for the log only: something happened that an operator should read about. Codes
// and numbers, never text: a hijacked session can choose among our sentences, not write its own.
struct SessionEvent {
  static constexpr std::uint32_t kKind = 0x109;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t code;  // EventCode.
  std::array<std::uint64_t, 3> numbers;
};
static_assert(Message<SessionEvent>);

// broker to session: the device's configuration space has changed (a resize). The session tells the
// front-end over its back-end channel where there is one.
struct ConfigChanged {
  static constexpr std::uint32_t kKind = 0x10a;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t config_bytes;
  std::array<std::uint8_t, kConfigBytesMax> config;
};
static_assert(Message<ConfigChanged>);

// session to broker: make a file of shared memory for in-flight records (inflight_wire.h); a sealed
// session cannot. Answered by InflightMade. Neither maps it.
struct MakeInflight {
  static constexpr std::uint32_t kKind = 0x110;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t unused = 0;
  std::uint64_t bytes;
};
static_assert(Message<MakeInflight>);

// broker to session: the file, all zeros, of exactly that size for ever. Without a descriptor: it
// could not be made.
struct InflightMade {
  static constexpr std::uint32_t kKind = 0x111;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 1;
  std::uint32_t kind = kKind;
  std::uint32_t unused = 0;
};
static_assert(Message<InflightMade>);

// broker to session: I am another broker, the one before me is gone; say where we are. All that was
// asked before the answer, and not answered, is void.
struct Resume {
  static constexpr std::uint32_t kKind = 0x112;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t version = kIpcVersion;  // What that broker speaks.
  std::uint64_t turn = 0;  // Comes back: the answer to one that has died meanwhile has another.
};
static_assert(Message<Resume>);

// What a session believes of the worker of one queue.
enum class QueuePhase : std::uint8_t {
  kNone = 0,      // There is none.
  kOpening = 1,   // OpenQueue is not answered: asked for again, by this.
  kStarting = 2,  // It has its orders and has not said yet that it serves.
  kServing = 3,
  kClosing = 4,  // CloseQueue is not answered: asked for again, by this.
};
inline constexpr std::size_t kPhasesMax = 136;  // kQueuesMax, in whole words.

// session to broker: the answer. What the broker has to know before it starts a worker
// (DriverFeatures, HostMtu) is said again before it (version 3), and what else is not answered
// (SwapCall, MakeInflight) after it.
struct Resumed {
  static constexpr std::uint32_t kKind = 0x113;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t version = kIpcVersion;  // What is spoken: no newer than the broker's.
  std::uint64_t turn = 0;
  std::array<std::uint8_t, kPhasesMax> phases = {};  // QueuePhase, of each queue.
};
static_assert(Message<Resumed>);

// broker to session: replace the worker of this queue, if it has one, as if its ring had changed.
struct ReplaceWorker {
  static constexpr std::uint32_t kKind = 0x114;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t queue;
};
static_assert(Message<ReplaceWorker>);

}  // namespace common::ipc
