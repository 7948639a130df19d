// broker/audit/digest.h: SHA-256. libmd lives in digest.cpp only: the BSDs' message digests, which
// dpkg uses. Of it 4 KiB are linked in; libcrypto and libgcrypt bring state, locks and engines into
// the one process that has privileges, for one function.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace broker::audit {

inline constexpr std::size_t kDigestBytes = 32;
using Digest = std::array<std::uint8_t, kDigestBytes>;

[[nodiscard]] Digest sha256(std::span<const std::byte> bytes);
[[nodiscard]] Digest sha256(std::string_view text);

// 64 digits, lower case.
[[nodiscard]] std::string hex(const Digest& digest);

}  // namespace broker::audit
