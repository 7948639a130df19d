// broker/control/scrape.h: all counters of a broker, for `bulkhead metrics` and the exporter.
#pragma once

#include <string>

#include "broker/control/client.h"

namespace broker::control {

enum class MetricsFormat : std::uint8_t { kPrometheus, kJson };

[[nodiscard]] Answer<std::string> scrape(Client& client, MetricsFormat format);

}  // namespace broker::control
