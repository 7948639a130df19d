// broker/audit/log_file.h: the file that the audit trail is appended to.
//
// Not trusted: what lies at the path before it is ours, and what the file holds when we find it. A
// line is there whole or not at all, as far as the kernel lets us: what a full disk cut off is
// taken back.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "broker/audit/json_line.h"
#include "broker/config.h"
#include "common/fd.h"

namespace broker::audit {

class LogFile {
 public:
  // Makes it (mode 0640) where there is none. Refused: a link, what is no regular file, one that
  // others own, may write or (beyond its group) read, one in a directory that everybody may write
  // to, and one that another broker writes to.
  // kLater: another broker may write to it until lock().
  enum class Lock : std::uint8_t { kNow, kLater };
  [[nodiscard]] static Answer<LogFile> open(const std::string& path, Lock lock = Lock::kNow);
  // Keeps other brokers out; waits a moment for one that ends.
  [[nodiscard]] Answer<void> lock() const;

  // Where the chain in it stands; one that was rotated away while no broker ran (PATH.1) counts
  // where the file is empty. Refused: a file with something else in it.
  [[nodiscard]] Answer<Head> find_head();
  // Bytes of an event that was cut off at the file's end; the next append() ends that line, and
  // should say so.
  [[nodiscard]] std::uint64_t torn_bytes() const noexcept { return torn_bytes_; }

  [[nodiscard]] common::Result<void> append(std::string_view line);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // Another file, or none, is at the path now.
  [[nodiscard]] Answer<bool> moved() const;

 private:
  LogFile(std::string path, common::Fd file) : path_(std::move(path)), file_(std::move(file)) {}
  [[nodiscard]] Answer<void> check();
  [[nodiscard]] bool take_back(off_t size, std::size_t written, std::size_t wanted) noexcept;

  std::string path_;
  common::Fd file_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::uint64_t torn_bytes_ = 0;
  bool newline_missing_ = false;
};

}  // namespace broker::audit
