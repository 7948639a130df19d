#include "broker/control/metrics.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include "broker/control/client.h"
#include "broker/control/exposition.h"
#include "broker/control/json.h"
#include "broker/control/latency_metrics.h"
#include "broker/control/queue_metrics.h"
#include "broker/control/show.h"
#include "common/device_kind.h"
#include "common/status_page.h"

namespace broker::control {
namespace {

using common::Counter;

// One counter of a family: `labels` beside the device's name.
struct Series {
  Counter counter;
  std::string_view labels;
};
struct Family {
  std::string_view name;
  std::string_view help;
  std::uint32_t type;  // Of devices, DeviceKind; 0: of all.
  std::array<Series, 6> series;
  std::size_t count;
};

constexpr auto kBlk = static_cast<std::uint32_t>(common::DeviceKind::kBlk);
constexpr auto kNet = static_cast<std::uint32_t>(common::DeviceKind::kNet);

constexpr Family kFamilies[] = {
    {"bulkhead_block_requests_total",
     "Requests of the guest, by what they ask for.",
     kBlk,
     {{{Counter::kReadRequests, "op=\"read\""},
       {Counter::kWriteRequests, "op=\"write\""},
       {Counter::kFlushRequests, "op=\"flush\""},
       {Counter::kDiscardRequests, "op=\"discard\""},
       {Counter::kWriteZeroesRequests, "op=\"write_zeroes\""},
       {Counter::kOtherRequests, "op=\"other\""}}},
     6},
    {"bulkhead_block_bytes_total",
     "Bytes read and written.",
     kBlk,
     {{{Counter::kReadBytes, "op=\"read\""}, {Counter::kWrittenBytes, "op=\"write\""}}},
     2},
    {"bulkhead_block_failed_requests_total",
     "Requests answered with an error, by its status.",
     kBlk,
     {{{Counter::kStatusIoError, "status=\"ioerr\""},
       {Counter::kStatusUnsupported, "status=\"unsupp\""}}},
     2},
    {"bulkhead_block_disk_errors_total",
     "Requests that the disk itself has failed.",
     kBlk,
     {{{Counter::kDiskErrors, ""}}},
     1},
    {"bulkhead_net_packets_total",
     "Packets that the guest has received and sent.",
     kNet,
     {{{Counter::kReceivedPackets, "direction=\"receive\""},
       {Counter::kSentPackets, "direction=\"transmit\""}}},
     2},
    {"bulkhead_net_bytes_total",
     "Bytes of these packets, without the virtio header.",
     kNet,
     {{{Counter::kReceivedBytes, "direction=\"receive\""},
       {Counter::kSentBytes, "direction=\"transmit\""}}},
     2},
    {"bulkhead_net_dropped_packets_total",
     "Packets dropped, by cause.",
     kNet,
     {{{Counter::kDropBadHeader, "cause=\"bad_header\""},
       {Counter::kDropBadLength, "cause=\"bad_length\""},
       {Counter::kDropNoRoom, "cause=\"no_room\""},
       {Counter::kDropTapDown, "cause=\"tap_down\""},
       {Counter::kDropTapRefused, "cause=\"tap_refused\""}}},
     5},
    {"bulkhead_kicks_total", "Notifications of the guest.", 0, {{{Counter::kKicks, ""}}}, 1},
    {"bulkhead_interrupts_total", "Interrupts sent to the guest.", 0, {{{Counter::kCalls, ""}}}, 1},
    {"bulkhead_interrupts_suppressed_total",
     "Batches for which the guest wanted no interrupt.",
     0,
     {{{Counter::kCallsSuppressed, ""}}},
     1},
    {"bulkhead_worker_turns_total",
     "Passes of the workers' loops.",
     0,
     {{{Counter::kTurns, ""}}},
     1},
    {"bulkhead_worker_system_calls_total",
     "System calls of the workers.",
     0,
     {{{Counter::kSystemCalls, ""}}},
     1},
    {"bulkhead_throttled_requests_total",
     "Requests, or packets, that waited for the device's limits or its group's.",
     0,
     {{{Counter::kThrottledRequests, ""}}},
     1},
    {"bulkhead_throttled_seconds_total",
     "How long they waited, each queue's by itself.",
     0,
     {{{Counter::kThrottledUs, ""}}},
     1},
};

std::uint64_t count_of(const DeviceReply& device, Counter counter) {
  return device.counters[static_cast<std::size_t>(counter)];
}

// Prometheus' base unit is the second.
bool is_time(Counter counter) { return counter == Counter::kThrottledUs; }

std::string device_label(const DeviceReply& device) {
  return "device=\"" + shown(device.name) + "\"";
}

std::string gauges(const std::vector<DeviceReply>& devices) {
  struct Gauge {
    std::string_view name;
    std::string_view help;
    std::uint64_t (*value)(const DeviceReply&);
  };
  constexpr Gauge kGauges[] = {
      {"bulkhead_device_serving", "Whether VMMs may connect.",
       [](const DeviceReply& device) { return std::uint64_t{device.state == 0}; }},
      {"bulkhead_device_in_use", "Whether a VMM uses it.",
       [](const DeviceReply& device) { return std::uint64_t{device.connected}; }},
      {"bulkhead_device_workers", "Virtqueues that are served.",
       [](const DeviceReply& device) { return std::uint64_t{device.workers}; }},
      {"bulkhead_device_inflight_requests", "Requests taken and not answered yet.",
       [](const DeviceReply& device) { return device.in_flight; }},
      {"bulkhead_device_size_bytes", "What the guest is told that the disk has.",
       [](const DeviceReply& device) { return device.capacity_bytes; }},
  };
  std::string text;
  for (const Gauge& gauge : kGauges) {
    text += head(gauge.name, gauge.help, "gauge");
    for (const DeviceReply& device : devices) {
      text += sample(gauge.name, device_label(device), gauge.value(device));
    }
  }
  return text;
}

std::string infos(const StatusReply& status, const std::vector<DeviceReply>& devices) {
  std::string text = head("bulkhead_build_info", "The program that serves.", "gauge");
  text += sample("bulkhead_build_info",
                 "version=\"" + label_text(shown(status.program_version)) + "\"", 1);
  text += head("bulkhead_start_time_seconds", "When it was started, since the epoch.", "gauge");
  text += sample("bulkhead_start_time_seconds", "", status.started_unix_s);
  text += head("bulkhead_device_info", "What a device is, and whose.", "gauge");
  for (const DeviceReply& device : devices) {
    text += sample("bulkhead_device_info",
                   device_label(device) + ",type=\"" + type_of(device) + "\",tenant=\"" +
                       label_text(shown(device.tenant)) + "\",vm=\"" +
                       label_text(shown(device.vm_name)) + "\"",
                   1);
  }
  return text;
}

std::string family_text(const Family& family, const std::vector<DeviceReply>& devices) {
  std::string text = head(family.name, family.help, "counter");
  for (const DeviceReply& device : devices) {
    if (family.type != 0 && family.type != device.type) continue;
    for (std::size_t i = 0; i < family.count; ++i) {
      const Series& series = family.series[i];
      const std::string labels =
          device_label(device) + (series.labels.empty() ? "" : ",") + std::string(series.labels);
      const std::uint64_t count = count_of(device, series.counter);
      text += is_time(series.counter) ? sample(family.name, labels, seconds_text(count, 1'000'000))
                                      : sample(family.name, labels, count);
    }
  }
  return text;
}

std::string mib(double bytes) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f", bytes / (1024.0 * 1024.0));
  return text.data();
}

std::string whole(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.0f", value);
  return text.data();
}

}  // namespace

std::string metrics_text(const StatusReply& status, const std::vector<DeviceReply>& devices,
                         const std::vector<QueueReply>& queues) {
  std::string text = infos(status, devices) + gauges(devices);
  for (const Family& family : kFamilies) text += family_text(family, devices);
  return text + queue_metrics_text(queues) + latency_metrics_text(queues);
}

std::string metrics_json(const StatusReply& status, const std::vector<DeviceReply>& devices,
                         const std::vector<QueueReply>& queues) {
  Json json("metrics");
  json.number("started_unix_seconds", status.started_unix_s).array("samples");
  for (const Family& family : kFamilies) {
    for (const DeviceReply& device : devices) {
      if (family.type != 0 && family.type != device.type) continue;
      for (std::size_t i = 0; i < family.count; ++i) {
        const Series& series = family.series[i];
        json.object().text("name", family.name).text("device", shown(device.name));
        if (const std::size_t equals = series.labels.find('='); equals != series.labels.npos) {
          const std::string_view value = series.labels.substr(equals + 2);
          json.text(series.labels.substr(0, equals), value.substr(0, value.size() - 1));
        }
        const std::uint64_t count = count_of(device, series.counter);
        is_time(series.counter) ? json.seconds("value", count * 1000) : json.number("value", count);
        json.end();
      }
    }
  }
  queue_metrics_json(queues, json);
  latency_metrics_json(queues, json);
  return json.finish();
}

std::vector<Rates> rates_between(const std::vector<DeviceReply>& before,
                                 const std::vector<DeviceReply>& now, double seconds) {
  std::map<std::string, const DeviceReply*> old;
  for (const DeviceReply& device : before) old[shown(device.name)] = &device;
  const double time = std::max(seconds, 0.001);
  std::vector<Rates> all;
  for (const DeviceReply& device : now) {
    const auto found = old.find(shown(device.name));
    // Counters begin anew with a device of the same name that is another one.
    const auto rate = [&](std::initializer_list<Counter> counters) {
      double sum = 0;
      for (const Counter counter : counters) {
        const std::uint64_t first =
            found == old.end() ? count_of(device, counter) : count_of(*found->second, counter);
        const std::uint64_t last = count_of(device, counter);
        sum += last < first ? 0 : static_cast<double>(last - first);
      }
      return sum / time;
    };
    Rates rates{shown(device.name), device.in_flight, device.workers, device.connected != 0};
    rates.reads = rate({Counter::kReadRequests, Counter::kReceivedPackets});
    rates.writes = rate({Counter::kWriteRequests, Counter::kSentPackets});
    rates.read_bytes = rate({Counter::kReadBytes, Counter::kReceivedBytes});
    rates.written_bytes = rate({Counter::kWrittenBytes, Counter::kSentBytes});
    rates.errors = rate({Counter::kStatusIoError, Counter::kStatusUnsupported,
                         Counter::kDropBadHeader, Counter::kDropBadLength, Counter::kDropNoRoom,
                         Counter::kDropTapDown, Counter::kDropTapRefused});
    rates.throttled = rate({Counter::kThrottledRequests});
    all.push_back(std::move(rates));
  }
  std::stable_sort(all.begin(), all.end(), [](const Rates& left, const Rates& right) {
    return left.reads + left.writes > right.reads + right.writes;
  });
  return all;
}

std::string rates_text(const std::vector<Rates>& rates) {
  std::vector<std::vector<std::string>> rows = {{"NAME", "IN USE", "WORKERS", "IN FLIGHT", "READ/s",
                                                 "MiB/s", "WRITE/s", "MiB/s", "P50", "P99", "P99.9",
                                                 "MAX", "ERRORS/s", "THROTTLED/s"}};
  for (const Rates& one : rates) {
    rows.push_back(
        {one.name, one.connected ? "yes" : "no", std::to_string(one.workers),
         std::to_string(one.in_flight), whole(one.reads), mib(one.read_bytes), whole(one.writes),
         mib(one.written_bytes), duration_text(one.latency, one.latency.p50_ns),
         duration_text(one.latency, one.latency.p99_ns),
         duration_text(one.latency, one.latency.p999_ns),
         duration_text(one.latency, one.latency.max_ns), whole(one.errors), whole(one.throttled)});
  }
  return table_text(rows);
}

std::string rates_json(const std::vector<Rates>& rates) {
  Json json("top");
  json.array("devices");
  for (const Rates& one : rates) {
    json.object().text("name", one.name).flag("in_use", one.connected);
    json.number("workers", one.workers).number("in_flight", one.in_flight);
    json.real("reads_per_second", one.reads).real("read_bytes_per_second", one.read_bytes);
    json.real("writes_per_second", one.writes).real("written_bytes_per_second", one.written_bytes);
    json.real("errors_per_second", one.errors);
    json.real("throttled_per_second", one.throttled).object("latency");
    latency_json(one.latency, json);
    json.end().end();
  }
  return json.finish();
}

}  // namespace broker::control
