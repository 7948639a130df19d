// common/ipc/keeper_messages.h: every message between a broker and the keeper, which holds on to
// what a broker that dies would lose (broker/keep.h).
//
// Trust: both trust each other with everything that is kept. Nobody else can reach the keeper: its
// socket is the broker's own (mode 0600), and who connects is asked for his uid.
#pragma once

#include <array>
#include <cstdint>

#include "common/ipc/message.h"

namespace common::ipc {

// Descriptors of a keeper at exec.
enum class KeeperFd : int {
  kBroker = 3,  // Packets: this file. Of the broker that has started it.
  kDoor = 4,    // Listens; where the next broker comes in.
  kStatusPage = 5,
};

inline constexpr std::size_t kKeptBytesMax = 1024;
inline constexpr std::uint32_t kKeptThingsMax = 65536;

// What the keeper does about a thing while no broker is there; the rest of it is not the keeper's
// business.
enum class KeptRole : std::uint32_t {
  kPlain = 0,
  kSession = 1,  // The first descriptor is a pidfd. When that process has ended, its group is over:
  kWorker = 2,   // the second descriptor, StopPipe::writing, is used. The first is a pidfd.
};

// broker to keeper: keep this, or have this record from now on. Keeper to broker: the answer to
// KeepGet.
struct KeepThing {
  static constexpr std::uint32_t kKind = 0x301;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = kMessageFdsMax;
  std::uint32_t kind = kKind;
  std::uint32_t role;   // KeptRole.
  std::uint64_t id;     // Not 0. The broker's choice.
  std::uint64_t group;  // 0: of none.
  std::uint32_t record_bytes;
  std::uint32_t update;  // 1: it is there already; its record is replaced, its descriptors stay.
  std::array<std::uint8_t, kKeptBytesMax> record;
};
static_assert(Message<KeepThing>);

// broker to keeper: let go of it.
struct KeepDrop {
  static constexpr std::uint32_t kKind = 0x302;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t unused = 0;
  std::uint64_t id;
};
static_assert(Message<KeepDrop>);

// broker to keeper: the thing with the lowest id above `after`. Answered by KeepThing, whose
// descriptors are copies, or by KeepNone.
struct KeepGet {
  static constexpr std::uint32_t kKind = 0x303;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t unused = 0;
  std::uint64_t after;
};
static_assert(Message<KeepGet>);

struct KeepNone {
  static constexpr std::uint32_t kKind = 0x304;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t owned;  // 1: another broker has claimed what is kept, and serves.
};
static_assert(Message<KeepNone>);

// broker to keeper: all of this is mine from now on. Answered by KeepClaimed once that is so; with
// `force` 1 another broker that has it is asked to leave, without it the answer is no. From the one
// that has it: all that there is is here now, and others may look; not answered.
struct KeepClaim {
  static constexpr std::uint32_t kKind = 0x305;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t force;
};
static_assert(Message<KeepClaim>);

struct KeepClaimed {
  static constexpr std::uint32_t kKind = 0x306;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t granted;
};
static_assert(Message<KeepClaimed>);

// keeper to the broker that has claimed: another one wants to take over. End, and leave your
// children alone.
struct KeepLeave {
  static constexpr std::uint32_t kKind = 0x307;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t unused = 0;
};
static_assert(Message<KeepLeave>);

// broker to keeper, once, after JailOrder.
struct KeeperStart {
  static constexpr std::uint32_t kKind = 0x308;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t uid;  // Whom to let in, beside uid 0, as the keeper's user namespace sees him.
};
static_assert(Message<KeeperStart>);

}  // namespace common::ipc
