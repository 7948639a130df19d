// broker/death_log.h: what is said of a process that died, and recorded where its jail killed it.
#pragma once

#include <string>

#include "broker/audit/device_events.h"
#include "broker/audit_reader.h"
#include "broker/death.h"
#include "broker/device_log.h"

namespace broker {

// "`who` killed by SIGKILL`behind`", at once or when the kernel's audit record has come
// (explain_death). `log` outlives that; `audit` may be null.
void log_death(DeviceLog& log, const audit::Process& process, const Death& death,
               AuditReader* audit, const std::string& who, const std::string& behind = {});

}  // namespace broker
