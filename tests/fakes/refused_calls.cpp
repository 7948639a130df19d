#include "tests/fakes/refused_calls.h"

#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

namespace fakes {
namespace {

constexpr std::uint16_t kLoad = BPF_LD | BPF_W | BPF_ABS;
constexpr std::uint16_t kJumpIfEqual = BPF_JMP | BPF_JEQ | BPF_K;
constexpr std::uint16_t kReturn = BPF_RET | BPF_K;

}  // namespace

std::vector<sock_filter> filter_that_refuses(const std::vector<RefusedCall>& calls) {
  std::vector<sock_filter> filter;
  for (const RefusedCall& call : calls) {
    const bool narrow = call.argument >= 0;
    filter.push_back({kLoad, 0, 0, offsetof(seccomp_data, nr)});
    filter.push_back({kJumpIfEqual, 0, static_cast<std::uint8_t>(narrow ? 4 : 1),
                      static_cast<std::uint32_t>(call.number)});
    if (narrow) {
      const auto offset =
          offsetof(seccomp_data, args) + 8 * static_cast<std::size_t>(call.argument);
      filter.push_back({kLoad, 0, 0, static_cast<std::uint32_t>(offset)});
      filter.push_back({BPF_ALU | BPF_AND | BPF_K, 0, 0, call.mask});
      filter.push_back({kJumpIfEqual, 0, 1, call.value});
    }
    filter.push_back(
        {kReturn, 0, 0, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(call.os_errno)});
  }
  filter.push_back({kReturn, 0, 0, SECCOMP_RET_ALLOW});
  return filter;
}

bool install_filter(const std::vector<sock_filter>& filter) noexcept {
  const struct {  // struct sock_fprog
    unsigned short count;
    const sock_filter* instructions;
  } program{static_cast<unsigned short>(filter.size()), filter.data()};
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0U, &program) == 0;
}

}  // namespace fakes
