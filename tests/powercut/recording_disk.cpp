// tests/powercut/recording_disk.cpp: a disk that remembers everything that was done to it, in
// order.
//
//   bulkhead-recording-disk IMAGE LOG DIRECTORY
//
// Serves IMAGE as DIRECTORY/disk, a file system of one file (FUSE), until that is unmounted, and
// appends what arrives to LOG: records of three native 64-bit numbers (kind, offset, bytes), those
// of writes followed by their data. Whatever a record of kFlush follows is what a disk with a
// volatile cache must keep when the power fails; of the rest it may keep any part.
#define FUSE_USE_VERSION 31
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace {

enum class Kind : std::uint64_t { kWrite = 1, kZero = 2, kFlush = 3 };

constexpr const char* kFile = "/disk";
// One process serves one disk; FUSE's callbacks are plain functions.
int image = -1;
int record = -1;

int error_or(ssize_t result) { return result < 0 ? -errno : static_cast<int>(result); }

// A record that is not there whole would shift all that follow: then the disk is no more.
void append(Kind kind, std::uint64_t offset, std::uint64_t bytes, const void* data,
            std::size_t data_bytes) {
  std::array<std::uint64_t, 3> head = {static_cast<std::uint64_t>(kind), offset, bytes};
  const std::array<iovec, 2> parts = {
      {{head.data(), sizeof(head)}, {const_cast<void*>(data), data_bytes}}};
  const ssize_t written = ::writev(record, parts.data(), data_bytes == 0 ? 1 : 2);
  if (written == static_cast<ssize_t>(sizeof(head) + data_bytes)) return;
  std::fprintf(stderr, "bulkhead-recording-disk: the log cannot be written: %s\n",
               written < 0 ? std::strerror(errno) : "disk full");
  ::_exit(1);
}

int get_attributes(const char* path, struct stat* to, fuse_file_info*) {
  *to = {};
  if (std::string_view(path) == "/") {
    to->st_mode = S_IFDIR | 0755;
    to->st_nlink = 2;
    return 0;
  }
  if (std::string_view(path) != kFile) return -ENOENT;
  struct stat found {};
  if (::fstat(image, &found) != 0) return -errno;
  to->st_mode = S_IFREG | 0600;
  to->st_nlink = 1;
  to->st_size = found.st_size;
  to->st_blocks = found.st_blocks;
  return 0;
}

int open_file(const char* path, fuse_file_info*) {
  return std::string_view(path) == kFile ? 0 : -ENOENT;
}

int read_file(const char*, char* to, std::size_t bytes, off_t offset, fuse_file_info*) {
  return error_or(::pread(image, to, bytes, offset));
}

int write_file(const char*, const char* from, std::size_t bytes, off_t offset, fuse_file_info*) {
  const int written = error_or(::pwrite(image, from, bytes, offset));
  if (written > 0) {
    const auto count = static_cast<std::size_t>(written);
    append(Kind::kWrite, static_cast<std::uint64_t>(offset), count, from, count);
  }
  return written;
}

int flush_file(const char*, int, fuse_file_info*) {
  append(Kind::kFlush, 0, 0, nullptr, 0);
  return 0;
}

int allocate(const char*, int mode, off_t offset, off_t bytes, fuse_file_info*) {
  const bool zeroes = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
  if (!zeroes) return -EOPNOTSUPP;
  if (::fallocate(image, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes) != 0) {
    return -errno;
  }
  append(Kind::kZero, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(bytes),
         nullptr, 0);
  return 0;
}

int fail(const char* what) {
  std::fprintf(stderr, "bulkhead-recording-disk: %s: %s\n", what, std::strerror(errno));
  return 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::fputs("usage: bulkhead-recording-disk IMAGE LOG DIRECTORY\n", stderr);
    return 2;
  }
  image = ::open(arguments[1], O_RDWR | O_CLOEXEC);
  if (image < 0) return fail(arguments[1]);
  record = ::open(arguments[2], O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (record < 0) return fail(arguments[2]);

  fuse_operations operations{};
  operations.getattr = get_attributes;
  operations.open = open_file;
  operations.read = read_file;
  operations.write = write_file;
  operations.fsync = flush_file;
  operations.fallocate = allocate;
  // In the foreground and in one thread: the order of the log is the order of the disk. A jailed
  // worker is another user.
  std::array<char*, 7> words = {arguments[0],
                                const_cast<char*>("-f"),
                                const_cast<char*>("-s"),
                                const_cast<char*>("-o"),
                                const_cast<char*>("allow_other"),
                                arguments[3],
                                nullptr};
  return fuse_main(6, words.data(), &operations, nullptr);
}
