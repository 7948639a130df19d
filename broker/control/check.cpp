// broker/control/check.cpp: `bulkhead check`: what `serve` and `apply` would say of a file, without
// doing it.
#include <unistd.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "broker/config_file.h"
#include "broker/control/add_device.h"
#include "broker/control/client.h"
#include "broker/control/json.h"
#include "broker/control/run.h"
#include "broker/device_maker.h"
#include "broker/host.h"
#include "broker/inspect.h"
#include "broker/jailer.h"
#include "broker/log.h"
#include "broker/posture_probe.h"
#include "broker/program_files.h"
#include "broker/text.h"
#include "broker/uid_range.h"

namespace broker::control {
namespace {

using common::Layer;
using common::LayerResult;

// What a broker on the operator's socket says. It need not be there.
struct Served {
  std::set<std::string> names;
  bool by_the_dead = false;                  // What it has left, the next broker goes on with.
  std::optional<LayerResult> cgroup_limits;  // One tree is all devices'.
};

// What a device would get here.
class Trial {
 public:
  [[nodiscard]] static Answer<std::unique_ptr<Trial>> make(const BrokerConfig& config,
                                                           const Served& served) {
    TRY_LET(Log log, Log::open("error"));
    TRY_LET(Programs programs, open_programs());
    return std::unique_ptr<Trial>(new Trial(std::move(log), std::move(programs), config, served));
  }
  [[nodiscard]] Answer<std::string> posture_of(Inspected& inspected) {
    DevicePlan& plan = inspected.plan;
    plan.facts.uid = plan.config->uid.value_or(uid_);
    TRY(maker_.choose_engine(plan, host_));
    TRY(maker_.check_posture(plan, jailer_));
    return "engine " + engine_of(inspected) + ", " + summary_of(plan.posture);
  }

 private:
  [[nodiscard]] static std::string engine_of(const Inspected& inspected) {
    const EngineDecision& engine = inspected.plan.engine;
    const bool open_question =
        engine.kind == common::EngineKind::kIoUring && !inspected.engine_unknown.empty();
    return engine_text(engine) + (open_question ? ", or fallback where it does not suit (" +
                                                      inspected.engine_unknown + ")"
                                                : "");
  }
  // This command is in another cgroup than a broker.
  [[nodiscard]] std::string summary_of(common::LayerResults posture) const {
    if (!may_have_cgroups_) return posture_summary(posture);
    if (!cgroup_limits_) {
      return posture_summary_without(Layer::kCgroupLimits, posture) +
             "; cgroup limits where the broker is given a tree of cgroups, which it sees when it "
             "starts";
    }
    posture[static_cast<std::size_t>(Layer::kCgroupLimits)] = *cgroup_limits_;
    return posture_summary(posture);
  }

  Trial(Log log, Programs programs, const BrokerConfig& config, const Served& served)
      : cgroup_limits_(served.cgroup_limits),
        may_have_cgroups_(config.cgroup != "off"),
        log_(std::move(log)),
        host_(look_at_host()),
        uid_(config.uids.first),
        jailer_(std::move(programs), host_,
                {config.posture == PostureDemand::kStrict, false, config.core_scheduling}, nullptr),
        maker_(log_, config.posture, config.uids) {}
  std::optional<LayerResult> cgroup_limits_;
  bool may_have_cgroups_;
  Log log_;
  Host host_;
  uid_t uid_;
  Jailer jailer_;
  DeviceMaker maker_;
};

Served served_now(const RunOperator& run) {
  Served served;
  auto client = Client::connect(run.socket, run.patience());
  if (!client) {
    served.by_the_dead = broker_has_died(run.socket);
    return served;
  }
  const auto devices = client->devices();
  if (!devices) {
    (void)complain(devices.error() + ". What it serves may look as if others used it");
    return served;
  }
  for (const DeviceReply& device : *devices) {
    served.names.insert(shown(device.name));
    const LayerResult limits =
        layers_of(device.layers)[static_cast<std::size_t>(Layer::kCgroupLimits)];
    if (limits.state != LayerResult::State::kNotTried) served.cgroup_limits = limits;
  }
  return served;
}

struct Report {
  std::string text;
  Json json{"check"};
  int refused = 0;

  void mistake(const std::string& line) {
    ++refused;
    (void)complain(line);
    json.object().text("text", line).end();
  }
  void device(const DeviceConfig& config, const std::vector<std::string>& problems,
              const std::string& summary, const std::string& posture) {
    json.object().text("name", config.name).flag("served", problems.empty());
    json.text("posture", posture).array("problems");
    for (const std::string& problem : problems) {
      json.object().text("text", problem).end();
      (void)complain(config.name + ": would be refused: " + problem);
    }
    json.end().end();
    if (!problems.empty()) ++refused;
    if (problems.empty()) {
      text += config.name + ": would be served: " + summary + "; " + posture + "\n";
    }
  }
};

}  // namespace

int run_check(const RunOperator& run) {
  Report report;
  FileAnswer file = read_config_file(run.config);
  report.json.array("mistakes");
  if (!file) {
    for (const std::string& line : file.error()) report.mistake(line);
    if (run.json) (void)print(report.json.finish());
    return 1;
  }
  report.json.end().array("devices");
  const Served served = served_now(run);
  auto trial = Trial::make(*file, served);
  if (!trial) return complain(trial.error());
  for (const DeviceConfig& config : file->devices) {
    Inspected inspected =
        inspect_device(config, served.by_the_dead || served.names.contains(config.name));
    std::string posture;
    if (inspected.problems.empty()) {
      auto tried = (*trial)->posture_of(inspected);
      if (tried) {
        posture = *tried;
      } else {
        inspected.problems.push_back(tried.error());
      }
    }
    report.device(config, inspected.problems, inspected.plan.facts.model.summary, posture);
  }
  const std::string total =
      std::to_string(file->devices.size() - static_cast<std::size_t>(report.refused)) + " of " +
      std::to_string(file->devices.size()) + " devices would be served\n";
  const int printed = print(run.json ? report.json.finish() : report.text + total);
  return report.refused == 0 ? printed : 1;
}

}  // namespace broker::control
