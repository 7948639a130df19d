// tests/fakes/net_namespace.h: a network of a test's own: nothing in it but a loopback interface,
// and no other test's taps.
#pragma once

#include <string>
#include <vector>

#include "common/fd.h"

namespace fakes {

// The calling thread, and what it starts, is in a new network namespace until this goes away.
// Needs root: call possible() first.
class NetNamespace {
 public:
  [[nodiscard]] static bool possible() noexcept;
  NetNamespace();
  NetNamespace(const NetNamespace&) = delete;
  NetNamespace& operator=(const NetNamespace&) = delete;
  ~NetNamespace();

 private:
  common::Fd before_;
};

// Runs `ip` with these words; fails the test where it fails.
void ip(const std::vector<std::string>& words);

// Does that without a shell; the exit code, or 128 + the signal.
[[nodiscard]] int run_program(const std::vector<std::string>& words);

// Persistent until the namespace goes, as `ip tuntap add` makes it; set up, and without IPv6, which
// would send packets of its own.
struct TapShape {
  bool multi_queue = true;
  bool up = true;
  unsigned mtu = 1500;
};
void make_tap(const std::string& name, const TapShape& shape = {});

// Whether the interface is up and has a carrier (IFF_RUNNING).
[[nodiscard]] bool has_carrier(const std::string& interface);

}  // namespace fakes
