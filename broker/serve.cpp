#include "broker/serve.h"

#include "broker/broker.h"

namespace broker {

int serve(const BrokerConfig& config, Log& log) {
  Broker broker(config, log);
  if (const auto started = broker.start(); !started) {
    broker.record_failure(started.error());
    log.error("", started.error());
    return 1;
  }
  return broker.run();
}

}  // namespace broker
