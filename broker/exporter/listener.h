// broker/exporter/listener.h: where the exporter listens: what systemd has opened, or loopback.
#pragma once

#include <string>

#include "broker/config.h"
#include "common/fd.h"

namespace broker::exporter {

inline constexpr const char* kDefaultListen = "127.0.0.1:9821";

// "127.0.0.1:9821" or "[::1]:9821". No other addresses than the loopback's: nobody is asked who he
// is, and nothing is encrypted.
[[nodiscard]] Answer<common::Fd> listen_on_loopback(const std::string& address);

// The one socket of LISTEN_FDS; invalid where there is none.
[[nodiscard]] Answer<common::Fd> take_activated();

}  // namespace broker::exporter
