// tests/fuzz/vhost_session_fuzz.cpp: whole conversations with a session: any messages, with
// descriptors of any kind, in any order and cut off anywhere, and workers that end at any moment.
//
// What must hold besides "no crash": the session ends, it ends with one of its exit codes, no queue
// ever has two workers, and no descriptor is left behind.
//
// An input is a list of steps of at least four bytes:
//   request, shape, count and kind of descriptors, size
// Shape bit 0: NEED_REPLY. Bit 1: the payload is made to fit the request, from the bytes that
// follow; else it is those bytes. Bits 2-3: 1 sends a wrong version, 2 a wrong size, 3 only half.
// Requests from 0xf0 on are the broker's.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "broker/session/features.h"
#include "broker/session/inflight_region.h"
#include "broker/session/session.h"
#include "common/sys.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/unit/session/fake_broker.h"

namespace {

using common::Fd;
using common::FdRef;
namespace ipc = common::ipc;

constexpr std::uint64_t kFeatures = (1ULL << 32) | (1ULL << 29) | (1ULL << 9);
constexpr std::uint64_t kBit30 = 1ULL << 30;
constexpr std::uint64_t kLogAll = common::dirty_log::kFeatureLogAll;
constexpr std::uint32_t kMtuMax = 9000;
constexpr std::uint64_t kRam = 1 << 20;
constexpr std::size_t kStepsMax = 64;

void must(bool holds) {
  if (!holds) std::abort();
}

void must_say(bool holds, const std::string& words) {
  if (!holds) std::fprintf(stderr, "broken: %s\n", words.c_str());
  must(holds);
}

// Descriptors of every kind that a front-end might send, made once.
class Zoo {
 public:
  Zoo() {
    for (int i = 0; i < 3; ++i) add(common::make_eventfd().value().release());
    add(memory("fuzz-ram", kRam));
    add(memory("fuzz-ram", kRam));
    add(memory("fuzz-small", 100));
    int ends[2];
    must(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    add(ends[0]);
    add(ends[1]);
    must(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    add(ends[0]);
    add(ends[1]);
    add(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    add(::open("/dev/null", O_RDWR | O_CLOEXEC));
    add(::epoll_create1(EPOLL_CLOEXEC));
  }
  // The first ones are what belongs there.
  [[nodiscard]] FdRef event(std::uint8_t which) const { return fds_[which % 3U].ref(); }
  [[nodiscard]] FdRef ram(std::uint8_t which) const { return fds_[3 + which % 2U].ref(); }
  [[nodiscard]] FdRef any(std::uint8_t which) const { return fds_[which % fds_.size()].ref(); }
  [[nodiscard]] FdRef stream() const { return fds_[8].ref(); }

 private:
  void add(int number) {
    must(number >= 0);
    fds_.emplace_back(number);
  }
  static int memory(const char* name, std::uint64_t bytes) {
    const int number = ::memfd_create(name, MFD_CLOEXEC);
    must(number >= 0 && ::ftruncate(number, static_cast<off_t>(bytes)) == 0);
    return number;
  }
  std::vector<Fd> fds_;
};

class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> bytes) : left_(bytes) {}
  [[nodiscard]] bool empty() const { return left_.empty(); }
  std::uint8_t one() {
    if (left_.empty()) return 0;
    const std::uint8_t byte = left_.front();
    left_ = left_.subspan(1);
    return byte;
  }
  std::uint16_t two() { return static_cast<std::uint16_t>(one() | (one() << 8)); }
  std::vector<std::byte> take(std::size_t count) {
    std::vector<std::byte> out(std::min(count, left_.size()));
    for (std::byte& byte : out) byte = std::byte{one()};
    return out;
  }

 private:
  std::span<const std::uint8_t> left_;
};

template <typename T>
void append(std::vector<std::byte>& to, const T& value) {
  const auto bytes = fakes::bytes_of(value);
  to.insert(to.end(), bytes.begin(), bytes.end());
}

fakes::VmRegion region_from(Bytes& input) {
  const std::uint64_t place = input.one() % 8U;
  const std::uint64_t odd = input.one() % 16U == 0 ? input.two() : 0;
  return {(place << 21) + odd, odd == 0 ? kRam : odd, place << 30, 0};
}

// One message in the making.
struct Step {
  bool card = false;    // The device is a network card.
  bool packed = false;  // It offers packed rings.
  std::uint8_t request = 0;
  std::vector<std::byte> payload;
  std::vector<FdRef> fds;
};

// Of a packed ring, two places that are often the same one.
std::uint32_t base_from(Bytes& input, bool packed) {
  const std::uint32_t avail = input.two();
  if (!packed) return avail;
  const std::uint8_t choice = input.one();
  return avail | std::uint32_t{(choice & 1) != 0 ? avail : input.two()} << 16;
}

void make_ring_payload(Step& step, Bytes& input, const Zoo& zoo) {
  const std::uint8_t choice = input.one();
  const std::uint32_t queue = choice % 5U;
  const auto state = [&](std::uint32_t value) {
    append(step.payload, fakes::VringState{queue, value});
  };
  switch (step.request) {
    case 8:
      if (step.packed && choice >= 0x80) return state(input.two() % 1100U);
      return state(1U << (input.one() % 12U));
    case 10:
      return state(base_from(input, step.packed));
    case 18:
      return state(input.one() & 1U);
    case 9: {
      const std::uint64_t at = (std::uint64_t{input.one() % 8U} << 30) + queue * 0x8000ULL;
      const std::uint8_t odd = input.one();
      return append(step.payload,
                    fakes::VringAddr{queue, (odd >> 1U) & 1U, at, at + 0x4000 + (odd & 1U),
                                     at + 0x6000, odd >= 0xc0 ? ~0ULL : at + 0x4000});
    }
    case 12:
    case 13:
    case 14: {
      const bool no_fd = choice >= 0xe0;
      append(step.payload, queue | (no_fd ? fakes::kVhostNoFd : std::uint64_t{0}));
      if (!no_fd) step.fds.push_back(zoo.event(input.one()));
      return;
    }
    default:
      return state(input.two());
  }
}

void make_memory_payload(Step& step, Bytes& input, const Zoo& zoo) {
  const std::uint32_t count = step.request == 5 ? 1 + input.one() % 4U : 1;
  append(step.payload, step.request == 5 ? std::uint64_t{count} : 0);
  for (std::uint32_t i = 0; i < count; ++i) {
    append(step.payload, region_from(input));
    if (step.request != 38) step.fds.push_back(zoo.ram(input.one()));
  }
}

void make_config_payload(Step& step, Bytes& input) {
  const std::uint32_t size = input.one();
  append(step.payload, std::uint32_t{input.two()});
  append(step.payload, size);
  append(step.payload, std::uint32_t{input.one() % 4U});
  const auto bytes = input.take(size);
  step.payload.insert(step.payload.end(), bytes.begin(), bytes.end());
  step.payload.resize(12 + size);
}

void make_features(Step& step, Bytes& input) {
  const std::uint8_t choice = input.one();
  append(step.payload, kFeatures | ((choice & 1) != 0 ? kBit30 : 0) |
                           ((choice & 2) != 0 ? kLogAll : 0) |
                           ((choice & 4) != 0 && step.packed ? common::kFeatureRingPacked : 0));
}

// A description of a whole file of the zoo's, or of a part of it.
void make_log_payload(Step& step, Bytes& input, const Zoo& zoo) {
  const std::uint64_t offset = input.one() % 4U == 0 ? input.two() : 0;
  const std::uint64_t bytes = input.one() % 8U == 0 ? input.two() : kRam - offset;
  append(step.payload, session::LogDescription{bytes, offset});
  step.fds.push_back(zoo.ram(input.one()));
}

void make_inflight_payload(Step& step, Bytes& input, const Zoo& zoo) {
  session::InflightDescription description{};
  description.queues = static_cast<std::uint16_t>(1 + input.one() % 5U);
  description.queue_size = static_cast<std::uint16_t>(1U << (input.one() % 12U));
  const std::uint8_t odd = input.one();
  const auto kind =
      step.packed && (odd & 1) != 0 ? session::RingKind::kPacked : session::RingKind::kSplit;
  description.mmap_bytes =
      session::inflight_file_bytes(kind, description.queues, description.queue_size);
  if ((odd & 7) == 0) description.mmap_bytes = input.two();
  if ((odd & 0x38) == 0) description.mmap_offset = std::uint64_t{input.two()} << (odd >> 6U);
  append(step.payload, description);
  if ((odd & 0xc0) == 0xc0) step.payload.resize(20);  // As the specification's table has it.
  if (step.request == 32) step.fds.push_back(zoo.ram(input.one()));
}

// A payload as the request wants it, with numbers that are often right.
void make_fitting(Step& step, Bytes& input, const Zoo& zoo) {
  const auto word = [&](std::uint64_t value) { append(step.payload, value); };
  switch (step.request) {
    case 2:
      return make_features(step, input);
    case 16:
      // All that is offered, without some of the lower bits.
      return word((session::kOfferedProtocol | (step.card ? session::kDeviceProtocol : 0)) &
                  ~std::uint64_t{input.two()});
    case 6:
      return make_log_payload(step, input, zoo);
    case 19:
      return word(input.two() * 0x10001ULL);
    case 20:
      return word(input.two());
    case 31:
    case 32:
      return make_inflight_payload(step, input, zoo);
    case 42:
      append(step.payload, std::uint32_t{input.one() & 1U});
      append(step.payload, std::uint32_t{input.one() == 0 ? 1U : 0U});
      return step.fds.push_back(zoo.any(input.one()));
    case 39:
      return word(input.one());
    case 5:
    case 37:
    case 38:
      return make_memory_payload(step, input, zoo);
    case 8:
    case 9:
    case 10:
    case 11:
    case 12:
    case 13:
    case 14:
    case 18:
    case 23:
    case 35:
      return make_ring_payload(step, input, zoo);
    case 24:
    case 25:
      return make_config_payload(step, input);
    case 21:
      return step.fds.push_back(zoo.stream());
    default:
      return;
  }
}

// The VMM's end: never waits for the session without reading what it says.
class Vmm {
 public:
  explicit Vmm(Fd socket) : socket_(std::move(socket)) {}

  bool send(std::span<const std::byte> bytes, std::span<const FdRef> fds) {
    while (true) {
      drain();
      const auto sent = ipc::send_bytes(socket_.ref(), bytes, fds, false);
      if (sent) return true;
      if (sent.error().os_errno != EAGAIN) return false;
      pollfd look{socket_.ref().number, POLLIN | POLLOUT, 0};
      must(::poll(&look, 1, -1) == 1);
    }
  }
  void finish() {
    ::shutdown(socket_.ref().number, SHUT_WR);
    std::array<char, 4096> rest;
    while (::recv(socket_.ref().number, rest.data(), rest.size(), 0) > 0) {
    }
  }

 private:
  void drain() {
    std::array<char, 4096> rest;
    while (::recv(socket_.ref().number, rest.data(), rest.size(), MSG_DONTWAIT) > 0) {
    }
  }
  Fd socket_;
};

void act_as_broker(const Step& step, Bytes& input, session_test::FakeBroker& broker) {
  const std::uint32_t queue = input.one() % 4U;
  switch (step.request & 7) {
    case 0:
      broker.end_running_queue(queue, ipc::QueueOutcome::kGuestFault);
      break;
    case 1:
      broker.end_running_queue(queue, ipc::QueueOutcome::kDied);
      break;
    case 2:
      broker.fail_starts((queue & 1) != 0);
      break;
    case 3:
      broker.refuse_swaps((queue & 1) != 0);
      break;
    case 4:
      broker.workers_hang_up((queue & 1) != 0);
      break;
    case 5: {
      ipc::ConfigChanged changed{};
      changed.kind = ipc::ConfigChanged::kKind;
      changed.config_bytes = input.one();
      broker.send(changed);
      break;
    }
    case 6:
      broker.report_next_avail(queue, base_from(input, step.packed));
      break;
    default:
      broker.end_on_close_with(static_cast<ipc::QueueOutcome>(queue % 3U));
      break;
  }
}

// False once there is nobody to talk to.
bool play(Bytes& input, const ipc::SessionStart& start, const Zoo& zoo, Vmm& vmm,
          session_test::FakeBroker& broker) {
  Step step;
  step.card = start.protocol_features != 0;
  step.packed = (start.device_features & common::kFeatureRingPacked) != 0;
  step.request = input.one();
  const std::uint8_t shape = input.one();
  const std::uint8_t descriptors = input.one();
  const std::uint8_t size = input.one();
  if (step.request >= 0xf0) {
    act_as_broker(step, input, broker);
    return true;
  }
  if ((shape & 2) != 0) {
    make_fitting(step, input, zoo);
  } else {
    step.payload = input.take(size);
  }
  for (std::uint8_t i = 0; i < descriptors % 4U; ++i) {
    step.fds.push_back(zoo.any(static_cast<std::uint8_t>(descriptors / 4U + i)));
  }
  const std::uint32_t fault = (shape >> 2) & 3U;
  fakes::VhostHeader header{step.request, 1U | ((shape & 1U) << 3U),
                            static_cast<std::uint32_t>(step.payload.size())};
  if (fault == 1) header.flags ^= size;
  if (fault == 2) header.size += size;
  std::vector<std::byte> message;
  append(message, header);
  message.insert(message.end(), step.payload.begin(), step.payload.end());
  if (fault != 3) return vmm.send(message, step.fds);
  message.resize(std::max<std::size_t>(1, message.size() / 2));
  (void)vmm.send(message, step.fds);
  return false;
}

ipc::SessionStart start_of(std::uint8_t choice) {
  ipc::SessionStart start{};
  start.kind = ipc::SessionStart::kKind;
  start.device_kind = 1;
  start.device_features = kFeatures | ((choice & 4) != 0 ? common::kFeatureRingPacked : 0);
  start.queues_max = 4;
  start.queue_size_max = 1024;
  start.config_bytes = 60;
  start.writable_offset = 32;
  start.writable_bytes = 1;
  start.call_swap_in_place = choice & 1;
  if ((choice & 2) != 0) {  // A card.
    start.protocol_features = session::kDeviceProtocol;
    start.mtu_max = kMtuMax;
    start.wants_features = 1;
  }
  return start;
}

std::pair<Fd, Fd> pair_of(int type) {
  int ends[2];
  must(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

void converse(std::span<const std::uint8_t> data, const Zoo& zoo) {
  Bytes input(data);
  auto broker_pair = pair_of(SOCK_SEQPACKET);
  auto vmm_pair = pair_of(SOCK_STREAM);
  session_test::FakeBroker broker(std::move(broker_pair.first));
  Vmm vmm(std::move(vmm_pair.first));
  ipc::SessionExit exit{};
  const ipc::SessionStart start = start_of(input.one());
  std::thread session([&] {
    auto one =
        std::make_unique<session::Session>(broker_pair.second.ref(), vmm_pair.second.ref(), start);
    exit = one->run();
    one.reset();
    vmm_pair.second.reset();
    broker_pair.second.reset();
  });
  for (std::size_t steps = 0; steps < kStepsMax && !input.empty(); ++steps) {
    if (!play(input, start, zoo, vmm, broker)) break;
  }
  vmm.finish();
  session.join();
  // With threads a failure may not come back: it has to say what it was.
  must_say(exit == ipc::SessionExit::kPeerClosed || exit == ipc::SessionExit::kViolation ||
               exit == ipc::SessionExit::kHostFault,
           "the session exited with " + std::to_string(static_cast<int>(exit)));
  for (const std::string& line : broker.take_log()) must_say(!line.starts_with("second"), line);
  must_say(broker.events() <= 66, std::to_string(broker.events()) + " events");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Zoo zoo;
  // The first use of a stream or a thread may open something for good.
  static const bool warm = (converse({}, zoo), true);
  (void)warm;
  const std::size_t before = open_descriptors();
  converse({data, size}, zoo);
  must(open_descriptors() == before);
  return 0;
}
