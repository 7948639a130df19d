// broker/log.h: the operator's log. spdlog lives in log.cpp only.
//
// Text from outside (paths, titles, labels of peers) is cleaned of control characters here, so no
// peer can forge a line. Numbers from jailed processes are looked up in our own tables before they
// come here (event_text.h): none of their text ever does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/result.h"

namespace broker {

enum class Level : std::uint8_t { kDebug, kInfo, kWarn, kError };

class Log {
 public:
  // To stderr: one line each, with time and level, or with journald's "<N>" prefix where stderr is
  // the journal (JOURNAL_STREAM). `level_name`: trace, debug, info, warn, error, off.
  [[nodiscard]] static common::Result<Log, std::string> open(std::string_view level_name);
  Log(Log&&) noexcept;
  Log& operator=(Log&&) noexcept;
  ~Log();

  // `subject` is the device ("vda"), the queue ("vda/2"), or empty for the broker itself.
  void write(Level level, std::string_view subject, std::string_view text);
  // Who also gets each line but those of kDebug, whatever the level of the log is.
  using Listener =
      std::function<void(Level level, std::string_view subject, std::string_view text)>;
  void listen(Listener listener) { listener_ = std::move(listener); }
  void debug(std::string_view subject, std::string_view text) {
    write(Level::kDebug, subject, text);
  }
  void info(std::string_view subject, std::string_view text) { write(Level::kInfo, subject, text); }
  void warn(std::string_view subject, std::string_view text) { write(Level::kWarn, subject, text); }
  void error(std::string_view subject, std::string_view text) {
    write(Level::kError, subject, text);
  }

 private:
  struct Sink;
  explicit Log(std::unique_ptr<Sink> sink) noexcept;
  std::unique_ptr<Sink> sink_;
  Listener listener_;
};

}  // namespace broker
