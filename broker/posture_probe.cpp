#include "broker/posture_probe.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <string_view>
#include <utility>

#include "broker/death.h"
#include "broker/event_text.h"
#include "broker/text.h"
#include "common/ipc/worker_messages.h"
#include "policy/jail.h"

namespace broker {
namespace {

using common::Layer;
using common::LayerResult;
using common::LayerResults;
using State = common::LayerResult::State;

// A probe takes about 1 ms. It reads nothing of anybody's, so only a broken host makes it hang.
constexpr int kProbePatienceMs = 5000;

std::string start_failure(std::string_view program, const common::Error& error) {
  return std::string(program) + " cannot be started: " + error.what + ": " +
         errno_text(error.os_errno);
}

// The layers that were tried and failed: the last of them is what it ended over.
std::string failed_layers(const LayerResults& results) {
  std::string list;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i].state != State::kAbsent || results[i].os_errno == 0) continue;
    list += list.empty() ? ": " : ", ";
    list += common::layer_name(static_cast<Layer>(i));
    list += " (" + errno_text(results[i].os_errno) + ")";
  }
  return list;
}

std::string probe_failure(std::string_view program, const Jailed& process, const Death& death) {
  const common::StatusPage& page = process.page();
  std::string text = std::string(program) +
                     " cannot be jailed here: " + describe_death(death.si_code, death.status);
  const auto fault = page.fault.load(std::memory_order_relaxed);
  if (fault == 0) {
    text += failed_layers(reported_layers(page));
  } else {
    text += ": " + describe_fault(static_cast<common::ipc::WorkerFault>(fault),
                                  {page.fault_detail[0].load(std::memory_order_relaxed),
                                   page.fault_detail[1].load(std::memory_order_relaxed)},
                                  static_cast<int>(page.fault_os_errno.load()));
  }
  return text;
}

Answer<LayerResults> result_of(const Jailed& process, std::string_view program) {
  pollfd wait{process.child.pidfd.ref().number, POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&wait, 1, kProbePatienceMs);
  } while (ready < 0 && errno == EINTR);
  if (ready <= 0) kill_child(process.child.pidfd.ref());
  (void)::poll(&wait, 1, kProbePatienceMs);
  const auto death = reap(process.child.pidfd.ref());
  if (!death) return common::fail(std::string(program) + " hangs while it takes on its jail");
  if (!death->exited_with(0)) return common::fail(probe_failure(program, process, *death));
  return reported_layers(process.page());
}

// kNotTried counts as absent: nobody may take silence for a layer.
int strength(const LayerResult& result) {
  switch (result.state) {
    case State::kEnforced:
      return 2;
    case State::kDegraded:
      return 1;
    case State::kAbsent:
    case State::kNotTried:
      return 0;
  }
  return 0;  // A number that is no state: the page is written by another process.
}

std::string reason_text(Layer layer, const LayerResult& result) {
  if (result.os_errno != 0) return " (" + errno_text(result.os_errno) + ")";
  if (layer == Layer::kCgroupLimits) return " (no tree of cgroups is the broker's)";
  if (layer == Layer::kCoreScheduling) return " (switched off)";
  // Another layer that is missing without any call having failed: nobody tried.
  const bool not_ours_to_give = layer == Layer::kOwnUid && strength(result) != 2;
  return not_ours_to_give ? " (the broker's own: it may not give another)" : "";
}

// What the operator has to change; empty where there is nothing but another kernel.
std::string_view remedy(Layer layer) {
  switch (layer) {
    case Layer::kOwnUid:
      return "start it as root, or with CAP_SETUID and CAP_SETGID";
    case Layer::kUserNamespace:
    case Layer::kPidNamespace:
    case Layer::kMountNamespace:
    case Layer::kNetNamespace:
    case Layer::kIpcNamespace:
    case Layer::kUtsNamespace:
    case Layer::kCgroupNamespace:
    case Layer::kEmptyRoot:
      return "allow user namespaces (sysctl user.max_user_namespaces, and what the container or "
             "security module says about them), or start it with CAP_SYS_ADMIN";
    case Layer::kNoCapabilities:
    case Layer::kSecurebits:
      return "allow user namespaces, or start it with CAP_SETPCAP";
    case Layer::kLandlock:
      return "boot a kernel with Landlock, and with landlock in its list of security modules "
             "(lsm=)";
    case Layer::kNoNewPrivs:
    case Layer::kRlimits:
    case Layer::kNotDumpable:
    case Layer::kMdwe:
    case Layer::kMseal:
    case Layer::kSeccomp:
    case Layer::kCgroupLimits:
    case Layer::kCoreScheduling:
      break;
  }
  return "";
}

std::string list_of(const LayerResults& results, int wanted_strength) {
  std::string list;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (strength(results[i]) != wanted_strength) continue;
    list += list.empty() ? "" : ", ";
    list += common::layer_name(static_cast<Layer>(i));
    list += reason_text(static_cast<Layer>(i), results[i]);
  }
  return list;
}

std::string summary(const LayerResults& results, std::size_t counted) {
  const auto missing = std::count_if(results.begin(), results.end(),
                                     [](const LayerResult& each) { return strength(each) != 2; });
  std::string text = "posture: " + std::to_string(counted - static_cast<std::size_t>(missing)) +
                     " of " + std::to_string(counted) + " layers enforced";
  if (const std::string degraded = list_of(results, 1); !degraded.empty()) {
    text += "; degraded: " + degraded;
  }
  if (const std::string absent = list_of(results, 0); !absent.empty()) {
    text += "; absent: " + absent;
  }
  return text;
}

}  // namespace

Answer<LayerResults> probe_posture(Jailer& jailer, std::uint32_t uid, common::DeviceKind kind,
                                   const policy::Profile& worker_profile) {
  auto session = jailer.probe_session(uid);
  if (!session) return common::fail(start_failure("bulkhead-session", session.error()));
  auto worker = jailer.probe_worker(uid, kind, worker_profile);
  const auto session_layers = result_of(*session, "bulkhead-session");
  if (!worker) return common::fail(start_failure("the worker program", worker.error()));
  const auto worker_layers = result_of(*worker, "the worker program");
  if (!session_layers) return common::fail(session_layers.error());
  if (!worker_layers) return common::fail(worker_layers.error());
  return weaker_posture(*session_layers, *worker_layers);
}

LayerResults weaker_posture(const LayerResults& left, const LayerResults& right) {
  LayerResults both{};
  for (std::size_t i = 0; i < both.size(); ++i) {
    both[i] = strength(right[i]) < strength(left[i]) ? right[i] : left[i];
  }
  return both;
}

std::string posture_summary(const LayerResults& results) {
  return summary(results, results.size());
}

std::string posture_summary_without(Layer unknown, LayerResults results) {
  // What is enforced is not listed.
  results[static_cast<std::size_t>(unknown)] = {State::kEnforced, 0, 0};
  return summary(results, results.size() - 1);
}

std::vector<std::string> missing_for_strict(const LayerResults& results) {
  std::vector<std::string> missing;
  LayerResults left = results;
  Layer layer{};
  while (policy::below_strict(left, layer)) {
    LayerResult& result = left[static_cast<std::size_t>(layer)];
    missing.push_back(std::string(common::layer_name(layer)) +
                      (strength(result) == 1 ? " is degraded" : " is absent") +
                      reason_text(layer, result));
    if (const std::string_view what = remedy(layer); !what.empty()) {
      missing.back().append(": ").append(what);
    }
    result = {State::kEnforced, 0, 0};
  }
  return missing;
}

}  // namespace broker
