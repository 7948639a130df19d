// broker/control/posture.cpp: `bulkhead posture` of a running broker. The broker says which
// processes there are, and the kernel what jails them.
#include <cerrno>
#include <utility>

#include "broker/control/client.h"
#include "broker/control/json.h"
#include "broker/control/run.h"
#include "broker/text.h"
#include "policy/posture.h"

namespace broker::control {
namespace {

struct Jailed {
  std::string device;
  policy::ProcessPosture posture;
  bool adopted = false;
};

std::string_view state_name(policy::LayerState state) {
  switch (state) {
    case policy::LayerState::kEnforced:
      return "enforced";
    case policy::LayerState::kDegraded:
      return "degraded";
    case policy::LayerState::kAbsent:
      return "absent";
    case policy::LayerState::kUnknown:
      return "unknown";
  }
  return "unknown";
}

std::string_view role_name(policy::ProcessRole role) {
  switch (role) {
    case policy::ProcessRole::kBroker:
      return "broker";
    case policy::ProcessRole::kSession:
      return "session";
    case policy::ProcessRole::kWorker:
      return "worker";
    case policy::ProcessRole::kOther:
      return "other";
  }
  return "other";
}

// What the kernel shows us of it, and where it shows nothing, what the process said itself.
void look_at(Client& client, const std::string& device, std::vector<Jailed>& jailed,
             std::string& error) {
  AskProcess ask;
  ask.name = name_room(device);
  for (;; ++ask.index) {
    const auto reply = client.ask<ProcessReply>(ask);
    if (!reply) error = reply.error();
    if (!reply || !*reply) return;
    const common::LayerResults layers = layers_of((*reply)->layers);
    auto posture = policy::read_posture(static_cast<pid_t>((*reply)->pid),
                                        (*reply)->has_layers != 0 ? &layers : nullptr);
    // One that has ended meanwhile has no posture any more.
    if (posture) {
      const bool adopted = (*reply)->adopted != 0;
      if (adopted) posture->title += " (adopted)";
      jailed.push_back({device, *std::move(posture), adopted});
    } else if (posture.error().os_errno == EACCES || posture.error().os_errno == EPERM) {
      error = "cannot look at process " + std::to_string((*reply)->pid) + ": " +
              errno_text(posture.error().os_errno) + "; run this as root, or as the broker's user";
      return;
    }
  }
}

std::string as_json(const std::vector<Jailed>& jailed) {
  Json json("posture");
  json.array("processes");
  for (const Jailed& one : jailed) {
    json.object().number("pid", static_cast<std::uint64_t>(one.posture.pid));
    json.text("role", role_name(one.posture.role)).text("device", one.device);
    json.text("title", one.posture.title);
    json.flag("adopted", one.adopted);
    json.number("descriptors", one.posture.descriptors.size());
    json.array("layers");
    for (const policy::LayerView& layer : one.posture.layers) {
      json.object().text("name", common::layer_name(layer.layer));
      json.text("state", state_name(layer.state)).text("reason", layer.reason).end();
    }
    json.end().end();
  }
  return json.finish();
}

}  // namespace

int run_posture(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  std::vector<std::string> names = run.names;
  std::vector<Jailed> jailed;
  std::string error;
  if (names.empty()) {
    look_at(*client, "", jailed, error);
    const auto all = client->devices();
    if (!all) return complain(all.error());
    for (const DeviceReply& device : *all) names.push_back(shown(device.name));
  }
  for (const std::string& name : names) {
    if (const auto device = client->device(name); !device && !run.names.empty()) {
      return complain(device.error());
    }
    look_at(*client, name, jailed, error);
  }
  if (jailed.empty() && !error.empty()) return complain(error);
  if (!error.empty()) (void)complain(error);
  std::vector<policy::ProcessPosture> postures;
  postures.reserve(jailed.size());
  for (const Jailed& one : jailed) postures.push_back(one.posture);
  return print(run.json ? as_json(jailed) : policy::format_postures(postures));
}

}  // namespace broker::control
