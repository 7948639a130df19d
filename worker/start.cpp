#include "worker/start.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "common/checked.h"
#include "common/inflight_wire.h"
#include "common/ipc/channel.h"
#include "common/packed_inflight_wire.h"
#include "common/sys.h"
#include "common/virtqueue_wire.h"
#include "worker/ring_kind.h"

namespace worker {
namespace {

using common::Fd;
using common::FdRef;
using common::ipc::Arrival;
using common::ipc::MemoryRegions;
using common::ipc::Packet;
using common::ipc::RingStart;
using common::ipc::WorkerFault;

// A positional read that returns at once whatever the file's flags are. -EAGAIN: nothing there.
ssize_t read_now(FdRef file, std::span<std::byte> to) noexcept {
  const iovec part{to.data(), to.size()};
  const ssize_t got = ::preadv2(file.number, &part, 1, -1, RWF_NOWAIT);
  return got < 0 ? -errno : got;
}

// Only an eventfd (or a timerfd, which would do as well) refuses to read less than eight bytes, and
// it does so before it looks whether there is anything. Nothing is consumed.
bool is_eventfd(FdRef file) noexcept {
  std::array<std::byte, 4> too_short{};
  const ssize_t got = read_now(file, too_short);
  if (got != -EOPNOTSUPP) return got == -EINVAL;
  // Kernels before 5.8 cannot read an eventfd without waiting: look at its kind instead.
  struct stat status {};
  return ::fstat(file.number, &status) == 0 && (status.st_mode & S_IFMT) == 0;
}

// Takes a kick that is there already: the ring is looked at in any case before the first sleep.
bool is_readable_eventfd(FdRef file) noexcept {
  if (!is_eventfd(file)) return false;
  std::array<std::byte, sizeof(std::uint64_t)> value{};
  const ssize_t got = read_now(file, value);
  return got == static_cast<ssize_t>(value.size()) || got == -EAGAIN || got == -EOPNOTSUPP;
}

// A mapping beyond the end of its file would be SIGBUS at some later time. Devices have no size.
bool file_holds(FdRef file, const MemoryRegions::Region& region) noexcept {
  struct stat status {};
  if (::fstat(file.number, &status) != 0) return false;
  if (!S_ISREG(status.st_mode)) return true;
  const auto end = common::checked_add(region.file_offset, region.bytes);
  return end && *end <= static_cast<std::uint64_t>(status.st_size);
}

Started<void> map_region(FdRef file, const MemoryRegions::Region& region, Guest& guest) noexcept {
  const common::GuestAddr start{region.guest_addr};
  if (!file_holds(file, region)) {
    return refuse(WorkerFault::kMapFailed, start.value, region.bytes, EOVERFLOW);
  }
  if (const auto added = guest.map.add(file, region.file_offset, start, region.bytes); !added) {
    return refuse(WorkerFault::kMapFailed, start.value, region.bytes, added.error().os_errno);
  }
  const iovec host = guest.map.memory().translate(start, region.bytes);
  guest.mapped.emplace_back(static_cast<std::byte*>(host.iov_base), host.iov_len);
  return {};
}

// The memory table comes in order and in pieces; `total` is the same in each.
class MemoryTable {
 public:
  [[nodiscard]] bool complete() const noexcept { return total_ != 0 && mapped_ == total_; }

  Started<void> take(const Packet& packet, Guest& guest) noexcept {
    const auto part = packet.as<MemoryRegions>();
    if (!part || part->count != packet.fds.size() || part->first != mapped_ ||
        part->total > common::kMemoryRegionsMax || (total_ != 0 && part->total != total_) ||
        !common::range_within(part->first, part->count, part->total)) {
      return refuse_packet(packet);
    }
    total_ = part->total;
    for (std::uint32_t i = 0; i < part->count; ++i) {
      TRY(map_region(packet.fds.at(i), part->regions[i], guest));
      ++mapped_;
    }
    return {};
  }

 private:
  std::uint32_t total_ = 0;
  std::uint32_t mapped_ = 0;
};

bool inflight_is_sane(const RingStart& ring) noexcept {
  if (ring.has_inflight == 0) return true;
  return ring.has_inflight == 1 && ring.inflight_entries >= ring.queue_size &&
         ring.inflight_entries <= UINT16_MAX &&
         ring.inflight_offset % common::inflight::kAlignment == 0;
}

// virtio 1.2, 2.7 and 2.8.10.1: only the size of a split ring is a power of two.
bool place_is_sane(const RingStart& ring) noexcept {
  if (ring.queue_size > common::kQueueSizeMax) return false;
  if (is_packed(ring)) {
    return common::packed_base_is_sane(common::unpack_vring_base(ring.next_avail), ring.queue_size);
  }
  return common::is_power_of_two(ring.queue_size) && ring.next_avail <= 0xffff;
}

bool log_is_sane(const RingStart& ring) noexcept {
  return ring.has_log <= 1 && (ring.has_log == 0 || ring.log_bytes != 0);
}

// What concerns the descriptors and sizes of the ring alone.
bool ring_is_sane(const RingStart& ring, std::size_t fds) noexcept {
  return ring.has_kick <= 1 && ring.has_call <= 1 && inflight_is_sane(ring) && log_is_sane(ring) &&
         fds == ring.has_kick + ring.has_call + ring.has_inflight + ring.has_log &&
         place_is_sane(ring);
}

// The front-end's file as a rule, so it may be anything. One that shrinks later is SIGBUS: the end
// of this worker, and of nobody else.
Started<common::SharedRegion> map_file(FdRef file, std::uint64_t offset, std::uint64_t bytes,
                                       WorkerFault fault, Guest& guest) noexcept {
  if (!file_holds(file, {.guest_addr = 0, .bytes = bytes, .file_offset = offset})) {
    return refuse(fault, offset, bytes, EOVERFLOW);
  }
  auto region =
      common::SharedRegion::map(file, offset, bytes, common::SharedRegion::Access::kReadWrite);
  if (!region) return refuse(fault, offset, bytes, region.error().os_errno);
  // A region need not begin with a page, but what is sealed does.
  const std::span<std::byte> mapped = region->bytes();
  const std::uint64_t before = offset % common::inflight::kOurStride;
  guest.mapped.emplace_back(mapped.data() - before, mapped.size() + before);
  return *std::move(region);
}

Started<void> map_inflight(FdRef file, Guest& guest) noexcept {
  const std::uint64_t bytes =
      is_packed(guest.ring) ? common::inflight::packed_queue_bytes(guest.ring.inflight_entries)
                            : common::inflight::queue_bytes(guest.ring.inflight_entries);
  TRY_LET(guest.inflight,
          map_file(file, guest.ring.inflight_offset, bytes, WorkerFault::kInflightUnmapped, guest));
  return {};
}

Started<void> map_log(FdRef file, Guest& guest) noexcept {
  TRY_LET(guest.log, map_file(file, guest.ring.log_offset, guest.ring.log_bytes,
                              WorkerFault::kLogUnmapped, guest));
  return {};
}

Started<void> take_ring(Packet& packet, Guest& guest) noexcept {
  const auto ring = packet.as<RingStart>();
  if (!ring || !ring_is_sane(*ring, packet.fds.size())) return refuse_packet(packet);
  guest.ring = *ring;
  std::size_t next = 0;
  if (ring->has_kick != 0) guest.kick = packet.fds.take(next++);
  if (ring->has_call != 0) guest.call = packet.fds.take(next++);
  if (ring->has_inflight != 0) TRY(map_inflight(packet.fds.at(next++), guest));
  if (ring->has_log != 0) TRY(map_log(packet.fds.at(next), guest));
  if (guest.kick.valid() && !is_readable_eventfd(guest.kick.ref())) {
    return refuse(WorkerFault::kKickUnreadable);
  }
  if (guest.call.valid() && !is_eventfd(guest.call.ref())) {
    return refuse(WorkerFault::kCallUnwritable);
  }
  return {};
}

auto misplaced(int os_errno) noexcept {
  return host_fault(WorkerFault::kEngine, std::to_underlying(EngineStep::kDescriptors), os_errno);
}

}  // namespace

void report(const StartFailure& failure, common::StatusPage& page) noexcept {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  page.fault_os_errno.store(static_cast<std::uint32_t>(failure.os_errno), kRelaxed);
  page.fault_detail[0].store(failure.details[0], kRelaxed);
  page.fault_detail[1].store(failure.details[1], kRelaxed);
  page.fault.store(static_cast<std::uint32_t>(failure.fault), kRelaxed);
}

Started<void> next_packet(FdRef control, Packet& packet) noexcept {
  const auto arrival = common::ipc::receive_packet(control, packet, true);
  if (!arrival) return refuse(WorkerFault::kBadMessage, 0, 0, arrival.error().os_errno);
  if (*arrival != Arrival::kData) return refuse_packet(packet);
  return {};
}

Started<common::ipc::JailOrder> receive_jail_order(FdRef control) noexcept {
  return next_message<common::ipc::JailOrder>(control);
}

Started<void> receive_guest(FdRef control, Guest& guest) noexcept {
  MemoryTable table;
  Packet packet;
  while (true) {
    TRY(next_packet(control, packet));
    if (packet.kind() == MemoryRegions::kKind && !table.complete()) {
      TRY(table.take(packet, guest));
    } else if (packet.kind() == RingStart::kKind && table.complete()) {
      return take_ring(packet, guest);
    } else {
      return refuse_packet(packet);
    }
  }
}

Started<void> lift(Fd& fd) noexcept {
  constexpr int kAbove = 16;
  if (!fd.valid()) return {};
  auto copy = common::duplicate(fd.ref(), kAbove);
  if (!copy) return misplaced(copy.error().os_errno);
  fd = *std::move(copy);
  return {};
}

Started<FdRef> put(Fd fd, int number) noexcept {
  if (!fd.valid()) return FdRef{};
  if (::dup3(fd.ref().number, number, O_CLOEXEC) != number) return misplaced(errno);
  return FdRef{number};
}

}  // namespace worker
