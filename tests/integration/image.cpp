#include "tests/integration/image.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "common/fd.h"
#include "tests/fakes/failure.h"

namespace integration {
namespace {

// One 64-bit word of a sector: a mix of where it is and which version, so that a read of the wrong
// place, of half a sector, or of an older write shows.
std::uint64_t word(std::uint64_t sector, std::uint32_t version, std::uint64_t index) {
  std::uint64_t value = sector * 0x9e3779b97f4a7c15ULL + (index << 32 | version);
  value ^= value >> 29;
  value *= 0xbf58476d1ce4e5b9ULL;
  return value ^ value >> 32;
}

}  // namespace

std::vector<std::byte> pattern(std::uint64_t sector, std::uint64_t bytes, std::uint32_t version) {
  std::vector<std::byte> out(bytes);
  for (std::uint64_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
    const std::uint64_t value = word(sector + at / kSector, version, at % kSector);
    std::memcpy(out.data() + at, &value, sizeof(value));
  }
  return out;
}

bool is_pattern(std::span<const std::byte> bytes, std::uint64_t sector, std::uint32_t version) {
  return std::ranges::equal(bytes, pattern(sector, bytes.size(), version));
}

bool is_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

void make_image(const std::string& path, std::uint64_t bytes) {
  const common::Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  fakes::require_call(file.valid(), "create " + path);
  constexpr std::uint64_t kChunk = 1 << 20;
  for (std::uint64_t at = 0; at < bytes; at += kChunk) {
    const std::vector<std::byte> part = pattern(at / kSector, std::min(kChunk, bytes - at));
    const ssize_t written =
        ::pwrite(file.ref().number, part.data(), part.size(), static_cast<off_t>(at));
    fakes::require_call(written == static_cast<ssize_t>(part.size()), "fill " + path);
  }
}

std::vector<std::byte> read_image(const std::string& path, std::uint64_t sector,
                                  std::uint64_t bytes) {
  const common::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  fakes::require_call(file.valid(), "open " + path);
  std::vector<std::byte> out(bytes);
  const ssize_t got =
      ::pread(file.ref().number, out.data(), bytes, static_cast<off_t>(sector * kSector));
  fakes::require_call(got == static_cast<ssize_t>(bytes), "read " + path);
  return out;
}

}  // namespace integration
