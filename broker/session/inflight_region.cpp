#include "broker/session/inflight_region.h"

#include <utility>

#include "broker/session/descriptor_check.h"
#include "common/checked.h"
#include "common/inflight_wire.h"
#include "common/packed_inflight_wire.h"

namespace session {
namespace {

namespace inflight = common::inflight;
using common::ipc::EventCode;

// virtio 1.2, 2.7 and 2.8.10.1: the largest ring there can be.
constexpr std::uint32_t kEntriesMax = 32768;

// Which number of a description is wrong: kBadInflight's second.
enum class Field : std::uint64_t { kQueues = 0, kQueueSize = 1, kSize = 2, kOffset = 3 };

auto bad(Field field, std::uint64_t value) noexcept {
  return violation(EventCode::kBadInflight, std::uint64_t(Request::kSetInflightFd),
                   static_cast<std::uint64_t>(field), value);
}

std::uint64_t queue_stride(RingKind kind, std::uint64_t entries, std::uint64_t unit) noexcept {
  return kind == RingKind::kPacked ? inflight::packed_stride(entries, unit)
                                   : inflight::stride(entries, unit);
}

// The description does not say how far apart two queues' regions are. Ours are pages apart, and a
// region that is too small for that was laid out by another back-end, before a migration.
std::uint64_t stride_of(const InflightDescription& description, RingKind kind) noexcept {
  for (const std::uint64_t unit : {inflight::kOurStride, inflight::kPeerStride}) {
    const std::uint64_t stride = queue_stride(kind, description.queue_size, unit);
    if (stride * description.queues <= description.mmap_bytes) return stride;
  }
  return 0;
}

}  // namespace

std::uint64_t inflight_file_bytes(RingKind kind, std::uint32_t queues,
                                  std::uint32_t entries) noexcept {
  return queues * queue_stride(kind, entries, inflight::kOurStride);
}

Outcome<void> InflightRegion::set(const InflightDescription& description, common::Fd file,
                                  RingKind kind, std::uint32_t queues_max) noexcept {
  if (description.queues == 0 || description.queues > queues_max) {
    return bad(Field::kQueues, description.queues);
  }
  if (description.queue_size == 0 || description.queue_size > kEntriesMax) {
    return bad(Field::kQueueSize, description.queue_size);
  }
  const std::uint64_t split = stride_of(description, RingKind::kSplit);
  const std::uint64_t packed = stride_of(description, RingKind::kPacked);
  if (split == 0 || (kind == RingKind::kPacked && packed == 0)) {
    return bad(Field::kSize, description.mmap_bytes);
  }
  const auto end = common::checked_add(description.mmap_offset, description.mmap_bytes);
  if (!end || description.mmap_offset % inflight::kAlignment != 0) {
    return bad(Field::kOffset, description.mmap_offset);
  }
  const auto facts = mode_of(file.ref());
  if (!facts || !facts->is_regular()) {
    return violation(EventCode::kBadFdType, std::uint64_t(Request::kSetInflightFd), 0,
                     facts ? facts->mode : 0);
  }
  if (*end > facts->bytes) return bad(Field::kSize, description.mmap_bytes);
  const Given given{facts->device, facts->inode,       description.mmap_offset, split,
                    packed,        description.queues, description.queue_size};
  if (given != given_) ++generation_;
  given_ = given;
  file_ = std::move(file);
  return {};
}

void InflightRegion::set_own(common::Fd file, RingKind kind,
                             std::uint32_t queue_size_max) noexcept {
  own_ = std::move(file);
  own_stride_ = queue_stride(kind, queue_size_max, inflight::kOurStride);
}

std::optional<InflightRegion::Place> InflightRegion::place(RingKind kind, std::uint32_t queue,
                                                           std::uint32_t size) const noexcept {
  const std::uint64_t stride =
      kind == RingKind::kPacked ? given_.packed_stride : given_.split_stride;
  if (file_.valid() && stride != 0 && queue < given_.queues && size <= given_.entries) {
    return Place{file_.ref(), given_.offset + queue * stride, given_.entries, true};
  }
  if (!own_.valid()) return std::nullopt;
  // No more of it than the ring needs: what is not touched takes no memory.
  return Place{own_.ref(), queue * own_stride_, size, false};
}

}  // namespace session
