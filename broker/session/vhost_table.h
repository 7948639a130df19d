// broker/session/vhost_table.h: every request a front-end can send, one row each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "broker/session/end.h"
#include "broker/session/vhost_connection.h"
#include "broker/session/vhost_wire.h"

namespace session {

class Workers;
class BrokerLink;
struct Device;

// What a handler works on.
struct Context {
  Device& device;
  Workers& workers;
  BrokerLink& broker;
};

// What goes back. A violation is no answer: it is the End that a handler returns instead.
struct Answer {
  // Only for rows that have a reply of their own.
  std::span<const std::byte> body{};
  // Goes with the body. The device keeps it.
  common::FdRef file{};
  // Not 0: the request was refused, and the session goes on.
  int refusal_errno = 0;
  bool reported = false;  // The operator has been told why, in better words.
};

// How a request that we do not serve, or that was not negotiated, is refused.
enum class Refusal : std::uint8_t {
  kByAck,        // It has no reply of its own: a non-zero ack where one was asked for, or the end.
  kImpossible,   // Its reply cannot say "no": the end.
  kU64Error,     // A u64 that is not zero.
  kNegativeU64,  // CREATE_CRYPTO_SESSION: a negative session id at the payload's end.
  kEmpty,        // No payload (GET_CONFIG), or no descriptor (GET_SHARED_OBJECT).
  kZeroes,       // A description of nothing: no inflight memory, no shared memory regions.
  kDeviceState,  // SET_DEVICE_STATE_FD: an error, and no descriptor.
};

struct Range {
  std::uint32_t min;
  std::uint32_t max;
  [[nodiscard]] constexpr bool has(std::size_t value) const noexcept {
    return value >= min && value <= max;
  }
};

struct Row {
  Request request;
  std::string_view name;
  Range payload_bytes;
  Range fds;
  std::uint64_t needs;  // Protocol features that must have been acknowledged.
  Refusal refusal;
  // Nothing: refused always, since we never offer what it needs.
  Outcome<Answer> (*handler)(Context&, Incoming&) noexcept;

  [[nodiscard]] bool has_own_reply() const noexcept { return refusal != Refusal::kByAck; }
};

// The row of a request, or nullptr where the specification has none.
[[nodiscard]] const Row* find_row(std::uint32_t request) noexcept;
[[nodiscard]] std::span<const Row> all_rows() noexcept;

// Serves a message that fits its row: gate, handler, workers.
[[nodiscard]] Outcome<Answer> serve(Context& context, Incoming& incoming, bool acks_on) noexcept;

}  // namespace session
