// worker/probes.h: static tracepoints (USDT): a nop each until somebody like bpftrace attaches, and
// a note in the program that says where its arguments are.
//
// packaging/tracing/README.md documents them, and a test compares it with the programs' notes.
// Arguments are what is at hand already: a probe computes nothing.
#pragma once

#include <sys/sdt.h>

#include <cstdint>

namespace worker::probes {

// A block request is taken. `tag` is its own until `complete` says it again.
[[gnu::always_inline]] inline void submit(std::uint32_t tag, std::uint32_t work,
                                          std::uint64_t offset, std::uint32_t bytes) noexcept {
  STAP_PROBE4(bulkhead, submit, tag, work, offset, bytes);
}

// It is answered, with a virtio status.
[[gnu::always_inline]] inline void complete(std::uint32_t tag, std::uint32_t work,
                                            std::uint32_t status) noexcept {
  STAP_PROBE3(bulkhead, complete, tag, work, status);
}

// The guest's notification has been consumed.
[[gnu::always_inline]] inline void kick() noexcept { STAP_PROBE(bulkhead, kick); }

// The guest's bell is rung.
[[gnu::always_inline]] inline void notify() noexcept { STAP_PROBE(bulkhead, notify); }

// Nothing more is taken for so long, because of a limit.
[[gnu::always_inline]] inline void throttle(std::uint64_t nanoseconds) noexcept {
  STAP_PROBE1(bulkhead, throttle, nanoseconds);
}

// The guest broke the ring, or our side failed: an ipc::WorkerFault and its two numbers.
[[gnu::always_inline]] inline void fault(std::uint32_t code, std::uint64_t first,
                                         std::uint64_t second) noexcept {
  STAP_PROBE3(bulkhead, fault, code, first, second);
}

}  // namespace worker::probes
