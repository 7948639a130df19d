#include "worker/rate_map.h"

#include <utility>

#include "common/rate_page.h"

namespace worker {
namespace {

using common::Fd;
using common::kRatePageBytes;
using common::SharedRegion;
using common::ipc::JailOrder;
using common::ipc::WorkerFault;
using common::ipc::WorkerFd;

Started<std::byte*> map_page(common::FdRef file, std::uint64_t offset, SharedRegion::Access access,
                             SharedRegion& region, Guest& guest) noexcept {
  auto mapped = SharedRegion::map(file, offset, kRatePageBytes, access);
  if (!mapped) {
    return host_fault(WorkerFault::kEngine, std::to_underlying(EngineStep::kRates),
                      mapped.error().os_errno);
  }
  region = *std::move(mapped);
  guest.mapped.push_back(region.bytes());
  return region.bytes().data();
}

}  // namespace

Started<RateMap> map_rates(std::uint32_t count, Guest& guest) noexcept {
  RateMap map;
  constexpr std::array kFiles = {WorkerFd::kRates, WorkerFd::kGroupRates};
  const std::array<RateMemory*, kFiles.size()> memories = {&map.memories.device,
                                                           &map.memories.group};
  if (count > kFiles.size()) return refuse(WorkerFault::kBadMessage, JailOrder::kKind, count);
  for (std::size_t i = 0; i < count; ++i) {
    const Fd file(static_cast<int>(kFiles[i]));
    TRY_LET(std::byte* const settings,
            map_page(file.ref(), 0, SharedRegion::Access::kReadOnly, map.regions[2 * i], guest));
    TRY_LET(std::byte* const buckets,
            map_page(file.ref(), kRatePageBytes, SharedRegion::Access::kReadWrite,
                     map.regions[2 * i + 1], guest));
    memories[i]->settings = reinterpret_cast<const common::RateSettings*>(settings);
    memories[i]->buckets = reinterpret_cast<common::RateBuckets*>(buckets);
  }
  return map;
}

}  // namespace worker
