#include "broker/control/scrape.h"

#include "broker/control/metrics.h"

namespace broker::control {

Answer<std::string> scrape(Client& client, MetricsFormat format) {
  TRY_LET(const std::optional<StatusReply> status, client.ask<StatusReply>(AskStatus{}));
  if (!status) return common::fail(std::string("the broker has no status"));
  TRY_LET(const std::vector<DeviceReply> devices, client.devices());
  TRY_LET(const std::vector<QueueReply> queues, client.queues(devices));
  return format == MetricsFormat::kJson ? metrics_json(*status, devices, queues)
                                        : metrics_text(*status, devices, queues);
}

}  // namespace broker::control
