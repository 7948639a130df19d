#include "policy/restricted_ring.h"

#include <linux/io_uring.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "common/sys.h"
#include "common/uring_sys.h"

namespace policy {
namespace {

namespace uring = common::uring;
using common::fail_errno;
using common::Fd;
using common::FdRef;
using common::Result;

struct Created {
  Fd fd;
  io_uring_params params{};
};

// `flags` with NO_SQARRAY where the kernel has it (6.6).
Result<Created> create(std::uint32_t entries, std::uint32_t completion_entries,
                       std::uint32_t flags) {
  for (const std::uint32_t extra : {uring::kSetupNoSqArray, 0U}) {
    Created created;
    created.params.flags = flags | extra;
    created.params.cq_entries = completion_entries;
    created.fd = Fd(uring::setup(entries, &created.params));
    if (created.fd.valid()) return created;
    if (errno != EINVAL) break;  // NOLINT: set by the call in setup().
  }
  return fail_errno("io_uring_setup", errno);
}

Result<void> apply(FdRef ring, std::uint32_t opcode, const void* argument, std::uint32_t count,
                   const char* what) {
  if (uring::reg(ring.number, opcode, argument, count) < 0) return fail_errno(what, errno);
  return {};
}

io_uring_restriction allow_opcode(std::uint8_t opcode) {
  io_uring_restriction entry{};
  entry.opcode = IORING_RESTRICTION_SQE_OP;
  entry.sqe_op = opcode;
  return entry;
}

// What is required is allowed too; every other flag, LINK, DRAIN and ASYNC among them, is refused.
// No register operation is listed, so none works once the ring is enabled.
io_uring_restriction require_registered_files() {
  io_uring_restriction entry{};
  entry.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
  entry.sqe_flags = IOSQE_FIXED_FILE;
  return entry;
}

Result<void> restrict_to(FdRef ring, std::span<const std::uint8_t> opcodes) {
  std::vector<io_uring_restriction> entries;
  for (const std::uint8_t opcode : opcodes) entries.push_back(allow_opcode(opcode));
  entries.push_back(require_registered_files());
  return apply(ring, IORING_REGISTER_RESTRICTIONS, entries.data(),
               static_cast<std::uint32_t>(entries.size()), "io_uring: restrictions");
}

common::ipc::UringLayout layout_of(const io_uring_params& params) {
  common::ipc::UringLayout layout{};
  layout.kind = common::ipc::UringLayout::kKind;
  layout.sq_entries = params.sq_entries;
  layout.cq_entries = params.cq_entries;
  layout.no_sq_array = (params.flags & uring::kSetupNoSqArray) != 0 ? 1 : 0;
  layout.sq_head = params.sq_off.head;
  layout.sq_tail = params.sq_off.tail;
  layout.sq_mask = params.sq_off.ring_mask;
  layout.sq_flags = params.sq_off.flags;
  layout.sq_array = params.sq_off.array;
  layout.cq_head = params.cq_off.head;
  layout.cq_tail = params.cq_off.tail;
  layout.cq_mask = params.cq_off.ring_mask;
  layout.cq_overflow = params.cq_off.overflow;
  layout.cqes = params.cq_off.cqes;
  return layout;
}

// A mapping that goes away with its object.
class Mapping {
 public:
  Mapping(FdRef ring, std::size_t bytes, std::uint64_t offset) noexcept
      : bytes_(bytes),
        start_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring.number,
                      static_cast<off_t>(offset))) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (valid()) ::munmap(start_, bytes_);
  }
  [[nodiscard]] bool valid() const noexcept { return start_ != MAP_FAILED; }
  template <typename T>
  [[nodiscard]] T* at(std::uint32_t offset) const noexcept {
    return reinterpret_cast<T*>(static_cast<std::byte*>(start_) + offset);
  }

 private:
  std::size_t bytes_;
  void* start_;
};

// Submits one request to a ring of our own that nobody else can touch, and waits for its result.
Result<int> run_one(const Created& ring, const io_uring_sqe& request) {
  const FdRef fd = ring.fd.ref();
  const io_uring_params& params = ring.params;
  const std::size_t bytes =
      params.cq_off.cqes + std::size_t{params.cq_entries} * sizeof(io_uring_cqe);
  const Mapping rings(fd, bytes, IORING_OFF_SQ_RING);
  const Mapping requests(fd, params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);
  if (!rings.valid() || !requests.valid()) return fail_errno("io_uring: map", errno);

  *requests.at<io_uring_sqe>(0) = request;
  if ((params.flags & uring::kSetupNoSqArray) == 0)
    *rings.at<std::uint32_t>(params.sq_off.array) = 0;
  __atomic_store_n(rings.at<std::uint32_t>(params.sq_off.tail), 1U, __ATOMIC_RELEASE);
  if (uring::enter(fd.number, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0) != 1) {
    return fail_errno("io_uring_enter", errno);
  }
  if (__atomic_load_n(rings.at<std::uint32_t>(params.cq_off.tail), __ATOMIC_ACQUIRE) != 1) {
    return fail_errno("io_uring_enter: no completion", EIO);
  }
  return rings.at<io_uring_cqe>(params.cq_off.cqes)->res;
}

// Constants of 6.0 and later kernels.
constexpr std::uint64_t kMessageSendFd = 1;  // IORING_MSG_SEND_FD

// Puts a descriptor from one ring's table into another's, as the broker does to a sealed worker.
Result<void> try_message_fd() {
  TRY_LET(
      const Created target,
      create(4, 4, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE));
  TRY_LET(const Created source, create(4, 4, IORING_SETUP_CQSIZE));
  TRY_LET(const Fd event, common::make_eventfd());
  const int empty = -1;
  TRY(apply(target.fd.ref(), IORING_REGISTER_FILES, &empty, 1, "io_uring: register files"));
  const int number = event.ref().number;
  TRY(apply(source.fd.ref(), IORING_REGISTER_FILES, &number, 1, "io_uring: register files"));

  io_uring_sqe request{};
  request.opcode = IORING_OP_MSG_RING;
  request.fd = target.fd.ref().number;
  request.addr = kMessageSendFd;
  request.addr3 = 0;       // From the source's slot 0,
  request.file_index = 1;  // to the target's slot 0; counted from 1.
  TRY_LET(const int result, run_one(source, request));
  if (result < 0) return fail_errno("io_uring: send a descriptor", -result);
  return {};
}

}  // namespace

Result<RestrictedRing> make_restricted_ring(const RingRequest& request) {
  constexpr std::uint32_t kFlags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                                   IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                                   IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
  TRY_LET(Created created, create(request.entries, request.completion_entries, kFlags));
  const FdRef ring = created.fd.ref();
  TRY(restrict_to(ring, request.opcodes));
  // Bounded (files) and unbounded; they take effect on whoever attaches to the ring.
  std::array<std::uint32_t, 2> workers = {request.bounded_workers, 1};
  TRY(apply(ring, IORING_REGISTER_IOWQ_MAX_WORKERS, workers.data(), workers.size(),
            "io_uring: limit of threads"));
  return RestrictedRing{std::move(created.fd), layout_of(created.params)};
}

UringSupport probe_uring() {
  UringSupport support;
  constexpr std::uint8_t kAnyOpcode[] = {IORING_OP_READ};
  const auto ring = make_restricted_ring(
      {.entries = 4, .completion_entries = 8, .bounded_workers = 1, .opcodes = kAnyOpcode});
  if (!ring) {
    support.step = ring.error().what;
    support.os_errno = ring.error().os_errno;
    return support;
  }
  support.engine_possible = true;
  const auto message = try_message_fd();
  support.message_fds = message.has_value();
  if (!message) {
    support.step = message.error().what;
    support.os_errno = message.error().os_errno;
  }
  return support;
}

}  // namespace policy
