// broker/session/log_region.h: the log in which a front-end that migrates wants to see what we have
// written (vhost-user, "Migration"): checked, kept as a descriptor, and never mapped here.
//
// Not trusted: the front-end's file and its description of it. The workers that map it check it
// anew, and a file that shrinks later kills them and nobody else.
#pragma once

#include <cstdint>
#include <optional>

#include "broker/session/end.h"
#include "broker/session/vhost_wire.h"
#include "common/fd.h"

namespace session {

class LogRegion {
 public:
  struct Place {
    common::FdRef file;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };

  // SET_LOG_BASE.
  [[nodiscard]] Outcome<void> set(const LogDescription& description, common::Fd file) noexcept;
  // Where it is; nothing before the first SET_LOG_BASE.
  [[nodiscard]] std::optional<Place> place() const noexcept;

  // All rings have been stopped since it came. QEMU frees its log then, and gives another one after
  // it has started the rings again; others go on with the same.
  void rings_stopped() noexcept { stale_ = true; }
  [[nodiscard]] bool is_stale() const noexcept { return stale_; }

  // Goes up with another file or another place in it, and with every log that follows a stale one.
  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }

 private:
  struct Given {
    std::uint64_t device = 0;  // With `inode`: which file.
    std::uint64_t inode = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    bool operator==(const Given&) const = default;
  };

  Given given_;
  common::Fd file_;
  bool stale_ = true;  // Before the first: there is none that the front-end looks at.
  std::uint32_t generation_ = 0;
};

}  // namespace session
