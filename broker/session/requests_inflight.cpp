// Requests about the in-flight region. A front-end gets one, keeps it while back-ends come and go,
// and gives it to each of them before it starts the rings.
#include <cerrno>
#include <cstring>
#include <utility>

#include "broker/session/requests.h"
#include "broker/session/workers.h"

namespace session {
namespace {

using common::ipc::EventCode;

// 20 bytes in the specification's table, and 24 in the structure that QEMU and rust-vmm send.
constexpr std::size_t kShort = 20;
static_assert(sizeof(InflightDescription) == 24);

Outcome<InflightDescription> description_of(const Incoming& incoming) noexcept {
  InflightDescription description{};
  const std::size_t size = incoming.payload.size();
  if (size != kShort && size != sizeof(description)) {
    return violation(EventCode::kPayloadSize, number_of(incoming), size, sizeof(description));
  }
  std::memcpy(&description, incoming.payload.data(), size);
  return description;
}

Answer answer_with(Incoming& incoming, const InflightDescription& description,
                   common::FdRef file) noexcept {
  const std::size_t size = incoming.payload.size() == kShort ? kShort : sizeof(InflightDescription);
  std::memcpy(incoming.reply_room.data(), &description, size);
  return {.body = incoming.reply_room.first(size), .file = file};
}

}  // namespace

// A size of 0 says that there is no region, which front-ends take for "not tracked".
Outcome<Answer> get_inflight_fd(Context& context, Incoming& incoming) noexcept {
  Device& device = context.device;
  // Old rust-vmm front-ends do not say what they want.
  InflightDescription wanted{};
  wanted.queues = static_cast<std::uint16_t>(device.queue_count);
  wanted.queue_size = static_cast<std::uint16_t>(device.queue_size_max);
  if (!incoming.payload.empty()) {
    TRY_LET(wanted, description_of(incoming));
  }
  const bool possible = wanted.queues != 0 && wanted.queues <= device.queue_count &&
                        wanted.queue_size != 0 && wanted.queue_size <= device.queue_size_max;
  if (possible) {
    wanted.mmap_offset = 0;
    const RingKind kind = device.features.may_be_packed() ? RingKind::kPacked : RingKind::kSplit;
    wanted.mmap_bytes = inflight_file_bytes(kind, wanted.queues, wanted.queue_size);
    TRY_LET(device.inflight_offer, context.workers.make_inflight(wanted.mmap_bytes));
    if (device.inflight_offer.valid()) {
      return answer_with(incoming, wanted, device.inflight_offer.ref());
    }
  }
  Answer none = answer_with(incoming, {}, {});
  none.refusal_errno = possible ? ENOMEM : EINVAL;
  return none;
}

// It may know of requests that some session or worker before us has taken: the rings' next workers
// look.
Outcome<Answer> set_inflight_fd(Context& context, Incoming& incoming) noexcept {
  TRY_LET(const InflightDescription description, description_of(incoming));
  if (incoming.fds.size() != 1) {
    return violation(EventCode::kTooFewFds, number_of(incoming), incoming.fds.size(), 1);
  }
  Device& device = context.device;
  const std::uint32_t before = device.inflight.generation();
  TRY(device.inflight.set(description, incoming.fds.take(0), kind_of(device.features),
                          device.queue_count));
  const bool another = device.inflight.generation() != before;
  for (Vring& ring : device.queues()) {
    ring.forgets_inflight = false;
    ring.base_is_newer = ring.base_is_newer && !another;
  }
  return Answer{};
}

}  // namespace session
