// policy/jail.h: how a session or worker gives up what it has, in the one order there is.
//
// Stage 1, enter_jail(): before anything that a VMM or guest wrote is read. Namespaces came with
// clone(); root, ids, capabilities, securebits, no_new_privs, Landlock, not dumpable, W^X, most
// rlimits. Stage 2, seal(): once everything is set up. Descriptors closed, rlimits to zero, seccomp
// last.
//
// Both run in the jailed process itself, single-threaded, and use raw system calls only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/fd.h"
#include "common/ipc/jail_order.h"
#include "common/layers.h"
#include "common/result.h"
#include "common/status_page.h"

namespace policy {

// What differs between the processes. FSIZE is the largest offset a write may reach in a regular
// file: a hijacked worker cannot make the image grow. 0: no file may be written at all.
struct JailLimits {
  std::uint64_t file_size_bytes = 0;
  // RLIMIT_NOFILE after seal(): no descriptor of this number or above can be made. ppoll() refuses
  // more entries than this, so a process that polls needs at least as many.
  std::uint64_t descriptors = 0;
  // RLIMIT_NPROC, only in a user namespace of our own. io_uring's kernel threads count: a worker
  // with a ring needs 1 + bounded + 1, or flushes and allocating writes fail with ECANCELED.
  std::uint64_t processes = 1;
};

// Takes on every layer it can and writes what became of each into `page.layers`. Fails with the
// first layer that is missing where `order.strict`, and always where a layer that must not fail
// (no_new_privs, capabilities) does.
[[nodiscard]] common::Result<void> enter_jail(const common::ipc::JailOrder& order,
                                              const JailLimits& limits,
                                              common::StatusPage& page) noexcept;

// Makes the program's own segments, and the whole pages of `also` (guest memory), unchangeable
// where the kernel can (mseal): nobody unmaps, moves or re-protects them any more, their owner
// included.
void seal_mappings(common::StatusPage& page,
                   std::span<const std::span<std::byte>> also = {}) noexcept;

// Closes every descriptor but those in `keep` (ascending numbers), sets the final rlimits, installs
// the filter of `order`. After it returned, only what the profile lists works.
[[nodiscard]] common::Result<void> seal(const common::ipc::JailOrder& order,
                                        const JailLimits& limits, std::span<const int> keep,
                                        common::StatusPage& page) noexcept;

// True where `results` lacks what `order` asks for; that layer in `which`.
[[nodiscard]] bool below_demand(const common::ipc::JailOrder& order,
                                const common::LayerResults& results, common::Layer& which) noexcept;
// True where `results` has a layer that strict asks for and that does not hold; that layer in
// `which`.
[[nodiscard]] bool below_strict(const common::LayerResults& results, common::Layer& which) noexcept;

// No memory of this process is both writable and executable from now on, nor becomes executable.
[[nodiscard]] common::LayerResult take_mdwe() noexcept;

}  // namespace policy
