// broker/control/requests.h: the whole of what a client of the operator's socket can make the
// broker do: one table.
//
// Not trusted: the client. Every packet is taken for hostile: kind, version, size, numbers, text
// and the count of descriptors are checked before anybody acts on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "broker/config.h"
#include "broker/control/messages.h"
#include "broker/limit_text.h"
#include "common/ipc/channel.h"

namespace broker::control {

enum class Access : std::uint8_t { kNone, kRead, kChange };

// Whom an answer goes to. Numbers are never used twice, so an answer that comes late goes to
// nobody.
using ClientId = std::uint64_t;

struct Caller {
  ClientId id = 0;
  Access access = Access::kNone;
};

struct AddRequest {
  DeviceConfig device;  // Checked, but for its descriptors.
  bool has_socket = false;
  bool replace = false;
  bool force = false;
  bool from_file = false;
};

struct LimitRequest {
  std::string name;
  bool group = false;
  common::DeviceKind type = common::DeviceKind::kBlk;
  LimitChange change;  // Any numbers.
};

// What the table asks for once a packet has passed. Each is answered once, now or later.
class Requests {
 public:
  virtual ~Requests() = default;
  virtual void status(const Caller& caller) = 0;
  virtual void device(const Caller& caller, const std::string& name, bool next) = 0;
  virtual void process(const Caller& caller, const std::string& device, std::uint32_t index) = 0;
  virtual void queue(const Caller& caller, const std::string& device, std::uint32_t first) = 0;
  virtual void event(const Caller& caller, std::uint64_t after, bool wait) = 0;
  virtual void settings(const Caller& caller, const std::string& device) = 0;
  // `fds`: first the socket, where request.has_socket, then the queues of a tap. What is not taken
  // is closed.
  virtual void add(const Caller& caller, const AddRequest& request, common::ipc::FdList& fds) = 0;
  virtual void order(const Caller& caller, const std::string& device, Act act, bool force) = 0;
  virtual void group(const Caller& caller, const std::string& name, bool next) = 0;
  virtual void limit(const Caller& caller, const LimitRequest& request) = 0;
  virtual void put_group(const Caller& caller, const GroupConfig& group) = 0;
  virtual void end_broker(const Caller& caller) = 0;
};

// Nothing, or why it was not done: to be answered, and the connection to be ended unless the
// outcome is kFailed. Descriptors that a request takes are moved out of `fds`.
struct Refusal {
  Outcome outcome = Outcome::kDone;
  std::string text;
  [[nodiscard]] bool refused() const noexcept { return outcome != Outcome::kDone; }
};
[[nodiscard]] Refusal take_request(Requests& requests, const Caller& caller,
                                   std::span<const std::byte> packet, common::ipc::FdList& fds);

}  // namespace broker::control
