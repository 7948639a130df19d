// broker/audit/event.h: the schema of the audit trail: what can happen, and what is said of it. The
// sinks (trail.h) only write it down: each event as a line of JSON (json_line.h), and those that
// libvirt has a form for as records of the kernel's audit log (kernel_text.h).
//
// Not trusted: every text in an event. A path, a label, a process's name may hold any byte; how a
// sink writes it so that nobody forges a record by it is that sink's to know.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/audit/digest.h"

namespace broker::audit {

// Of kNames in event.cpp: "vmm-connected". Readers know events by name, so a name never changes its
// meaning; new ones may come.
inline constexpr int kSchemaVersion = 1;

enum class Kind : std::uint8_t {
  // The broker's own.
  kAuditOpened,  // The first in each run, and in each file.
  kBrokerStarted,
  kBrokerStopped,
  kBrokerTookOver,  // What another had started goes on under this one.
  kBrokerLeft,      // And this is the end of that other.
  kProcessAdopted,
  kEventsDropped,  // A device's peers caused too many of a kind.
  kEventsLost,     // A sink could not take them.
  kPostureRefused,
  // The operator's.
  kDeviceAdded,
  kDeviceRefused,
  kDeviceRemoved,
  kBackingOpened,
  kBackingChanged,
  kLimitChanged,
  kOperatorRequest,
  kOperatorRefused,
  // A VMM's or a guest's: bounded in rate.
  kVmmConnected,
  kVmmRefused,
  kVmmDisconnected,
  kVmmViolation,
  kSessionStarted,
  kSessionFailed,
  kSessionEnded,
  kWorkerStarted,
  kWorkerFailed,
  kWorkerEnded,
  kWorkerRestarted,
  kProcessJailed,
  kPolicyViolation,
  kQueueGivenUp,
  kCount,
};
inline constexpr std::size_t kKindCount = static_cast<std::size_t>(Kind::kCount);

// Whether somebody asked for something, and got it.
enum class Ruling : std::uint8_t { kNoted, kGranted, kRefused };

[[nodiscard]] std::string_view name_of(Kind kind) noexcept;
[[nodiscard]] Ruling ruling_of(Kind kind) noexcept;
[[nodiscard]] std::string_view name_of(Ruling ruling) noexcept;
// Somebody untrusted can cause it as often as he likes.
[[nodiscard]] bool by_peer(Kind kind) noexcept;
// In words, with {key} for values; a part in [] is left out where one of its values is missing.
[[nodiscard]] std::string_view sentence_of(Kind kind) noexcept;
[[nodiscard]] std::optional<Kind> kind_named(std::string_view name) noexcept;

enum class Key : std::uint8_t {
  kDevice,
  kType,
  kVm,
  kUuid,
  kTenant,
  kSchema,
  kVersion,
  kSink,
  kTornBytes,  // Of an event that was cut off by a crash, before this one.
  kPid,
  kUid,
  kGid,
  kComm,
  kLabel,
  kSocket,
  kPath,  // As the kernel knows it, links resolved.
  kInode,
  kDev,   // MAJOR:MINOR of what it lies on.
  kRdev,  // MAJOR:MINOR of what it is, where it is a device.
  kAccess,
  kInterface,
  kMac,
  kRole,
  kQueue,
  kEngine,
  kFilter,  // SHA-256 of its seccomp filter.
  kEnforced,
  kDegraded,
  kAbsent,
  kOutcome,
  kCause,
  kMilliseconds,
  kLimit,
  kOld,
  kNew,
  kCommand,
  kKind,
  kAmount,
  kCount,
};
inline constexpr std::size_t kKeyCount = static_cast<std::size_t>(Key::kCount);
[[nodiscard]] std::string_view name_of(Key key) noexcept;

// What is longer is cut off, and ends with kCut.
inline constexpr std::size_t kPathBytesMax = 4096;
inline constexpr std::size_t kTextBytesMax = 1024;
inline constexpr std::string_view kCut = "...";

// Whose event it is.
struct Subject {
  std::string device;
  std::string type;  // "blk"
  std::string vm;    // As its manager calls it; may be empty, and so may uuid and tenant.
  std::string uuid;
  std::string tenant;
};

class Event {
 public:
  struct Field {
    Key key;
    bool number;
    std::string text;  // In decimal, where it is a number.
  };

  explicit Event(Kind kind) : kind_(kind) {}

  // Each key once. An empty text says nothing, and is left out.
  void add(Key key, std::string_view text);
  void add(Key key, std::uint64_t number);
  Event&& with(Key key, std::string_view text) &&;
  Event&& with(Key key, std::uint64_t number) &&;
  Event&& with(Key key, const Digest& digest) &&;
  // Before the others.
  void about(const Subject& subject);

  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  [[nodiscard]] std::span<const Field> fields() const noexcept { return fields_; }
  // Empty where the event does not say.
  [[nodiscard]] std::string_view value(Key key) const noexcept;

 private:
  Kind kind_;
  std::vector<Field> fields_;
};

[[nodiscard]] Event about(const Subject& subject, Event event);

// "8:1"
[[nodiscard]] std::string device_number_text(std::uint64_t device);

}  // namespace broker::audit
