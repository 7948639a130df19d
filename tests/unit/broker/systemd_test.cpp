#include "broker/systemd.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>

#include "common/fd.h"
#include "tests/unit/broker/scratch.h"

namespace broker {
namespace {

// A service manager's end: a datagram socket with a path, or "@name" in the abstract namespace.
class Manager {
 public:
  explicit Manager(const std::string& address)
      : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un bound{};
    bound.sun_family = AF_UNIX;
    address.copy(bound.sun_path, sizeof(bound.sun_path) - 1);
    const bool abstract = address[0] == '@';
    if (abstract) bound.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size() +
                                               (abstract ? 0 : 1));
    EXPECT_EQ(::bind(fd_.ref().number, reinterpret_cast<const sockaddr*>(&bound), length), 0);
    ::setenv("NOTIFY_SOCKET", address.c_str(), 1);
  }

  // What has arrived, without waiting: a datagram is there once sendto() has returned.
  std::string received() const {
    char text[256];
    const ssize_t length = ::recv(fd_.ref().number, text, sizeof(text), MSG_DONTWAIT);
    return length < 0 ? "(nothing)" : std::string(text, static_cast<std::size_t>(length));
  }

 private:
  common::Fd fd_;
};

TEST(ServiceManager, IsToldOverAPath) {
  const Scratch dir;
  const Manager manager(dir.file("notify"));
  ServiceManager::from_environment().notify("READY=1\nSTATUS=serving");
  EXPECT_EQ(manager.received(), "READY=1\nSTATUS=serving");
}

TEST(ServiceManager, IsToldOverAnAbstractName) {
  const Manager manager("@bulkhead-test-" + std::to_string(::getpid()));
  ServiceManager::from_environment().notify("READY=1");
  EXPECT_EQ(manager.received(), "READY=1");
}

TEST(ServiceManager, IsKeptFromChildren) {
  const Scratch dir;
  const Manager manager(dir.file("notify"));
  EXPECT_TRUE(ServiceManager::from_environment().present());
  EXPECT_EQ(::getenv("NOTIFY_SOCKET"), nullptr);
}

TEST(ServiceManager, MayBeAbsentGoneOrNonsense) {
  ::unsetenv("NOTIFY_SOCKET");
  EXPECT_FALSE(ServiceManager::from_environment().present());
  ::setenv("NOTIFY_SOCKET", "relative", 1);
  EXPECT_FALSE(ServiceManager::from_environment().present());
  ::setenv("NOTIFY_SOCKET", std::string(200, '/').c_str(), 1);
  EXPECT_FALSE(ServiceManager::from_environment().present());
  ::setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
  ServiceManager::from_environment().notify("READY=1");
}

TEST(Watchdog, IsOursWhereItNamesUsOrNobody) {
  ::setenv("WATCHDOG_USEC", "3000000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  EXPECT_EQ(ServiceManager::from_environment().watchdog(), std::chrono::seconds(3));
  ::setenv("WATCHDOG_USEC", "3000000", 1);
  EXPECT_EQ(ServiceManager::from_environment().watchdog(), std::chrono::seconds(3));
}

TEST(Watchdog, IsKeptFromChildren) {
  ::setenv("WATCHDOG_USEC", "3000000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  (void)ServiceManager::from_environment();
  EXPECT_EQ(::getenv("WATCHDOG_USEC"), nullptr);
  EXPECT_EQ(::getenv("WATCHDOG_PID"), nullptr);
}

TEST(Watchdog, MayBeAbsentAnothersOrNonsense) {
  EXPECT_EQ(ServiceManager::from_environment().watchdog(), std::nullopt);
  ::setenv("WATCHDOG_USEC", "0", 1);
  EXPECT_EQ(ServiceManager::from_environment().watchdog(), std::nullopt);
  ::setenv("WATCHDOG_USEC", "99999999999999999999", 1);
  EXPECT_EQ(ServiceManager::from_environment().watchdog(), std::nullopt);
  ::setenv("WATCHDOG_USEC", "3000000", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  EXPECT_EQ(ServiceManager::from_environment().watchdog(), std::nullopt);
}

void set_listen_fds(const std::string& pid, const char* count) {
  ::setenv("LISTEN_PID", pid.c_str(), 1);
  ::setenv("LISTEN_FDS", count, 1);
}

TEST(ListenFds, AreOursWhereTheyNameUs) {
  set_listen_fds(std::to_string(::getpid()), "2");
  EXPECT_EQ(take_listen_fds(), 2);
  EXPECT_EQ(::getenv("LISTEN_FDS"), nullptr);
  EXPECT_EQ(take_listen_fds(), 0);
}

TEST(ListenFds, AreNotOursWhereTheyNameAnother) {
  set_listen_fds(std::to_string(::getpid() + 1), "2");
  EXPECT_EQ(take_listen_fds(), 0);
}

TEST(ListenFds, AreNoneWhereTheCountIsNonsense) {
  set_listen_fds(std::to_string(::getpid()), "-2");
  EXPECT_EQ(take_listen_fds(), 0);
  set_listen_fds(std::to_string(::getpid()), "2x");
  EXPECT_EQ(take_listen_fds(), 0);
}

}  // namespace
}  // namespace broker
