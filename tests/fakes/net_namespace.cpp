#include "tests/fakes/net_namespace.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tests/fakes/failure.h"

namespace fakes {
namespace {

constexpr const char* kOwnNamespace = "/proc/thread-self/ns/net";

void set_sysctl(const char* path, const char* value) {
  std::ofstream file(path);
  file << value;  // A kernel without IPv6 has no such file, and nothing to switch off.
}

}  // namespace

bool NetNamespace::possible() noexcept {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(::unshare(CLONE_NEWNET) == 0 ? 0 : 1);
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
}

NetNamespace::NetNamespace() : before_(::open(kOwnNamespace, O_RDONLY | O_CLOEXEC)) {
  require_call(before_.valid(), "open the network namespace");
  require_call(::unshare(CLONE_NEWNET) == 0, "a new network namespace");
  set_sysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
  ip({"link", "set", "lo", "up"});
}

NetNamespace::~NetNamespace() { (void)::setns(before_.ref().number, CLONE_NEWNET); }

int run_program(const std::vector<std::string>& words) {
  std::vector<std::string> copies = words;
  std::vector<char*> arguments;
  for (std::string& word : copies) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t child = ::fork();
  require_call(child >= 0, "fork");
  if (child == 0) {
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  int status = 0;
  require_call(::waitpid(child, &status, 0) == child, "waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void ip(const std::vector<std::string>& words) {
  std::vector<std::string> command = {"ip"};
  std::string text = "ip";
  for (const std::string& word : words) {
    command.push_back(word);
    text += " " + word;
  }
  const int code = run_program(command);
  require(code != 127, "ip is not installed: apt-get install iproute2");
  require(code == 0, text + " failed");
}

bool has_carrier(const std::string& interface) {
  const common::Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::copy(interface.begin(), interface.end(), request.ifr_name);
  require_call(::ioctl(socket.ref().number, SIOCGIFFLAGS, &request) == 0, "flags of " + interface);
  return (request.ifr_flags & IFF_RUNNING) != 0;
}

void make_tap(const std::string& name, const TapShape& shape) {
  std::vector<std::string> words = {"tuntap", "add", "dev", name, "mode", "tap"};
  if (shape.multi_queue) words.emplace_back("multi_queue");
  ip(words);
  ip({"link", "set", name, "mtu", std::to_string(shape.mtu)});
  if (shape.up) ip({"link", "set", name, "up"});
}

}  // namespace fakes
