// tests/fuzz/fuzz_input.h: takes a fuzzer's bytes apart, front to back; zeros once they run out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  std::uint8_t byte() { return number<std::uint8_t>(); }
  std::uint16_t word() { return number<std::uint16_t>(); }
  // At most `most` bytes.
  std::span<const std::uint8_t> bytes(std::size_t most) {
    const auto part = rest_.first(std::min(most, rest_.size()));
    rest_ = rest_.subspan(part.size());
    return part;
  }

 private:
  template <typename T>
  T number() {
    T value = 0;
    const auto part = bytes(sizeof(T));
    if (!part.empty()) std::memcpy(&value, part.data(), part.size());
    return value;
  }
  std::span<const std::uint8_t> rest_;
};

// A broken promise of the code under test: what the fuzzer looks for.
inline void require(bool condition) {
  if (!condition) __builtin_trap();
}

}  // namespace fuzz
