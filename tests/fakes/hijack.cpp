#include "tests/fakes/hijack.h"

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "tests/fakes/failure.h"

namespace fakes {
namespace {

#if !defined(__x86_64__)
#error "hijack.cpp sets the registers of x86-64"
#endif

constexpr unsigned long long kSyscallBytes = 2;  // The length of the instruction.

// Stops the process and gives its registers to `change`. A process in a system call is stopped
// right behind that instruction.
template <typename Change>
void with_registers(pid_t pid, Change change) {
  require_call(::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) == 0, "seize the process");
  require_call(::ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) == 0, "interrupt the process");
  int status = 0;
  require_call(::waitpid(pid, &status, __WALL) == pid, "wait for the process to stop");
  user_regs_struct registers{};
  iovec area{&registers, sizeof(registers)};
  require_call(::ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &area) == 0, "read its registers");
  change(registers);
  registers.orig_rax = ~0ULL;  // Whatever system call this was is not to be made again.
  require_call(::ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &area) == 0, "write its registers");
  require_call(::ptrace(PTRACE_DETACH, pid, nullptr, nullptr) == 0, "let it go on");
}

}  // namespace

void make_it_call(pid_t pid, long system_call) {
  with_registers(pid, [&](user_regs_struct& registers) {
    registers.rip -= kSyscallBytes;
    registers.rax = static_cast<unsigned long long>(system_call);
    registers.rdi = registers.rsi = registers.rdx = 0;
  });
}

void make_it_crash(pid_t pid) {
  with_registers(pid, [](user_regs_struct& registers) { registers.rip = 0; });
}

}  // namespace fakes
