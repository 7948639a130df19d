// broker/audit/kernel_log.h: the kernel's audit log as a sink. libaudit lives in kernel_log.cpp
// only. Needs CAP_AUDIT_WRITE in the first user namespace.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "broker/audit/event.h"
#include "broker/audit/kernel_text.h"
#include "broker/config.h"
#include "common/fd.h"

namespace broker::audit {

class KernelLog {
 public:
  // `whole_vms`: that a VM starts and ends is said, too, which its manager may say already.
  [[nodiscard]] static Answer<KernelLog> open(bool whole_vms);
  // May wait where the kernel's queue for auditd is full. What could not be written is counted, and
  // the next event that can be says so.
  [[nodiscard]] common::Result<void> write(const Event& event);
  void add_lost(std::uint64_t count) noexcept { lost_ += count; }

 private:
  KernelLog(common::Fd socket, bool whole_vms)
      : socket_(std::move(socket)), whole_vms_(whole_vms) {}
  [[nodiscard]] common::Result<void> send(const Event& event);
  [[nodiscard]] VmTurn turn_of(const Event& event);

  common::Fd socket_;
  bool whole_vms_;
  std::uint64_t lost_ = 0;
  std::map<std::string, std::set<std::string>> connected_;  // Devices by uuid, where there are any.
};

}  // namespace broker::audit
