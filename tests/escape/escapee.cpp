// tests/escape/escapee.cpp: a program that goes through the real jail like a session or worker and
// then tries one forbidden thing. What becomes of it is the test's business.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>

#include "common/ipc/channel.h"
#include "common/ipc/jail_order.h"
#include "common/status_page.h"
#include "common/uring_sys.h"
#include "policy/jail.h"
#include "tests/escape/escape_order.h"

namespace {

namespace uring = common::uring;
using common::FdRef;
using common::StatusPage;
using common::ipc::JailOrder;
using common::ipc::UringLayout;
using escape::Act;
using escape::EscapeOrder;

constexpr int kRingFd = 6;
constexpr int kEventsFd = 4;
alignas(4096) unsigned char scratch[4096] = {0xc3};  // "ret": harmless if it ever ran.

[[noreturn, gnu::noinline, gnu::used]] void leave(int code) {
  while (true) ::syscall(SYS_exit_group, code);
}

template <typename T>
T receive() {
  common::ipc::Packet packet;
  const auto arrival = receive_packet(FdRef{escape::kControlFd}, packet, true);
  if (!arrival || *arrival != common::ipc::Arrival::kData) leave(escape::kBadOrder);
  const auto message = packet.as<T>();
  if (!message) leave(escape::kBadOrder);
  return *message;
}

StatusPage& map_status_page() {
  void* const start = ::mmap(nullptr, common::kStatusPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                             escape::kStatusFd, 0);
  if (start == MAP_FAILED) leave(escape::kBadOrder);
  ::close(escape::kStatusFd);
  return *static_cast<StatusPage*>(start);
}

struct Ring {
  std::byte* rings = nullptr;
  io_uring_sqe* requests = nullptr;
  UringLayout layout{};

  [[nodiscard]] std::uint32_t* word(std::uint32_t offset) const {
    return reinterpret_cast<std::uint32_t*>(rings + offset);
  }
};

std::byte* map_ring(std::size_t bytes, std::uint64_t offset) {
  void* const start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                             kRingFd, static_cast<off_t>(offset));
  if (start == MAP_FAILED) leave(escape::kBadOrder);
  return static_cast<std::byte*>(start);
}

// As a worker does: map, register files and the ring itself, enable.
Ring take_ring(const UringLayout& layout) {
  Ring ring;
  ring.layout = layout;
  const std::size_t completions =
      layout.cqes + std::size_t{layout.cq_entries} * sizeof(io_uring_cqe);
  const std::size_t submissions =
      layout.sq_array + (layout.no_sq_array != 0 ? 0 : std::size_t{layout.sq_entries} * 4);
  ring.rings = map_ring(std::max(completions, submissions), IORING_OFF_SQ_RING);
  ring.requests = reinterpret_cast<io_uring_sqe*>(
      map_ring(layout.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
  const int files[] = {8, 9, 5};  // Kick, call, disk.
  io_uring_rsrc_update own{};
  own.offset = UINT32_MAX;
  own.data = kRingFd;
  if (uring::reg(kRingFd, IORING_REGISTER_FILES, files, 3) < 0 ||
      uring::reg(kRingFd, IORING_REGISTER_RING_FDS, &own, 1) != 1 || own.offset != 0 ||
      uring::reg(kRingFd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) < 0) {
    leave(escape::kBadOrder);
  }
  return ring;
}

std::uint64_t argument(const EscapeOrder& order, std::uint64_t value) {
  if (value == escape::kText) return reinterpret_cast<std::uint64_t>(order.text.data());
  return value == escape::kScratch ? reinterpret_cast<std::uint64_t>(scratch) : value;
}

long system_call(const EscapeOrder& order) {
  std::array<std::uint64_t, 6> a = order.arguments;
  for (std::uint64_t& each : a) each = argument(order, each);
  const long result =
      ::syscall(static_cast<long>(order.number), a[0], a[1], a[2], a[3], a[4], a[5]);
  return result < 0 ? -errno : result;
}

long interrupt_80([[maybe_unused]] const EscapeOrder& order) {
#if defined(__x86_64__)
  long result = static_cast<long>(order.number);
  asm volatile("int $0x80"
               : "+a"(result)
               : "b"(order.arguments[0]), "c"(order.arguments[1]), "d"(order.arguments[2])
               : "memory", "r8", "r9", "r10", "r11");
  return result;
#else
  return -ENOSYS;
#endif
}

constexpr unsigned kEnterFlags = IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING;

long ring_request(const EscapeOrder& order, const Ring& ring) {
  io_uring_sqe& request = ring.requests[0];
  std::memset(&request, 0, sizeof(request));
  request.opcode = order.opcode;
  request.flags = order.flags;
  request.fd = order.fd;
  request.off = order.offset;
  request.addr = argument(order, order.address);
  request.len = order.length;
  request.rw_flags = order.operation_flags;
  if (ring.layout.no_sq_array == 0) *ring.word(ring.layout.sq_array) = 0;
  __atomic_store_n(ring.word(ring.layout.sq_tail), 1U, __ATOMIC_RELEASE);
  const int entered = uring::enter(0, 1, 1, kEnterFlags, nullptr, 0);
  if (entered < 0) return -errno;
  return reinterpret_cast<const io_uring_cqe*>(ring.rings + ring.layout.cqes)->res;
}

long write_text() {
  auto text = reinterpret_cast<std::uintptr_t>(&leave);
  asm volatile("" : "+r"(text));  // The compiler must not see that this cannot be.
  *reinterpret_cast<volatile unsigned char*>(text) = 0xc3;
  return 0;
}

long run_data() {
  reinterpret_cast<void (*)()>(reinterpret_cast<std::uintptr_t>(scratch))();
  return 0;
}

// Which only an exporter keeps, and a child is started without.
void open_the_first_three(std::span<const int> keep) {
  for (const int number : keep) {
    if (number > STDERR_FILENO || ::fcntl(number, F_GETFD) >= 0) continue;
    if (::dup2(escape::kControlFd, number) < 0) leave(escape::kBadOrder);
  }
}

[[noreturn]] void sleep_for_ever(const EscapeOrder& order, const Ring& ring) {
  while (true) {
    if (order.sleeps_in_epoll != 0) {
      ::syscall(SYS_epoll_wait, kEventsFd, scratch, 1, -1);
    } else if (ring.rings != nullptr) {
      (void)uring::enter(0, 0, 1, kEnterFlags, nullptr, 0);
    } else {
      ::syscall(SYS_ppoll, nullptr, 0, nullptr, nullptr, 8);
    }
  }
}

long perform(const EscapeOrder& order, const Ring& ring) {
  switch (static_cast<Act>(order.act)) {
    case Act::kSystemCall:
      return system_call(order);
    case Act::kInterrupt80:
      return interrupt_80(order);
    case Act::kRingRequest:
      return ring_request(order, ring);
    case Act::kWriteText:
      return write_text();
    case Act::kRunData:
      return run_data();
    case Act::kSleep:
      sleep_for_ever(order, ring);
    case Act::kExit:
      break;
  }
  return 0;
}

}  // namespace

int main() {
  StatusPage& page = map_status_page();
  const auto jail = receive<JailOrder>();
  if (const auto entered = policy::enter_jail(jail, {}, page); !entered) {
    page.fault_os_errno.store(static_cast<std::uint32_t>(entered.error().os_errno));
    leave(escape::kNotJailed);
  }
  const auto order = receive<EscapeOrder>();
  const Ring ring = order.has_ring != 0 ? take_ring(order.layout) : Ring{};
  const std::span keep(order.keep.data(),
                       std::min<std::size_t>(order.keep_count, order.keep.size()));
  open_the_first_three(keep);
  policy::seal_mappings(page);
  const policy::JailLimits limits{order.file_size_limit, order.descriptors_limit,
                                  order.processes_limit};
  if (const auto sealed = policy::seal(jail, limits, keep, page); !sealed) {
    page.fault_os_errno.store(static_cast<std::uint32_t>(sealed.error().os_errno));
    leave(escape::kNotSealed);
  }
  page.fault_detail[0].store(static_cast<std::uint64_t>(perform(order, ring)));
  leave(escape::kActReturned);
}
