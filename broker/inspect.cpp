#include "broker/inspect.h"

#include <fcntl.h>
#include <net/if.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <utility>

#include "broker/blk_config.h"
#include "broker/net_config.h"
#include "broker/open_disk.h"
#include "broker/socket.h"
#include "broker/tap_steps.h"
#include "broker/text.h"

namespace broker {
namespace {

void inspect_disk_of(const DeviceConfig& config, bool served_already, Inspected& inspected) {
  auto disk = inspect_disk(config, served_already);
  if (!disk) return inspected.problems.push_back(disk.error());
  inspected.plan.facts.model = make_blk_model(*std::move(disk), config, [] { return 1U; });
}

std::string interface_problem(const DeviceConfig& config) {
  const std::string& name = config.tap_name.empty() ? config.macvtap : config.tap_name;
  if (name.empty() || config.tap_create) return {};
  if (::if_nametoindex(name.c_str()) == 0) {
    return "there is no interface " + in_quotes(name) +
           (config.tap_name.empty()
                ? "; make it: ip link add link eth0 name NAME type macvtap mode bridge"
                : "; make it: ip tuntap add dev NAME mode tap multi_queue, or give tap_create");
  }
  std::error_code error;
  const bool is_tap = std::filesystem::exists("/sys/class/net/" + name + "/tun_flags", error);
  if (!config.tap_name.empty() && !is_tap) {
    return "interface " + in_quotes(name) + " is no tap; give one, or its name as macvtap";
  }
  return {};
}

// A card is not opened: a queue more would take packets from whoever serves it. What its driver can
// shows in a queue of no interface; macvtaps have learnt it in the same Linux.
void look_at_driver(Inspected& inspected) {
  const common::Fd queue(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!queue.valid()) {
    inspected.engine_unknown = "/dev/net/tun cannot be opened: " + errno_text(errno);
  } else if (!takes_nowait(queue.ref())) {
    inspected.plan.facts.model.uring_objection = kNoNowait;
  }
}

// Which workers it would have: its queues are not opened.
void inspect_card(const DeviceConfig& config, Inspected& inspected) {
  if (const std::string problem = interface_problem(config); !problem.empty()) {
    inspected.problems.push_back(problem);
  }
  DeviceModel& model = inspected.plan.facts.model;
  model.kind = common::DeviceKind::kNet;
  model.summary = config.tap_fds.empty() ? config.tap_name + config.macvtap : "a tap by descriptor";
  model.worker_profiles = [](common::EngineKind engine) {
    return std::vector<const policy::Profile*>{
        &net_profile(common::ipc::NetRole::kReceive, engine),
        &net_profile(common::ipc::NetRole::kTransmit, engine)};
  };
  model.release = [] {};
  look_at_driver(inspected);
}

}  // namespace

Inspected inspect_device(const DeviceConfig& config, bool served_already) {
  Inspected inspected;
  inspected.plan.config = std::make_unique<DeviceConfig>(config);
  if (config.fd < 0 && !config.client) {
    if (const auto usable = inspect_socket(config, served_already); !usable) {
      inspected.problems.push_back(usable.error());
    }
  }
  if (config.kind == common::DeviceKind::kBlk) {
    inspect_disk_of(config, served_already, inspected);
  } else {
    inspect_card(config, inspected);
  }
  inspected.plan.facts.name = config.name;
  return inspected;
}

}  // namespace broker
