#include "tests/bench/queue_load.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "common/addresses.h"
#include "common/virtio_blk_wire.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"

namespace bench {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
// A slot's header, status byte and indirect table, on two cache lines of its own.
constexpr std::uint64_t kSlotBytes = 128;
constexpr std::uint64_t kStatusInSlot = 16;
constexpr std::uint64_t kTableInSlot = 64;
constexpr std::uint32_t kPartsOfRequest = 3;  // Header, data, status.
constexpr std::uint64_t kPatienceNs = 10 * kNsPerSecond;

std::uint64_t pages(std::uint64_t bytes) noexcept { return (bytes + kPage - 1) / kPage * kPage; }

common::Fd make_eventfd() {
  common::Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  fakes::require_call(fd.valid(), "eventfd");
  return fd;
}

}  // namespace

std::uint64_t now_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond +
         static_cast<std::uint64_t>(now.tv_nsec);
}

std::uint64_t QueueLoad::bytes_needed(const LoadPlan& plan) noexcept {
  return pages(fakes::RingPlace::packed_from(0, plan.queue_size).end()) +
         pages(plan.depth * kSlotBytes) + plan.depth * pages(plan.block_bytes);
}

QueueLoad::QueueLoad(const LoadPlan& plan, const fakes::VmMemory& memory, std::uint64_t guest_addr)
    : plan_(plan),
      memory_(memory),
      place_(fakes::RingPlace::packed_from(guest_addr, plan.queue_size)),
      driver_(place_, memory, plan.event_idx),
      kick_(make_eventfd()),
      call_(make_eventfd()),
      slots_addr_(pages(place_.end())),
      data_addr_(slots_addr_ + pages(plan.depth * kSlotBytes)),
      slots_host_(memory.at(slots_addr_, plan.depth * kSlotBytes)),
      submitted_ns_(plan.depth),
      head_of_slot_(plan.depth),
      slot_of_head_(plan.queue_size),
      random_(plan.seed * 0x9e3779b97f4a7c15ULL | 1) {
  const std::uint32_t each = plan.indirect ? 1 : kPartsOfRequest;
  fakes::require(plan.depth * each <= plan.queue_size,
                 "without indirect descriptors a request takes three entries: raise --queue-size");
  for (std::uint16_t slot = 0; slot < plan.depth; ++slot) {
    head_of_slot_[slot] = static_cast<std::uint16_t>(slot * each);
    slot_of_head_[head_of_slot_[slot]] = slot;
    prepare_slot(slot);
  }
  if (plan.rate > 0) {
    interval_ns_ = static_cast<double>(plan.burst) * static_cast<double>(kNsPerSecond) / plan.rate;
  }
}

// Everything but the sector number stays the same for as long as the slot lives.
void QueueLoad::prepare_slot(std::uint16_t slot) {
  using common::blk::RequestType;
  const std::uint64_t start = slots_addr_ + slot * kSlotBytes;
  std::byte* const host = slots_host_ + slot * kSlotBytes;
  const common::blk::WireRequestHeader header{
      .type = common::Le32(
          static_cast<std::uint32_t>(plan_.write ? RequestType::kOut : RequestType::kIn)),
      .reserved = common::Le32(0),
      .sector = common::Le64(0)};
  std::memcpy(host, &header, sizeof(header));

  const std::uint64_t data = data_addr_ + slot * pages(plan_.block_bytes);
  const std::uint16_t data_flags = plan_.write ? 0 : common::kDescWrite;
  const auto part = [&](std::uint32_t i, std::uint16_t next) {
    const std::uint64_t addrs[] = {start, data, start + kStatusInSlot};
    const std::uint32_t lens[] = {sizeof(header), plan_.block_bytes, 1};
    const std::uint16_t flags[] = {common::kDescNext,
                                   static_cast<std::uint16_t>(common::kDescNext | data_flags),
                                   common::kDescWrite};
    return common::WireDesc{.addr = common::Le64(addrs[i]),
                            .len = common::Le32(lens[i]),
                            .flags = common::Le16(flags[i]),
                            .next = common::Le16(next)};
  };
  const std::uint16_t head = head_of_slot_[slot];
  for (std::uint16_t i = 0; i < kPartsOfRequest; ++i) {
    if (plan_.indirect) {
      const common::WireDesc desc = part(i, static_cast<std::uint16_t>(i + 1));
      std::memcpy(host + kTableInSlot + i * sizeof(desc), &desc, sizeof(desc));
      continue;
    }
    const auto next = static_cast<std::uint16_t>(head + i + 1);
    const common::WireDesc desc = part(i, next);
    driver_.set_desc(static_cast<std::uint16_t>(head + i), desc.addr.get(), desc.len.get(),
                     desc.flags.get(), next);
  }
  if (plan_.indirect) {
    driver_.set_desc(head, start + kTableInSlot, kPartsOfRequest * sizeof(common::WireDesc),
                     common::kDescIndirect, 0);
  }
}

std::uint64_t QueueLoad::next_block() noexcept {
  if (plan_.sequential) {
    const std::uint64_t block = position_++;
    if (position_ == plan_.blocks) position_ = 0;
    return plan_.first_block + block;
  }
  // xorshift64*: plenty for choosing blocks, and a few cycles.
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  const std::uint64_t value = random_ * 0x2545f4914f6cdd1dULL;
  return plan_.first_block + ((value >> 32) * plan_.blocks >> 32);
}

void QueueLoad::submit(std::uint16_t slot, std::uint64_t now) noexcept {
  std::byte* const host = slots_host_ + slot * kSlotBytes;
  const common::Le64 sector(next_block() * (plan_.block_bytes / common::kSectorBytes));
  std::memcpy(host + offsetof(common::blk::WireRequestHeader, sector), &sector, sizeof(sector));
  host[kStatusInSlot] = std::byte{0xff};
  submitted_ns_[slot] = now;
  driver_.offer(head_of_slot_[slot]);
  ++in_flight_;
}

// A burst that is late because all slots are busy is submitted as they come back.
void QueueLoad::submit_due(std::uint64_t now) noexcept {
  while (due_ns_ <= static_cast<double>(now) && idle_slots_.size() >= plan_.burst) {
    for (std::uint32_t i = 0; i < plan_.burst; ++i) {
      submit(idle_slots_.back(), now);
      idle_slots_.pop_back();
    }
    due_ns_ += interval_ns_;
  }
}

std::uint32_t QueueLoad::harvest(std::uint64_t now, bool resubmit) {
  std::uint32_t harvested = 0;
  while (const std::optional<common::WireUsedElem> used = driver_.take()) {
    const std::uint32_t head = used->id.get();
    fakes::require(head < slot_of_head_.size(), "the device returned a head that does not exist");
    const std::uint16_t slot = slot_of_head_[head];
    if (slots_host_[slot * kSlotBytes + kStatusInSlot] != std::byte{0}) ++result_.failed;
    if (counting()) {
      ++result_.requests;
      result_.latency_ns.add(now - submitted_ns_[slot]);
    }
    --in_flight_;
    ++harvested;
    if (!resubmit) continue;
    if (plan_.rate > 0) {
      idle_slots_.push_back(slot);
    } else {
      submit(slot, now);
    }
  }
  return harvested;
}

void QueueLoad::publish() {
  if (!driver_.publish()) return;
  const std::uint64_t one = 1;
  fakes::require_call(::write(kick_.ref().number, &one, sizeof(one)) == sizeof(one), "kick");
  if (counting()) ++result_.kicks;
}

void QueueLoad::count_interrupts() noexcept {
  std::uint64_t count = 0;
  if (::read(call_.ref().number, &count, sizeof(count)) != sizeof(count)) return;
  if (!counting()) return;
  result_.interrupts += count;
  ++result_.wakeups;
}

void QueueLoad::sleep_until(std::uint64_t deadline) {
  const std::uint64_t now = now_ns();
  if (deadline <= now) return;
  const timespec left{static_cast<time_t>((deadline - now) / kNsPerSecond),
                      static_cast<long>((deadline - now) % kNsPerSecond)};
  pollfd waiting{call_.ref().number, POLLIN, 0};
  if (::ppoll(&waiting, 1, &left, nullptr) == 1) count_interrupts();
}

void QueueLoad::wait_for_more(std::uint64_t deadline) {
  if (plan_.poll) {
    __builtin_ia32_pause();
    return;
  }
  if (driver_.enable_interrupts()) sleep_until(deadline);
}

LoadResult QueueLoad::run(const Window& window) {
  window_ = window;
  now_ = now_ns();
  if (plan_.poll) driver_.disable_interrupts();
  due_ns_ = static_cast<double>(now_);
  for (std::uint16_t slot = 0; slot < plan_.depth; ++slot) {
    if (plan_.rate > 0) {
      idle_slots_.push_back(slot);
    } else {
      submit(slot, now_);
    }
  }
  std::uint64_t last_answer = now_;
  while (!over() || in_flight_ != 0) {
    const bool running = !over();
    if (running && plan_.rate > 0) submit_due(now_);
    publish();
    // The clock before the ring: what completed later was not seen yet.
    now_ = now_ns();
    if (harvest(now_, running) != 0) {
      last_answer = now_;
      continue;
    }
    fakes::require(in_flight_ == 0 || now_ - last_answer < kPatienceNs,
                   "a request was not answered within 10 s");
    const std::uint64_t patience = now_ + kPatienceNs;
    const bool pacing = running && plan_.rate > 0 && idle_slots_.size() >= plan_.burst;
    wait_for_more(pacing ? static_cast<std::uint64_t>(due_ns_)
                         : (in_flight_ == 0 ? window.end : patience));
    now_ = now_ns();
  }
  return result_;
}

}  // namespace bench
