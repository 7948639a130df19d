#include "broker/control/latency_metrics.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "broker/control/client.h"
#include "broker/control/exposition.h"
#include "broker/control/queue_metrics.h"

namespace broker::control {
namespace {

constexpr std::string_view kFamily = "bulkhead_request_duration_seconds";

// Powers of two of nanoseconds, from 8 us to 17 s: borders of the worker's buckets, so what is
// below each is counted and not guessed.
constexpr std::array<std::uint32_t, 16> kBounds = {13, 14, 15, 16, 17, 18, 19, 20,
                                                   21, 22, 23, 24, 26, 28, 30, 34};

std::string_view op_of(std::size_t kind) {
  constexpr std::array<std::string_view, common::kLatencyKinds> kOps = {
      "transmit", "read", "write", "flush", "discard", "write_zeroes"};
  return kOps[kind];
}

std::string queue_labels(const QueueReply& queue) {
  return "device=\"" + shown(queue.device) + "\",queue=\"" + std::to_string(queue.queue) + "\"";
}

std::string histogram_text(const LatencyCounts& counts, const std::string& labels) {
  std::string text;
  const auto bucket = [&](const std::string& bound, std::uint64_t below) {
    text += sample(std::string(kFamily) + "_bucket", labels + ",le=\"" + bound + "\"", below);
  };
  for (const std::uint32_t bit : kBounds) {
    bucket(seconds_text(std::uint64_t{1} << bit, kNanosecondsPerSecond), count_below(counts, bit));
  }
  const std::uint64_t total = count_of(counts);
  bucket("+Inf", total);
  text += sample(std::string(kFamily) + "_sum", labels,
                 seconds_text(counts.sum_ns, kNanosecondsPerSecond));
  return text + sample(std::string(kFamily) + "_count", labels, total);
}

// What was never asked for has no histogram: it would be most of the page.
template <typename Visit>
void each_histogram(const std::vector<QueueReply>& queues, Visit&& visit) {
  for (const QueueReply& queue : queues) {
    for (std::size_t kind = 0; kind < common::kLatencyKinds; ++kind) {
      const LatencyCounts& counts = queue.latency[kind];
      if (count_of(counts) != 0) visit(queue, kind, counts);
    }
  }
}

}  // namespace

std::string latency_metrics_text(const std::vector<QueueReply>& queues) {
  constexpr std::string_view kMeasured = "bulkhead_queue_latency_measured";
  std::string text = head(kMeasured, "Whether its worker has a clock to measure with.", "gauge");
  for (const QueueReply& queue : queues) {
    text += sample(kMeasured, queue_labels(queue), std::uint64_t{queue.measured});
  }
  text += head(kFamily, "From when a worker takes a request until it answers.", "histogram");
  each_histogram(
      queues, [&](const QueueReply& queue, std::size_t kind, const LatencyCounts& counts) {
        const std::string labels = queue_labels(queue) + ",op=\"" + std::string(op_of(kind)) + "\"";
        text += histogram_text(counts, labels);
      });
  return text;
}

void latency_metrics_json(const std::vector<QueueReply>& queues, Json& json) {
  each_histogram(queues,
                 [&](const QueueReply& queue, std::size_t kind, const LatencyCounts& counts) {
                   json.object().text("name", kFamily).text("device", shown(queue.device));
                   json.number("queue", queue.queue).text("op", op_of(kind));
                   json.seconds("sum_seconds", counts.sum_ns);
                   latency_json(summary_of(counts), json);
                   json.end();
                 });
}

LatencySummary latency_of(const std::vector<QueueReply>& queues) {
  LatencyCounts sum;
  for (const QueueReply& queue : queues) add_latency(sum, all_kinds(queue.latency));
  return summary_of(sum);
}

LatencySummary latency_between(const std::vector<QueueReply>& before,
                               const std::vector<QueueReply>& now, const Name& device) {
  LatencyCounts sum;
  for (const QueueReply& queue : now) {
    if (queue.device != device) continue;
    const auto old = std::find_if(before.begin(), before.end(), [&](const QueueReply& one) {
      return one.device == device && one.queue == queue.queue;
    });
    const LatencyCounts last = all_kinds(queue.latency);
    const LatencyCounts first = old == before.end() ? LatencyCounts{} : all_kinds(old->latency);
    // Counters begin anew with a device of the same name that is another one.
    const bool same = count_of(first) <= count_of(last);
    add_latency(sum, same ? latency_since(last, first) : last);
  }
  return summary_of(sum);
}

void latency_json(const LatencySummary& latency, Json& json) {
  json.number("count", latency.count);
  json.seconds("p50_seconds", latency.p50_ns).seconds("p99_seconds", latency.p99_ns);
  json.seconds("p999_seconds", latency.p999_ns).seconds("max_seconds", latency.max_ns);
}

std::string duration_text(const LatencySummary& latency, std::uint64_t nanoseconds) {
  if (latency.count == 0) return "-";
  const double us = static_cast<double>(nanoseconds) / 1e3;
  std::array<char, 32> text{};
  if (us < 1000) {
    std::snprintf(text.data(), text.size(), us < 10 ? "%.1f us" : "%.0f us", us);
  } else if (us < 1e6) {
    std::snprintf(text.data(), text.size(), us < 1e4 ? "%.1f ms" : "%.0f ms", us / 1e3);
  } else {
    std::snprintf(text.data(), text.size(), "%.1f s", us / 1e6);
  }
  return text.data();
}

}  // namespace broker::control
