// broker/exporter/jail.h: what the exporter gives up before the first stranger is answered. It is
// no child of a broker: who it is, and in which namespaces, says whoever started it
// (bulkhead-exporter.service); the rest is here, and policy/exporter.h is what is left.
#pragma once

#include <string>

#include "broker/config.h"
#include "common/fd.h"

namespace broker::exporter {

// The descriptors as policy/exporter.h numbers them: the listener at its own, nothing to read or
// print but errors, and no others. The next that is made is to be the epoll.
[[nodiscard]] Answer<common::Fd> arrange_descriptors(common::Fd listener);

// What this host, or whoever started it, does not let it have.
struct Lacking {
  std::string layers;  // In words; empty where nothing lacks.
  bool below_strict = false;
};

// Capabilities, new privileges, files and networks (Landlock), limits, core dumps, memory that is
// executable. An error is what must not be missing.
[[nodiscard]] Answer<Lacking> give_up_privileges();

// The list of system calls, for good.
[[nodiscard]] Answer<void> seal();

}  // namespace broker::exporter
