#include "broker/session/config_space.h"

#include <algorithm>

namespace session {
namespace {

// Cloud Hypervisor before 2026 counts from the start of the PCI register block in which the
// configuration space sits at 0x100. No device has a byte there, so the meaning is unambiguous.
constexpr std::uint64_t kForeignBase = 0x100;

std::uint64_t position_of(std::uint32_t offset) noexcept {
  return offset >= kForeignBase ? offset - kForeignBase : offset;
}

}  // namespace

ConfigSpace::ConfigSpace(const common::ipc::SessionStart& start) noexcept
    : writable_offset_(start.writable_offset),
      writable_bytes_(start.writable_bytes),
      writable_needs_(start.writable_needs) {
  std::copy_n(start.config.begin(), start.config_bytes, bytes_.begin());
}

void ConfigSpace::read(std::uint32_t offset, std::span<std::byte> out) const noexcept {
  std::uint64_t position = position_of(offset);
  for (std::byte& byte : out) byte = std::byte{at(position++)};
}

bool ConfigSpace::write(std::uint32_t offset, std::span<const std::byte> bytes) noexcept {
  const std::uint64_t first = position_of(offset);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const bool changes = std::to_integer<std::uint8_t>(bytes[i]) != at(first + i);
    if (changes && !is_writable(first + i)) return false;
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (is_writable(first + i)) bytes_[first + i] = std::to_integer<std::uint8_t>(bytes[i]);
  }
  return true;
}

void ConfigSpace::replace(std::span<const std::uint8_t> bytes) noexcept {
  std::array<std::uint8_t, common::ipc::kConfigBytesMax> fresh{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), fresh.size()), fresh.begin());
  std::copy_n(bytes_.begin() + writable_offset_, writable_bytes_, fresh.begin() + writable_offset_);
  bytes_ = fresh;
  ++generation_;
}

void ConfigSpace::acknowledged(std::uint64_t features) noexcept {
  writable_hidden_ = (features & writable_needs_) != writable_needs_;
}

std::array<std::uint8_t, kWritableBytesMax> ConfigSpace::writable() const noexcept {
  std::array<std::uint8_t, kWritableBytesMax> out{};
  std::copy_n(bytes_.begin() + writable_offset_, writable_bytes_, out.begin());
  return out;
}

bool ConfigSpace::is_writable(std::uint64_t position) const noexcept {
  return position >= writable_offset_ && position - writable_offset_ < writable_bytes_;
}

std::uint8_t ConfigSpace::at(std::uint64_t position) const noexcept {
  if (position >= bytes_.size() || (writable_hidden_ && is_writable(position))) return 0;
  return bytes_[position];
}

}  // namespace session
