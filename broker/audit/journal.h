// broker/audit/journal.h: the systemd journal as a sink: one datagram of fields for each event, in
// the journal's own protocol, so that no library is needed. Never waits.
#pragma once

#include <string>
#include <string_view>

#include "broker/audit/event.h"
#include "broker/audit/json_line.h"
#include "broker/config.h"
#include "common/fd.h"

namespace broker::audit {

inline constexpr const char* kJournalSocket = "/run/systemd/journal/socket";

class Journal {
 public:
  [[nodiscard]] static Answer<Journal> open(const std::string& socket_path = kJournalSocket);
  [[nodiscard]] common::Result<void> send(const Event& event, const Line& line);

 private:
  Journal(std::string path, common::Fd socket)
      : path_(std::move(path)), socket_(std::move(socket)) {}
  std::string path_;
  common::Fd socket_;
};

// "MESSAGE=…\nPRIORITY=6\n…": each value is one line, whatever the event holds.
[[nodiscard]] std::string journal_entry(const Event& event, const Line& line);

}  // namespace broker::audit
