// broker/audit/kernel_text.h: an event as records of the kernel's audit log, in libvirt's formats
// where libvirt has one: ausearch, aureport and auvirt know those. libvirt itself does not log what
// is behind a vhost-user disk, so this closes a gap in its chain of custody.
//
//   VIRT_CONTROL     virt=… op=start|stop reason=… vm="…" uuid=… vm-pid=…
//   VIRT_MACHINE_ID  virt=… vm="…" uuid=… vm-ctx=… img-ctx=? model=…
//   VIRT_RESOURCE    virt=… resrc=disk reason=attach|detach vm="…" uuid=… old-disk="…" new-disk="…"
//                    virt=… resrc=net reason=open vm="…" uuid=… net=MAC path="…" rdev=MM:mm
//   what libvirt has no form for: VIRT_RESOURCE with resrc=vhost-user reason=EVENT and our own
//   fields; USYS_CONFIG for an operator's requests; TRUSTED_APP for the broker itself
//
// Not trusted: texts. One with a space, a quote or a byte that is not printable ASCII is written in
// hexadecimal, as all programs that read audit records expect.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "broker/audit/event.h"

namespace broker::audit {

enum class RecordType : std::uint16_t {
  kUsysConfig = 1111,
  kTrustedApp = 1121,
  kVirtControl = 2500,
  kVirtResource = 2501,
  kVirtMachineId = 2502,
};

struct KernelRecord {
  RecordType type;
  std::string text;
  bool success;
};

// What an event is for its VM as a whole, which may have several devices.
enum class VmTurn : std::uint8_t { kNone, kFirstDevice, kLastDevice };

[[nodiscard]] std::vector<KernelRecord> kernel_records(const Event& event, VmTurn turn);

// vm="web" or vm=776562203120
[[nodiscard]] std::string nv_string(std::string_view name, std::string_view value);

}  // namespace broker::audit
