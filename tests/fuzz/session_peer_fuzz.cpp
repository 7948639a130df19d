// tests/fuzz/session_peer_fuzz.cpp: whole conversations of a hijacked session with its broker: any
// packet in any order with any number of descriptors, while workers end by themselves. What passes
// is what the protocol allows in that state, by a model that counts states on its own.
//
// Input: what the session was told (1 byte), then steps. A step is a byte: 0xff, and a queue whose
// worker ends; else the number of descriptors (low 2 bits), a choice of kind (next 4 bits) and
// whether the size is the right one (high 2 bits), followed by the bytes of the packet.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "broker/session_peer.h"
#include "common/sys.h"
#include "common/virtio_net_wire.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

namespace ipc = common::ipc;
using broker::Verdict;
using fuzz::require;

constexpr std::uint32_t kQueues = 3;
constexpr std::uint32_t kMtuMax = 9000;
constexpr std::uint64_t kOffered = 0xf0f0'f0f0'1234'5678;

// What is known of a queue from the requests that came out of the table.
struct Queue {
  bool worker = false;   // Asked for, and not ended.
  bool closing = false;  // Asked to end.
};

class Model final : public broker::SessionRequests {
 public:
  explicit Model(const ipc::SessionStart& start) : start_(start) {}

  void open_queue(std::uint32_t queue) override {
    require(!at(queue).worker);
    at(queue) = {true, false};
    ++count;
  }
  void queue_serving(std::uint32_t queue) override {
    require(at(queue).worker);
    ++count;
  }
  void close_queue(std::uint32_t queue) override {
    require(at(queue).worker && !at(queue).closing);
    at(queue).closing = true;
    ++count;
  }
  void swap_call(std::uint32_t queue, common::Fd eventfd, bool running) override {
    require(start_.call_swap_in_place != 0 && eventfd.valid());
    require(!running || (at(queue).worker && !at(queue).closing));
    ++count;
  }
  void make_inflight(std::uint64_t) override { ++count; }
  void session_event(const ipc::SessionEvent&) override { ++count; }
  void driver_features(std::uint64_t features) override {
    require(start_.wants_features != 0 && (features & ~kOffered) == 0);
    ++count;
  }
  void host_mtu(std::uint32_t mtu) override {
    require(start_.mtu_max != 0 && mtu >= common::net::kMtuMin && mtu <= start_.mtu_max);
    ++count;
  }
  void send_rarp(const std::array<std::uint8_t, 6>&) override {
    require(start_.protocol_features != 0);
    ++count;
  }

  // True if there was a worker that could end.
  bool end(std::uint32_t queue) {
    const bool was = at(queue).worker;
    at(queue) = {};
    return was;
  }

  int count = 0;

 private:
  Queue& at(std::uint32_t queue) { return queues_.at(queue); }
  const ipc::SessionStart& start_;
  std::array<Queue, kQueues> queues_{};
};

struct Shape {
  std::uint32_t kind;
  std::size_t bytes;
};
template <typename... T>
constexpr std::array<Shape, sizeof...(T)> shapes_of() {
  return {Shape{T::kKind, sizeof(T)}...};
}
// What a session says, and some of what is said to it.
constexpr auto kShapes =
    shapes_of<ipc::OpenQueue, ipc::QueueServing, ipc::CloseQueue, ipc::SwapCall, ipc::MakeInflight,
              ipc::SessionEvent, ipc::DriverFeatures, ipc::HostMtu, ipc::SendRarp,
              ipc::SessionStart, ipc::QueueOpened, ipc::QueueEnded, ipc::CallSwapped>();

// A packet over a real socket: descriptors come no other way.
class Wire {
 public:
  void carry(std::span<const std::byte> bytes, std::size_t fds, ipc::Packet& packet) {
    const std::vector<common::FdRef> list(fds, eventfd_.ref());
    require(ipc::send_bytes(ends_.first.ref(), bytes, list, false).has_value());
    const auto arrival = ipc::receive_packet(ends_.second.ref(), packet, false);
    require(arrival.has_value() && *arrival == ipc::Arrival::kData);
  }

 private:
  std::pair<common::Fd, common::Fd> ends_ = *common::make_packet_pair();
  common::Fd eventfd_ = *common::make_eventfd();
};

std::vector<std::byte> make_packet(std::uint8_t step, fuzz::Input& input) {
  const std::size_t choice = (step >> 2U) & 15U;
  Shape shape = kShapes.at(choice < kShapes.size() ? choice : 0);
  if (choice >= kShapes.size()) shape.kind = input.word();
  const std::uint8_t sized = step >> 6U;
  if (sized == 3) shape.bytes = input.word() % ipc::kMessageBytesMax + 1;
  if (sized == 2) shape.bytes += 1;
  std::vector<std::byte> bytes(shape.bytes);
  const auto body = input.bytes(shape.bytes > 4 ? std::min<std::size_t>(shape.bytes - 4, 40) : 0);
  std::memcpy(bytes.data(), &shape.kind, std::min<std::size_t>(4, bytes.size()));
  if (!body.empty()) std::memcpy(bytes.data() + 4, body.data(), body.size());
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Wire wire;
  fuzz::Input input(data, size);
  const std::uint8_t told = input.byte();
  ipc::SessionStart start{};
  start.queues_max = kQueues;
  start.device_features = kOffered;
  start.call_swap_in_place = told & 1U;
  start.wants_features = (told >> 1U) & 1U;
  start.mtu_max = (told & 4U) != 0 ? kMtuMax : 0;
  start.protocol_features = (told >> 3U) & 1U;

  Model model(start);
  broker::SessionPeer peer(model, start);
  for (int steps = 0; !input.empty() && steps < 64; ++steps) {
    const std::uint8_t step = input.byte();
    if (step == 0xff) {
      const std::uint32_t queue = input.byte() % kQueues;
      if (model.end(queue)) peer.queue_ended(queue);
      continue;
    }
    ipc::Packet packet;
    const auto bytes = make_packet(step, input);
    wire.carry(bytes, step & 3U, packet);
    const int before = model.count;
    if (peer.on_packet(packet) == Verdict::kHangUp) {
      // Nothing was done for it, and the operator reads why.
      require(model.count == before && !peer.complaint().empty());
      return 0;
    }
    require(model.count <= before + 1);
  }
  return 0;
}
