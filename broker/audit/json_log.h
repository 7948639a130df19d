// broker/audit/json_log.h: the chain of JSON lines, to a file or to the journal. What cannot be
// written is counted, and the next event that can be says so.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "broker/audit/journal.h"
#include "broker/audit/json_line.h"
#include "broker/audit/log_file.h"
#include "broker/config.h"

namespace broker::audit {

class JsonLog {
 public:
  // `where` is "journal" or a path. Goes on where the file ends; nothing is written yet.
  [[nodiscard]] static Answer<JsonLog> open(const std::string& where);

  // A file that another broker writes to yet; all there is to do with it is take().
  [[nodiscard]] static Answer<JsonLog> open_of_another(const std::string& where);
  // Waits a moment for that broker to let go, and goes on where the file ends then.
  [[nodiscard]] Answer<void> take();

  // First of all, and again after reopen() has found another file.
  void write_opened(Time time);
  void write(const Event& event, Time time);
  // Events that were lost before they came here.
  void add_lost(std::uint64_t count, std::string_view cause);
  // Says what was lost, if it can be said now.
  void retry(Time time);
  // The file was moved away (logrotate): goes on in the one that is at its path now. Where that
  // cannot be had, the old one is kept, and the error says why.
  [[nodiscard]] Answer<void> reopen(Time time);

  [[nodiscard]] const Head& head() const noexcept { return head_; }
  // Not zero: the last events could not be written.
  [[nodiscard]] std::uint64_t lost() const noexcept { return lost_; }
  [[nodiscard]] const std::string& lost_cause() const noexcept { return lost_cause_; }

 private:
  using Sink = std::variant<LogFile, Journal>;
  JsonLog(std::string where, Sink sink) : where_(std::move(where)), sink_(std::move(sink)) {}
  void add_torn(Event& event) const;
  [[nodiscard]] common::Result<void> put(const Event& event, Time time);

  std::string where_;
  Sink sink_;
  Head head_;
  std::uint64_t lost_ = 0;
  std::string lost_cause_;
};

}  // namespace broker::audit
