// tests/packaging/package_attempt.cpp: takes on the domain of a jailed process, by the security
// module alone, and tries what such a process must never do. As root, with all capabilities and
// without namespaces, Landlock or seccomp: what is refused here, the profile refuses.
//
//   package_attempt --apparmor=PROFILE | --selinux=CONTEXT [--foreign=FILE] [--own=FILE]
//
// The files are opened first, as if a broker had passed them: one of another VMM must not be read,
// one of the same VMM must.
//
// Prints "denied ACT" or "ALLOWED ACT (errno)"; the exit status is the number of acts
// that went wrong.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

namespace {

bool refused(long result) { return result < 0 && (errno == EACCES || errno == EPERM); }

bool write_attribute(const char* path, const std::string& text) {
  const int file = ::open(path, O_WRONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(file);
  return written;
}

bool enter(std::string_view domain) {
  constexpr std::string_view kAppArmor = "--apparmor=";
  constexpr std::string_view kSelinux = "--selinux=";
  if (domain.starts_with(kAppArmor)) {
    const std::string profile(domain.substr(kAppArmor.size()));
    return write_attribute("/proc/self/attr/apparmor/current", "changeprofile " + profile);
  }
  if (domain.starts_with(kSelinux)) {
    return write_attribute("/proc/self/attr/current", std::string(domain.substr(kSelinux.size())));
  }
  return false;
}

long open_to_read(const char* path) { return ::open(path, O_RDONLY | O_CLOEXEC); }

long open_to_write(const char* path) { return ::open(path, O_RDWR | O_CLOEXEC); }

long make_file() { return ::open("/var/tmp/attempt", O_WRONLY | O_CREAT | O_CLOEXEC, 0600); }

long execute() {
  char name[] = "sh";
  char* const arguments[] = {name, nullptr};
  return ::execv("/bin/sh", arguments);
}

long map_writable_code() {
  void* memory =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? -1 : 0;
}

long mount_proc() { return ::mount("proc", "/mnt", "proc", 0, nullptr); }

long bind_mount() { return ::mount("/etc", "/mnt", nullptr, MS_BIND, nullptr); }

long load_module() { return ::syscall(SYS_init_module, nullptr, 0UL, ""); }

// What the exporter may, as every daemon may of the base policy; or as far as a module can tell it
// from what it does with the socket that it is passed.
enum class Exporter { kNever, kUnderAppArmor, kUnderSelinux };

struct Act {
  const char* name;
  long (*attempt)();
  // AppArmor has no rules for it, or cannot tell what was passed from what is opened, or a
  // capability in the process's own user namespace from the host's.
  bool only_selinux = false;
  Exporter exporter = Exporter::kNever;
};

constexpr Act kActs[] = {
    {"open /etc/shadow", [] { return open_to_read("/etc/shadow"); }},
    {"open /etc/passwd", [] { return open_to_read("/etc/passwd"); }, false,
     Exporter::kUnderSelinux},
    {"open /proc/1/maps", [] { return open_to_read("/proc/1/maps"); }},
    {"open /dev/kmsg", [] { return open_to_read("/dev/kmsg"); }},
    {"open /sys/kernel", [] { return open_to_read("/sys/kernel"); }},
    {"open a sysctl", [] { return open_to_write("/proc/sys/kernel/core_pattern"); }},
    {"open a tap", [] { return open_to_write("/dev/net/tun"); }, true},
    {"make a file", make_file},
    {"execute a shell", execute},
    {"a TCP socket", [] { return long{::socket(AF_INET, SOCK_STREAM, 0)}; }, false,
     Exporter::kUnderAppArmor},
    {"a packet socket", [] { return long{::socket(AF_PACKET, SOCK_RAW, 0)}; }},
    {"a netlink socket", [] { return long{::socket(AF_NETLINK, SOCK_RAW, 0)}; }},
    {"trace process 1", [] { return long{::ptrace(PTRACE_ATTACH, 1, nullptr, nullptr)}; }},
    {"signal process 1", [] { return long{::kill(1, 0)}; }, false, Exporter::kUnderSelinux},
    {"mount proc", mount_proc},
    {"bind a directory", bind_mount},
    {"load a kernel module", load_module},
    {"set the host's name", [] { return long{::sethostname("x", 1)}; }, true},
    {"make a device", [] { return long{::mknod("/var/tmp/device", S_IFBLK | 0600, 0x0800)}; }},
    {"chroot", [] { return long{::chroot("/mnt")}; }},
    {"memory writable and executable", map_writable_code, true},
};

// A file that was passed: what the module says of it is asked again when it is used.
struct Passed {
  const char* path = nullptr;
  bool foreign = false;
  int file = -1;
};

bool take_passed(std::string_view argument, Passed& passed) {
  constexpr std::string_view kForeign = "--foreign=";
  constexpr std::string_view kOwn = "--own=";
  passed.foreign = argument.starts_with(kForeign);
  if (!passed.foreign && !argument.starts_with(kOwn)) return false;
  passed.path = argument.substr(passed.foreign ? kForeign.size() : kOwn.size()).data();
  passed.file = ::open(passed.path, O_RDWR | O_CLOEXEC);
  return passed.file >= 0;
}

// As it should be?
bool try_to_read(const Passed& passed) {
  char byte = 0;
  errno = 0;
  const bool denied = refused(::pread(passed.file, &byte, 1, 0));
  std::printf("%s read %s, which was passed (%s)\n", denied ? "denied " : "allowed", passed.path,
              std::strerror(errno));
  return denied == passed.foreign;
}

int try_acts(bool selinux, bool exporter) {
  int allowed = 0;
  for (const Act& act : kActs) {
    const auto allowed_here = selinux ? Exporter::kUnderSelinux : Exporter::kUnderAppArmor;
    if (exporter && act.exporter == allowed_here) continue;
    if (act.only_selinux && !selinux) continue;
    errno = 0;
    if (refused(act.attempt())) {
      std::printf("denied  %s\n", act.name);
    } else {
      std::printf("ALLOWED %s (%s)\n", act.name, std::strerror(errno));
      ++allowed;
    }
    std::fflush(stdout);
  }
  return allowed;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string_view domain = count >= 2 ? arguments[1] : "";
  Passed passed[2];
  for (int i = 2; i < count && i < 4; ++i) {
    if (!take_passed(arguments[i], passed[i - 2])) {
      std::fprintf(stderr, "package_attempt: %s: %s\n", arguments[i], std::strerror(errno));
      return 100;
    }
  }
  if (!enter(domain)) {
    std::fprintf(stderr, "package_attempt: cannot enter %s: %s\n",
                 count >= 2 ? arguments[1] : "nothing", std::strerror(errno));
    return 100;
  }
  int wrong = 0;
  for (const Passed& each : passed) {
    if (each.path != nullptr && !try_to_read(each)) ++wrong;
  }
  return wrong + try_acts(domain.starts_with("--selinux="), domain.find("exporter") != domain.npos);
}
