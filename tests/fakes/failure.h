// tests/fakes/failure.h: how a fake gives up.
//
// The product never throws; a fake does, since it is the shortest honest test: GoogleTest turns the
// exception into the failure of that test, with its text, and destructors still end every process
// that was started.
#pragma once

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace fakes {

class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void require(bool condition, const std::string& what) {
  if (!condition) throw Failure(what);
}

// For what sets errno.
inline void require_call(bool condition, const std::string& what) {
  const int os_errno = errno;
  if (!condition) throw Failure(what + ": " + std::strerror(os_errno));
}

}  // namespace fakes
