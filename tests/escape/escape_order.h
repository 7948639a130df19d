// tests/escape/escape_order.h: what the test tells the escapee to try once it is sealed.
#pragma once

#include <array>
#include <cstdint>

#include "common/ipc/message.h"
#include "common/ipc/worker_messages.h"

namespace escape {

// Where the escapee finds its own two descriptors: above everything that a profile names.
inline constexpr int kControlFd = 40;
inline constexpr int kStatusFd = 41;

// Stands for the address of a page of the escapee's own, in a system call's arguments.
inline constexpr std::uint64_t kScratch = 0x5c4a'7c45'c4a7'c45cULL;
// And for the address of the order's own text.
inline constexpr std::uint64_t kText = 0x7e87'7e87'7e87'7e87ULL;

enum class Act : std::uint32_t {
  kSystemCall = 1,  // number, arguments: by the native instruction.
  kInterrupt80,     // number, first three arguments: by int 0x80.
  kRingRequest,     // One request on its ring; its result is the act's result.
  kWriteText,       // Stores into its own code.
  kRunData,         // Jumps into its own data.
  kSleep,           // Waits for ever, in the way its profile allows.
  kExit,            // Nothing: leaves.
};

struct EscapeOrder {
  static constexpr std::uint32_t kKind = 0x7001;
  static constexpr std::size_t kFdsMin = 0;
  static constexpr std::size_t kFdsMax = 0;
  std::uint32_t kind = kKind;
  std::uint32_t act;
  std::uint64_t number;
  std::array<std::uint64_t, 6> arguments;
  std::array<char, 32> text;
  // Before the seal.
  std::array<std::int32_t, 8> keep;  // Ascending; the first keep_count count.
  std::uint32_t keep_count;
  std::uint32_t has_ring;  // 1: descriptor 6 is one, and the layout below is its.
  std::uint64_t descriptors_limit;
  std::uint64_t file_size_limit;
  std::uint64_t processes_limit;
  // kRingRequest.
  std::uint8_t opcode;
  std::uint8_t flags;
  std::uint16_t sleeps_in_epoll;  // 1: descriptor 4 is one, and kSleep waits there.
  std::int32_t fd;
  std::uint64_t offset;
  std::uint64_t address;
  std::uint32_t length;
  std::uint32_t operation_flags;
  common::ipc::UringLayout layout;
};
static_assert(common::ipc::Message<EscapeOrder>);

// How the escapee leaves. The result of an act that came back is in StatusPage::fault_detail[0].
inline constexpr int kActReturned = 42;
inline constexpr int kNotJailed = 43;
inline constexpr int kNotSealed = 44;
inline constexpr int kBadOrder = 45;

}  // namespace escape
