// common/result.h: how every function of ours fails. The one place that names std::expected.
#pragma once

#include <expected>
#include <utility>

namespace common {

// `what` is a string literal, so an Error costs no allocation and may be made in a sealed process.
struct Error {
  const char* what = "";
  int os_errno = 0;
};

template <typename T, typename E = Error>
using Result = std::expected<T, E>;

template <typename E>
[[nodiscard]] constexpr std::unexpected<E> fail(E error) noexcept {
  return std::unexpected<E>(std::move(error));
}

// The shortest way to say "this system call failed": fail_errno("open disk", errno).
[[nodiscard]] constexpr std::unexpected<Error> fail_errno(const char* what, int os_errno) noexcept {
  return std::unexpected<Error>(Error{what, os_errno});
}

}  // namespace common

// The project's only macros. GCC 12's std::expected has no and_then(); these keep the failure path
// out of the reader's way without hiding that the function may return here.
#define TRY(expression)                                           \
  do {                                                            \
    if (auto try_result = (expression); !try_result) [[unlikely]] \
      return common::fail(std::move(try_result).error());         \
  } while (false)
#define TRY_LET(declaration, expression) TRY_LET_AS(TRY_LET_NAME(__LINE__), declaration, expression)
#define TRY_LET_AS(name, declaration, expression) \
  auto name = (expression);                       \
  if (!name) [[unlikely]]                         \
    return common::fail(std::move(name).error()); \
  declaration = *std::move(name)
#define TRY_LET_NAME(line) TRY_LET_NAME_(line)
#define TRY_LET_NAME_(line) try_result_##line
