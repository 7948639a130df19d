// The ring as the broker makes it, used here by the process that made it. tests/escape has what a
// sealed worker can do with one.
#include "policy/restricted_ring.h"

#include <gtest/gtest.h>
#include <linux/io_uring.h>

#include <array>
#include <cerrno>

#include "common/uring_sys.h"
#include "policy/worker_blk.h"

namespace policy {
namespace {

namespace uring = common::uring;

class Ring : public testing::Test {
 protected:
  void SetUp() override {
    auto made = make_restricted_ring({.entries = 8,
                                      .completion_entries = 32,
                                      .bounded_workers = 1,
                                      .opcodes = kWorkerBlkUringOpcodes});
    ASSERT_TRUE(made) << made.error().what << " " << made.error().os_errno;
    ring_ = std::move(*made);
  }
  // What the register operation answers: 0 or an errno.
  [[nodiscard]] int refused(std::uint32_t opcode, const void* argument, std::uint32_t count) const {
    return uring::reg(ring_.fd.ref().number, opcode, argument, count) < 0 ? errno : 0;
  }
  RestrictedRing ring_;
};

TEST_F(Ring, HasTheSizesThatWereAskedFor) {
  EXPECT_EQ(ring_.layout.sq_entries, 8U);
  EXPECT_EQ(ring_.layout.cq_entries, 32U);
  EXPECT_EQ(ring_.layout.kind, common::ipc::UringLayout::kKind);
}

TEST_F(Ring, TakesNoRequestBeforeItIsEnabled) {
  EXPECT_EQ(uring::enter(ring_.fd.ref().number, 1, 0, 0, nullptr, 0), -1);
  EXPECT_EQ(errno, EBADFD);
}

TEST_F(Ring, CannotBeRestrictedAnew) {
  io_uring_restriction allow_all{};
  allow_all.opcode = IORING_RESTRICTION_SQE_OP;
  allow_all.sqe_op = IORING_OP_OPENAT;
  EXPECT_EQ(refused(IORING_REGISTER_RESTRICTIONS, &allow_all, 1), EBUSY);
}

TEST_F(Ring, TakesFilesBeforeItIsEnabledAndNothingAfter) {
  const int empty = -1;
  EXPECT_EQ(refused(IORING_REGISTER_FILES, &empty, 1), 0);
  ASSERT_EQ(refused(IORING_REGISTER_ENABLE_RINGS, nullptr, 0), 0);

  io_uring_files_update update{};
  update.fds = reinterpret_cast<std::uint64_t>(&empty);
  EXPECT_EQ(refused(IORING_REGISTER_FILES_UPDATE, &update, 1), EACCES);
  EXPECT_EQ(refused(IORING_UNREGISTER_FILES, nullptr, 0), EACCES);
  EXPECT_EQ(refused(IORING_REGISTER_PERSONALITY, nullptr, 0), EACCES);
  std::array<std::uint32_t, 2> workers = {100, 100};
  EXPECT_EQ(refused(IORING_REGISTER_IOWQ_MAX_WORKERS, workers.data(), 2), EACCES);
}

TEST(MakeRing, ReportsASizeThatTheKernelRefuses) {
  const auto ring = make_restricted_ring({.entries = 1U << 20,
                                          .completion_entries = 1U << 21,
                                          .bounded_workers = 1,
                                          .opcodes = kWorkerBlkUringOpcodes});
  ASSERT_FALSE(ring);
  EXPECT_STREQ(ring.error().what, "io_uring_setup");
  EXPECT_EQ(ring.error().os_errno, EINVAL);
}

TEST(ProbeUring, GivesAReasonWheneverSomethingIsMissing) {
  const UringSupport support = probe_uring();
  const bool complete = support.engine_possible && support.message_fds;
  EXPECT_EQ(complete, support.os_errno == 0);
  EXPECT_EQ(complete, *support.step == '\0');
}

}  // namespace
}  // namespace policy
