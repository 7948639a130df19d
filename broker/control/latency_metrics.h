// broker/control/latency_metrics.h: how long requests took, of each virtqueue: as Prometheus'
// histograms, and as a few figures for people.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker/control/json.h"
#include "broker/control/messages.h"
#include "broker/latency_totals.h"

namespace broker::control {

[[nodiscard]] std::string latency_metrics_text(const std::vector<QueueReply>& queues);
// Further elements of the array that `json` is in: count, sum and quantiles, not the buckets.
void latency_metrics_json(const std::vector<QueueReply>& queues, Json& json);

// Of everything that these queues have answered.
[[nodiscard]] LatencySummary latency_of(const std::vector<QueueReply>& queues);
// Of what one device has answered between two looks.
[[nodiscard]] LatencySummary latency_between(const std::vector<QueueReply>& before,
                                             const std::vector<QueueReply>& now,
                                             const Name& device);

// "p50_seconds" and so on, into the object that `json` is in.
void latency_json(const LatencySummary& latency, Json& json);
// "85 us", "1.3 ms"; "-" where nothing was measured.
[[nodiscard]] std::string duration_text(const LatencySummary& latency, std::uint64_t nanoseconds);

}  // namespace broker::control
