#include "worker/bounce.h"

#include <algorithm>
#include <cstdlib>

#include "common/verify.h"

namespace worker {
namespace {

constexpr std::uint64_t kPageBytes = 4096;

std::byte* allocate(bool needed, std::uint64_t alignment) {
  if (!needed) return nullptr;
  const std::size_t bytes = std::size_t{BouncePool::kBuffers} * BouncePool::kBufferBytes;
  void* const memory = std::aligned_alloc(std::max(alignment, kPageBytes), bytes);
  common::verify(memory != nullptr);  // At start: no guest is there yet.
  return static_cast<std::byte*>(memory);
}

}  // namespace

void BouncePool::Free::operator()(std::byte* memory) const noexcept { std::free(memory); }

BouncePool::BouncePool(bool needed, std::uint64_t alignment)
    : memory_(allocate(needed, alignment)), free_(needed ? kBuffers : 0) {}

std::span<std::byte> BouncePool::bytes(std::uint32_t buffer) noexcept {
  common::verify(buffer < kBuffers && memory_ != nullptr);
  return {memory_.get() + std::size_t{buffer} * kBufferBytes, kBufferBytes};
}

std::span<const iovec> BouncePool::segment(std::uint32_t buffer, std::uint32_t count) noexcept {
  const std::span<std::byte> all = bytes(buffer);
  common::verify(count <= all.size());
  segments_[buffer] = {all.data(), count};
  return {&segments_[buffer], 1};
}

}  // namespace worker
