// common/ipc/message.h: what may be a message between two of our processes.
//
// One message is one SOCK_SEQPACKET packet of a fixed size. Its type carries kind, size and number
// of descriptors, so a receiver checks all three before it looks at a field.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace common::ipc {

inline constexpr std::size_t kMessageBytesMax = 2048;
inline constexpr std::size_t kMessageFdsMax = 8;

// Goes up when a message changes its layout or meaning; both sides compare it in their first
// message (the seam for replacing one program while another runs).
inline constexpr std::uint32_t kIpcVersion = 4;
// Sessions and workers that an older broker has started go on under a newer one: what they spoke
// then is understood for one version more.
inline constexpr std::uint32_t kIpcOldest = 3;
// From here on workers know packed rings, and RingStart::next_avail has 32 bits for them.
inline constexpr std::uint32_t kIpcPackedRings = 4;

// Every message starts with its kind. No pointers, no padding (padding would carry our stack to the
// other side). `kFdsMin`..`kFdsMax` descriptors travel with it.
template <typename T>
concept Message = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T> &&
                  sizeof(T) <= kMessageBytesMax&& T::kFdsMin
                  <= T::kFdsMax&& T::kFdsMax <= kMessageFdsMax&& requires(T message) {
  { message.kind } -> std::same_as<std::uint32_t&>;
  { T::kKind } -> std::convertible_to<std::uint32_t>;
};

}  // namespace common::ipc
