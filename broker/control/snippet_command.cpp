// broker/control/snippet_command.cpp: `bulkhead snippet`: of a running broker's devices, or of
// those that a file lists.
#include <algorithm>
#include <optional>
#include <vector>

#include "broker/config_file.h"
#include "broker/control/add_device.h"
#include "broker/control/client.h"
#include "broker/control/device_record.h"
#include "broker/control/json.h"
#include "broker/control/run.h"
#include "broker/control/snippet.h"
#include "broker/text.h"

namespace broker::control {
namespace {

Answer<DeviceConfig> from_file(const RunOperator& run, const std::string& name) {
  FileAnswer file = read_config_file(run.config);
  if (!file) return common::fail(file.error().front());
  const auto found = std::find_if(file->devices.begin(), file->devices.end(),
                                  [&](const DeviceConfig& device) { return device.name == name; });
  if (found != file->devices.end()) return with_absolute_paths(std::move(*found));
  return common::fail(in_quotes(run.config) + " lists no device " + in_quotes(name));
}

Answer<DeviceConfig> from_broker(const RunOperator& run, const std::string& name) {
  TRY_LET(Client client, Client::connect(run.socket, run.patience()));
  AskSettings ask;
  ask.name = name_room(name);
  TRY_LET(const std::optional<SettingsReply> reply, client.ask<SettingsReply>(ask));
  if (reply) return config_of(reply->device);
  return common::fail("there is no device " + in_quotes(name) + " ('bulkhead list' shows all)");
}

Answer<std::string> snippet_of(const RunOperator& run, const std::string& name) {
  TRY_LET(const DeviceConfig device, run.from_file ? from_file(run, name) : from_broker(run, name));
  return snippet_for(device, run.vmm);
}

}  // namespace

int run_snippet(const RunOperator& run) {
  if (run.vmm.empty()) return complain("say for which VMM: --for=" + std::string(kVmms));
  Json json("snippet");
  json.text("for", run.vmm).array("devices");
  std::string text;
  for (const std::string& name : run.names) {
    const Answer<std::string> snippet = snippet_of(run, name);
    if (!snippet) return complain(snippet.error());
    json.object().text("name", name).lines("lines", *snippet).end();
    text += *snippet;
  }
  return print(run.json ? json.finish() : text);
}

}  // namespace broker::control
