// broker/control/queue_metrics.h: the figures of each virtqueue, for Prometheus and as JSON. Their
// sum over a device's queues is what the device's own families have.
#pragma once

#include <string>
#include <vector>

#include "broker/control/json.h"
#include "broker/control/messages.h"

namespace broker::control {

[[nodiscard]] std::string queue_metrics_text(const std::vector<QueueReply>& queues);
// Further elements of the array that `json` is in.
void queue_metrics_json(const std::vector<QueueReply>& queues, Json& json);

// "receive", "transmit", "control"; empty for a disk's.
[[nodiscard]] std::string_view direction_of(const QueueReply& queue);

}  // namespace broker::control
