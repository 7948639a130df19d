#include "tests/bench/net_queue.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/virtqueue_wire.h"
#include "tests/bench/queue_load.h"
#include "tests/fakes/failure.h"

namespace bench {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

std::uint64_t pages(std::uint64_t bytes) noexcept { return (bytes + kPage - 1) / kPage * kPage; }

common::Fd make_event() {
  common::Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  fakes::require_call(fd.valid(), "eventfd");
  return fd;
}

}  // namespace

std::uint64_t NetQueue::bytes_needed(const NetShape& shape) noexcept {
  return pages(fakes::RingPlace::packed_from(0, shape.size).end()) +
         shape.size * pages(shape.buffer_bytes);
}

NetQueue::NetQueue(const NetShape& shape, const fakes::VmMemory& memory, std::uint64_t guest_addr)
    : shape_(shape),
      memory_(memory),
      place_(fakes::RingPlace::packed_from(guest_addr, shape.size)),
      driver_(place_, memory, shape.event_idx),
      kick_(make_event()),
      call_(make_event()),
      data_addr_(pages(place_.end())) {
  for (std::uint16_t i = 0; i < shape.size; ++i) set_length(i, shape.buffer_bytes);
}

std::span<std::byte> NetQueue::buffer(std::uint16_t index) const {
  return memory_.span(data_addr_ + index * pages(shape_.buffer_bytes), shape_.buffer_bytes);
}

void NetQueue::set_length(std::uint16_t index, std::uint32_t bytes) noexcept {
  driver_.set_desc(index, data_addr_ + index * pages(shape_.buffer_bytes), bytes,
                   shape_.receive ? common::kDescWrite : std::uint16_t{0}, 0);
}

void NetQueue::publish() {
  if (!driver_.publish()) return;
  const std::uint64_t one = 1;
  fakes::require_call(::write(kick_.ref().number, &one, sizeof(one)) == sizeof(one), "kick");
  ++kicks_;
}

std::optional<NetQueue::Used> NetQueue::take() {
  const auto used = driver_.take();
  if (!used) return std::nullopt;
  fakes::require(used->id.get() < shape_.size, "the device returned a head that does not exist");
  return Used{static_cast<std::uint16_t>(used->id.get()), used->len.get()};
}

void NetQueue::sleep_until(std::uint64_t deadline_ns) {
  const std::uint64_t now = now_ns();
  if (deadline_ns <= now || !driver_.enable_interrupts()) return;
  const timespec left{static_cast<time_t>((deadline_ns - now) / kNsPerSecond),
                      static_cast<long>((deadline_ns - now) % kNsPerSecond)};
  pollfd waiting{call_.ref().number, POLLIN, 0};
  std::uint64_t count = 0;
  if (::ppoll(&waiting, 1, &left, nullptr) == 1 &&
      ::read(call_.ref().number, &count, sizeof(count)) == sizeof(count)) {
    interrupts_ += count;
  }
}

}  // namespace bench
