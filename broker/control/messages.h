// broker/control/messages.h: every message between an operator's client and the broker.
//
// The operator's socket in short (the rest of broker/control/ is this):
//
//   client                                    broker
//   command line, files ─▶ command.cpp        server.cpp ─▶ who connects, how many, how often
//                           │ client.cpp       │ requests.cpp: one table, kind by kind
//                           └──one request────▶│ desk.cpp: does it to the fleet
//                             ◀──one answer────┘
//   text, JSON, Prometheus ◀─ …_text.cpp
//
// * A unix SOCK_SEQPACKET socket. One packet is one message, whose type gives its kind and its
// size;
//   all text in it has a fixed room and ends in zeros. So the broker parses nothing: what people
//   write and read is made by the client, which has their rights and no others.
// * Each request gets exactly one answer, and a client's next request is not looked at before that.
//   So an answer always fits into the socket of a client that reads, and there is no queue: one
//   that does not read is dropped, and the broker never waits. What takes long (a device that ends)
//   and what has not happened yet (the next event) is answered late.
// * Lists have no message: each element is asked for by the name of the one before it.
// * Who may: SO_PEERCRED and SO_PEERGROUPS, when it connects. Root, the broker's own user and the
//   members of control_group may change; control_read_group may look; others are told so.
//
// Not trusted: the client. It may be anyone whom the socket lets in.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "broker/latency_totals.h"
#include "broker/stats_report.h"
#include "common/layers.h"
#include "common/rate_page.h"

namespace broker::control {

// Goes up when a message changes its layout or meaning; it stands in every message.
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::size_t kMessageBytesMax = 8192;
inline constexpr const char* kDefaultConfig = "/etc/bulkhead/bulkhead.toml";
inline constexpr const char* kDefaultSocket = "/run/bulkhead/control.sock";

// Text, then zeros to the end; all of the room may be used.
template <std::size_t N>
using Text = std::array<char, N>;
using Name = Text<64>;

template <typename T>
concept Message = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T> &&
                  sizeof(T) <= kMessageBytesMax&& requires(T message) {
  { message.kind } -> std::same_as<std::uint32_t&>;
  { message.version } -> std::same_as<std::uint32_t&>;
  { T::kKind } -> std::convertible_to<std::uint32_t>;
};

// Indexed by common::Rate.
struct RateRecord {
  std::array<std::uint64_t, common::kRateCount> per_second{};  // 0: no limit.
  std::array<std::uint64_t, common::kRateCount> burst{};       // 0: what passes in 100 ms.
};

// --- requests ------------------------------------------------------------------------------------

struct AskStatus {
  static constexpr std::uint32_t kKind = 0x301;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
};
static_assert(Message<AskStatus>);

// Answered by DeviceReply; by Told{kNotFound} where there is none (any more).
struct AskDevice {
  static constexpr std::uint32_t kKind = 0x302;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t next =
      0;  // 1: the first whose name is greater; an empty name is before all others.
  std::uint32_t unused = 0;
  Name name{};
};
static_assert(Message<AskDevice>);

// Answered by SettingsReply.
struct AskSettings {
  static constexpr std::uint32_t kKind = 0x303;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  Name name{};
};
static_assert(Message<AskSettings>);

// A session or worker of that device; without a name the broker itself. Answered by ProcessReply.
struct AskProcess {
  static constexpr std::uint32_t kKind = 0x304;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t index = 0;
  std::uint32_t unused = 0;
  Name name{};
};
static_assert(Message<AskProcess>);

// The first event whose number is greater than `after`. Answered by EventReply; where there is none
// yet, by Told{kNotFound} or, where `wait` is 1, when there is one.
struct AskEvent {
  static constexpr std::uint32_t kKind = 0x305;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint64_t after = 0;
  std::uint32_t wait = 0;
  std::uint32_t unused = 0;
};
static_assert(Message<AskEvent>);

// The first queue of that device whose number is at least `first`. Answered by QueueReply; by
// Told{kNotFound} where there is none, or no such device (any more).
struct AskQueue {
  static constexpr std::uint32_t kKind = 0x306;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t first = 0;
  std::uint32_t unused = 0;
  Name name{};
};
static_assert(Message<AskQueue>);

// Answered by GroupReply, as AskDevice is by DeviceReply.
struct AskGroup {
  static constexpr std::uint32_t kKind = 0x307;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t next = 0;
  std::uint32_t unused = 0;
  Name name{};
};
static_assert(Message<AskGroup>);

// What is done to a device.
enum class Act : std::uint32_t {
  kStop = 0,   // Answered when it is stopped.
  kDrain = 1,  // Answered at once.
  kStart = 2,
  kRemove = 3,     // Answered when it is gone.
  kResize = 4,     // numbers: bytes before, bytes now.
  kDropGroup = 5,  // The name is a group's, which no device is in.
};
inline constexpr std::uint32_t kActCount = 6;

// Answered by Told.
struct Order {
  static constexpr std::uint32_t kKind = 0x310;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t act = 0;
  std::uint32_t force = 0;
  Name name{};
};
static_assert(Message<Order>);

// The broker stops everything and ends, as after SIGTERM. Answered by Told before that.
struct EndBroker {
  static constexpr std::uint32_t kKind = 0x311;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
};
static_assert(Message<EndBroker>);

// Other limits for a device, or for a group of devices. Answered by Told.
struct ChangeLimits {
  static constexpr std::uint32_t kKind = 0x313;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t group = 0;  // 1: `name` is a group's.
  std::uint32_t type = 0;   // common::DeviceKind of which the client has taken it to be.
  Name name{};
  RateRecord change;  // LimitChange: what is kept has all bits set.
};
static_assert(Message<ChangeLimits>);

// A group as a configuration lists it: there from now on, or with these limits. Answered by Told.
struct PutGroup {
  static constexpr std::uint32_t kKind = 0x314;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t type = 0;  // common::DeviceKind.
  std::uint32_t unused = 0;
  Name name{};
  Name tenant{};
  RateRecord limits;
};
static_assert(Message<PutGroup>);

// --- answers -------------------------------------------------------------------------------------

enum class Outcome : std::uint32_t {
  kDone = 0,
  kRefused = 1,  // Who asks may not. The connection ends.
  kNotFound = 2,
  kFailed = 3,     // `text` says why.
  kMalformed = 4,  // Not a message, or one of another version. The connection ends.
};

struct Told {
  static constexpr std::uint32_t kKind = 0x380;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t outcome = 0;
  std::uint32_t unused = 0;
  std::array<std::uint64_t, 2> numbers{};
  Text<1024> text{};  // For people; what does not fit is cut off.
};
static_assert(Message<Told>);

struct StatusReply {
  static constexpr std::uint32_t kKind = 0x381;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t pid = 0;
  std::uint32_t uid = 0;
  std::uint32_t may_change = 0;  // 1: who asks may, too.
  std::uint32_t strict = 0;      // The posture that is required.
  std::uint32_t devices = 0;
  std::uint32_t connected = 0;  // Devices that a VMM uses.
  std::uint32_t workers = 0;
  std::uint32_t clients = 0;
  std::uint32_t adopted = 0;  // Sessions and workers that an earlier broker has started.
  std::uint32_t keeper = 0;   // The pid of what holds all that for the next broker; 0: none.
  std::uint64_t started_unix_s = 0;
  std::uint64_t uptime_ms = 0;
  std::uint64_t descriptors_max = 0;  // RLIMIT_NOFILE.
  Text<32> program_version{};
  Text<256> state_dir{};  // Empty: what is added is not kept.
};
static_assert(Message<StatusReply>);

struct DeviceReply {
  static constexpr std::uint32_t kKind = 0x382;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  Name name{};
  std::uint32_t type = 0;    // common::DeviceKind.
  std::uint32_t state = 0;   // DeviceState.
  std::uint32_t origin = 0;  // Origin.
  std::uint32_t engine = 0;  // common::EngineKind.
  std::uint32_t uid = 0;
  std::uint32_t read_only = 0;
  std::uint32_t queues_max = 0;
  std::uint32_t workers = 0;
  std::uint32_t connected = 0;
  std::uint32_t peer_pid = 0;
  std::uint32_t peer_uid = 0;
  std::uint32_t unused = 0;
  std::uint64_t capacity_bytes = 0;
  std::uint64_t in_flight = 0;
  Name tenant{};
  Name limit_group{};
  RateRecord limits;  // As they are now, which need not be what it was configured with.
  Text<256> vm_name{};
  Text<40> vm_uuid{};
  Text<128> socket_path{};
  Text<512> backing{};  // The image's path or the interface's name; the end of it, where longer.
  std::array<std::uint32_t, common::kLayerCount> layers{};  // LayerResult, bit for bit.
  CounterTotals counters{};
};
static_assert(Message<DeviceReply>);

struct ProcessReply {
  static constexpr std::uint32_t kKind = 0x384;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t pid = 0;
  std::uint32_t has_layers = 0;
  std::uint32_t adopted = 0;  // 1: an earlier broker has started it.
  // As the process found them itself.
  std::array<std::uint32_t, common::kLayerCount> layers{};
};
static_assert(Message<ProcessReply>);

struct GroupReply {
  static constexpr std::uint32_t kKind = 0x386;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t type = 0;  // common::DeviceKind.
  std::uint32_t devices = 0;
  Name name{};
  Name tenant{};
  RateRecord limits;
  RateRecord configured;  // What an operator may have changed since.
};
static_assert(Message<GroupReply>);

// A line of the broker's log.
struct EventReply {
  static constexpr std::uint32_t kKind = 0x385;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint64_t sequence = 0;
  std::uint64_t unix_us = 0;
  std::uint32_t level = 0;  // broker::Level.
  std::uint32_t unused = 0;
  Text<96> subject{};  // A device, perhaps with its queue; empty: the broker itself.
  Text<768> text{};    // What does not fit is cut off.
};
static_assert(Message<EventReply>);

// A queue that has had a worker; its figures are those of all its workers.
struct QueueReply {
  static constexpr std::uint32_t kKind = 0x387;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  Name device{};
  std::uint32_t type = 0;  // common::DeviceKind.
  std::uint32_t queue = 0;
  std::uint32_t role = 0;  // QueueRole.
  std::uint32_t pid = 0;   // Of its worker; 0: it has none now.
  std::uint32_t engine = 0;
  std::uint32_t in_flight = 0;
  std::uint32_t measured = 0;  // Its worker has a clock: else `latency` stays empty.
  std::uint32_t unused = 0;
  std::uint64_t oldest_us = 0;  // How long the oldest request has been in flight.
  std::uint64_t restarts = 0;
  std::uint64_t ring_faults = 0;
  CounterTotals counters{};
  LatencyTotals latency{};
};
static_assert(Message<QueueReply>);

}  // namespace broker::control
