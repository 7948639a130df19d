#include "broker/death_log.h"

namespace broker {

void log_death(DeviceLog& log, const audit::Process& process, const Death& death,
               AuditReader* audit, const std::string& who, const std::string& behind) {
  explain_death(
      death, process.pid, audit,
      [&log, process, who, behind, violation = death.by_seccomp()](const std::string& words) {
        log.error(who + " " + words + behind);
        if (!violation) return;
        log.record(audit::process_refused(audit::Kind::kPolicyViolation, process, words));
      });
}

}  // namespace broker
