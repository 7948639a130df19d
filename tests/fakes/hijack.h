// tests/fakes/hijack.h: makes a running process do what an attacker who has taken it over could
// make it do. A worker is the first process of its namespace, so signals from outside, SIGKILL
// aside, do not reach it: it has to commit its crime itself.
#pragma once

#include <sys/types.h>

namespace fakes {

// It makes this system call, with zeros as arguments, and goes on (or dies of it). Needs to be
// root. Fails where the process is gone.
void make_it_call(pid_t pid, long system_call);
// It jumps to address 0: SIGSEGV.
void make_it_crash(pid_t pid);

}  // namespace fakes
