// tests/unit/worker/engine_rig.h: a real engine over a real file, and what a broker, a guest and a
// VMM would do to it from outside.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/fd.h"
#include "common/ipc/worker_messages.h"
#include "common/stop_pipe.h"
#include "common/sys.h"
#include "common/uring_sys.h"
#include "policy/restricted_ring.h"
#include "policy/worker_blk.h"
#include "worker/engine.h"
#include "worker/fallback_engine.h"
#include "worker/uring_engine.h"

namespace worker_test {

using common::Fd;
using common::FdRef;

enum class EngineType { kIoUring, kFallback, kFallbackDirect };

inline std::string type_name(const testing::TestParamInfo<EngineType>& info) {
  constexpr const char* kNames[] = {"IoUring", "Fallback", "FallbackDirect"};
  return kNames[static_cast<int>(info.param)];
}

// The broker's end: sends messages into a worker's ring, from a ring of its own.
class MessageRing {
 public:
  MessageRing() {
    params_.flags = IORING_SETUP_CQSIZE;
    params_.cq_entries = 8;
    fd_ = Fd(common::uring::setup(4, &params_));
    queues_ = map(params_.cq_off.cqes + 8 * sizeof(io_uring_cqe), IORING_OFF_SQ_RING);
    sqes_ = map(4 * sizeof(io_uring_sqe), IORING_OFF_SQES);
  }
  MessageRing(const MessageRing&) = delete;
  MessageRing& operator=(const MessageRing&) = delete;
  ~MessageRing() = default;  // The mappings go with the test.

  // Results as the kernel gives them: 0 for a message that has arrived.
  int send(FdRef target, std::uint64_t user_data) {
    io_uring_sqe sqe{};
    sqe.opcode = IORING_OP_MSG_RING;
    sqe.fd = target.number;
    sqe.off = user_data;
    return run(sqe);
  }
  int send_fd(FdRef target, FdRef file, std::uint32_t slot, std::uint64_t user_data) {
    const int number = file.number;
    EXPECT_EQ(common::uring::reg(fd_.ref().number, IORING_REGISTER_FILES, &number, 1), 0);
    io_uring_sqe sqe{};
    sqe.opcode = IORING_OP_MSG_RING;
    sqe.fd = target.number;
    sqe.off = user_data;
    sqe.addr = 1;  // IORING_MSG_SEND_FD
    sqe.file_index = slot + 1;
    const int result = run(sqe);
    EXPECT_EQ(common::uring::reg(fd_.ref().number, IORING_UNREGISTER_FILES, nullptr, 0), 0);
    return result;
  }

 private:
  std::byte* map(std::size_t bytes, std::uint64_t offset) {
    return static_cast<std::byte*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                                          fd_.ref().number, static_cast<off_t>(offset)));
  }
  std::uint32_t& word(std::uint32_t offset) {
    return *reinterpret_cast<std::uint32_t*>(queues_ + offset);
  }
  int run(const io_uring_sqe& sqe) {
    const std::uint32_t tail = word(params_.sq_off.tail);
    reinterpret_cast<io_uring_sqe*>(sqes_)[tail & 3] = sqe;
    word(params_.sq_off.array + 4 * (tail & 3)) = tail & 3;
    __atomic_store_n(&word(params_.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
    EXPECT_EQ(common::uring::enter(fd_.ref().number, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0), 1);
    const std::uint32_t head = word(params_.cq_off.head);
    const auto* cqes = reinterpret_cast<io_uring_cqe*>(queues_ + params_.cq_off.cqes);
    const int result = cqes[head & 7].res;
    __atomic_store_n(&word(params_.cq_off.head), head + 1, __ATOMIC_RELEASE);
    return result;
  }

  io_uring_params params_{};
  Fd fd_;
  std::byte* queues_ = nullptr;
  std::byte* sqes_ = nullptr;
};

inline constexpr std::size_t kBlock = 4096;
inline constexpr std::size_t kDiskBytes = 8 * 1024 * kBlock / 4;  // 8 MiB

// Aligned memory, as a guest's pages are.
class Pages {
 public:
  explicit Pages(std::size_t bytes, std::uint8_t fill = 0) : bytes_(bytes) {
    memory_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(kBlock, bytes)));
    std::memset(memory_.get(), fill, bytes);
  }
  [[nodiscard]] std::uint8_t* data() const { return memory_.get(); }
  [[nodiscard]] std::size_t size() const { return bytes_; }
  [[nodiscard]] iovec part(std::size_t offset, std::size_t bytes) const {
    return {memory_.get() + offset, bytes};
  }
  [[nodiscard]] bool holds_only(std::uint8_t value) const {
    return std::all_of(data(), data() + size(),
                       [value](std::uint8_t byte) { return byte == value; });
  }

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const { std::free(memory); }
  };
  std::size_t bytes_;
  std::unique_ptr<std::uint8_t, Free> memory_;
};

// What is at byte `offset` of a fresh disk: a different value in each block.
inline std::uint8_t pattern(std::size_t offset) {
  return static_cast<std::uint8_t>(1 + offset / kBlock % 251);
}

struct RigOptions {
  bool kick = true;
  bool call = true;
  bool call_blocks = false;
  int open_flags = O_RDWR;
  const char* device = nullptr;  // Instead of a fresh file.
  std::uint32_t depth = worker::kRequestsMax;
};

class Rig {
 public:
  explicit Rig(EngineType type, RigOptions options = {}) : type_(type), options_(options) {
    open_disk();
    if (options.kick) kick = *common::make_eventfd();
    if (options.call) call = *common::make_eventfd();
    if (options.call_blocks) {
      EXPECT_TRUE(common::set_nonblocking(call.ref(), false));
    }
    stop_pipe = *common::make_stop_pipe();
    type == EngineType::kIoUring ? make_uring() : make_fallback();
  }

  // --- from outside ---
  void ring_kick() const { add(kick.ref(), 1); }
  void stop() {
    if (type_ == EngineType::kIoUring) {
      EXPECT_EQ(messages_->send(ring.ref(), common::ipc::kRingStop), 0);
    } else {
      stop_without_ring();
    }
  }
  void stop_without_ring() const { EXPECT_TRUE(common::tell_to_stop(stop_pipe.writing.ref())); }
  void swap_call(FdRef eventfd) {
    EXPECT_EQ(messages_->send_fd(ring.ref(), eventfd, common::ipc::kSlotCall,
                                 common::ipc::kRingCallSwapped),
              0);
  }
  static void add(FdRef eventfd, std::uint64_t value) {
    EXPECT_EQ(::write(eventfd.number, &value, sizeof(value)), 8);
  }
  // What an eventfd has counted since it was last asked; 0 for nothing.
  static std::uint64_t count_of(FdRef eventfd) {
    pollfd polled{eventfd.number, POLLIN, 0};
    if (::poll(&polled, 1, 0) != 1) return 0;
    std::uint64_t value = 0;
    EXPECT_EQ(::read(eventfd.number, &value, sizeof(value)), 8);
    return value;
  }

  // --- one request at a time ---
  std::int32_t run(const worker::IoRequest& request) {
    engine->start(request);
    worker::Completion completion;
    while (!engine->next_completion(completion)) {
      const worker::Wakeup wakeup = engine->turn(true);
      if (wakeup.host_fault) return -EHOSTDOWN;
    }
    EXPECT_EQ(completion.tag, request.tag);
    return completion.result;
  }
  std::int32_t read(std::uint64_t offset, std::span<const iovec> segments) {
    return run(
        {.kind = worker::IoRequest::Kind::kRead, .tag = 7, .offset = offset, .segments = segments});
  }
  std::int32_t write(std::uint64_t offset, std::span<const iovec> segments, bool durable = false) {
    return run({.kind = worker::IoRequest::Kind::kWrite,
                .durable = durable,
                .tag = 8,
                .offset = offset,
                .segments = segments});
  }
  // The file as somebody else sees it.
  [[nodiscard]] std::uint8_t byte_at(std::size_t offset) const {
    std::uint8_t value = 0;
    EXPECT_EQ(::pread(plain.ref().number, &value, 1, static_cast<off_t>(offset)), 1);
    return value;
  }

  Fd plain;  // The disk, buffered, for the test's own eyes.
  Fd disk;
  Fd kick;
  Fd call;
  Fd ring;
  common::StopPipe stop_pipe;
  std::unique_ptr<worker::Engine> engine;

 private:
  void open_disk() {
    if (options_.device != nullptr) {
      disk = Fd(::open(options_.device, O_RDWR | O_CLOEXEC));
      ASSERT_TRUE(disk.valid());
      return;
    }
    std::string path = testing::TempDir() + "bulkhead-engine-XXXXXX";
    plain = Fd(::mkostemp(path.data(), O_CLOEXEC));
    ASSERT_TRUE(plain.valid());
    std::vector<std::uint8_t> content(kDiskBytes);
    for (std::size_t i = 0; i < content.size(); ++i) content[i] = pattern(i);
    ASSERT_EQ(::pwrite(plain.ref().number, content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
    const int direct = type_ == EngineType::kFallbackDirect ? O_DIRECT : 0;
    disk = Fd(::open(path.c_str(), options_.open_flags | direct | O_CLOEXEC));
    ASSERT_TRUE(disk.valid()) << "the file system of TMPDIR must know O_DIRECT";
    ::unlink(path.c_str());
  }

  void make_uring() {
    auto made =
        policy::make_restricted_ring({.entries = common::ipc::kRingEntries,
                                      .completion_entries = common::ipc::kRingCompletionEntries,
                                      .bounded_workers = common::ipc::kRingThreads,
                                      .opcodes = policy::kWorkerBlkUringOpcodes});
    ASSERT_TRUE(made) << made.error().what;
    ring = std::move(made->fd);
    auto built = worker::UringEngine::create({.ring = ring.ref(),
                                              .layout = made->layout,
                                              .device = disk.ref(),
                                              .device_buffered = plain.ref(),
                                              .kick = kick.ref(),
                                              .call = call.ref(),
                                              .stop = stop_pipe.reading.ref()});
    ASSERT_TRUE(built) << built.error().what << ": " << std::strerror(built.error().os_errno);
    engine = *std::move(built);
    messages_ = std::make_unique<MessageRing>();
  }

  void make_fallback() {
    if (type_ == EngineType::kFallbackDirect) aio_ = *common::make_eventfd();
    auto built =
        worker::FallbackEngine::create({.device = disk.ref(),
                                        .device_buffered = plain.ref(),
                                        .aio = aio_.ref(),
                                        .events = {stop_pipe.reading.ref(), kick.ref(), call.ref()},
                                        .depth = options_.depth});
    ASSERT_TRUE(built) << built.error().what;
    engine = *std::move(built);
  }

  EngineType type_;
  RigOptions options_;
  Fd aio_;
  std::unique_ptr<MessageRing> messages_;
};

// A ring belongs to the task that enabled it, and that task has one place for it: as a worker is a
// process of its own, so is each engine here a thread's own.
inline void with_engine(EngineType type, const RigOptions& options,
                        const std::function<void(Rig&)>& body) {
  std::thread([&] {
    Rig rig(type, options);
    if (rig.engine) body(rig);
  }).join();
}

}  // namespace worker_test
