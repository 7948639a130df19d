// common/fd.h: the only type in this project that owns a file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

namespace common {

// Use without ownership: never stored beyond the life of the Fd it came from.
struct FdRef {
  int number = -1;
  [[nodiscard]] constexpr bool valid() const noexcept { return number >= 0; }
};

class [[nodiscard]] Fd {
 public:
  Fd() noexcept = default;
  explicit Fd(int number) noexcept : number_(number) {}

  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  Fd(Fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    Fd taken(std::move(other));  // Through a temporary, so that self-move keeps the descriptor.
    std::swap(number_, taken.number_);
    return *this;
  }

  // Not retried on EINTR: Linux has released the number by then, and a second close could hit
  // a descriptor that someone else has just opened.
  ~Fd() { reset(); }

  void reset() noexcept {  // syscalls: close
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }

  [[nodiscard]] bool valid() const noexcept { return number_ >= 0; }
  [[nodiscard]] FdRef ref() const noexcept { return FdRef{number_}; }
  [[nodiscard]] int release() noexcept { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

}  // namespace common
