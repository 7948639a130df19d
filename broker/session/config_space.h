// broker/session/config_space.h: the device's configuration space, as bytes the session does not
// understand. Not trusted: offsets, sizes and bytes from the VMM, which passes on what a guest
// wrote.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "broker/session/vhost_wire.h"
#include "common/ipc/session_broker.h"

namespace session {

inline constexpr std::size_t kWritableBytesMax = 8;

class ConfigSpace {
 public:
  ConfigSpace() = default;
  // `start` has been checked (session.cpp: start_is_sound).
  explicit ConfigSpace(const common::ipc::SessionStart& start) noexcept;

  // Any offset and size: what lies beyond the device's bytes is zero. Some front-ends ask for 256
  // bytes always, and an error here makes QEMU give up the device.
  void read(std::uint32_t offset, std::span<std::byte> out) const noexcept;

  // False, and nothing is changed, if a byte outside the writable ones would change. Front-ends
  // that write whole words (OpenVMM) repeat the neighbours of the byte they mean.
  [[nodiscard]] bool write(std::uint32_t offset, std::span<const std::byte> bytes) noexcept;

  // The broker says that the device has changed; what the driver has written stays.
  void replace(std::span<const std::uint8_t> bytes) noexcept;

  // The driver has acknowledged these features: without what the writable bytes need, they read as
  // 0, whatever they are.
  void acknowledged(std::uint64_t features) noexcept;

  [[nodiscard]] std::array<std::uint8_t, kWritableBytesMax> writable() const noexcept;
  // Goes up with every replace(): running workers were told of the device before that.
  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }

 private:
  [[nodiscard]] bool is_writable(std::uint64_t position) const noexcept;
  [[nodiscard]] std::uint8_t at(std::uint64_t position) const noexcept;

  std::array<std::uint8_t, common::ipc::kConfigBytesMax> bytes_{};
  std::uint32_t writable_offset_ = 0;
  std::uint32_t writable_bytes_ = 0;
  std::uint64_t writable_needs_ = 0;
  bool writable_hidden_ = false;
  std::uint32_t generation_ = 0;
};

}  // namespace session
