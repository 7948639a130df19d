#include "broker/control/requests.h"

#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "broker/control/device_record.h"
#include "broker/control/rate_record.h"
#include "broker/control/wire.h"
#include "broker/settings.h"

namespace broker::control {
namespace {

using common::ipc::FdList;

struct Rule {
  std::uint32_t kind;
  std::size_t bytes;
  const char* name;
  Access needs;
  std::size_t fds_max;
  Refusal (*handle)(Requests&, const Caller&, std::span<const std::byte>, FdList&);
};

Refusal malformed(std::string text) { return {Outcome::kMalformed, std::move(text)}; }

// What can be called a device's name; empty only where `may_be_empty`.
std::optional<std::string> name_of(const Name& room, bool may_be_empty = false) {
  std::optional<std::string> name = text_of(room);
  if (name && name->empty() && !may_be_empty) return std::nullopt;
  return name;
}

Refusal ask_status(Requests& requests, const Caller& caller, const AskStatus&, FdList&) {
  requests.status(caller);
  return {};
}

Refusal ask_device(Requests& requests, const Caller& caller, const AskDevice& ask, FdList&) {
  const auto name = name_of(ask.name, ask.next == 1);
  if (!name || ask.next > 1 || ask.unused != 0) return malformed("device: no such name");
  requests.device(caller, *name, ask.next == 1);
  return {};
}

Refusal ask_process(Requests& requests, const Caller& caller, const AskProcess& ask, FdList&) {
  const auto name = name_of(ask.name, true);
  if (!name || ask.unused != 0) return malformed("process: no such name");
  requests.process(caller, *name, ask.index);
  return {};
}

Refusal ask_queue(Requests& requests, const Caller& caller, const AskQueue& ask, FdList&) {
  const auto name = name_of(ask.name);
  if (!name || ask.unused != 0) return malformed("queue: no such name");
  requests.queue(caller, *name, ask.first);
  return {};
}

Refusal order(Requests& requests, const Caller& caller, const Order& order, FdList&) {
  const auto name = name_of(order.name);
  if (!name || order.act >= kActCount || order.force > 1) return malformed("order: no such act");
  requests.order(caller, *name, static_cast<Act>(order.act), order.force == 1);
  return {};
}

Refusal ask_event(Requests& requests, const Caller& caller, const AskEvent& ask, FdList&) {
  if (ask.wait > 1 || ask.unused != 0) return malformed("event: no such flags");
  requests.event(caller, ask.after, ask.wait == 1);
  return {};
}

Refusal ask_settings(Requests& requests, const Caller& caller, const AskSettings& ask, FdList&) {
  const auto name = name_of(ask.name);
  if (!name) return malformed("settings: no such name");
  requests.settings(caller, *name);
  return {};
}

Refusal add(Requests& requests, const Caller& caller, const AddDevice& add, FdList& fds) {
  if (add.replace > 1 || add.force > 1 || add.from_file > 1 || add.unused != 0) {
    return malformed("add: no such flags");
  }
  auto device = config_of(add.device);
  if (!device) return {Outcome::kFailed, std::move(device).error()};
  const std::uint64_t wanted = std::uint64_t{add.device.socket_fds} + add.device.tap_fds;
  if (fds.size() != wanted) return malformed("add: not the descriptors that it speaks of");
  requests.add(caller,
               {*std::move(device), add.device.socket_fds == 1, add.replace == 1, add.force == 1,
                add.from_file == 1},
               fds);
  return {};
}

bool is_type(std::uint32_t type) {
  const auto kind = static_cast<common::DeviceKind>(type);
  return kind == common::DeviceKind::kBlk || kind == common::DeviceKind::kNet;
}

Refusal ask_group(Requests& requests, const Caller& caller, const AskGroup& ask, FdList&) {
  const auto name = name_of(ask.name, ask.next == 1);
  if (!name || ask.next > 1 || ask.unused != 0) return malformed("group: no such name");
  requests.group(caller, *name, ask.next == 1);
  return {};
}

Refusal limit(Requests& requests, const Caller& caller, const ChangeLimits& change, FdList&) {
  const auto name = name_of(change.name);
  if (!name || change.group > 1 || !is_type(change.type)) return malformed("limit: no such name");
  requests.limit(caller, {*name, change.group == 1, static_cast<common::DeviceKind>(change.type),
                          change_of(change.change)});
  return {};
}

Refusal put_group(Requests& requests, const Caller& caller, const PutGroup& put, FdList&) {
  const auto name = name_of(put.name);
  const auto tenant = name_of(put.tenant, true);
  if (!name || !tenant || !is_type(put.type) || put.unused != 0) {
    return malformed("group: no such name");
  }
  const auto kind = static_cast<common::DeviceKind>(put.type);
  const auto limits = limits_of(put.limits, kind);
  if (!limits) return {Outcome::kFailed, limits.error()};
  const bool legal = parse_name(*name) && (tenant->empty() || parse_name(*tenant));
  if (!legal) return {Outcome::kFailed, "the group's name or tenant is none"};
  requests.put_group(caller, {*name, *tenant, kind, *limits});
  return {};
}

Refusal end_broker(Requests& requests, const Caller& caller, const EndBroker&, FdList&) {
  requests.end_broker(caller);
  return {};
}

template <Message T, Refusal (*Handler)(Requests&, const Caller&, const T&, FdList&)>
Refusal handle(Requests& requests, const Caller& caller, std::span<const std::byte> packet,
               FdList& fds) {
  const auto message = as<T>(packet);
  if (!message) return malformed("a message of another version");
  return Handler(requests, caller, *message, fds);
}

template <Message T, Refusal (*Handler)(Requests&, const Caller&, const T&, FdList&)>
constexpr Rule rule(const char* name, Access needs, std::size_t fds_max = 0) {
  return {T::kKind, sizeof(T), name, needs, fds_max, handle<T, Handler>};
}

constexpr std::array kRules = {
    rule<AskStatus, ask_status>("status", Access::kRead),
    rule<AskDevice, ask_device>("device", Access::kRead),
    rule<AskProcess, ask_process>("process", Access::kRead),
    rule<AskQueue, ask_queue>("queue", Access::kRead),
    rule<AskEvent, ask_event>("event", Access::kRead),
    rule<AskSettings, ask_settings>("settings", Access::kRead),
    rule<AddDevice, add>("add", Access::kChange, common::ipc::kFdListMax),
    rule<Order, order>("order", Access::kChange),
    rule<AskGroup, ask_group>("group", Access::kRead),
    rule<ChangeLimits, limit>("limit", Access::kChange),
    rule<PutGroup, put_group>("group", Access::kChange),
    rule<EndBroker, end_broker>("end", Access::kChange),
};

const Rule* rule_of(std::span<const std::byte> packet) {
  std::uint32_t kind = 0;
  if (packet.size() < sizeof(kind)) return nullptr;
  std::memcpy(&kind, packet.data(), sizeof(kind));
  for (const Rule& rule : kRules) {
    if (rule.kind == kind) return &rule;
  }
  return nullptr;
}

}  // namespace

Refusal take_request(Requests& requests, const Caller& caller, std::span<const std::byte> packet,
                     FdList& fds) {
  const Rule* rule = rule_of(packet);
  if (rule == nullptr) return malformed("no message of this broker's");
  if (packet.size() != rule->bytes) {
    return malformed(std::string(rule->name) + ": " + std::to_string(packet.size()) + " bytes");
  }
  if (fds.size() > rule->fds_max) {
    return malformed(std::string(rule->name) + ": " + std::to_string(fds.size()) + " descriptors");
  }
  if (caller.access < rule->needs) {
    return {Outcome::kRefused,
            std::string(rule->name) + ": this user may look, and not change anything"};
  }
  return rule->handle(requests, caller, packet, fds);
}

}  // namespace broker::control
