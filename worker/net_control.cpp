#include "worker/net_control.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "policy/worker_net.h"
#include "worker/tap_engine.h"

namespace worker {
namespace {

namespace net = common::net;
using common::Counter;
using common::GuestMemory;
using common::ipc::NetCommand;
using common::ipc::NetControlDone;
using common::ipc::WorkerExit;

using Order = common::ipc::NetControl;
static_assert(sizeof(Order) == policy::kNetControlBytes);
static_assert(sizeof(NetControlDone) == policy::kNetControlDoneBytes);

// The longest command that is looked at: two tables of 300 addresses each.
constexpr std::size_t kCommandBytesMax = 4096;

constexpr ParsedControl kRefused{};
constexpr ParsedControl kAccepted{.accepted = true, .ask = false, .order = {}};

// The data of a command as a T, which it must be in length.
template <typename T>
std::optional<T> data_as(std::span<const std::byte> data) noexcept {
  if (data.size() != sizeof(T)) return std::nullopt;
  T copy;
  std::memcpy(&copy, data.data(), sizeof(T));
  return copy;
}

ParsedControl order_of(NetCommand command, std::uint64_t value) noexcept {
  ParsedControl parsed{.accepted = true, .ask = true, .order = {}};
  parsed.order.kind = Order::kKind;
  parsed.order.command = static_cast<std::uint32_t>(command);
  parsed.order.value = value;
  return parsed;
}

// One of MAC_TABLE_SET's two tables: how many addresses, and the addresses.
struct MacTable {
  std::uint32_t entries = 0;
  std::span<const std::byte> macs;
};
std::optional<MacTable> take_table(std::span<const std::byte>& data) noexcept {
  if (data.size() < sizeof(common::Le32)) return std::nullopt;
  const auto entries = data_as<common::Le32>(data.first(sizeof(common::Le32)))->get();
  data = data.subspan(sizeof(common::Le32));
  const std::uint64_t bytes = std::uint64_t{entries} * net::kMacBytes;
  if (bytes > data.size()) return std::nullopt;
  const MacTable table{entries, data.first(bytes)};
  data = data.subspan(bytes);
  return table;
}

}  // namespace

// 5.1.6.5: class and command, each with its own feature. What was not negotiated is refused.
ParsedControl NetControlParser::parse(std::span<const std::byte> command) noexcept {
  if (command.size() < sizeof(net::WireControl)) return kRefused;
  const auto head = *data_as<net::WireControl>(command.first(sizeof(net::WireControl)));
  const auto data = command.subspan(sizeof(net::WireControl));
  switch (static_cast<net::ControlClass>(head.class_)) {
    case net::ControlClass::kRx:
      return receive_mode(head.command, data);
    case net::ControlClass::kMac:
      return mac(head.command, data);
    case net::ControlClass::kVlan:
      return kRefused;
    case net::ControlClass::kAnnounce:
      return has(net::kFeatureGuestAnnounce) && head.command == net::kAnnounceAck ? kAccepted
                                                                                  : kRefused;
    case net::ControlClass::kMq: {
      // 5.1.6.5.5: between 1 and max_virtqueue_pairs.
      const auto pairs = data_as<common::Le16>(data);
      if (!has(net::kFeatureMq) || head.command != net::kMqPairsSet || !pairs) return kRefused;
      if (pairs->get() < 1 || pairs->get() > pairs_) return kRefused;
      return order_of(NetCommand::kPairs, pairs->get());
    }
    case net::ControlClass::kOffloads: {
      // 5.1.6.5.6.2: only what was negotiated can be switched on.
      const auto offloads = data_as<common::Le64>(data);
      if (!has(net::kFeatureCtrlGuestOffloads) || head.command != net::kGuestOffloadsSet ||
          !offloads || (offloads->get() & ~(features_ & net::kGuestOffloads)) != 0) {
        return kRefused;
      }
      return order_of(NetCommand::kOffloads, offloads->get());
    }
  }
  return kRefused;  // A guest can write any number.
}

ParsedControl NetControlParser::receive_mode(std::uint8_t command,
                                             std::span<const std::byte> data) noexcept {
  const bool extra = command > net::kRxAllMulti;
  const auto on = data_as<std::uint8_t>(data);
  if (!has(extra ? net::kFeatureCtrlRxExtra : net::kFeatureCtrlRx) || command >= net::kRxCommands ||
      !on || *on > 1) {
    return kRefused;
  }
  const std::uint64_t bit = 1ULL << command;
  filter_.modes = *on == 1 ? filter_.modes | bit : filter_.modes & ~bit;
  return filter_order();
}

ParsedControl NetControlParser::mac(std::uint8_t command,
                                    std::span<const std::byte> data) noexcept {
  if (command == net::kMacAddressSet) {
    const auto address = data_as<net::Mac>(data);
    // A card has no group address.
    if (!has(net::kFeatureCtrlMacAddr) || !address || ((*address)[0] & 1) != 0) return kRefused;
    filter_.own_mac = *address;
    return filter_order();
  }
  if (command != net::kMacTableSet || !has(net::kFeatureCtrlRx) || !mac_table(data)) {
    return kRefused;
  }
  return filter_order();
}

// 5.1.6.5.2.
bool NetControlParser::mac_table(std::span<const std::byte> data) noexcept {
  const auto unicast = take_table(data);
  if (!unicast) return false;
  const auto multicast = take_table(data);
  if (!multicast || !data.empty()) return false;
  // 5.1.6.5.1: filtering is best effort. More than we can tell the broker means all of them.
  const bool fits =
      std::uint64_t{unicast->entries} + multicast->entries <= common::ipc::kNetFilterMacsMax;
  constexpr std::uint64_t kAll = (1ULL << net::kRxAllUni) | (1ULL << net::kRxAllMulti);
  if (!fits) filter_.modes |= kAll;
  filter_.unicasts = fits ? static_cast<std::uint16_t>(unicast->entries) : std::uint16_t{0};
  filter_.multicasts = fits ? multicast->entries : 0;
  filter_.macs = {};
  if (!fits) return true;
  auto* const to = reinterpret_cast<std::byte*>(filter_.macs.data());
  std::copy(unicast->macs.begin(), unicast->macs.end(), to);
  std::copy(multicast->macs.begin(), multicast->macs.end(), to + unicast->macs.size());
  return true;
}

ParsedControl NetControlParser::filter_order() const noexcept {
  ParsedControl parsed = order_of(NetCommand::kReceiveFilter, filter_.modes);
  parsed.order.own_mac = filter_.own_mac;
  parsed.order.unicasts = filter_.unicasts;
  parsed.order.multicasts = filter_.multicasts;
  parsed.order.macs = filter_.macs;
  return parsed;
}

// Its answer is the only thing that ever comes back, and it comes at once: the broker has nothing
// to wait for.
// syscalls: read, write
bool BrokerControlLink::ask(const Order& asked) noexcept {
  Order order = asked;
  order.turn = ++turn_;
  if (::write(socket_.number, &order, sizeof(order)) != sizeof(order)) return false;
  while (true) {
    const TapWakeup wakeup = engine_.wait(TapEngine::Until::kTap);
    if (wakeup.tap_ready) {
      NetControlDone done{};
      if (::read(socket_.number, &done, sizeof(done)) != sizeof(done)) return false;
      if (done.kind != NetControlDone::kKind) return false;
      if (done.turn == order.turn) return done.accepted == 1;
    } else if (wakeup.stop || wakeup.host_fault) {
      return false;
    }
  }
}

// Whichever ring it serves.
struct NetControl::State {
  virtual ~State() = default;
  [[nodiscard]] virtual WorkerExit run() noexcept = 0;
};

template <typename Ring>
struct NetControl::Serving final : State {
  Serving(const NetQueueParts& parts, Ring made_ring, ControlLink& control_link)
      : queue(parts, std::move(made_ring)),
        engine(*parts.engine),
        link(control_link),
        parser(parts.ring.features, parts.device.pairs) {}

  [[nodiscard]] WorkerExit run() noexcept override;
  void serve(Chain& chain) noexcept;
  void sleep() noexcept;

  NetVirtqueue<Ring> queue;
  TapEngine& engine;
  ControlLink& link;
  NetControlParser parser;
};

NetControl::NetControl(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
NetControl::~NetControl() = default;

template <typename Ring>
std::unique_ptr<NetControl::State> NetControl::make(const NetQueueParts& parts,
                                                    ControlLink& link) noexcept {
  auto ring = NetVirtqueue<Ring>::make_ring(parts);
  return ring ? std::make_unique<Serving<Ring>>(parts, *std::move(ring), link) : nullptr;
}

std::unique_ptr<NetControl> NetControl::create(const NetQueueParts& parts,
                                               ControlLink& link) noexcept {
  auto state = is_packed(parts.ring) ? make<PackedRing>(parts, link) : make<SplitRing>(parts, link);
  return state ? std::unique_ptr<NetControl>(new NetControl(std::move(state))) : nullptr;
}

WorkerExit NetControl::run() noexcept { return state_->run(); }

template <typename Ring>
WorkerExit NetControl::Serving<Ring>::run() noexcept {
  if (queue.begin()) engine.ring_call();
  Chain chain;
  while (queue.serving) {
    if (queue.next(chain)) {
      serve(chain);
      if (queue.publish(0, Bell::kNow)) engine.ring_call();
    } else if (queue.serving) {
      sleep();
    }
  }
  return queue.end(0);
}

template <typename Ring>
void NetControl::Serving<Ring>::serve(Chain& chain) noexcept {
  std::array<std::byte, kCommandBytesMax> copy;
  ParsedControl parsed;
  // Without a byte to answer into nothing is done.
  if (!chain.writable.empty() && chain.readable_bytes <= copy.size()) {
    const std::size_t bytes = GuestMemory::gather(chain.readable, copy);
    parsed = parser.parse(std::span(copy).first(bytes));
  }
  const bool done = parsed.accepted && (!parsed.ask || link.ask(parsed.order));
  queue.status.add(Counter::kControlCommands, 1);
  if (!done) queue.status.add(Counter::kControlRefused, 1);
  const std::byte ack{done ? net::kControlOk : net::kControlError};
  const std::size_t written = GuestMemory::scatter(std::span(&ack, 1), chain.writable);
  if (queue.ring.log().on()) queue.ring.log().mark(chain.writable, written);
  queue.ring.add_used(chain.head, static_cast<std::uint32_t>(written));
}

template <typename Ring>
void NetControl::Serving<Ring>::sleep() noexcept {
  if (!queue.kick_may_come()) return;
  const TapWakeup wakeup = engine.wait(TapEngine::Until::kKick);
  queue.ring.disable_kicks();
  if (wakeup.call_swapped) engine.ring_call();
  (void)queue.hear(wakeup, engine.system_calls());
}

}  // namespace worker
