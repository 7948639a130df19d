#include "broker/audit/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <string>

#include "tests/unit/broker/scratch.h"

namespace broker::audit {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The journal's end of its socket.
class AuditJournal : public testing::Test {
 protected:
  void listen() {
    socket_ = common::Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(
        ::bind(socket_.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
        0);
  }
  std::string received() const {
    std::array<char, 16384> buffer{};
    const ssize_t got = ::recv(socket_.ref().number, buffer.data(), buffer.size(), MSG_DONTWAIT);
    return {buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
  }

  Scratch scratch_;
  std::string path_ = scratch_.file("journal");
  common::Fd socket_;
  Event event_ = Event(Kind::kVmmRefused).with(Key::kDevice, "vda").with(Key::kCause, "a\nB=c");
  Line line_ = render_line(event_, Time{}, {});
};

TEST_F(AuditJournal, GetsTheEventInWordsInFieldsAndAsALine) {
  listen();
  auto journal = Journal::open(path_);
  ASSERT_TRUE(journal);
  ASSERT_TRUE(journal->send(event_, line_));
  EXPECT_THAT(received(),
              AllOf(StartsWith("MESSAGE=a process was turned away from device vda"),
                    HasSubstr("\nPRIORITY=4\n"), HasSubstr("\nBULKHEAD_EVENT=vmm-refused\n"),
                    HasSubstr("\nBULKHEAD_DEVICE=vda\n"),
                    HasSubstr("\nBULKHEAD_JSON=" + line_.text + "\n")));
}

TEST_F(AuditJournal, CannotBeGivenAFieldByAValue) {
  EXPECT_THAT(journal_entry(event_, line_), Not(HasSubstr("\nB=c")));
}

TEST_F(AuditJournal, IsReachedAgainAfterItsRestart) {
  listen();
  auto journal = Journal::open(path_);
  ASSERT_TRUE(journal);
  socket_.reset();
  EXPECT_FALSE(journal->send(event_, line_));
  ASSERT_EQ(::unlink(path_.c_str()), 0);
  listen();
  EXPECT_TRUE(journal->send(event_, line_));
  EXPECT_THAT(received(), EndsWith("\n"));
}

TEST_F(AuditJournal, IsRefusedWhereThereIsNone) {
  const auto journal = Journal::open(path_);
  ASSERT_FALSE(journal);
  EXPECT_THAT(journal.error(), HasSubstr("give --audit-log a file instead"));
}

}  // namespace
}  // namespace broker::audit
