#include "broker/log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <exception>
#include <optional>
#include <utility>

#include "broker/text.h"

namespace broker {
namespace {

// Longer than any sentence of ours: what a path or label may add ends here.
constexpr std::size_t kLineMax = 4096;

struct LevelName {
  std::string_view name;
  spdlog::level::level_enum level;
};
constexpr std::array<LevelName, 6> kLevelNames = {{
    {"trace", spdlog::level::trace},
    {"debug", spdlog::level::debug},
    {"info", spdlog::level::info},
    {"warn", spdlog::level::warn},
    {"error", spdlog::level::err},
    {"off", spdlog::level::off},
}};

std::optional<spdlog::level::level_enum> level_named(std::string_view name) {
  for (const LevelName& known : kLevelNames) {
    if (known.name == name) return known.level;
  }
  return std::nullopt;
}

spdlog::level::level_enum spdlog_level(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// sd-daemon(3): what the journal reads a line's priority from.
std::string_view journal_prefix(Level level) {
  switch (level) {
    case Level::kDebug:
      return "<7>";
    case Level::kInfo:
      return "<6>";
    case Level::kWarn:
      return "<4>";
    case Level::kError:
      return "<3>";
  }
  return "<3>";
}

// systemd.exec(5): JOURNAL_STREAM is "device:inode" of the stream to the journal. Compared with
// what stderr is now, since somebody may have redirected it in between.
bool stderr_is_journal() {
  const char* named = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  if (named == nullptr || ::fstat(STDERR_FILENO, &status) != 0) return false;
  return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) == named;
}

}  // namespace

struct Log::Sink {
  spdlog::logger logger;
  bool journal;
};

Log::Log(std::unique_ptr<Sink> sink) noexcept : sink_(std::move(sink)) {}
Log::Log(Log&&) noexcept = default;
Log& Log::operator=(Log&&) noexcept = default;
Log::~Log() = default;

common::Result<Log, std::string> Log::open(std::string_view level_name) {
  const auto level = level_named(level_name);
  if (!level) {
    return common::fail("there is no log level " + in_quotes(level_name) +
                        "; use trace, debug, info, warn, error or off");
  }
  try {
    auto sink = std::make_unique<Sink>(
        Sink{spdlog::logger("bulkhead", std::make_shared<spdlog::sinks::stderr_sink_mt>()),
             stderr_is_journal()});
    sink->logger.set_level(*level);
    // The journal knows the time and takes the level from the prefix.
    sink->logger.set_pattern(sink->journal ? "%v" : "%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    return Log(std::move(sink));
  } catch (const std::exception& error) {
    return common::fail(std::string("cannot open the log: ") + error.what());
  }
}

void Log::write(Level level, std::string_view subject, std::string_view text) {
  const spdlog::level::level_enum spdlog_severity = spdlog_level(level);
  if (listener_ && level != Level::kDebug) listener_(level, subject, text);
  if (!sink_->logger.should_log(spdlog_severity)) return;
  std::string line(sink_->journal ? journal_prefix(level) : std::string_view());
  if (!subject.empty()) line += clean_text(subject.substr(0, kLineMax)) + ": ";
  line += clean_text(text.substr(0, kLineMax));
  sink_->logger.log(spdlog_severity, spdlog::string_view_t(line));
}

}  // namespace broker
