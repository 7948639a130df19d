// tests/unit/broker/kept_record_test.cpp: what another broker has left is believed only as far as
// it is sound.
#include "broker/kept_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "common/stop_pipe.h"
#include "common/sys.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
using common::Fd;
using testing::HasSubstr;

Fd pidfd() { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))); }
Fd socket() { return std::move(common::make_packet_pair()->first); }
Fd file() { return *common::make_sealed_memfd("kept", 4096); }

ipc::KeepThing message_of(const KeptRecord& record) {
  ipc::KeepThing message{};
  message.kind = ipc::KeepThing::kKind;
  message.id = 7;
  message.group = 3;
  message.record_bytes = sizeof(record);
  std::memcpy(message.record.data(), &record, sizeof(record));
  return message;
}

KeptRecord worker() {
  KeptRecord record = make_record(KeptType::kWorker, "vda");
  record.numbers = {4711, 5, 1};
  return record;
}
std::vector<Fd> worker_fds() {
  std::vector<Fd> fds;
  fds.push_back(pidfd());
  fds.push_back(std::move(common::make_stop_pipe()->writing));
  fds.push_back(file());
  return fds;
}

KeptRecord connection() {
  KeptRecord record = make_record(KeptType::kConnection, "vda");
  record.numbers[0] = 4711;
  record.start.queues_max = 4;
  set_text(record, "pid 1 (qemu) uid 2");
  return record;
}
std::vector<Fd> connection_fds() {
  std::vector<Fd> fds;
  fds.push_back(pidfd());
  fds.push_back(socket());
  fds.push_back(file());
  fds.push_back(socket());
  return fds;
}

void expect_refused(const ipc::KeepThing& message, std::vector<Fd> fds, const std::string& why) {
  const auto read = read_kept(message, std::move(fds));
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error(), HasSubstr(why));
}

TEST(KeptRecord, ComesBackAsItWasPut) {
  const auto one = read_kept(message_of(worker()), worker_fds());
  ASSERT_TRUE(one) << one.error();
  EXPECT_EQ(one->id, 7U);
  EXPECT_EQ(one->group, 3U);
  EXPECT_TRUE(one->is_of(KeptType::kWorker, "vda"));
  EXPECT_EQ(one->record.numbers[1], 5U);
  EXPECT_EQ(one->fds.size(), 3U);
  const auto other = read_kept(message_of(connection()), connection_fds());
  ASSERT_TRUE(other) << other.error();
  EXPECT_STREQ(other->record.text.data(), "pid 1 (qemu) uid 2");
}

TEST(KeptRecord, OfAnotherSizeIsRefused) {
  for (const std::uint32_t bytes : {0U, 1U, static_cast<std::uint32_t>(sizeof(KeptRecord) - 1),
                                    static_cast<std::uint32_t>(sizeof(KeptRecord) + 1), ~0U}) {
    ipc::KeepThing message = message_of(worker());
    message.record_bytes = bytes;
    expect_refused(message, worker_fds(), "bytes");
  }
}

TEST(KeptRecord, OfAnUnknownVersionIsRefused) {
  for (const std::uint32_t version : {0U, KeptRecord::kOldest - 1, KeptRecord::kVersion + 1, ~0U}) {
    KeptRecord record = worker();
    record.version = version;
    expect_refused(message_of(record), worker_fds(), "version");
  }
}

TEST(KeptRecord, OfAProcessThatSpeaksAnUnknownVersionIsRefused) {
  for (const std::uint32_t version : {0U, ipc::kIpcOldest - 1, ipc::kIpcVersion + 1}) {
    KeptRecord record = connection();
    record.ipc_version = record.ipc_oldest = version;
    expect_refused(message_of(record), connection_fds(), "speaks version");
  }
}

TEST(KeptRecord, OfANewerProcessThatSpeaksOurVersionTooIsTaken) {
  KeptRecord record = connection();
  record.ipc_version = ipc::kIpcVersion + 1;
  record.ipc_oldest = ipc::kIpcVersion;
  EXPECT_TRUE(read_kept(message_of(record), connection_fds()));
}

TEST(KeptRecord, OfAnUnknownTypeIsRefused) {
  for (const std::uint32_t type : {0U, 13U, ~0U}) {
    KeptRecord record = worker();
    record.type = type;
    expect_refused(message_of(record), worker_fds(), "type");
  }
}

TEST(KeptRecord, WithMoreOrFewerDescriptorsIsRefused) {
  std::vector<Fd> fewer = worker_fds();
  fewer.pop_back();
  expect_refused(message_of(worker()), std::move(fewer), "2 descriptors");
  std::vector<Fd> more = worker_fds();
  more.push_back(file());
  expect_refused(message_of(worker()), std::move(more), "4 descriptors");
  expect_refused(message_of(connection()), {}, "0 descriptors");
}

TEST(KeptRecord, WithDescriptorsOfAnotherKindIsRefused) {
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<Fd> fds = worker_fds();
    fds[i] = socket();
    expect_refused(message_of(worker()), std::move(fds), "none of its kind");
  }
  for (std::size_t i = 0; i < 4; ++i) {
    std::vector<Fd> fds = connection_fds();
    fds[i] = *common::make_eventfd();
    expect_refused(message_of(connection()), std::move(fds), "none of its kind");
  }
}

TEST(KeptRecord, WithATextThatDoesNotEndIsRefused) {
  KeptRecord record = connection();
  record.text.fill('x');
  expect_refused(message_of(record), connection_fds(), "without an end");
  record = connection();
  record.device.fill('x');
  expect_refused(message_of(record), connection_fds(), "without an end");
  record = connection();
  record.device.fill('\0');
  expect_refused(message_of(record), connection_fds(), "without an end");
}

TEST(KeptRecord, WithNumbersThatCannotBeIsRefused) {
  for (const std::uint64_t pid : {std::uint64_t{0}, std::uint64_t{1} << 31, ~std::uint64_t{0}}) {
    KeptRecord record = worker();
    record.numbers[0] = pid;
    expect_refused(message_of(record), worker_fds(), "process");
  }
  KeptRecord record = worker();
  record.numbers[1] = common::kQueuesMax;
  expect_refused(message_of(record), worker_fds(), "worker of queue");
  record = worker();
  record.numbers[2] = 3;
  expect_refused(message_of(record), worker_fds(), "worker of queue");
  for (const std::uint32_t queues : {0U, common::kQueuesMax + 1, ~0U}) {
    record = connection();
    record.start.queues_max = queues;
    expect_refused(message_of(record), connection_fds(), "queues");
  }
  record = connection();
  record.start.config_bytes = ipc::kConfigBytesMax + 1;
  expect_refused(message_of(record), connection_fds(), "queues");
}

TEST(KeptRecord, WithoutANumberIsRefused) {
  ipc::KeepThing message = message_of(worker());
  message.id = 0;
  expect_refused(message, worker_fds(), "without a number");
}

}  // namespace
}  // namespace broker
