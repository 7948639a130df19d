// broker/kept.h: who holds on to one thing that is kept for the next broker (keep.h).
#pragma once

#include <cstdint>
#include <utility>

namespace broker {

class Keep;

// One thing that is kept as long as this lives. In a class, declare it after the descriptors.
class Kept {
 public:
  Kept() noexcept = default;
  // `keep` null: nothing is kept.
  Kept(Keep* keep, std::uint64_t id) noexcept : keep_(keep), id_(id) {}
  Kept(Kept&& other) noexcept : keep_(std::exchange(other.keep_, nullptr)), id_(other.id_) {}
  Kept& operator=(Kept&& other) noexcept {
    Kept taken(std::move(other));
    std::swap(keep_, taken.keep_);
    std::swap(id_, taken.id_);
    return *this;
  }
  ~Kept() { reset(); }
  void reset() noexcept;
  // It stays kept.
  void forget() noexcept { keep_ = nullptr; }
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

 private:
  Keep* keep_ = nullptr;
  std::uint64_t id_ = 0;
};

}  // namespace broker
