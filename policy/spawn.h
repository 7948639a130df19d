// policy/spawn.h: starts a jailed program. Used by the broker only.
//
// clone() into the new namespaces with the broker's memory shared until exec (vfork semantics: the
// cost does not grow with the broker), id maps written from outside, descriptors moved to fixed
// numbers, everything else closed, exec by descriptor.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>

#include "common/fd.h"
#include "common/result.h"

namespace policy {

struct DescriptorAt {
  common::FdRef from;
  int number = -1;  // 3 or above; 0 to 2 are /dev/null.
};
inline constexpr std::size_t kSpawnDescriptorsMax = 16;

struct SpawnRequest {
  common::FdRef program;   // Opened O_PATH or O_RDONLY before any VMM connected.
  const char* title = "";  // argv[0]: what ps shows. Chosen by the broker only.
  std::span<const DescriptorAt> descriptors;
  std::uint32_t namespaces = 0;  // CLONE_NEW*.
  std::uint32_t uid = 0;         // With CLONE_NEWUSER: what uid 0 inside is outside. Without
  std::uint32_t gid = 0;         // CAP_SETUID and CAP_SETGID only our own effective ids work.
  // A network namespace to start in (make_empty_network()) where `namespaces` has CLONE_NEWNET,
  // instead of a new one for each. Needs CAP_SYS_ADMIN.
  common::FdRef net_namespace;
  // A leaf of cgroup v2 to be born in: there is no moment outside of it.
  common::FdRef cgroup;
  // SELinux's; empty: what the policy says.
  std::string label;
  // A process whose core-scheduling cookie it is to have, if that can be; 0: the caller's.
  pid_t core_cookie_of = 0;
  bool outlives_parent = false;  // Else it dies with the thread that called spawn() (PDEATHSIG).
};

// A child that is not reaped yet; the owner of `pidfd` must.
struct Child {
  pid_t pid = -1;
  common::Fd pidfd;
};

// Returns once the program runs (exec succeeded). Errors name the step that failed.
[[nodiscard]] common::Result<Child> spawn(const SpawnRequest& request);

// A network namespace with nothing in it, not even a loopback that is up; lives as long as the
// descriptor or a process in it. Making one for each process costs 350 us and 200 KiB, so processes
// of a broker that may (CAP_SYS_ADMIN) share one. Leaves the caller where it is.
[[nodiscard]] common::Result<common::Fd> make_empty_network();

// The CLONE_NEW* of all seven namespaces, and what of them this host allows, found out by trying
// once each way: all; all with CAP_SYS_ADMIN, where we have it; the same without user; none.
// `os_errno` is that of the first refusal.
struct NamespaceSupport {
  std::uint32_t flags = 0;
  int os_errno = 0;  // 0 if all are there.
  // Only whoever holds CAP_SYS_ADMIN gets them: Debian's kernel.unprivileged_userns_clone=0 asks
  // for it even of who makes a user namespace along.
  bool admin_only = false;
};
[[nodiscard]] NamespaceSupport probe_namespaces();

}  // namespace policy
