// tests/bench/tap_side.h: the host's end of a tap, for the benchmark: frames that wait in it, and
// the bare loops that a back-end is compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/fd.h"
#include "tests/fakes/host_port.h"

namespace bench {

// A frame of `bytes`; a guest's, or one for a guest. With `segments` it is TCP to be cut.
[[nodiscard]] fakes::NetPacket bench_packet(std::uint32_t bytes, bool segments, bool from_guest);
// As a tap and a ring have it: the 12-byte header and the frame.
[[nodiscard]] std::vector<std::byte> with_header(const fakes::NetPacket& packet);

// Puts frames into the tap's queue, where they wait for whoever reads the tap.
class TapFiller {
 public:
  TapFiller(const std::string& tap, const fakes::NetPacket& packet) : port_(tap), packet_(packet) {}
  void fill(std::uint32_t frames) {
    for (std::uint32_t i = 0; i < frames; ++i) (void)port_.try_send(packet_);
  }

 private:
  fakes::HostPort port_;
  fakes::NetPacket packet_;
};

// A queue of the tap, opened as a back-end does.
class RawTap {
 public:
  explicit RawTap(const std::string& tap);
  // False where the tap is full.
  [[nodiscard]] bool write(const std::vector<std::byte>& frame) const;
  // 0: nothing is there.
  [[nodiscard]] std::size_t read(std::vector<std::byte>& buffer) const;

 private:
  common::Fd queue_;
};

[[nodiscard]] std::vector<std::byte> mac_of(const std::string& interface);

}  // namespace bench
