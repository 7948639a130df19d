// tests/bench/net_options.h: the command line of the network benchmark.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace bench {

enum class NetMode : std::uint8_t {
  kTransmit,  // Guest to tap.
  kReceive,   // Tap to guest: what waits in the tap's queue is fetched.
  kEcho,      // One packet to the host's network stack and back (ICMP echo).
  kRawWrite,  // The floor: a bare loop of writes to the tap,
  kRawRead,   // or of reads from it.
};

struct NetOptions {
  NetMode mode = NetMode::kTransmit;
  std::string socket;
  std::string tap;            // The host's end, for kReceive, kEcho and raw.
  std::string address;        // kEcho: the tap's own IPv4 address.
  std::uint32_t bytes = 60;   // Of a frame; without the checksum at its end, as a tap has it.
  bool segments = false;      // Frames are TCP segments yet to be cut: TSO, or GRO coming in.
  std::uint32_t depth = 256;  // kTransmit: frames in flight.
  std::uint32_t queue_size = 256;
  std::uint32_t buffer_bytes = 2048;  // Of a receive buffer.
  std::uint32_t fill = 20000;         // kReceive, kRawRead: frames that wait in the tap at a time.
  double seconds = 2;
  bool poll = false;
  std::uint64_t rate = 0;
  std::uint32_t burst = 32;
  std::vector<pid_t> back_end;
  bool count_system_calls = false;
  int cpu = -1;
  bool hold = false;
  bool json = false;
};

[[nodiscard]] const char* net_usage() noexcept;
// Nothing where the line is wrong; `problem` says how.
[[nodiscard]] std::optional<NetOptions> parse_net(int argc, char** argv, std::string& problem);

}  // namespace bench
