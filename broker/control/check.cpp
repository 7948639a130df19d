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

// What a device would get here.
class Trial {
 public:
  [[nodiscard]] static Answer<std::unique_ptr<Trial>> make(const BrokerConfig& config) {
    TRY_LET(Log log, Log::open("error"));
    TRY_LET(Programs programs, open_programs());
    return std::unique_ptr<Trial>(new Trial(std::move(log), std::move(programs), config));
  }
  [[nodiscard]] Answer<std::string> posture_of(DevicePlan& plan) {
    plan.facts.uid = plan.config->uid.value_or(uid_);
    TRY(maker_.choose_engine(plan, host_));
    TRY(maker_.check_posture(plan, jailer_));
    return "engine " + std::string(engine_name(plan.engine.kind)) + ", " +
           posture_summary(plan.posture);
  }

 private:
  Trial(Log log, Programs programs, const BrokerConfig& config)
      : log_(std::move(log)),
        host_(look_at_host()),
        uid_(config.uids.first),
        jailer_(std::move(programs), host_,
                {config.posture == PostureDemand::kStrict, false, config.core_scheduling}, nullptr),
        maker_(log_, config.posture, config.uids) {}
  Log log_;
  Host host_;
  uid_t uid_;
  Jailer jailer_;
  DeviceMaker maker_;
};

// Those that a broker on the operator's socket serves. It need not be there.
std::set<std::string> served_now(const RunOperator& run) {
  std::set<std::string> names;
  auto client = Client::connect(run.socket);
  if (!client) return names;
  const auto devices = client->devices();
  if (!devices) return names;
  for (const DeviceReply& device : *devices) names.insert(shown(device.name));
  return names;
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
  auto trial = Trial::make(*file);
  if (!trial) return complain(trial.error());
  const std::set<std::string> served = served_now(run);
  for (const DeviceConfig& config : file->devices) {
    Inspected inspected = inspect_device(config, served.contains(config.name));
    std::string posture;
    if (inspected.problems.empty()) {
      auto tried = (*trial)->posture_of(inspected.plan);
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
