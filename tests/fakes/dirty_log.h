// tests/fakes/dirty_log.h: a migrating VMM's log of written pages, and memory as it was at some
// moment, to compare the two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "tests/fakes/split_driver.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/fakes/vm_memory.h"

namespace fakes {

using Pages = std::set<std::uint64_t>;  // Guest-physical page numbers.

inline constexpr std::uint64_t kLogPageBytes = 4096;

// The pages of [addr, addr + bytes).
void add_pages(Pages& to, std::uint64_t addr, std::uint64_t bytes);
// Where the driver of this ring writes when it offers what it has prepared.
[[nodiscard]] Pages pages_of_offers(const RingPlace& place);
// Those of `left` that `right` does not have; for a test's message, empty where there are none.
[[nodiscard]] std::string missing(const Pages& left, const Pages& right);

// A memfd of which the log is only a part: what lies before and behind it must never change.
class DirtyLog {
 public:
  // As large as `memory` asks for; begins `offset` bytes into its file.
  explicit DirtyLog(const VmMemory& memory, std::uint64_t offset = kLogPageBytes)
      : DirtyLog(bytes_needed(memory), offset) {}
  DirtyLog(std::uint64_t bytes, std::uint64_t offset);
  DirtyLog(const DirtyLog&) = delete;
  DirtyLog& operator=(const DirtyLog&) = delete;
  ~DirtyLog();

  [[nodiscard]] static std::uint64_t bytes_needed(const VmMemory& memory);

  [[nodiscard]] common::FdRef file() const noexcept { return file_.ref(); }
  [[nodiscard]] VhostLog description() const noexcept { return {bytes_, offset_}; }

  // Takes all bits away, as a VMM does before it copies those pages.
  Pages take();
  [[nodiscard]] bool nothing_outside_changed() const;
  // The file ends there from now on: whoever touches the log behind it gets a SIGBUS.
  void shrink_to(std::uint64_t file_bytes);

 private:
  [[nodiscard]] std::span<std::byte> bits() const { return whole_.subspan(offset_, bytes_); }

  std::uint64_t bytes_;
  std::uint64_t offset_;
  common::Fd file_;
  std::span<std::byte> whole_;
};

// All of a guest's memory as it is now.
class MemorySnapshot {
 public:
  explicit MemorySnapshot(const VmMemory& memory);
  // The pages that are not as they were.
  [[nodiscard]] Pages changed() const;

 private:
  const VmMemory& memory_;
  std::vector<std::vector<std::byte>> regions_;
};

}  // namespace fakes
