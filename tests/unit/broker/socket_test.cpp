#include "broker/socket.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/broker/scratch.h"

namespace broker {
namespace {

using ::testing::HasSubstr;

DeviceConfig at(const std::string& path) {
  DeviceConfig config;
  config.socket_path = path;
  return config;
}

struct stat status_of(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
  return status;
}

bool exists(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

// A socket file that nobody serves: what a killed process leaves behind.
void leave_stale_socket(const std::string& path) {
  Answer<Listener> listener = listen_on(at(path));
  ASSERT_TRUE(listener) << listener.error();
}

int flags_of(common::FdRef fd) { return ::fcntl(fd.number, F_GETFL); }
bool closes_on_exec(common::FdRef fd) { return (::fcntl(fd.number, F_GETFD) & FD_CLOEXEC) != 0; }

TEST(Socket, ListensAndAccepts) {
  const Scratch dir;
  const Answer<Listener> listener = listen_on(at(dir.file("s")));
  ASSERT_TRUE(listener) << listener.error();
  const Answer<common::Fd> client = connect_to(dir.file("s"));
  ASSERT_TRUE(client) << client.error();
  const Answer<common::Fd> served = accept_from(listener->fd.ref());
  ASSERT_TRUE(served) << served.error();
  EXPECT_TRUE(served->valid());
  EXPECT_TRUE(closes_on_exec(served->ref()));
  EXPECT_TRUE(closes_on_exec(listener->fd.ref()));
  EXPECT_TRUE((flags_of(listener->fd.ref()) & O_NONBLOCK) != 0);
}

TEST(Socket, AcceptsNobodyWhereNobodyConnected) {
  const Scratch dir;
  const Answer<Listener> listener = listen_on(at(dir.file("s")));
  ASSERT_TRUE(listener) << listener.error();
  const Answer<common::Fd> served = accept_from(listener->fd.ref());
  ASSERT_TRUE(served) << served.error();
  EXPECT_FALSE(served->valid());
}

TEST(Socket, HasTheModeThatWasAskedForWhateverTheUmask) {
  const Scratch dir;
  DeviceConfig config = at(dir.file("s"));
  config.socket_mode = 0606;
  const mode_t before = ::umask(0777);
  const Answer<Listener> listener = listen_on(config);
  ::umask(before);
  ASSERT_TRUE(listener) << listener.error();
  EXPECT_EQ(status_of(dir.file("s")).st_mode, static_cast<mode_t>(S_IFSOCK | 0606));
}

TEST(Socket, IsGivenToItsOwner) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  const Scratch dir;
  DeviceConfig config = at(dir.file("s"));
  config.socket_owner = "12345";
  config.socket_group = "54321";
  const Answer<Listener> listener = listen_on(config);
  ASSERT_TRUE(listener) << listener.error();
  EXPECT_EQ(status_of(dir.file("s")).st_uid, 12345u);
  EXPECT_EQ(status_of(dir.file("s")).st_gid, 54321u);
}

TEST(Socket, KnowsUsersAndGroupsByName) {
  const Scratch dir;
  DeviceConfig config = at(dir.file("s"));
  config.socket_owner = "no-such-user";
  EXPECT_THAT(listen_on(config).error(), HasSubstr("no user 'no-such-user'"));
  config.socket_owner = "";
  config.socket_group = "no-such-group";
  EXPECT_THAT(listen_on(config).error(), HasSubstr("no group 'no-such-group'"));
  EXPECT_FALSE(exists(dir.file("s")));
}

TEST(Socket, ReplacesASocketThatNobodyServes) {
  const Scratch dir;
  leave_stale_socket(dir.file("s"));
  ASSERT_TRUE(exists(dir.file("s")));
  const Answer<Listener> listener = listen_on(at(dir.file("s")));
  ASSERT_TRUE(listener) << listener.error();
  EXPECT_TRUE(connect_to(dir.file("s")));
}

TEST(Socket, RefusesASocketThatIsServedAndDoesNotDisturbIt) {
  const Scratch dir;
  const Answer<Listener> first = listen_on(at(dir.file("s")));
  ASSERT_TRUE(first) << first.error();
  const Answer<Listener> second = listen_on(at(dir.file("s")));
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error(), HasSubstr("another process serves"));
  const Answer<common::Fd> visitor = accept_from(first->fd.ref());
  ASSERT_TRUE(visitor) << visitor.error();
  EXPECT_FALSE(visitor->valid());
  EXPECT_TRUE(connect_to(dir.file("s")));
}

TEST(Socket, RefusesASocketThatIsBoundAndDoesNotListenYet) {
  const Scratch dir;
  const common::Fd other(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  dir.file("s").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(
      ::bind(other.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_THAT(listen_on(at(dir.file("s"))).error(), HasSubstr("another process serves"));
}

TEST(Socket, RefusesWhatIsNoSocket) {
  const Scratch dir;
  dir.write("file", "precious");
  EXPECT_THAT(listen_on(at(dir.file("file"))).error(), HasSubstr("is no socket"));
  EXPECT_TRUE(exists(dir.file("file")));
  EXPECT_THAT(listen_on(at("/")).error(), HasSubstr("is no socket"));
}

TEST(Socket, RefusesASymbolicLinkEvenToAnUnusedSocket) {
  const Scratch dir;
  leave_stale_socket(dir.file("real"));
  ASSERT_EQ(::symlink(dir.file("real").c_str(), dir.file("link").c_str()), 0);
  EXPECT_THAT(listen_on(at(dir.file("link"))).error(), HasSubstr("is no socket"));
  ASSERT_EQ(::symlink(dir.file("nowhere").c_str(), dir.file("dangling").c_str()), 0);
  EXPECT_THAT(listen_on(at(dir.file("dangling"))).error(), HasSubstr("is no socket"));
  EXPECT_FALSE(exists(dir.file("nowhere")));
}

TEST(Socket, SaysWhatIsWrongWithAPath) {
  EXPECT_THAT(listen_on(at(std::string(108, 'x'))).error(), HasSubstr("1 to 107 bytes"));
  EXPECT_THAT(listen_on(at("")).error(), HasSubstr("1 to 107 bytes"));
  EXPECT_THAT(listen_on(at("/nonexistent/dir/s")).error(), HasSubstr("directory does not exist"));
}

TEST(Socket, RemovesItsFile) {
  const Scratch dir;
  const Answer<Listener> listener = listen_on(at(dir.file("s")));
  ASSERT_TRUE(listener) << listener.error();
  remove_socket(*listener);
  EXPECT_FALSE(exists(dir.file("s")));
}

TEST(Socket, DoesNotRemoveTheFileOfItsSuccessor) {
  const Scratch dir;
  const Answer<Listener> first = listen_on(at(dir.file("s")));
  ASSERT_TRUE(first) << first.error();
  // Renamed, not removed: its inode must not be used again.
  ASSERT_EQ(::rename(dir.file("s").c_str(), dir.file("old").c_str()), 0);
  const Answer<Listener> second = listen_on(at(dir.file("s")));
  ASSERT_TRUE(second) << second.error();
  remove_socket(*first);
  EXPECT_TRUE(exists(dir.file("s")));
  EXPECT_TRUE(connect_to(dir.file("s")));
}

TEST(Socket, ConnectingSaysWhereNobodyListens) {
  const Scratch dir;
  EXPECT_THAT(connect_to(dir.file("none")).error(), HasSubstr("nobody listens on"));
  leave_stale_socket(dir.file("stale"));
  EXPECT_THAT(connect_to(dir.file("stale")).error(), HasSubstr("nobody listens on"));
  EXPECT_THAT(connect_to(std::string(108, 'x')).error(), HasSubstr("1 to 107 bytes"));
}

TEST(Socket, KnowsItsPeer) {
  const Scratch dir;
  const Answer<Listener> listener = listen_on(at(dir.file("s")));
  ASSERT_TRUE(listener) << listener.error();
  const Answer<common::Fd> client = connect_to(dir.file("s"));
  ASSERT_TRUE(client) << client.error();
  const Answer<common::Fd> served = accept_from(listener->fd.ref());
  ASSERT_TRUE(served) << served.error();
  const Answer<Peer> peer = peer_of(served->ref());
  ASSERT_TRUE(peer) << peer.error();
  EXPECT_EQ(peer->pid, ::getpid());
  EXPECT_EQ(peer->uid, ::geteuid());
  EXPECT_EQ(peer->gid, ::getegid());
}

// --- descriptors that were handed over ---

TEST(AdoptedFd, TellsAListeningSocketFromAConnectedOne) {
  const Scratch dir;
  Answer<Listener> listener = listen_on(at(dir.file("s")));
  ASSERT_TRUE(listener) << listener.error();
  Answer<common::Fd> client = connect_to(dir.file("s"));
  ASSERT_TRUE(client) << client.error();

  const Answer<AdoptedFd> listening = adopt_fd(listener->fd.release());
  ASSERT_TRUE(listening) << listening.error();
  EXPECT_TRUE(listening->listening);
  const Answer<AdoptedFd> connected = adopt_fd(client->release());
  ASSERT_TRUE(connected) << connected.error();
  EXPECT_FALSE(connected->listening);
}

TEST(AdoptedFd, IsClosedOnExecAndDoesNotBlock) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const common::Fd other(ends[1]);
  const Answer<AdoptedFd> adopted = adopt_fd(ends[0]);
  ASSERT_TRUE(adopted) << adopted.error();
  EXPECT_TRUE(closes_on_exec(adopted->fd.ref()));
  EXPECT_TRUE((flags_of(adopted->fd.ref()) & O_NONBLOCK) != 0);
}

TEST(AdoptedFd, RefusesWhatIsNoUsableSocketAndLeavesItOpen) {
  const common::Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_THAT(adopt_fd(null.ref().number).error(), HasSubstr("is no socket"));
  EXPECT_GE(::fcntl(null.ref().number, F_GETFD), 0);
  const common::Fd datagram(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_THAT(adopt_fd(datagram.ref().number).error(), HasSubstr("another kind of socket"));
  const common::Fd idle(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_THAT(adopt_fd(idle.ref().number).error(), HasSubstr("neither listens nor is connected"));
}

TEST(AdoptedFd, RefusesADescriptorThatIsNotOpen) {
  EXPECT_THAT(adopt_fd(1'000'000).error(), HasSubstr("is not open"));
}

}  // namespace
}  // namespace broker
