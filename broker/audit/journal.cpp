#include "broker/audit/journal.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <utility>

#include "broker/audit/explain.h"
#include "broker/text.h"

namespace broker::audit {
namespace {

void append(std::string& entry, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  entry.append(name).append("=").append(clean_text(value)).append("\n");
}

}  // namespace

std::string journal_entry(const Event& event, const Line& line) {
  std::string entry;
  append(entry, "MESSAGE", in_words(event));
  // syslog(3): a refusal is worth a warning; the rest is informational.
  append(entry, "PRIORITY", ruling_of(event.kind()) == Ruling::kRefused ? "4" : "6");
  append(entry, "SYSLOG_IDENTIFIER", "bulkhead");
  append(entry, "BULKHEAD_AUDIT", "1");
  append(entry, "BULKHEAD_EVENT", name_of(event.kind()));
  append(entry, "BULKHEAD_SEQ", std::to_string(line.head.seq));
  append(entry, "BULKHEAD_DEVICE", event.value(Key::kDevice));
  append(entry, "BULKHEAD_VM", event.value(Key::kVm));
  append(entry, "BULKHEAD_VM_UUID", event.value(Key::kUuid));
  append(entry, "BULKHEAD_TENANT", event.value(Key::kTenant));
  append(entry, "BULKHEAD_JSON", line.text);
  return entry;
}

Answer<Journal> Journal::open(const std::string& socket_path) {
  common::Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (!socket.valid() || ::connect(socket.ref().number, reinterpret_cast<const sockaddr*>(&address),
                                   sizeof(address)) != 0) {
    return common::fail("the journal cannot be reached at " + in_quotes(socket_path) + ": " +
                        errno_text(errno) + "; give --audit-log a file instead");
  }
  return Journal(socket_path, std::move(socket));
}

common::Result<void> Journal::send(const Event& event, const Line& line) {
  const std::string entry = journal_entry(event, line);
  const auto send_once = [&] {
    return ::send(socket_.ref().number, entry.data(), entry.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >=
           0;
  };
  if (send_once()) return {};
  const bool restarted = errno == ECONNREFUSED || errno == ENOTCONN;
  if (!restarted) return common::fail_errno("send to the journal", errno);
  auto again = Journal::open(path_);
  if (!again) return common::fail_errno("connect to the journal", ECONNREFUSED);
  *this = *std::move(again);
  if (send_once()) return {};
  return common::fail_errno("send to the journal", errno);
}

}  // namespace broker::audit
