#include "broker/open_file.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

namespace broker {

std::string path_of(common::FdRef file) {
  const std::string magic = "/proc/self/fd/" + std::to_string(file.number);
  std::array<char, PATH_MAX> path{};
  const ssize_t length = ::readlink(magic.c_str(), path.data(), path.size());
  if (length <= 0) return {};
  return {path.data(), static_cast<std::size_t>(length)};
}

dev_t rdev_of(common::FdRef file) noexcept {
  struct stat status {};
  const bool known = ::fstat(file.number, &status) == 0;
  return known && (S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode)) ? status.st_rdev : 0;
}

}  // namespace broker
