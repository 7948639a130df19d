// policy/broker.h: the system calls that the broker may make once it serves, all on this page.
//
// It keeps its filter as long as it lives, and every child inherits it: so the second and third
// part are what a child needs between clone() and the seal that ends its own set-up. Beneath that
// seal this list adds nothing: of two filters the stricter answer counts.
//
// Anything else fails with EPERM (clone3 with ENOSYS, so that the C library takes clone, whose
// flags can be checked) and leaves a record in the kernel's audit log. Not death: the broker reads
// nothing that a VMM or guest wrote, so a call that is not listed is most likely a newer C
// library's, and killing it would take the disks of every tenant away. What is refused is refused
// either way.
//
// There are two lists. Where devices can be added while it serves, by an operator or in a
// configuration file, it may go on opening disks and taps and listening on sockets; a broker of the
// devices it was started with may not.
//
// What this takes from a broker that somebody has taken over: cutting files off, any memory that is
// executable, programs other than by descriptor, threads and processes with other flags (but for
// clone3 where there are cgroups),
// namespaces, tracing, other processes' memory, modules, BPF, keys, clocks, mounts by the new
// interface, and every socket but unix and two kinds of netlink.
//
// To add what a feature needs: a row here with the function that needs it, then
// `bulkhead posture --permissions > policy/permissions.txt`. escape.no_permission_is_unused says
// which rows nobody uses, and what the broker was refused without one.
#pragma once

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <iterator>
#include <span>

#include "policy/core_scheduling.h"
#include "policy/profile.h"

namespace policy {

// Descriptors of files that are there: none is made, cut off or written at its end.
inline constexpr ArgLimit kOpensWhatIsThere =
    arg_within(2, O_ACCMODE | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_PATH | O_NOFOLLOW |
                      O_DIRECTORY | 0100000 /* O_LARGEFILE of the kernel */);
// The audit log, which is only ever written at its end, and made anew when it is rotated.
inline constexpr ArgLimit kWritesAtTheEnd =
    arg_with(2, O_APPEND,
             O_ACCMODE | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CREAT | O_EXCL |
                 0100000 /* O_LARGEFILE of the kernel */);
// A new file is nobody else's (O_EXCL is up to the caller); what is there is written at its end, or
// where a disk's requests say.
inline constexpr ArgLimit kCutsNothingOff = arg_within(
    2, O_ACCMODE | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CREAT |
           O_EXCL | O_APPEND | O_DIRECT | 0100000 /* O_LARGEFILE of the kernel */);
inline constexpr ArgLimit kNoExecutableMemory = arg_within(2, PROT_READ | PROT_WRITE);

// The signal for the parent is in the same argument.
inline constexpr ArgLimit kCloneOfAChild =
    arg_within(0, CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |
                      CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_VM | CLONE_PIDFD | SIGCHLD);
inline constexpr ArgLimit kCloneOfAThread =
    arg_is(0, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                  CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID);

inline constexpr std::uint64_t kNonBlockingSocket = SOCK_CLOEXEC | SOCK_NONBLOCK;
inline constexpr std::uint64_t kBlkGetSize64 = 0x80081272;  // BLKGETSIZE64
inline constexpr std::uint64_t kPidfdInfo = 0xc048ff0b;     // PIDFD_GET_INFO, 72 bytes
inline constexpr std::uint64_t kPidfdExit = 0xc040ff0b;     // PIDFD_GET_INFO, 64 bytes
inline constexpr std::uint64_t kPrSetMdwe = 65;             // Newer than some build hosts' headers.
inline constexpr int kSysMseal = 462;

inline constexpr SyscallRule kBrokerSyscalls[] = {
    // --- serving ---------------------------------------------------------------------------------
    {SYS_epoll_wait, {}, "broker/event_loop.cpp: turn"},
    {SYS_epoll_ctl, {}, "broker/event_loop.cpp: watch"},
    {SYS_poll, {}, "broker/posture_probe.cpp: result_of"},
    {SYS_read, {}, "broker/signals.cpp: read_signals"},
    {SYS_write, {}, "broker/log.cpp: write"},
    {SYS_writev, {}, "broker/net_card.cpp: try_rarp"},
    {SYS_close, {}, "common/fd.h: reset"},
    {SYS_accept4, {arg_is(3, kNonBlockingSocket)}, "broker/socket.cpp: accept_from"},
    {SYS_getsockopt, {arg_is(1, SOL_SOCKET)}, "broker/socket.cpp: peer_of"},
    {SYS_socket,
     {arg_is(0, AF_UNIX), arg_is(1, SOCK_STREAM | kNonBlockingSocket)},
     "broker/socket.cpp: connect_to"},
    {SYS_socket,
     {arg_is(0, AF_UNIX), arg_is(1, SOCK_SEQPACKET | kNonBlockingSocket)},
     "broker/socket.cpp: listen_on"},
    {SYS_connect, {}, "broker/socket.cpp: connect_to"},
    {SYS_socket,
     {arg_is(0, AF_UNIX), arg_is(1, SOCK_DGRAM | kNonBlockingSocket)},
     "broker/systemd.cpp: notify"},
    {SYS_sendto, {arg_within(3, MSG_NOSIGNAL | MSG_DONTWAIT)}, "broker/systemd.cpp: notify"},
    {SYS_socket,
     {arg_is(0, AF_NETLINK), arg_is(1, SOCK_RAW | kNonBlockingSocket), arg_is(2, NETLINK_ROUTE)},
     "broker/link.cpp: open_socket"},
    {SYS_bind, {}, "broker/link.cpp: open_socket"},
    {SYS_setsockopt,
     {arg_is(1, SOL_SOCKET), arg_is(2, SO_ATTACH_FILTER)},
     "broker/link.cpp: hear_only_of"},
    {SYS_recvfrom, {arg_within(3, MSG_DONTWAIT)}, "broker/link.cpp: read_changes"},
    {SYS_recvfrom, {arg_is(3, MSG_PEEK | MSG_DONTWAIT)}, "broker/net_card.cpp: next_command"},
    {SYS_recvmsg,
     {arg_within(2, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)},
     "common/ipc/channel.cpp: receive"},
    {SYS_sendmsg,
     {arg_within(2, MSG_NOSIGNAL | MSG_DONTWAIT)},
     "common/ipc/channel.cpp: send_bytes"},
    {SYS_openat, {kOpensWhatIsThere}, "policy/spawn.cpp: open_file"},
    {SYS_openat, {kWritesAtTheEnd}, "broker/audit/log_file.cpp: open_file"},
    {SYS_newfstatat, {}, "broker/socket.cpp: remove_socket"},
    {SYS_unlink, {}, "broker/socket.cpp: remove_socket"},
    {SYS_readlink, {}, "broker/foreign_close.cpp: is_eventfd"},
    {SYS_clone, {kCloneOfAThread}, "broker/foreign_close.cpp: close_on_thread"},
    {SYS_exit, {}, "broker/foreign_close.cpp: close_on_thread"},
    {SYS_getdents64, {}, "policy/proc_files.cpp: list_directory"},
    {SYS_setfsuid, {}, "policy/posture.cpp: look_as"},
    {SYS_setfsgid, {}, "policy/posture.cpp: look_as"},
    {SYS_ioctl, {arg_is(1, kPidfdInfo)}, "policy/posture.cpp: dump_skipped"},
    {SYS_pidfd_open, {arg_is(1, 0)}, "policy/posture.cpp: dump_skipped"},
    {SYS_pidfd_send_signal, {arg_is(1, SIGKILL), arg_is(2, 0)}, "broker/death.cpp: kill_child"},
    {SYS_pidfd_send_signal, {arg_is(1, 0), arg_is(2, 0)}, "broker/death.cpp: death_of_adopted"},
    {SYS_ioctl, {arg_is(1, kPidfdExit)}, "broker/death.cpp: death_of_adopted"},
    {SYS_setsockopt, {arg_is(1, SOL_SOCKET), arg_is(2, SO_SNDTIMEO)}, "broker/keep.cpp: watch"},
    // Where a keeper that has died is replaced.
    {SYS_listen, {}, "broker/socket.cpp: listen_on"},
    {SYS_fchmod, {}, "broker/socket.cpp: listen_on"},
    {SYS_chmod, {}, "broker/socket.cpp: give_access"},
    {SYS_waitid, {arg_is(0, P_PIDFD), arg_within(3, WEXITED | WNOHANG)}, "broker/death.cpp: reap"},
    {SYS_ioctl, {arg_is(1, kBlkGetSize64)}, "broker/open_disk.cpp: disk_bytes"},
    {SYS_fcntl, {arg_is(1, F_OFD_SETLK)}, "broker/blk_config.cpp: unlock"},
    {SYS_ioctl, {arg_is(1, TUNSETQUEUE)}, "broker/tap_control.cpp: attach_queue"},
    {SYS_ioctl, {arg_is(1, TUNSETOFFLOAD)}, "broker/tap_control.cpp: set_offloads"},
    {SYS_ioctl, {arg_is(1, TUNSETCARRIER)}, "broker/tap_control.cpp: set_carrier"},
    {SYS_ioctl, {arg_is(1, TUNSETTXFILTER)}, "broker/tap_control.cpp: set_receive_filter"},
    {SYS_io_uring_enter, {}, "broker/ring_messenger.cpp: submit"},
    {SYS_io_uring_register,
     {arg_is(1, IORING_REGISTER_FILES_UPDATE)},
     "broker/ring_messenger.cpp: set_slot"},
    {SYS_exit_group, {}, "broker/main.cpp: main"},

    // --- starting a process ----------------------------------------------------------------------
    {SYS_memfd_create,
     {arg_within(1, MFD_CLOEXEC | MFD_ALLOW_SEALING)},
     "common/sys.cpp: make_sealed_memfd"},
    {SYS_ftruncate, {}, "common/sys.cpp: make_sealed_memfd"},
    {SYS_fcntl, {arg_is(1, F_ADD_SEALS)}, "common/sys.cpp: make_sealed_memfd"},
    {SYS_fcntl, {arg_is(1, F_GETFL)}, "common/sys.cpp: set_nonblocking"},
    {SYS_fcntl, {arg_is(1, F_SETFL)}, "common/sys.cpp: set_nonblocking"},
    {SYS_socketpair, {arg_is(0, AF_UNIX)}, "common/sys.cpp: make_packet_pair"},
    {SYS_eventfd2, {}, "common/sys.cpp: make_eventfd"},
    {SYS_pipe2, {arg_is(1, O_CLOEXEC | O_NONBLOCK)}, "common/stop_pipe.cpp: make_stop_pipe"},
    {SYS_mmap, {kNoExecutableMemory}, "common/shared_region.cpp: map"},
    {SYS_mprotect, {kNoExecutableMemory}, "policy/spawn.cpp: run_plan"},
    {SYS_munmap, {}, "common/shared_region.cpp: map"},
    {SYS_brk, {}, "broker/main.cpp: main"},
    {SYS_madvise, {}, "common/startup_pages.cpp: give_back"},
    {SYS_io_uring_setup, {}, "policy/restricted_ring.cpp: make_restricted_ring"},
    {SYS_io_uring_register,
     {arg_is(1, IORING_REGISTER_RESTRICTIONS)},
     "policy/restricted_ring.cpp: make_restricted_ring"},
    {SYS_io_uring_register,
     {arg_is(1, IORING_REGISTER_IOWQ_MAX_WORKERS)},
     "policy/restricted_ring.cpp: make_restricted_ring"},
    {SYS_lseek, {}, "policy/seccomp.cpp: export_instructions"},
    {SYS_pread64, {}, "policy/seccomp.cpp: export_instructions"},
    {SYS_capget, {}, "policy/capability_drop.cpp: has_capability"},
    {SYS_rt_sigprocmask, {}, "policy/spawn.cpp: start_child"},
    {SYS_prctl,
     {arg_is(0, kPrSchedCore), arg_is(1, kCookieGet)},
     "policy/core_scheduling.cpp: core_cookie_of"},
    {SYS_prctl, {arg_is(0, PR_GET_DUMPABLE)}, "policy/spawn.cpp: write_maps_dumpable"},
    {SYS_prctl, {arg_is(0, PR_SET_DUMPABLE)}, "policy/spawn.cpp: write_maps_dumpable"},
    {SYS_clone, {kCloneOfAChild}, "policy/spawn.cpp: start_child"},
    // The child, until it has become another program.
    {SYS_setgroups, {arg_is(0, 0)}, "policy/spawn_child.cpp: take_ids"},
    {SYS_setresgid, {}, "policy/spawn_child.cpp: take_ids"},
    {SYS_setresuid, {}, "policy/spawn_child.cpp: take_ids"},
    {SYS_setsid, {}, "policy/spawn_child.cpp: leave_session"},
    {SYS_prctl,
     {arg_is(0, PR_SET_PDEATHSIG), arg_is(1, SIGKILL)},
     "policy/spawn_child.cpp: leave_session"},
    {SYS_fcntl, {arg_is(1, F_DUPFD_CLOEXEC)}, "policy/spawn_child.cpp: moved_up"},
    {SYS_dup3, {}, "policy/spawn_child.cpp: place"},
    {SYS_close_range, {arg_is(2, 0)}, "policy/spawn_child.cpp: close_between"},
    {SYS_rt_sigaction, {}, "policy/spawn_child.cpp: reset_signals"},
    {SYS_execveat, {arg_is(4, AT_EMPTY_PATH)}, "policy/spawn_child.cpp: child_main"},

    // --- a session or worker, until its own seal -------------------------------------------------
    {SYS_arch_prctl, {arg_is(0, ARCH_SET_FS)}, "worker/blk_main.cpp: main"},
    {SYS_set_tid_address, {}, "worker/blk_main.cpp: main"},
    {SYS_set_robust_list, {}, "worker/blk_main.cpp: main"},
    {SYS_rseq, {}, "worker/blk_main.cpp: main"},
    {SYS_getrandom, {}, "worker/blk_main.cpp: main"},
    {SYS_getppid, {}, "policy/jail.cpp: enter_jail"},
    {SYS_umask, {}, "policy/jail.cpp: enter_jail"},
    {SYS_prctl, {arg_is(0, PR_SET_NAME)}, "policy/jail.cpp: name_process"},
    {SYS_prctl,
     {arg_is(0, kPrSchedCore), arg_is(1, kCookieCreate), arg_is(2, 0)},
     "policy/core_scheduling.cpp: make_core_cookie"},
    {SYS_mount, {arg_within(3, MS_REC | MS_PRIVATE)}, "policy/empty_root.cpp: enter_empty_root"},
    {SYS_mount,
     {arg_is(3, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)},
     "policy/empty_root.cpp: enter_empty_root"},
    {SYS_chdir, {}, "policy/empty_root.cpp: enter_empty_root"},
    {SYS_pivot_root, {}, "policy/empty_root.cpp: enter_empty_root"},
    {SYS_umount2, {arg_is(1, MNT_DETACH)}, "policy/empty_root.cpp: enter_empty_root"},
    {SYS_prctl, {arg_is(0, PR_SET_SECUREBITS)}, "policy/capability_drop.cpp: lock_securebits"},
    {SYS_prctl, {arg_is(0, PR_CAPBSET_DROP)}, "policy/capability_drop.cpp: drop_all_capabilities"},
    {SYS_prctl, {arg_is(0, PR_CAPBSET_READ)}, "policy/capability_drop.cpp: all_capabilities_gone"},
    {SYS_prctl,
     {arg_is(0, PR_CAP_AMBIENT), arg_is(1, PR_CAP_AMBIENT_CLEAR_ALL)},
     "policy/capability_drop.cpp: drop_all_capabilities"},
    {SYS_capset, {}, "policy/capability_drop.cpp: drop_all_capabilities"},
    {SYS_prctl, {arg_is(0, PR_SET_NO_NEW_PRIVS)}, "policy/jail.cpp: drop_capabilities"},
    {SYS_landlock_create_ruleset, {}, "policy/landlock.cpp: deny_all_by_landlock"},
    {SYS_landlock_restrict_self, {}, "policy/landlock.cpp: deny_all_by_landlock"},
    {SYS_prlimit64, {arg_is(0, 0)}, "policy/rlimits.cpp: set_early_rlimits"},
    {SYS_prctl, {arg_is(0, kPrSetMdwe)}, "policy/jail.cpp: take_mdwe"},
    {kSysMseal, {}, "policy/jail.cpp: seal_mappings"},
    {SYS_seccomp, {arg_is(0, SECCOMP_SET_MODE_FILTER)}, "policy/jail.cpp: install_filter"},
    {SYS_io_setup, {}, "worker/aio.cpp: create"},
    {SYS_io_uring_register, {arg_is(1, IORING_REGISTER_RING_FDS)}, "worker/uring.cpp: enable"},
    {SYS_io_uring_register, {arg_is(1, IORING_REGISTER_FILES)}, "worker/uring.cpp: enable"},
    {SYS_io_uring_register, {arg_is(1, IORING_REGISTER_ENABLE_RINGS)}, "worker/uring.cpp: enable"},

    // --- what it goes on doing (its own, narrower list decides)
    // -----------------------------------
    {SYS_ppoll, {kNoSignalMask}, "broker/session/wait.cpp: wait"},
    {SYS_fstat, {}, "broker/session/descriptor_check.cpp: mode_of"},
    {SYS_preadv2, {}, "worker/fallback_engine.cpp: perform"},
    {SYS_pwritev2, {}, "worker/fallback_engine.cpp: perform"},
    {SYS_readv, {}, "worker/tap_fallback.cpp: perform"},
    {SYS_fdatasync, {}, "worker/fallback_engine.cpp: perform"},
    {SYS_fallocate,
     {arg_within(1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)},
     "worker/fallback_engine.cpp: perform"},
    {SYS_io_submit, {}, "worker/aio.cpp: submit"},
};

// What a whole run may do without: contention, failures, hosts without a usable vDSO, brokers
// without privileges, C libraries that take another call for the same function.
inline constexpr SyscallRule kBrokerByChance[] = {
    {SYS_futex, {}, "broker/foreign_close.cpp: close_on_thread"},
    {SYS_restart_syscall, {}, "broker/event_loop.cpp: turn"},
    {SYS_clock_gettime, {}, "broker/event_loop.cpp: run_due_timers"},
    {SYS_gettimeofday, {}, "broker/log.cpp: write"},
    {SYS_epoll_pwait, {}, "broker/event_loop.cpp: turn"},
    {SYS_rt_sigreturn, {}, "broker/signals.cpp: take_over"},
    {SYS_gettid, {}, "broker/main.cpp: main"},
    {SYS_getpid, {}, "broker/main.cpp: main"},
    {SYS_tgkill, {arg_is(2, SIGABRT)}, "broker/main.cpp: main"},
    {SYS_kill, {arg_is(1, SIGKILL)}, "policy/spawn.cpp: kill_and_reap"},
    {SYS_wait4, {}, "policy/spawn.cpp: kill_and_reap"},
    {SYS_getuid, {}, "broker/jailer.cpp: start"},
    {SYS_geteuid, {}, "broker/jailer.cpp: start"},
    {SYS_getgid, {}, "broker/jailer.cpp: start"},
    {SYS_getegid, {}, "broker/jailer.cpp: start"},
    {SYS_mremap, {}, "broker/main.cpp: main"},
    {SYS_lstat, {}, "broker/socket.cpp: remove_socket"},
    {SYS_stat, {}, "broker/log.cpp: write"},
    {SYS_unlinkat, {arg_is(2, 0)}, "broker/socket.cpp: remove_socket"},
    {SYS_readlinkat, {}, "broker/foreign_close.cpp: is_eventfd"},
    {SYS_faccessat, {}, "broker/cgroup.cpp: whole_disk_of"},
    {SYS_faccessat2, {}, "broker/cgroup.cpp: whole_disk_of"},
    {SYS_access, {}, "broker/cgroup.cpp: whole_disk_of"},
    // Where the kernel has core scheduling.
    {SYS_prctl,
     {arg_is(0, kPrSchedCore), arg_is(1, kCookieShareFrom)},
     "policy/core_cookie_courier.cpp: run"},
    {SYS_prctl,
     {arg_is(0, kPrSchedCore), arg_is(1, kCookieShareTo)},
     "policy/core_cookie_courier.cpp: give"},
};

// Only where devices can be added: by an operator on his socket, or in a configuration file that is
// read again. It may go on opening disks and taps and listening on sockets there, as far as its
// user and capabilities let it.
inline constexpr SyscallRule kBrokerForAdding[] = {
    {SYS_shutdown, {}, "broker/control/server.cpp: hang_up"},
    {SYS_openat2, {}, "broker/open_disk.cpp: look_up"},
    {SYS_openat, {kCutsNothingOff}, "broker/state_dir.cpp: keep"},
    {SYS_fsync, {}, "broker/state_dir.cpp: keep"},
    {SYS_rename, {}, "broker/state_dir.cpp: keep"},
};
// What their kind, their settings and their host ask for.
inline constexpr SyscallRule kBrokerForAddingByChance[] = {
    {SYS_statx, {}, "broker/disk_limits.cpp: direct_alignment"},
    {SYS_fstatfs, {}, "broker/open_disk.cpp: is_on_fuse"},
    {SYS_fcntl, {arg_is(1, F_OFD_GETLK)}, "broker/open_disk.cpp: refuse_lock"},
    {SYS_fcntl, {arg_is(1, F_GETFD)}, "broker/socket.cpp: check_adopted"},
    {SYS_fcntl, {arg_is(1, F_SETFD)}, "broker/socket.cpp: adopt_fd"},
    {SYS_getpeername, {}, "broker/socket.cpp: check_adopted"},
    {SYS_ioctl, {arg_is(1, BLKSSZGET)}, "broker/disk_limits.cpp: guess_alignment"},
    {SYS_ioctl, {arg_is(1, BLKPBSZGET)}, "broker/disk_limits.cpp: topology_of"},
    {SYS_ioctl, {arg_is(1, BLKIOOPT)}, "broker/disk_limits.cpp: topology_of"},
    {SYS_fchownat, {arg_is(4, AT_EMPTY_PATH)}, "broker/socket.cpp: give_access"},
    {SYS_ioctl, {arg_is(1, TUNSETIFF)}, "broker/open_tap.cpp: open_queue"},
    {SYS_ioctl, {arg_is(1, TUNGETIFF)}, "broker/open_tap.cpp: ask_queue"},
    {SYS_ioctl, {arg_is(1, TUNSETVNETHDRSZ)}, "broker/tap_steps.cpp: prepare_queue"},
    {SYS_ioctl, {arg_is(1, TUNSETVNETLE)}, "broker/tap_steps.cpp: prepare_queue"},
    {SYS_ioctl, {arg_is(1, TUNSETSNDBUF)}, "broker/tap_steps.cpp: prepare_queue"},
    {SYS_ioctl, {arg_is(1, SIOCGIFHWADDR)}, "broker/tap_steps.cpp: address_of"},
    {SYS_socket,
     {arg_is(0, AF_INET), arg_is(1, SOCK_DGRAM | SOCK_CLOEXEC)},
     "broker/open_tap.cpp: set_up"},
    {SYS_ioctl, {arg_is(1, SIOCSIFFLAGS)}, "broker/open_tap.cpp: set_up"},
};

// clone3 hides its flags behind a pointer.
inline constexpr int kBrokerNotThere[] = {SYS_clone3};

// Only where a tree of cgroups was delegated. A child is born in its device's cgroup, which takes
// clone3; moving it there later would cost each start some 10 ms, and the broker's threads waiting.
inline constexpr SyscallRule kBrokerForCgroups[] = {
    {SYS_clone3, {arg_is(1, 88)}, "policy/spawn.cpp: clone_into"},
    {SYS_mkdirat, {}, "broker/cgroup.cpp: make_directory"},
    {SYS_unlinkat, {arg_is(2, AT_REMOVEDIR)}, "broker/cgroup.cpp: remove_tree"},
};
// The lists of a broker are put together from these.
template <const auto&... Parts>
inline constexpr auto kTogether = [] {
  std::array<SyscallRule, (std::size(Parts) + ...)> all{};
  auto end = all.begin();
  ((end = std::copy(std::begin(Parts), std::end(Parts), end)), ...);
  return all;
}();

consteval Profile broker_with(std::span<const SyscallRule> syscalls,
                              std::span<const SyscallRule> by_chance,
                              std::span<const int> not_there) {
  return {.name = "broker, and its children until their seal",
          .may = "serve its sockets, disks and taps, start jailed programs",
          .must_never = "cut a file off, run code that is not its own or its programs', or trace",
          .syscalls = syscalls,
          .uring_opcodes = {},
          .descriptors = {},
          .otherwise = Profile::Otherwise::kRefuse,
          .by_chance = by_chance,
          .not_there = not_there};
}

// What it was started with, and nothing else.
inline constexpr Profile kBroker = broker_with(kBrokerSyscalls, kBrokerByChance, kBrokerNotThere);
inline constexpr Profile kBrokerWithCgroups =
    broker_with(kBrokerSyscalls, kTogether<kBrokerByChance, kBrokerForCgroups>, {});
inline constexpr Profile kBrokerThatAdds =
    broker_with(kTogether<kBrokerSyscalls, kBrokerForAdding>,
                kTogether<kBrokerByChance, kBrokerForAddingByChance>, kBrokerNotThere);
inline constexpr Profile kBrokerThatAddsWithCgroups =
    broker_with(kTogether<kBrokerSyscalls, kBrokerForAdding>,
                kTogether<kBrokerByChance, kBrokerForAddingByChance, kBrokerForCgroups>, {});

// What these have beside kBroker, for whoever reads the tables.
inline constexpr Profile kBrokerAddingPart{
    .name = "where devices can be added, broker also",
    .may = "open disks and taps, and keep what an operator has added",
    .must_never = kBroker.must_never,
    .syscalls = kBrokerForAdding,
    .uring_opcodes = {},
    .descriptors = {},
    .otherwise = Profile::Otherwise::kRefuse,
    .by_chance = kBrokerForAddingByChance,
};
inline constexpr Profile kBrokerCgroupPart{
    .name = "with a tree of cgroups, broker also",
    .may = "make and remove cgroups, and start each child in its device's",
    .must_never = kBroker.must_never,
    .syscalls = {},
    .uring_opcodes = {},
    .descriptors = {},
    .otherwise = Profile::Otherwise::kRefuse,
    .by_chance = kBrokerForCgroups,
};

}  // namespace policy
