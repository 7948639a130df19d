#include "broker/audit/log_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "broker/text.h"

namespace broker::audit {
namespace {

using common::fail;
using common::Fd;
using common::FdRef;

constexpr mode_t kMode = 0640;
// A broker that was stopped a moment ago, or hands over to us, may still hold the lock.
constexpr int kLockAttempts = 25;
constexpr int kLockRetryMs = 20;

std::unexpected<std::string> log_error(const std::string& path, const std::string& text) {
  return fail("audit log " + in_quotes(path) + " " + text);
}

std::string open_failed(int os_errno) {
  switch (os_errno) {
    case ENOENT:
      return "cannot be made: its directory does not exist; make it first";
    case ELOOP:
      return "is a symbolic link; give the file's own path";
    case EACCES:
    case EPERM:
      return "may not be opened for reading and writing by this user; change the permissions of "
             "the "
             "file or its directory";
    case EISDIR:
      return "is a directory; give a file in it";
    case ENXIO:
      return "is no regular file; give another path";
    default:
      return "cannot be opened: " + errno_text(os_errno);
  }
}

Answer<Fd> open_directory(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string name =
      slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
  Fd directory(::open(name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat status {};
  if (!directory.valid() || ::fstat(directory.ref().number, &status) != 0) {
    return log_error(path, open_failed(errno));
  }
  if ((status.st_mode & S_IWOTH) != 0 && (status.st_mode & S_ISVTX) == 0) {
    return log_error(path,
                     "lies in a directory that everybody may write to; take that permission "
                     "away (chmod o-w), or give another path");
  }
  return directory;
}

Answer<Fd> open_file(FdRef directory, const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  // Not blocking: somebody may have put a pipe there.
  constexpr int kFlags = O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  Fd made(::openat(directory.number, name.c_str(), kFlags | O_CREAT | O_EXCL, kMode));
  if (made.valid()) {
    // Whatever the umask is.
    (void)::fchmod(made.ref().number, kMode);
    return made;
  }
  if (errno != EEXIST) return log_error(path, open_failed(errno));
  Fd found(::openat(directory.number, name.c_str(), kFlags));
  if (!found.valid()) return log_error(path, open_failed(errno));
  return found;
}

// Held by the open file, so as long as we have it.
bool take_lock(FdRef file) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  for (int i = 0; i < kLockAttempts; ++i) {
    if (i != 0) ::poll(nullptr, 0, kLockRetryMs);
    if (::fcntl(file.number, F_OFD_SETLK, &whole) == 0) return true;
    // Some file systems have no locks: then nobody can be kept out.
    if (errno != EAGAIN && errno != EACCES) return true;
  }
  return false;
}

// The end of a file: the last line that is an event, and what stands after the last newline.
struct Tail {
  std::optional<Head> head;
  std::uint64_t torn_bytes = 0;
  bool newline_missing = false;
  bool empty = true;
};

std::string read_end(FdRef file, off_t size) {
  constexpr off_t kWindow = 4 * static_cast<off_t>(kLineBytesMax);
  const off_t begin = std::max<off_t>(size - kWindow, 0);
  std::string text(static_cast<std::size_t>(size - begin), '\0');
  std::size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = ::pread(file.number, text.data() + length, text.size() - length,
                                begin + static_cast<off_t>(length));
    if (got <= 0) break;
    length += static_cast<std::size_t>(got);
  }
  text.resize(length);
  return text;
}

Tail read_tail(FdRef file) {
  Tail tail;
  struct stat status {};
  if (::fstat(file.number, &status) != 0 || status.st_size == 0) return tail;
  tail.empty = false;
  const std::string end = read_end(file, status.st_size);
  std::string_view text = end;
  const std::size_t newline = text.rfind('\n');
  const std::size_t whole = newline == std::string_view::npos ? 0 : newline + 1;
  tail.newline_missing = whole != text.size();
  if (const auto line = parse_line(text.substr(whole)); line && line->hash_fits) {
    tail.head = line->head();  // But for its newline it is whole.
    return tail;
  }
  tail.torn_bytes = text.size() - whole;
  text = text.substr(0, whole);
  while (!text.empty() && !tail.head) {
    text.remove_suffix(1);
    const std::size_t before = text.rfind('\n');
    const std::size_t begin = before == std::string_view::npos ? 0 : before + 1;
    if (const auto line = parse_line(text.substr(begin))) tail.head = line->head();
    text = text.substr(0, begin);
  }
  return tail;
}

}  // namespace

Answer<LogFile> LogFile::open(const std::string& path, Lock lock) {
  TRY_LET(const Fd directory, open_directory(path));
  TRY_LET(Fd file, open_file(directory.ref(), path));
  LogFile log(path, std::move(file));
  TRY(log.check());
  if (lock == Lock::kNow) TRY(log.lock());
  return log;
}

Answer<void> LogFile::lock() const {
  if (take_lock(file_.ref())) return {};
  return log_error(path_, "is written to by another broker; give each its own");
}

Answer<void> LogFile::check() {
  struct stat status {};
  if (::fstat(file_.ref().number, &status) != 0) {
    return log_error(path_, "cannot be looked at: " + errno_text(errno));
  }
  if (!S_ISREG(status.st_mode)) return log_error(path_, open_failed(ENXIO));
  if (status.st_uid != ::geteuid() && status.st_uid != 0) {
    return log_error(path_, "belongs to user " + std::to_string(status.st_uid) +
                                ", who could change it; give it to the broker's user (chown " +
                                std::to_string(::geteuid()) + ")");
  }
  if ((status.st_mode & 0777 & ~kMode) != 0) {
    char mode[8];
    std::snprintf(mode, sizeof(mode), "%04o", static_cast<unsigned>(status.st_mode & 07777));
    return log_error(path_, "has permissions that are too wide (" + std::string(mode) +
                                "): others could read or change it; chmod 0640 it");
  }
  if (status.st_nlink > 1) {
    return log_error(path_,
                     "has another name, too (a hard link); remove that, or give another "
                     "path");
  }
  device_ = status.st_dev;
  inode_ = status.st_ino;
  return {};
}

Answer<Head> LogFile::find_head() {
  const Tail tail = read_tail(file_.ref());
  torn_bytes_ = tail.torn_bytes;
  newline_missing_ = tail.newline_missing;
  if (tail.head) return *tail.head;
  if (!tail.empty && tail.torn_bytes == 0) {
    return log_error(path_,
                     "has something else in it than events; give another path, or move it "
                     "away");
  }
  const std::string older = path_ + ".1";
  const Fd rotated(
      ::open(older.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  struct stat status {};
  if (!rotated.valid() || ::fstat(rotated.ref().number, &status) != 0 || !S_ISREG(status.st_mode)) {
    return Head{};
  }
  return read_tail(rotated.ref()).head.value_or(Head{});
}

Answer<bool> LogFile::moved() const {
  struct stat status {};
  if (::lstat(path_.c_str(), &status) != 0) {
    if (errno == ENOENT) return true;
    return log_error(path_, "cannot be looked at: " + errno_text(errno));
  }
  return status.st_dev != device_ || status.st_ino != inode_;
}

common::Result<void> LogFile::append(std::string_view line) {
  struct stat status {};
  if (::fstat(file_.ref().number, &status) != 0) return common::fail_errno("fstat", errno);
  std::string text(newline_missing_ ? "\n" : "");
  text.append(line).append("\n");
  ssize_t written = -1;
  do {
    written = ::write(file_.ref().number, text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  if (written < 0) return common::fail_errno("write", errno);
  const auto length = static_cast<std::size_t>(written);
  if (length < text.size() && !take_back(status.st_size, length, text.size())) {
    return common::fail_errno("write", ENOSPC);
  }
  if (length == text.size()) newline_missing_ = false;
  torn_bytes_ = 0;
  return {};
}

// True where what was written is an event all the same: but for its newline.
bool LogFile::take_back(off_t size, std::size_t written, std::size_t wanted) noexcept {
  if (::ftruncate(file_.ref().number, size) == 0) return false;
  // A file that may only be appended to (chattr +a) keeps what it has got.
  const std::size_t ours = written - (newline_missing_ ? 1 : 0);
  newline_missing_ = true;
  if (written + 1 == wanted) return true;
  if (ours != 0) torn_bytes_ = ours;
  return false;
}

}  // namespace broker::audit
