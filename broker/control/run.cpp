#include "broker/control/run.h"

#include <cerrno>
#include <cstdio>

#include "broker/blk_config.h"
#include "broker/control/add_device.h"
#include "broker/control/client.h"
#include "broker/control/latency_metrics.h"
#include "broker/control/show.h"
#include "broker/text.h"

namespace broker::control {
namespace {

// One request for each name; those that fail do not keep the rest from being done.
int for_each_name(const RunOperator& run, Act act, std::string (*done)(const Told&)) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  const bool ends = act == Act::kStop || act == Act::kRemove;
  const auto takes = ends ? end_takes(run.force) : Client::Duration{};
  int exit_code = 0;
  Json json(run.command);
  json.array("devices");
  std::string text;
  for (const std::string& name : run.names) {
    Order order;
    order.act = static_cast<std::uint32_t>(act);
    order.force = run.force ? 1 : 0;
    order.name = name_room(name);
    const Answer<Told> told = client->order(order, {}, takes);
    if (!told) exit_code = complain(name + ": " + told.error());
    json.object().text("name", name).flag("done", told.has_value());
    if (!told) json.text("error", told.error());
    if (told && act == Act::kResize) {
      json.number("before_bytes", told->numbers[0]).number("now_bytes", told->numbers[1]);
    }
    json.end();
    if (told) text += name + ": " + done(*told) + "\n";
  }
  const int printed = print(run.json ? json.finish() : text);
  return exit_code == 0 ? printed : exit_code;
}

int end_broker(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  const auto told = client->order(EndBroker{});
  if (!told) return complain(told.error());
  return print(run.json ? Json("stop").flag("done", true).finish() : "the broker stops\n");
}

std::string resized(const Told& told) {
  const std::string now = size_text(told.numbers[1]);
  if (told.numbers[0] == told.numbers[1]) return "has " + now + ", as before";
  return "has " + now + ", and had " + size_text(told.numbers[0]);
}

}  // namespace

int complain(const std::string& text) {
  std::fprintf(stderr, "bulkhead: %s\n", text.c_str());
  return 1;
}

int print(const std::string& text) {
  const bool written = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  return written ? 0 : complain("cannot write to stdout: " + errno_text(errno));
}

int run_status(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  const auto status = client->ask<StatusReply>(AskStatus{});
  if (!status) return complain(status.error());
  if (!*status) return complain("the broker has no status");
  const auto devices = client->devices();
  if (!devices) return complain(devices.error());
  const auto queues = client->queues(in_use(*devices));
  if (!queues) return complain(queues.error());
  const LatencySummary latency = latency_of(*queues);
  return print(run.json ? status_json(**status, latency) : status_text(**status, latency));
}

int run_list(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  int exit_code = 0;
  std::vector<DeviceReply> devices;
  for (const std::string& name : run.names) {
    const auto device = client->device(name);
    if (device) {
      devices.push_back(*device);
    } else {
      exit_code = complain(device.error());
    }
  }
  if (run.names.empty()) {
    auto all = client->devices();
    if (!all) return complain(all.error());
    devices = *std::move(all);
  }
  const int printed = print(run.json ? list_json(devices) : list_text(devices));
  return exit_code == 0 ? printed : exit_code;
}

int run_add(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  const auto added = add_device(*client, run.device, {run.replace, run.force, false});
  if (!added) return complain(run.device.name + ": " + added.error());
  if (!run.json) return print(run.device.name + ": serving\n");
  return print(Json("add").text("name", run.device.name).flag("done", true).finish());
}

int run_stop(const RunOperator& run) {
  if (run.all && !run.names.empty()) {
    return complain("--all is the whole broker; name devices, or give --all");
  }
  if (run.all) return end_broker(run);
  if (run.names.empty()) {
    return complain("name the devices that are to stop, or give --all to end the broker");
  }
  return for_each_name(run, Act::kStop, [](const Told&) { return std::string("stopped"); });
}

int run_drain(const RunOperator& run) {
  return for_each_name(run, Act::kDrain, [](const Told&) {
    return std::string("lets no VMM in any more, and stops when the one it serves goes");
  });
}

int run_start(const RunOperator& run) {
  return for_each_name(run, Act::kStart, [](const Told&) { return std::string("serving"); });
}

int run_remove(const RunOperator& run) {
  return for_each_name(run, Act::kRemove, [](const Told&) { return std::string("removed"); });
}

int run_resize(const RunOperator& run) { return for_each_name(run, Act::kResize, resized); }

}  // namespace broker::control
