#include "broker/audit/kernel_log.h"

#include <libaudit.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "broker/text.h"

namespace broker::audit {
namespace {

static_assert(static_cast<int>(RecordType::kUsysConfig) == AUDIT_USYS_CONFIG);
static_assert(static_cast<int>(RecordType::kTrustedApp) == AUDIT_TRUSTED_APP);
static_assert(static_cast<int>(RecordType::kVirtControl) == AUDIT_VIRT_CONTROL);
static_assert(static_cast<int>(RecordType::kVirtResource) == AUDIT_VIRT_RESOURCE);
static_assert(static_cast<int>(RecordType::kVirtMachineId) == AUDIT_VIRT_MACHINE_ID);

bool may(unsigned capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  return ::syscall(SYS_capget, &header, sets) == 0 && (sets[0].effective & (1U << capability)) != 0;
}

}  // namespace

Answer<KernelLog> KernelLog::open(bool whole_vms) {
  common::Fd socket(::audit_open());
  if (!socket.valid()) {
    return common::fail("the kernel's audit log cannot be opened: " + errno_text(errno) +
                        "; the kernel has no audit, or this is a container; leave out "
                        "--audit-kernel");
  }
  if (!may(CAP_AUDIT_WRITE)) {
    return common::fail(std::string(
        "the kernel's audit log may not be written to by this broker; give it CAP_AUDIT_WRITE, or "
        "leave out --audit-kernel"));
  }
  // Who has no CAP_AUDIT_CONTROL cannot ask, and would be told that it is off.
  if (may(CAP_AUDIT_CONTROL) && ::audit_is_enabled(socket.ref().number) == 0) {
    return common::fail(std::string(
        "the kernel's audit is switched off, and would drop every record; start auditd (or: "
        "auditctl -e 1), or leave out --audit-kernel"));
  }
  return KernelLog(std::move(socket), whole_vms);
}

common::Result<void> KernelLog::write(const Event& event) {
  if (lost_ != 0 && send(Event(Kind::kEventsLost).with(Key::kAmount, lost_))) lost_ = 0;
  const auto sent = send(event);
  if (!sent) ++lost_;
  return sent;
}

common::Result<void> KernelLog::send(const Event& event) {
  for (const KernelRecord& record : kernel_records(event, turn_of(event))) {
    const int sent = ::audit_log_user_message(socket_.ref().number, static_cast<int>(record.type),
                                              record.text.c_str(), nullptr, nullptr, nullptr,
                                              record.success ? 1 : 0);
    if (sent < 0) return common::fail_errno("write to the kernel's audit log", errno);
  }
  return {};
}

VmTurn KernelLog::turn_of(const Event& event) {
  const std::string uuid(event.value(Key::kUuid));
  const std::string device(event.value(Key::kDevice));
  if (!whole_vms_ || uuid.empty()) return VmTurn::kNone;
  if (event.kind() == Kind::kVmmConnected) {
    auto& devices = connected_[uuid];
    const bool first = devices.empty();
    devices.insert(device);
    return first ? VmTurn::kFirstDevice : VmTurn::kNone;
  }
  const auto found = connected_.find(uuid);
  if (event.kind() != Kind::kVmmDisconnected || found == connected_.end()) return VmTurn::kNone;
  if (found->second.erase(device) == 0 || !found->second.empty()) return VmTurn::kNone;
  connected_.erase(found);
  return VmTurn::kLastDevice;
}

}  // namespace broker::audit
