#include "common/sys.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace common {

Result<Fd> make_eventfd() noexcept {
  Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.valid()) return fail_errno("eventfd", errno);
  return fd;
}

Result<Fd> make_sealed_memfd(const char* name, std::uint64_t bytes) noexcept {
  Fd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return fail_errno("memfd_create", errno);
  if (::ftruncate(fd.ref().number, static_cast<off_t>(bytes)) != 0) {
    return fail_errno("ftruncate memfd", errno);
  }
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (::fcntl(fd.ref().number, F_ADD_SEALS, kSeals) != 0) return fail_errno("seal memfd", errno);
  return fd;
}

Result<std::pair<Fd, Fd>> make_packet_pair() noexcept {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail_errno("socketpair", errno);
  }
  return std::pair<Fd, Fd>(Fd(ends[0]), Fd(ends[1]));
}

Result<Fd> duplicate(FdRef fd, int lowest) noexcept {
  Fd copy(::fcntl(fd.number, F_DUPFD_CLOEXEC, lowest));
  if (!copy.valid()) return fail_errno("duplicate descriptor", errno);
  return copy;
}

Result<void> set_nonblocking(FdRef fd, bool on) noexcept {
  const int flags = ::fcntl(fd.number, F_GETFL);
  if (flags < 0) return fail_errno("F_GETFL", errno);
  const int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  if (wanted != flags && ::fcntl(fd.number, F_SETFL, wanted) != 0) {
    return fail_errno("F_SETFL", errno);
  }
  return {};
}

}  // namespace common
