#include "worker/heap_lock.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "common/verify.h"

namespace worker {
namespace {

// The only variables of this program outside main(): operator new has no argument to carry them.
bool heap_locked = false;
bool heap_lasts = false;

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kPieceBytes = 64 * kPageBytes;

// Zeroed memory that costs nothing before it is touched. Not in huge pages: one byte would cost two
// megabytes.
std::byte* fresh_pages(std::size_t bytes) noexcept {
  void* const pages = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  common::verify(pages != MAP_FAILED);
  (void)::madvise(pages, bytes, MADV_NOHUGEPAGE);
  return static_cast<std::byte*>(pages);
}

class Arena {
 public:
  void* carve(std::size_t bytes, std::size_t alignment) noexcept {
    std::byte* start = aligned(alignment);
    if (next_ == nullptr || start > end_ || bytes > static_cast<std::size_t>(end_ - start)) {
      const std::size_t piece =
          std::max(kPieceBytes, (bytes + alignment + kPageBytes - 1) & ~(kPageBytes - 1));
      next_ = fresh_pages(piece);
      end_ = next_ + piece;
      start = aligned(alignment);
    }
    next_ = start + bytes;
    return start;
  }

 private:
  [[nodiscard]] std::byte* aligned(std::size_t alignment) const noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(next_);
    return next_ + ((alignment - at % alignment) % alignment);
  }
  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
};

constexpr std::size_t kSmallBytes = 1024;
Arena small_things;
Arena large_things;

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  common::verify(!heap_locked);
  if (heap_lasts) {
    Arena& arena = bytes < kSmallBytes ? small_things : large_things;
    return arena.carve(bytes, std::max(alignment, alignof(std::max_align_t)));
  }
  if (alignment <= alignof(std::max_align_t)) return std::malloc(bytes == 0 ? 1 : bytes);
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* allocate(std::size_t bytes) noexcept { return allocate(bytes, alignof(std::max_align_t)); }

void* allocate(std::size_t bytes, std::align_val_t alignment) noexcept {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}

// Without exceptions the only answer to no memory.
void* must(void* memory) noexcept {
  common::verify(memory != nullptr);
  return memory;
}

void release(void* memory) noexcept {
  common::verify(!heap_locked);
  if (!heap_lasts) std::free(memory);
}

}  // namespace

void start_lasting_heap() noexcept {
#ifndef BULKHEAD_SANITIZER
  heap_lasts = true;
#endif
}

void lock_heap() noexcept { heap_locked = true; }

}  // namespace worker

void* operator new(std::size_t bytes) { return worker::must(worker::allocate(bytes)); }
void* operator new[](std::size_t bytes) { return worker::must(worker::allocate(bytes)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return worker::must(worker::allocate(bytes, alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return worker::must(worker::allocate(bytes, alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return worker::allocate(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return worker::allocate(bytes);
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return worker::allocate(bytes, alignment);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment,
                     const std::nothrow_t&) noexcept {
  return worker::allocate(bytes, alignment);
}

void operator delete(void* memory) noexcept { worker::release(memory); }
void operator delete[](void* memory) noexcept { worker::release(memory); }
void operator delete(void* memory, std::size_t) noexcept { worker::release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { worker::release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { worker::release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { worker::release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  worker::release(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  worker::release(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept { worker::release(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { worker::release(memory); }
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  worker::release(memory);
}
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  worker::release(memory);
}

// What the run-time calls for an exception that nobody catches, of which there are none. The
// default prints the exception's type, and for that brings a demangler and stdio into every worker.
namespace __gnu_cxx {
// NOLINTBEGIN: libstdc++ names it.
void __verbose_terminate_handler();
void __verbose_terminate_handler() { __builtin_trap(); }
// NOLINTEND
}  // namespace __gnu_cxx
