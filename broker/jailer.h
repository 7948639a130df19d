// broker/jailer.h: starts sessions and workers: what each is told first, which descriptors it gets,
// and as whom it runs. The jail itself is policy/'s; the choice of what goes in is here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "broker/audit/digest.h"
#include "broker/cgroup.h"
#include "broker/device_model.h"
#include "broker/host.h"
#include "broker/program_files.h"
#include "common/device_kind.h"
#include "common/fd.h"
#include "common/ipc/jail_order.h"
#include "common/ipc/session_broker.h"
#include "common/result.h"
#include "common/shared_region.h"
#include "common/status_page.h"
#include "policy/exec_label.h"
#include "policy/profile.h"
#include "policy/spawn.h"

namespace broker {

// A process that runs; whoever holds this must reap it.
struct Jailed {
  policy::Child child;
  common::Fd socket;            // The other end of its control socket.
  common::SharedRegion memory;  // Its status page, read-only: hostile.
  std::uint32_t uid = 0;        // As the host sees it.
  audit::Digest filter{};       // Of its seccomp filter.
  common::Fd forensic;          // Where it hands over its listener; only with --forensic.
  common::Fd page_file;         // The same, to be kept.

  // `page_file`, for us to read.
  [[nodiscard]] common::Result<void> map_page();
  [[nodiscard]] const common::StatusPage& page() const noexcept {
    return *reinterpret_cast<const common::StatusPage*>(memory.bytes().data());
  }
};

struct JailedWorker {
  Jailed process;     // `socket` is for the session.
  common::Fd engine;  // io_uring: the worker's ring. Fallback: not valid.
  common::Fd stop;    // See common/stop_pipe.h.
};

// What became of each layer, as the process itself reported it.
[[nodiscard]] common::LayerResults reported_layers(const common::StatusPage& page) noexcept;

// Whether a process goes on when the broker ends (keep.h).
enum class Outlives : bool { kNobody = false, kBroker = true };

// A process that runs, to be named by both: the number alone may be another's by now.
struct RunningProcess {
  pid_t pid = 0;  // 0: none.
  common::FdRef pidfd;
};

// Whom a worker serves: the VMM, by its socket, and its session.
struct WorkerOf {
  common::FdRef vmm;
  RunningProcess session = {};
};

struct JailChoices {
  bool strict = false;    // Who misses a layer ends by itself before it reads anything hostile.
  bool forensic = false;  // policy/forensic.h
  common::CoreScheduling core_scheduling = common::CoreScheduling::kAuto;
};

class Jailer {
 public:
  // `cgroups`, where there are any, outlives this: devices that have one get their processes there.
  Jailer(Programs programs, const Host& host, const JailChoices& choices, const Cgroups* cgroups)
      : programs_(std::move(programs)),
        host_(host),
        choices_(choices),
        cgroups_(cgroups),
        own_label_(policy::own_label()) {}

  // `uid` is the device's own; without the right to change ids the broker's is used instead.
  [[nodiscard]] common::Result<Jailed> start_session(const std::string& device, std::uint32_t uid,
                                                     common::FdRef vmm,
                                                     const common::ipc::SessionStart& start,
                                                     Outlives outlives);

  // `name` is "vda/2". Its core-scheduling cookie is its session's.
  [[nodiscard]] common::Result<JailedWorker> start_worker(
      const std::string& name, std::uint32_t uid, const WorkerOf& of, common::DeviceKind kind,
      common::EngineKind engine, const WorkerRecipe& recipe, Outlives outlives);

  // Holds what is kept (keep.h): `broker` and `door` are its ends. Runs as the broker's own user,
  // so that it can tell who is that user, too.
  [[nodiscard]] common::Result<Jailed> start_keeper(common::FdRef door);

  [[nodiscard]] bool strict() const noexcept { return choices_.strict; }
  [[nodiscard]] bool requires_core_scheduling() const noexcept {
    return choices_.core_scheduling == common::CoreScheduling::kRequired;
  }

  // These take on the whole jail and exit, so that their status pages show what this host allows.
  [[nodiscard]] common::Result<Jailed> probe_session(std::uint32_t uid);
  [[nodiscard]] common::Result<Jailed> probe_worker(std::uint32_t uid, common::DeviceKind kind,
                                                    const policy::Profile& profile);

 private:
  struct Start;
  [[nodiscard]] common::Result<Jailed> start(const Start& what);
  [[nodiscard]] common::Result<common::ipc::JailOrder> make_order(const Start& what);
  [[nodiscard]] std::string label_of(const Start& what) const;
  [[nodiscard]] common::FdRef worker_program(common::DeviceKind kind) const noexcept;

  Programs programs_;
  Host host_;
  JailChoices choices_;
  const Cgroups* cgroups_;
  std::string own_label_;
  // Compiled when first needed: a profile costs about 0.1 ms.
  struct Filter {
    std::vector<common::ipc::FilterInstruction> instructions;
    std::uint32_t closing = 0;  // How many of them are the second filter's.
    audit::Digest digest{};
  };
  [[nodiscard]] common::Result<const Filter*> filter_of(const policy::Profile& profile);
  [[nodiscard]] common::Result<Filter> compile(const policy::Profile& profile) const;
  std::map<const policy::Profile*, Filter> filters_;
};

}  // namespace broker
