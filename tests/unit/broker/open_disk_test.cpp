#include "broker/open_disk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/broker/scratch.h"

namespace broker {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uintmax_t kMiB = 1 << 20;

DeviceConfig disk_at(const std::string& path) {
  DeviceConfig config;
  config.blk_file = path;
  return config;
}

std::string error_of(const DeviceConfig& config) {
  const Answer<Disk> disk = open_disk(config);
  return disk ? "(no error)" : disk.error();
}

int flags_of(const common::Fd& fd) { return ::fcntl(fd.ref().number, F_GETFL); }

TEST(OpenDisk, OpensAnImage) {
  const Scratch dir;
  const Answer<Disk> disk = open_disk(disk_at(dir.image("d", 3 * kMiB)));
  ASSERT_TRUE(disk) << disk.error();
  EXPECT_EQ(disk->capacity_sectors, 3 * kMiB / 512);
  EXPECT_EQ(disk->unserved_bytes, 0u);
  EXPECT_FALSE(disk->block_device);
  EXPECT_FALSE(disk->read_only);
  EXPECT_TRUE(disk->write_zeroes);
  EXPECT_EQ(flags_of(disk->file) & O_ACCMODE, O_RDWR);
  EXPECT_TRUE((::fcntl(disk->file.ref().number, F_GETFD) & FD_CLOEXEC) != 0);
  EXPECT_FALSE(disk->buffered.valid());
  EXPECT_EQ(disk->memory_alignment, 1u);
  struct stat status {};
  ASSERT_EQ(::stat(dir.file("d").c_str(), &status), 0);
  EXPECT_EQ(disk->inode, status.st_ino);
  EXPECT_EQ(disk->device, status.st_dev);
}

// io_uring would fail requests with EAGAIN instead of waiting for the disk.
TEST(OpenDisk, OpensWithoutNonblock) {
  const Scratch dir;
  const Answer<Disk> disk = open_disk(disk_at(dir.image("d", kMiB)));
  ASSERT_TRUE(disk) << disk.error();
  EXPECT_EQ(flags_of(disk->file) & O_NONBLOCK, 0);
}

TEST(OpenDisk, OpensAReadOnlyImageForReadingOnly) {
  const Scratch dir;
  DeviceConfig config = disk_at(dir.image("d", kMiB));
  config.read_only = true;
  const Answer<Disk> disk = open_disk(config);
  ASSERT_TRUE(disk) << disk.error();
  EXPECT_EQ(flags_of(disk->file) & O_ACCMODE, O_RDONLY);
  EXPECT_TRUE(disk->read_only);
  EXPECT_FALSE(disk->discard);
  EXPECT_FALSE(disk->write_zeroes);
}

TEST(OpenDisk, FollowsLinksInTheFileSystem) {
  const Scratch dir;
  dir.image("d", kMiB);
  ASSERT_EQ(::symlink("d", dir.file("link").c_str()), 0);
  const Answer<Disk> disk = open_disk(disk_at(dir.file("link")));
  ASSERT_TRUE(disk) << disk.error();
}

TEST(OpenDisk, FollowsNoLinkOfAnotherUserToAThirdOnesFile) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  const Scratch dir;
  const std::string image = dir.image("d", kMiB);
  ASSERT_EQ(::symlink("d", dir.file("link").c_str()), 0);
  ASSERT_EQ(::lchown(dir.file("link").c_str(), 12345, 12345), 0);
  EXPECT_THAT(error_of(disk_at(dir.file("link"))),
              HasSubstr("is a symbolic link of user 12345's to a file of user 0's"));
  ASSERT_EQ(::chown(image.c_str(), 12345, 12345), 0);
  EXPECT_TRUE(open_disk(disk_at(dir.file("link"))));
}

TEST(OpenDisk, DoesNotFollowLinksOfProc) {
  const Scratch dir;
  const common::Fd open_file(::open(dir.image("d", kMiB).c_str(), O_RDWR | O_CLOEXEC));
  const std::string number = std::to_string(open_file.ref().number);
  EXPECT_THAT(error_of(disk_at("/proc/self/fd/" + number)), HasSubstr("link into /proc"));
  EXPECT_THAT(error_of(disk_at("/dev/fd/" + number)), HasSubstr("link into /proc"));
}

TEST(OpenDisk, RoundsTheSizeDownToWholeBlocks) {
  const Scratch dir;
  DeviceConfig config = disk_at(dir.image("d", 3 * 4096 + 1000));
  const auto sectors = [&](std::uint32_t block_size) {
    config.block_size = block_size;
    const Answer<Disk> disk = open_disk(config);
    return disk ? std::make_pair(disk->capacity_sectors, disk->unserved_bytes)
                : std::make_pair(std::uint64_t{0}, 0u);
  };
  EXPECT_EQ(sectors(512), std::make_pair(std::uint64_t{25}, 488u));
  EXPECT_EQ(sectors(4096), std::make_pair(std::uint64_t{24}, 1000u));
}

TEST(OpenDisk, RefusesImagesWithoutOneBlock) {
  const Scratch dir;
  EXPECT_THAT(error_of(disk_at(dir.image("empty", 0))), HasSubstr("is empty"));
  DeviceConfig config = disk_at(dir.image("small", 4095));
  config.block_size = 4096;
  EXPECT_THAT(error_of(config), HasSubstr("less than one block of 4096"));
}

TEST(OpenDisk, RefusesWhatIsNoDiskInWords) {
  const Scratch dir;
  EXPECT_THAT(error_of(disk_at(dir.file("none"))), HasSubstr("does not exist"));
  EXPECT_THAT(error_of(disk_at(dir.file(""))), HasSubstr("is a directory"));
  EXPECT_THAT(error_of(disk_at("/dev/zero")), HasSubstr("is a character device"));
  ASSERT_EQ(::mkfifo(dir.file("pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of(disk_at(dir.file("pipe"))), HasSubstr("is a pipe"));
}

TEST(OpenDisk, NamesTheDiskAndEscapesItsName) {
  EXPECT_THAT(error_of(disk_at("/no\nsuch")), HasSubstr("disk '/no\\x0asuch' does not exist"));
}

TEST(OpenDisk, SaysWhatToDoWithoutPermission) {
  const Scratch dir;
  ASSERT_EQ(::chmod(dir.image("d", kMiB).c_str(), 0400), 0);
  DeviceConfig config = disk_at(dir.file("d"));
  const uid_t before = ::geteuid();
  constexpr uid_t kNobody = 65534;
  // Root may open everything.
  ASSERT_EQ(::seteuid(before == 0 ? kNobody : before), 0);
  const std::string writing = error_of(config);
  config.read_only = true;
  const std::string reading = error_of(config);
  ASSERT_EQ(::seteuid(before), 0);
  EXPECT_THAT(writing, HasSubstr("give --read-only"));
  EXPECT_TRUE(before != 0 || reading.find("may not be read") != std::string::npos) << reading;
}

// --- locks ---

TEST(OpenDisk, RefusesAnImageThatIsServedAlready) {
  const Scratch dir;
  const DeviceConfig config = disk_at(dir.image("d", kMiB));
  const Answer<Disk> first = open_disk(config);
  ASSERT_TRUE(first) << first.error();
  EXPECT_THAT(error_of(config), HasSubstr("in use: another device or process holds a lock"));
  DeviceConfig reader = config;
  reader.read_only = true;
  EXPECT_THAT(error_of(reader), HasSubstr("in use"));
}

TEST(OpenDisk, OpensAnImageThatIsServedAlreadyWhereItsGuestIsToMigrateHere) {
  const Scratch dir;
  DeviceConfig config = disk_at(dir.image("d", kMiB));
  const Answer<Disk> first = open_disk(config);
  ASSERT_TRUE(first) << first.error();
  config.lock = false;
  const Answer<Disk> second = open_disk(config);
  EXPECT_TRUE(second) << second.error();
}

TEST(OpenDisk, LocksAlsoWhereItNeedNotIfNobodyElseDoes) {
  const Scratch dir;
  DeviceConfig config = disk_at(dir.image("d", kMiB));
  config.lock = false;
  const Answer<Disk> first = open_disk(config);
  ASSERT_TRUE(first) << first.error();
  config.lock = true;
  EXPECT_THAT(error_of(config), HasSubstr("in use"));
}

TEST(OpenDisk, RefusesTheSameImageUnderAnotherName) {
  const Scratch dir;
  const Answer<Disk> first = open_disk(disk_at(dir.image("d", kMiB)));
  ASSERT_TRUE(first) << first.error();
  ASSERT_EQ(::link(dir.file("d").c_str(), dir.file("other").c_str()), 0);
  EXPECT_THAT(error_of(disk_at(dir.file("other"))), HasSubstr("in use"));
}

TEST(OpenDisk, LetsReadersShareAndKeepsWritersOut) {
  const Scratch dir;
  DeviceConfig config = disk_at(dir.image("d", kMiB));
  config.read_only = true;
  const Answer<Disk> first = open_disk(config);
  const Answer<Disk> second = open_disk(config);
  EXPECT_TRUE(first && second);
  config.read_only = false;
  EXPECT_THAT(error_of(config), HasSubstr("only one may write"));
}

// QEMU takes its locks on single bytes from 100 and 200 on.
TEST(OpenDisk, NoticesTheLocksOfQemu) {
  const Scratch dir;
  const DeviceConfig config = disk_at(dir.image("d", kMiB));
  const common::Fd qemu(::open(config.blk_file.c_str(), O_RDWR | O_CLOEXEC));
  struct flock byte {};
  byte.l_type = F_RDLCK;
  byte.l_whence = SEEK_SET;
  byte.l_start = 201;
  byte.l_len = 1;
  ASSERT_EQ(::fcntl(qemu.ref().number, F_OFD_SETLK, &byte), 0);
  EXPECT_THAT(error_of(config), HasSubstr("in use"));
}

TEST(OpenDisk, GivesItsLockBackWithTheDisk) {
  const Scratch dir;
  const DeviceConfig config = disk_at(dir.image("d", kMiB));
  { const Answer<Disk> first = open_disk(config); }
  EXPECT_TRUE(open_disk(config));
}

// --- what it can do ---

TEST(OpenDisk, OffersWhatIsSwitchedOn) {
  const Scratch dir;
  DeviceConfig config = disk_at(dir.image("d", kMiB));
  config.discard = false;
  config.write_zeroes = false;
  const Answer<Disk> disk = open_disk(config);
  ASSERT_TRUE(disk) << disk.error();
  EXPECT_FALSE(disk->discard);
  EXPECT_FALSE(disk->write_zeroes);
}

TEST(OpenDisk, LookingWhetherHolesWorkChangesNothing) {
  const Scratch dir;
  const std::string path = dir.write("d", std::string(10'000, 'x'));
  struct stat before {};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  const Answer<Disk> disk = open_disk(disk_at(path));
  ASSERT_TRUE(disk) << disk.error();
  struct stat after {};
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_EQ(after.st_size, before.st_size);
  EXPECT_EQ(after.st_blocks, before.st_blocks);
  std::string bytes(10'000, '\0');
  EXPECT_EQ(::pread(disk->file.ref().number, bytes.data(), bytes.size(), 0), 10'000);
  EXPECT_EQ(bytes, std::string(10'000, 'x'));
}

TEST(OpenDisk, TellsGuestsAPhysicalBlockThatIsAtLeastTheirs) {
  const Scratch dir;
  DeviceConfig config = disk_at(dir.image("d", kMiB));
  config.block_size = 4096;
  const Answer<Disk> disk = open_disk(config);
  ASSERT_TRUE(disk) << disk.error();
  EXPECT_GE(disk->physical_block_bytes, 4096u);
  EXPECT_EQ(disk->physical_block_bytes & (disk->physical_block_bytes - 1), 0u);
}

TEST(OpenDisk, ADirectDiskKnowsItsAlignmentOrSaysWhatToDo) {
  const Scratch dir;
  DeviceConfig config = disk_at(dir.image("d", kMiB));
  config.direct = true;
  const Answer<Disk> disk = open_disk(config);
  if (!disk) {
    EXPECT_THAT(disk.error(), HasSubstr("--direct=off"));
    return;
  }
  EXPECT_TRUE((flags_of(disk->file) & O_DIRECT) != 0);
  EXPECT_GE(disk->offset_alignment, 512u);
  EXPECT_EQ(disk->buffered.valid(), disk->offset_alignment > 512);
}

// --- block devices: a loop device over a file, where we may have one ---

class LoopDevice {
 public:
  explicit LoopDevice(const std::string& image) {
    const common::Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const common::Fd file(::open(image.c_str(), O_RDWR | O_CLOEXEC));
    if (!control.valid()) return;
    const int number = ::ioctl(control.ref().number, LOOP_CTL_GET_FREE);
    if (number < 0) return;
    path_ = "/dev/loop" + std::to_string(number);
    fd_ = common::Fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    loop_config setup{};
    setup.fd = static_cast<__u32>(file.ref().number);
    setup.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    attached_ = fd_.valid() && ::ioctl(fd_.ref().number, LOOP_CONFIGURE, &setup) == 0;
  }
  [[nodiscard]] bool attached() const { return attached_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  common::Fd fd_;
  bool attached_ = false;
};

TEST(OpenDisk, OpensABlockDevice) {
  const Scratch dir;
  const LoopDevice loop(dir.image("d", 4 * kMiB));
  if (!loop.attached()) GTEST_SKIP() << "no loop device may be had here";
  const Answer<Disk> disk = open_disk(disk_at(loop.path()));
  ASSERT_TRUE(disk) << disk.error();
  EXPECT_TRUE(disk->block_device);
  EXPECT_EQ(disk->capacity_sectors, 4 * kMiB / 512);
  EXPECT_GE(disk->physical_block_bytes, 512u);
}

TEST(OpenDisk, RefusesABlockDeviceThatIsClaimed) {
  const Scratch dir;
  const LoopDevice loop(dir.image("d", 4 * kMiB));
  if (!loop.attached()) GTEST_SKIP() << "no loop device may be had here";
  // As mounting does.
  const common::Fd claim(::open(loop.path().c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
  ASSERT_TRUE(claim.valid());
  EXPECT_THAT(error_of(disk_at(loop.path())), HasSubstr("is mounted or in use"));
}

TEST(OpenDisk, ADirectBlockDeviceHasItsBlocksAlignment) {
  const Scratch dir;
  const LoopDevice loop(dir.image("d", 4 * kMiB));
  if (!loop.attached()) GTEST_SKIP() << "no loop device may be had here";
  DeviceConfig config = disk_at(loop.path());
  config.direct = true;
  const Answer<Disk> disk = open_disk(config);
  ASSERT_TRUE(disk) << disk.error();
  EXPECT_EQ(disk->offset_alignment, 512u);
  EXPECT_FALSE(disk->buffered.valid());
}

}  // namespace
}  // namespace broker
