#include "tests/fakes/broker_process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "tests/fakes/failure.h"
#include "tests/fakes/process.h"
#include "tests/fakes/vhost_frontend.h"

namespace fakes {
namespace {

constexpr int kPatienceMs = static_cast<int>(std::chrono::milliseconds(kPatience).count());
// Longer than its own patience with what it waits for: then it says itself what that was.
constexpr int kEndPatienceMs = 45'000;
constexpr int kFirstInherited = 3;
constexpr uid_t kNobody = 65534;

// A socket file, as systemd's is: an abstract name would be lost to a broker that leaves its
// network.
common::Fd make_notify_socket(const std::string& path) {
  common::Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  require_call(fd.valid(), "socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  require(path.size() < sizeof(address.sun_path), "socket path too long: " + path);
  std::ranges::copy(path, address.sun_path);
  require_call(
      ::bind(fd.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0,
      "bind " + path);
  // For brokers that a test runs as nobody.
  require_call(::chmod(path.c_str(), 0666) == 0, "chmod " + path);
  return fd;
}

// In the child, between fork and exec: async-signal-safe calls only, since a test has threads.
[[noreturn]] void become(const char* program, char* const* argv, char* const* envp, int output,
                         const std::vector<int>& inherit, const std::vector<sock_filter>& filter,
                         const BrokerProcess::Setup& setup) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // First out of the way of each other, then to their final numbers.
  std::array<int, 16> parked{};
  for (std::size_t i = 0; i < inherit.size() && i < parked.size(); ++i) {
    parked[i] = ::fcntl(inherit[i], F_DUPFD_CLOEXEC, 100);
  }
  ::dup2(output, 1);
  ::dup2(output, 2);
  ::syscall(SYS_close_range, kFirstInherited, 99, 0);
  for (std::size_t i = 0; i < inherit.size() && i < parked.size(); ++i) {
    ::dup2(parked[i], kFirstInherited + static_cast<int>(i));
  }
  const rlimit locked{setup.locked_bytes_max, setup.locked_bytes_max};
  if (setup.locked_bytes_max != 0 && ::setrlimit(RLIMIT_MEMLOCK, &locked) != 0) ::_exit(126);
  // Before it is nobody: then it could not.
  if (!setup.refused.empty() && !install_filter(filter)) ::_exit(126);
  if (setup.drop_root && (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 ||
                          ::setuid(kNobody) != 0 || ::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)) {
    ::_exit(126);
  }
  if (setup.before_exec && !setup.before_exec()) ::_exit(126);
  ::execve(program, argv, envp);
  ::_exit(127);
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> list;
  for (std::string& text : strings) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

}  // namespace

BrokerProcess::BrokerProcess(const Setup& setup) {
  int ends[2] = {-1, -1};
  require_call(::pipe2(ends, O_CLOEXEC) == 0, "pipe");
  common::Fd read_end(ends[0]);
  const common::Fd write_end(ends[1]);
  start(setup, write_end.ref());
  reader_ =
      std::thread([this, end = std::move(read_end)]() mutable { read_lines(std::move(end)); });
}

void BrokerProcess::start(const Setup& setup, common::FdRef output) {
  std::vector<std::string> arguments{setup.called_as.empty() ? setup.program : setup.called_as};
  arguments.insert(arguments.end(), setup.arguments.begin(), setup.arguments.end());
  std::vector<std::string> environment = setup.environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  if (setup.notify) {
    const std::string path = notify_dir_.file("notify");
    notify_ = make_notify_socket(path);
    environment.push_back("NOTIFY_SOCKET=" + path);
  }
  std::vector<int> inherit;
  for (const common::FdRef fd : setup.inherit) inherit.push_back(fd.number);

  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);
  const std::vector<sock_filter> filter = filter_that_refuses(setup.refused);
  pid_ = ::fork();
  require_call(pid_ >= 0, "fork");
  if (pid_ == 0) {
    become(setup.program.c_str(), argv.data(), envp.data(), output.number, inherit, filter, setup);
  }
  pidfd_ = common::Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  require_call(pidfd_.valid(), "pidfd_open");
}

BrokerProcess::~BrokerProcess() {
  if (exit_code_ < 0) {
    // The children first: without their parent they would end by themselves, but later.
    std::vector<pid_t> tree = tree_of(pid_);
    std::ranges::reverse(tree);
    for (const pid_t pid : tree) ::kill(pid, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
  }
  if (reader_.joinable()) reader_.join();
}

void BrokerProcess::read_lines(common::Fd output) {
  std::string partial;
  std::array<char, 4096> chunk;
  // Its children may outlive it, and with sanitizers they have its stderr: what it has written by
  // its own end is all that is waited for.
  std::array<pollfd, 2> waiting{pollfd{output.ref().number, POLLIN, 0},
                                pollfd{pidfd_.ref().number, POLLIN, 0}};
  while (true) {
    if (::poll(waiting.data(), waiting.size(), -1) < 0) continue;
    if (waiting[0].revents == 0) break;
    const ssize_t got = ::read(output.ref().number, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    partial.append(chunk.data(), static_cast<std::size_t>(got));
    const std::lock_guard lock(mutex_);
    for (std::size_t end = 0; (end = partial.find('\n')) != std::string::npos;) {
      lines_.push_back(partial.substr(0, end));
      partial.erase(0, end + 1);
    }
    grew_.notify_all();
  }
  const std::lock_guard lock(mutex_);
  if (!partial.empty()) lines_.push_back(partial);
  closed_ = true;
  grew_.notify_all();
}

void BrokerProcess::wait_ready() {
  require(notify_.valid(), "the test asked for no readiness");
  std::array<pollfd, 2> waiting{pollfd{notify_.ref().number, POLLIN, 0},
                                pollfd{pidfd_.ref().number, POLLIN, 0}};
  while (true) {
    const int ready = ::poll(waiting.data(), waiting.size(), kPatienceMs);
    if (ready < 0 && errno == EINTR) continue;
    require(ready > 0, "not ready in time; its log:\n" + log());
    std::array<char, 512> message{};
    if ((waiting[0].revents & POLLIN) != 0) {
      const ssize_t got =
          ::recv(notify_.ref().number, message.data(), message.size() - 1, MSG_DONTWAIT);
      if (got > 0 && std::strstr(message.data(), "READY=1") != nullptr) return;
      continue;
    }
    const int code = wait_exit();
    throw Failure("ended with " + std::to_string(code) + " before it was ready; its log:\n" +
                  log());
  }
}

std::string BrokerProcess::log() const {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const std::string& line : lines_) text += line + "\n";
  return text;
}

std::string BrokerProcess::wait_for_line(const std::vector<std::string>& parts) const {
  const auto fits = [&](const std::string& line) {
    return std::ranges::all_of(
        parts, [&](const std::string& part) { return line.find(part) != std::string::npos; });
  };
  std::unique_lock lock(mutex_);
  std::size_t seen = 0;
  std::string found;
  grew_.wait_for(lock, kPatience, [&] {
    while (seen < lines_.size() && found.empty()) {
      if (fits(lines_[seen])) found = lines_[seen];
      ++seen;
    }
    return !found.empty() || closed_;
  });
  return found;
}

int BrokerProcess::count_lines(const std::string& part) const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(std::ranges::count_if(
      lines_, [&](const std::string& line) { return line.find(part) != std::string::npos; }));
}

void BrokerProcess::signal(int number) const {
  require_call(::kill(pid_, number) == 0, "signal the broker");
}

bool BrokerProcess::running() const {
  pollfd waiting{pidfd_.ref().number, POLLIN, 0};
  return exit_code_ < 0 && ::poll(&waiting, 1, 0) == 0;
}

int BrokerProcess::wait_exit() {
  if (exit_code_ >= 0) return exit_code_;
  pollfd waiting{pidfd_.ref().number, POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&waiting, 1, kEndPatienceMs);
  } while (ready < 0 && errno == EINTR);
  require(ready == 1, "the program did not end; its log:\n" + log());
  int status = 0;
  require_call(::waitpid(pid_, &status, 0) == pid_, "waitpid");
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (reader_.joinable()) reader_.join();
  return exit_code_;
}

std::vector<pid_t> BrokerProcess::children_named(const std::string& part) const {
  std::vector<pid_t> found;
  for (const pid_t child : children_of(pid_)) {
    if (command_line_of(child).find(part) != std::string::npos) found.push_back(child);
  }
  return found;
}

}  // namespace fakes
