// tests/escape/run_escapee.h: starts the escapee exactly as the broker starts a session or worker,
// with a real profile and the descriptors it names, and tells what became of it.
#pragma once

#include <sys/wait.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/ipc/jail_order.h"
#include "common/layers.h"
#include "common/shared_region.h"
#include "common/status_page.h"
#include "policy/profile.h"
#include "policy/spawn.h"
#include "tests/escape/escape_order.h"

namespace escape {

inline constexpr std::uint64_t kDiskBytes = 64 * 1024;
inline constexpr std::uint32_t kUid = 100123;  // Outside; nobody on this host.

// How it ended: one of the two.
struct End {
  int signal = 0;
  int exit_code = -1;
  bool operator==(const End&) const = default;
};
inline constexpr End kKilledBySeccomp{.signal = 31, .exit_code = -1};
inline constexpr End kCameBack{.signal = 0, .exit_code = kActReturned};
void PrintTo(const End& end, std::ostream* out);

// What differs between tests besides the act.
struct Setting {
  const policy::Profile* profile = nullptr;
  std::uint32_t namespaces = 0;  // 0: all that probe_namespaces() found.
  bool no_namespaces = false;
  bool strict = false;
  bool allow_every_call = false;  // A filter that permits all: the other layers stand alone.
  std::uint32_t uid = kUid;
};

class Escapee {
 public:
  // Fails the running test and returns nothing if it cannot be started.
  static std::optional<Escapee> start(const Setting& setting, EscapeOrder order);
  Escapee(Escapee&&) = default;
  ~Escapee();  // Kills and reaps it if wait() has not.

  [[nodiscard]] pid_t pid() const { return child_.pid; }
  [[nodiscard]] common::FdRef pidfd() const { return child_.pidfd.ref(); }
  [[nodiscard]] End wait();
  // Until it is sealed; false if it died before.
  [[nodiscard]] bool wait_until_sealed() const;

  [[nodiscard]] std::int64_t result() const;  // Of an act that came back; negative errno.
  [[nodiscard]] common::LayerResults layers() const;
  [[nodiscard]] common::LayerResult layer(common::Layer which) const;
  [[nodiscard]] const common::StatusPage& page() const;

 private:
  Escapee() = default;
  policy::Child child_;
  common::SharedRegion memory_;
  common::Fd tap_peer_;
  bool reaped_ = false;
};

// True if this kernel has every Landlock right that the jail asks for.
[[nodiscard]] bool landlock_is_complete();

// The acts.
[[nodiscard]] EscapeOrder try_system_call(std::uint64_t number,
                                          std::array<std::uint64_t, 6> arguments = {},
                                          std::string_view text = {});
[[nodiscard]] EscapeOrder try_act(Act act);
[[nodiscard]] EscapeOrder try_interrupt_80(std::uint64_t number);
[[nodiscard]] EscapeOrder try_ring(std::uint8_t opcode, std::uint8_t flags, int slot,
                                   std::uint32_t length = 512, std::uint64_t offset = 0);

}  // namespace escape
