#include "broker/audit/json_log.h"

#include <utility>

#include "broker/text.h"

namespace broker::audit {

Answer<JsonLog> JsonLog::open(const std::string& where) {
  if (where == "journal") {
    TRY_LET(Journal journal, Journal::open());
    return JsonLog("journal", std::move(journal));
  }
  TRY_LET(LogFile file, LogFile::open(where));
  TRY_LET(Head head, file.find_head());
  JsonLog log("file", std::move(file));
  log.head_ = std::move(head);
  return log;
}

Answer<JsonLog> JsonLog::open_of_another(const std::string& where) {
  if (where == "journal") return open(where);
  TRY_LET(LogFile file, LogFile::open(where, LogFile::Lock::kLater));
  return JsonLog("file", std::move(file));
}

Answer<void> JsonLog::take() {
  auto* const file = std::get_if<LogFile>(&sink_);
  if (file == nullptr) return {};
  TRY(file->lock());
  // That broker may have gone on in another one meanwhile.
  TRY_LET(const bool moved, file->moved());
  if (moved) {
    TRY_LET(LogFile now, LogFile::open(file->path()));
    *file = std::move(now);
  }
  TRY_LET(head_, file->find_head());
  return {};
}

void JsonLog::write_opened(Time time) {
  auto event = Event(Kind::kAuditOpened)
                   .with(Key::kSink, where_)
                   .with(Key::kSchema, std::uint64_t{kSchemaVersion});
  add_torn(event);
  write(event, time);
}

void JsonLog::add_torn(Event& event) const {
  const LogFile* file = std::get_if<LogFile>(&sink_);
  if (file != nullptr && file->torn_bytes() != 0) event.add(Key::kTornBytes, file->torn_bytes());
}

void JsonLog::write(const Event& event, Time time) {
  retry(time);
  if (lost_ != 0) {
    ++lost_;
    return;
  }
  if (const auto written = put(event, time); !written) {
    add_lost(1, std::string(written.error().what) + ": " + errno_text(written.error().os_errno));
  }
}

void JsonLog::add_lost(std::uint64_t count, std::string_view cause) {
  lost_ += count;
  lost_cause_ = cause;
}

void JsonLog::retry(Time time) {
  if (lost_ == 0) return;
  auto event = Event(Kind::kEventsLost).with(Key::kAmount, lost_).with(Key::kCause, lost_cause_);
  add_torn(event);
  if (put(event, time)) lost_ = 0;
}

Answer<void> JsonLog::reopen(Time time) {
  const LogFile* const old = std::get_if<LogFile>(&sink_);
  if (old == nullptr) return {};
  // The file at the path may be the one that we hold, whose lock is ours.
  TRY_LET(const bool moved, old->moved());
  if (!moved) return {};
  TRY_LET(LogFile file, LogFile::open(old->path()));
  TRY_LET(const Head there, file.find_head());
  (void)there;  // The chain is ours; a file that begins elsewhere shows as a gap.
  sink_ = std::move(file);
  write_opened(time);
  return {};
}

common::Result<void> JsonLog::put(const Event& event, Time time) {
  Line line = render_line(event, time, head_);
  if (auto* file = std::get_if<LogFile>(&sink_)) {
    TRY(file->append(line.text));
  } else {
    TRY(std::get<Journal>(sink_).send(event, line));
  }
  head_ = std::move(line.head);
  return {};
}

}  // namespace broker::audit
