// broker/services.h: what every part of the running broker uses. Made once by serve(), and
// borrowed.
#pragma once

#include "broker/audit/trail.h"
#include "broker/audit_reader.h"
#include "broker/cgroup.h"
#include "broker/event_loop.h"
#include "broker/foreign_close.h"
#include "broker/jailer.h"
#include "broker/keep.h"
#include "broker/log.h"
#include "broker/ring_messenger.h"

namespace broker {

struct Services {
  EventLoop& loop;
  Log& log;
  Jailer& jailer;
  ForeignCloser& closer;
  RingMessenger* messenger = nullptr;  // Null where no worker uses io_uring.
  AuditReader* audit = nullptr;        // Null where we may not read the audit log.
  audit::Trail* trail = nullptr;
  Keep* keep = nullptr;        // Null where children end with the broker.
  Cgroups* cgroups = nullptr;  // Null where no tree was delegated.
};

}  // namespace broker
