#include "broker/control/queue_metrics.h"

#include <array>
#include <span>

#include "broker/control/client.h"
#include "broker/control/exposition.h"
#include "broker/queue_book.h"
#include "common/device_kind.h"
#include "common/status_page.h"

namespace broker::control {
namespace {

using common::Counter;

constexpr auto kAny = std::uint32_t{0};
constexpr auto kBlk = static_cast<std::uint32_t>(common::DeviceKind::kBlk);
constexpr auto kNet = static_cast<std::uint32_t>(common::DeviceKind::kNet);

// One number of a family, with a label beside device, queue and direction, or with none.
struct Series {
  std::string_view label;
  std::string_view value;
  std::uint64_t (*get)(const QueueReply& queue);
};

enum class Unit : std::uint8_t { kCount, kMicroseconds };  // Of what is shown in seconds.

struct Family {
  std::string_view name;
  std::string_view help;
  std::string_view type;
  std::uint32_t devices;
  std::span<const Series> series;
  Unit unit = Unit::kCount;
};

template <Counter... kCounters>
std::uint64_t counted(const QueueReply& queue) {
  return (queue.counters[static_cast<std::size_t>(kCounters)] + ...);
}

constexpr Series kRequests[] = {
    {"op", "read", counted<Counter::kReadRequests>},
    {"op", "write", counted<Counter::kWriteRequests>},
    {"op", "flush", counted<Counter::kFlushRequests>},
    {"op", "discard", counted<Counter::kDiscardRequests>},
    {"op", "write_zeroes", counted<Counter::kWriteZeroesRequests>},
    {"op", "other", counted<Counter::kGetIdRequests, Counter::kOtherRequests>},
};
constexpr Series kBytes[] = {
    {"op", "read", counted<Counter::kReadBytes>},
    {"op", "write", counted<Counter::kWrittenBytes>},
};
constexpr Series kFailed[] = {
    {"status", "ioerr", counted<Counter::kStatusIoError>},
    {"status", "unsupp", counted<Counter::kStatusUnsupported>},
};
constexpr Series kDiskErrors[] = {{"", "", counted<Counter::kDiskErrors>}};
constexpr Series kPackets[] = {{"", "", counted<Counter::kReceivedPackets, Counter::kSentPackets>}};
constexpr Series kPacketBytes[] = {{"", "", counted<Counter::kReceivedBytes, Counter::kSentBytes>}};
constexpr Series kDropped[] = {
    {"cause", "bad_header", counted<Counter::kDropBadHeader>},
    {"cause", "bad_length", counted<Counter::kDropBadLength>},
    {"cause", "no_room", counted<Counter::kDropNoRoom>},
    {"cause", "tap_down", counted<Counter::kDropTapDown>},
    {"cause", "tap_refused", counted<Counter::kDropTapRefused>},
};
constexpr Series kWaits[] = {
    {"for", "buffers", counted<Counter::kWaitsForBuffers>},
    {"for", "tap", counted<Counter::kWaitsForTap>},
};
constexpr Series kKicks[] = {{"", "", counted<Counter::kKicks>}};
constexpr Series kCalls[] = {{"", "", counted<Counter::kCalls>}};
constexpr Series kCallsSuppressed[] = {{"", "", counted<Counter::kCallsSuppressed>}};
constexpr Series kRestarts[] = {{"", "", [](const QueueReply& queue) { return queue.restarts; }}};
constexpr Series kRingFaults[] = {
    {"", "", [](const QueueReply& queue) { return queue.ring_faults; }}};
constexpr Series kServed[] = {
    {"", "", [](const QueueReply& queue) { return std::uint64_t{queue.pid != 0}; }}};
constexpr Series kInFlight[] = {
    {"", "", [](const QueueReply& queue) { return std::uint64_t{queue.in_flight}; }}};
constexpr Series kOldest[] = {{"", "", [](const QueueReply& queue) { return queue.oldest_us; }}};

constexpr Family kFamilies[] = {
    {"bulkhead_queue_served", "Whether the virtqueue has a worker.", "gauge", kAny, kServed},
    {"bulkhead_queue_inflight_requests", "Requests taken and not answered yet.", "gauge", kBlk,
     kInFlight},
    {"bulkhead_queue_oldest_inflight_seconds", "Age of the oldest of these; 0 where there is none.",
     "gauge", kBlk, kOldest, Unit::kMicroseconds},
    {"bulkhead_queue_requests_total", "Requests of the guest, by what they ask for.", "counter",
     kBlk, kRequests},
    {"bulkhead_queue_bytes_total", "Bytes read and written.", "counter", kBlk, kBytes},
    {"bulkhead_queue_failed_requests_total", "Requests answered with an error, by its status.",
     "counter", kBlk, kFailed},
    {"bulkhead_queue_disk_errors_total", "Requests that the disk itself has failed.", "counter",
     kBlk, kDiskErrors},
    {"bulkhead_queue_packets_total", "Packets that were passed on.", "counter", kNet, kPackets},
    {"bulkhead_queue_packet_bytes_total", "Bytes of these packets, without the virtio header.",
     "counter", kNet, kPacketBytes},
    {"bulkhead_queue_dropped_packets_total", "Packets dropped, by cause.", "counter", kNet,
     kDropped},
    {"bulkhead_queue_waits_total", "Times that packets had to wait, by what for.", "counter", kNet,
     kWaits},
    {"bulkhead_queue_kicks_total", "Notifications of the guest.", "counter", kAny, kKicks},
    {"bulkhead_queue_interrupts_total", "Interrupts sent to the guest.", "counter", kAny, kCalls},
    {"bulkhead_queue_interrupts_suppressed_total",
     "Batches for which the guest wanted no interrupt.", "counter", kAny, kCallsSuppressed},
    {"bulkhead_queue_worker_restarts_total", "Workers that took over from one that had died.",
     "counter", kAny, kRestarts},
    {"bulkhead_queue_ring_faults_total", "Times that the guest broke the ring.", "counter", kAny,
     kRingFaults},
};

bool concerns(const Family& family, const QueueReply& queue) {
  return family.devices == kAny || family.devices == queue.type;
}

std::string labels_of(const QueueReply& queue, const Series& series) {
  std::string labels =
      "device=\"" + shown(queue.device) + "\",queue=\"" + std::to_string(queue.queue) + "\"";
  const auto add = [&](std::string_view label, std::string_view value) {
    labels.append(",").append(label).append("=\"").append(value).append("\"");
  };
  if (const auto direction = direction_of(queue); !direction.empty()) add("direction", direction);
  if (!series.label.empty()) add(series.label, series.value);
  return labels;
}

std::string value_text(const Family& family, std::uint64_t value) {
  return family.unit == Unit::kCount ? std::to_string(value) : seconds_text(value, 1'000'000);
}

}  // namespace

std::string_view direction_of(const QueueReply& queue) {
  constexpr std::array<std::string_view, kQueueRoleCount> kDirections = {"", "receive", "transmit",
                                                                         "control"};
  return queue.role < kDirections.size() ? kDirections[queue.role] : "?";
}

std::string queue_metrics_text(const std::vector<QueueReply>& queues) {
  std::string text;
  for (const Family& family : kFamilies) {
    text += head(family.name, family.help, family.type);
    for (const QueueReply& queue : queues) {
      if (!concerns(family, queue)) continue;
      for (const Series& series : family.series) {
        text +=
            sample(family.name, labels_of(queue, series), value_text(family, series.get(queue)));
      }
    }
  }
  return text;
}

void queue_metrics_json(const std::vector<QueueReply>& queues, Json& json) {
  for (const Family& family : kFamilies) {
    for (const QueueReply& queue : queues) {
      if (!concerns(family, queue)) continue;
      for (const Series& series : family.series) {
        json.object().text("name", family.name).text("device", shown(queue.device));
        json.number("queue", queue.queue);
        const auto direction = direction_of(queue);
        if (!direction.empty()) json.text("direction", direction);
        if (!series.label.empty()) json.text(series.label, series.value);
        const std::uint64_t value = series.get(queue);
        if (family.unit == Unit::kCount) {
          json.number("value", value);
        } else {
          json.seconds("value", value * 1000);
        }
        json.end();
      }
    }
  }
}

}  // namespace broker::control
