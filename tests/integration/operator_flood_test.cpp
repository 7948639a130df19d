// tests/integration/operator_flood_test.cpp: users who flood the operator's socket in every way
// there is, while a guest works and root does: neither notices, the broker's memory and descriptors
// stay bounded, and the audit trail has what root did and counts what it left out of the rest.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <list>
#include <optional>
#include <thread>

#include "broker/control/device_record.h"
#include "common/ipc/channel.h"
#include "policy/sanitizer.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/integration/operated.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
namespace control = broker::control;

constexpr uid_t kReader = 65534;    // In the group that may look.
constexpr uid_t kStranger = 65533;  // In none.

// This thread's alone, which glibc's wrappers would change for all.
void become(uid_t uid) {
  fakes::require_call(::syscall(SYS_setgroups, 0, nullptr) == 0 &&
                          ::syscall(SYS_setresgid, uid, uid, uid) == 0 &&
                          ::syscall(SYS_setresuid, uid, uid, uid) == 0,
                      "become another user");
}

// Waits for nothing longer than a moment, so that a test can end it.
class Socket {
 public:
  explicit Socket(const std::string& path)
      : fd_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    const timeval moment{.tv_sec = 0, .tv_usec = 100'000};
    for (const int which : {SO_RCVTIMEO, SO_SNDTIMEO}) {
      (void)::setsockopt(fd_.ref().number, SOL_SOCKET, which, &moment, sizeof(moment));
    }
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::ranges::copy(path, address.sun_path);
    connected_ = ::connect(fd_.ref().number, reinterpret_cast<const sockaddr*>(&address),
                           sizeof(address)) == 0;
  }
  [[nodiscard]] bool connected() const { return connected_; }
  bool send(std::span<const std::byte> bytes, std::span<const common::FdRef> fds = {}) const {
    return common::ipc::send_bytes(fd_.ref(), bytes, fds, true).has_value();
  }
  template <typename T>
  bool send(const T& message, std::span<const common::FdRef> fds = {}) const {
    return send(std::as_bytes(std::span(&message, 1)), fds);
  }
  // Bytes; less than 1 where the broker has hung up, or the moment is over.
  [[nodiscard]] ssize_t receive(control::Told& told) const {
    std::array<std::byte, control::kMessageBytesMax> packet{};
    const ssize_t got = ::recv(fd_.ref().number, packet.data(), packet.size(), 0);
    if (got == sizeof(told)) std::memcpy(&told, packet.data(), sizeof(told));
    return got;
  }
  // Whether that was a refusal.
  [[nodiscard]] bool refused() const {
    control::Told told;
    if (receive(told) != sizeof(told) || told.kind != control::Told::kKind) return false;
    return told.outcome == static_cast<std::uint32_t>(control::Outcome::kRefused) ||
           told.outcome == static_cast<std::uint32_t>(control::Outcome::kMalformed);
  }

 private:
  common::Fd fd_;
  bool connected_ = false;
};

control::Order drain_vda() {
  control::Order order;
  order.act = static_cast<std::uint32_t>(control::Act::kDrain);
  control::put_text(order.name, "vda");
  return order;
}

// One way to flood; true: something has been refused.
using Way = bool (*)(const std::string& path);

bool ask_and_read(const std::string& path) {
  const Socket socket(path);
  control::Told told;
  for (int i = 0; i < 50 && socket.send(control::AskStatus{}) && socket.receive(told) > 0; ++i) {
  }
  return false;
}

bool ask_for_a_change(const std::string& path) {
  const Socket socket(path);
  return socket.connected() && socket.send(drain_vda()) && socket.refused();
}

bool come_and_go(const std::string& path) {
  (void)Socket(path).connected();
  return false;
}

bool come_as_a_stranger(const std::string& path) {
  const Socket socket(path);
  return socket.connected() && socket.refused();
}

bool send_half_a_message(const std::string& path) {
  const Socket socket(path);
  const control::AskDevice ask;
  return socket.connected() && socket.send(std::as_bytes(std::span(&ask, 1)).first(9)) &&
         socket.refused();
}

bool hand_over_descriptors(const std::string& path) {
  const common::Fd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<common::FdRef> many(common::ipc::kFdListMax, file.ref());
  const Socket socket(path);
  return socket.connected() && socket.send(control::AddDevice{}, many) && socket.refused();
}

bool never_read(const std::string& path) {
  const Socket socket(path);
  while (socket.connected() && socket.send(control::AskStatus{})) {
  }
  return false;
}

bool wait_for_events(const std::string& path) {
  const Socket socket(path);
  control::AskEvent ask;
  ask.after = UINT64_MAX;
  ask.wait = 1;
  control::Told told;
  if (socket.connected() && socket.send(ask)) (void)socket.receive(told);
  return false;
}

// All of them at once, each again and again until this is destroyed.
class Flood {
 public:
  explicit Flood(const std::string& path) {
    struct Kind {
      Way way;
      uid_t uid;
    };
    const std::vector<Kind> kinds = {
        {ask_and_read, kReader},         {ask_and_read, kReader},
        {ask_for_a_change, kReader},     {come_and_go, kReader},
        {send_half_a_message, kReader},  {hand_over_descriptors, kReader},
        {never_read, kReader},           {wait_for_events, kReader},
        {come_as_a_stranger, kStranger}, {come_as_a_stranger, kStranger},
        {come_and_go, kStranger},
    };
    for (const Kind& kind : kinds) {
      Count& count = counts_.emplace_back();
      threads_.emplace_back([this, kind, path, &count] { run(kind.way, kind.uid, path, count); });
    }
  }
  ~Flood() { end(); }

  // Each way has been tried this often, and that much was refused.
  void wait_for(std::uint64_t times, std::uint64_t refusals) const {
    const auto end = std::chrono::steady_clock::now() + 6 * fakes::kPatience;
    while (!std::ranges::all_of(counts_, [&](const Count& one) { return one.tried >= times; }) ||
           refused() < refusals) {
      fakes::require(std::chrono::steady_clock::now() < end, "the flood does not get on");
      std::this_thread::yield();
    }
  }
  void end() {
    ending_ = true;
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  [[nodiscard]] std::uint64_t refused() const {
    std::uint64_t sum = 0;
    for (const Count& one : counts_) sum += one.refused;
    return sum;
  }

 private:
  struct Count {
    std::atomic<std::uint64_t> tried{0};
    std::atomic<std::uint64_t> refused{0};
  };
  void run(Way way, uid_t uid, const std::string& path, Count& count) {
    become(uid);
    while (!ending_) {
      if (way(path)) ++count.refused;
      ++count.tried;
    }
  }
  std::atomic<bool> ending_{false};
  std::list<Count> counts_;
  std::vector<std::thread> threads_;
};

class OperatorFlood : public OperatedTest {
 protected:
  void serve_readers(const std::vector<std::string>& more = {}) {
    std::vector<std::string> options = {"--control-read-group=" + std::to_string(kReader)};
    options.insert(options.end(), more.begin(), more.end());
    serve({{.name = "vda"}, {.name = "vdb"}}, options);
  }
  [[nodiscard]] std::string proc(const std::string& name) {
    return "/proc/" + std::to_string(host_.broker().pid()) + "/" + name;
  }
  [[nodiscard]] std::size_t descriptors() {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(proc("fd")), {}));
  }
  [[nodiscard]] std::uint64_t resident_kib() {
    std::ifstream status(proc("status"));
    for (std::string word; status >> word;) {
      std::uint64_t kib = 0;
      if (word == "VmRSS:" && status >> kib) return kib;
    }
    return 0;
  }
  // The lines that have this.
  [[nodiscard]] static std::vector<std::string> lines_with(const std::string& file,
                                                           const std::string& part) {
    std::vector<std::string> found;
    std::ifstream log(file);
    for (std::string line; std::getline(log, line);) {
      if (line.find(part) != std::string::npos) found.push_back(line);
    }
    return found;
  }
};

std::uint64_t amount_of(const std::string& line) {
  const std::string mark = R"("count":)";
  const std::size_t at = line.find(mark);
  return at == std::string::npos ? 0 : std::stoull(line.substr(at + mark.size()));
}

TEST_F(OperatorFlood, KeepsNeitherRootNorAGuestFromWorkingAndIsCounted) {
  const fakes::TempDir logs(BULKHEAD_TEST_IMAGES);
  const std::string log = logs.file("audit.log");
  serve_readers({"--audit-log=" + log, "--audit=required"});
  const auto vda = host_.connect();
  VerifiedLoad load(vda->queue(), {});
  load.expect_progress();
  EXPECT_EQ(ask({"status"}).exit_code, 0);
  const std::size_t descriptors_before = descriptors();
  const std::uint64_t kib_before = resident_kib();

  constexpr int kRounds = 5;
  constexpr std::uint64_t kRefusals = 2000;
  std::size_t descriptors_most = 0;
  std::uint64_t kib_most = 0;
  Flood flood(control());
  for (int round = 0; round < kRounds; ++round) {
    flood.wait_for(2, kRefusals * static_cast<std::uint64_t>(round + 1) / kRounds);
    EXPECT_THAT(ask({"status", "--json"}).text, HasSubstr(R"("may_change":true)"));
    EXPECT_EQ(ask({"stop", "vdb"}).exit_code, 0);
    EXPECT_EQ(ask({"start", "vdb"}).exit_code, 0);
    load.expect_progress();
    descriptors_most = std::max(descriptors_most, descriptors());
    kib_most = std::max(kib_most, resident_kib());
  }
  flood.end();
  load.stop();
  (void)load.verify_all();

  // Its clients, what came with their messages, and what is being closed by threads.
  EXPECT_LE(descriptors_most, descriptors_before + 256);
  constexpr std::uint64_t kKibMore = 16 << 10;
  if (!policy::kSanitizerBuild) {
    EXPECT_LE(kib_most, kib_before + kKibMore);
  }
  expect_soon({"status", "--json"}, R"("clients":1,)");
  EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(R"("state":"serving")"));
  expect_serves(host_.connect({}, "vdb")->queue());

  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  const std::string refusal = R"("event":"operator-refused")";
  EXPECT_THAT(lines_with(log, refusal),
              testing::AllOf(testing::Contains(HasSubstr("may look, and not change anything")),
                             testing::Contains(HasSubstr("neither look nor change anything"))));
  std::uint64_t dropped = 0;
  const auto counts = lines_with(log, R"("event":"events-dropped")");
  for (const std::string& line : counts) dropped += amount_of(line);
  const std::size_t written = lines_with(log, refusal).size();
  EXPECT_GE(written + dropped, flood.refused());
  EXPECT_LT(written + counts.size(), flood.refused() / 2);
  EXPECT_THAT(lines_with(log, "events-lost"), testing::IsEmpty());
  // Root's, all of them: two of each round, and the end.
  EXPECT_EQ(lines_with(log, R"("event":"operator-request")").size(), 2 * kRounds + 1);
  host_.run({"audit", "verify", log});
  EXPECT_EQ(host_.broker().wait_exit(), 0) << host_.broker().log();
}

// Runs as another user, and is over when this returns.
template <typename Task>
void as_user(uid_t uid, gid_t gid, const Task& task) {
  std::thread([&] {
    fakes::require_call(::syscall(SYS_setgroups, 0, nullptr) == 0 &&
                            ::syscall(SYS_setresgid, gid, gid, gid) == 0 &&
                            ::syscall(SYS_setresuid, uid, uid, uid) == 0,
                        "become another user");
    task();
  }).join();
}

bool is_served(RawOperator& client) {
  return client.send_message(control::AskStatus{}) &&
         client.receive_as<control::StatusReply>().has_value();
}

TEST_F(OperatorFlood, OneUserWhoMayLookLeavesPlacesToOthers) {
  serve_readers();
  std::list<RawOperator> greedy;
  as_user(kReader, kReader, [&] {
    for (int i = 0; i < 16; ++i) EXPECT_TRUE(is_served(greedy.emplace_back(control())));
    RawOperator one_more(control());
    const auto told = one_more.receive_as<control::Told>();
    ASSERT_TRUE(told);
    EXPECT_THAT(control::text_of(told->text).value_or(""), HasSubstr("too many clients"));
  });
  as_user(kStranger, kReader, [&] {
    RawOperator other(control());
    EXPECT_TRUE(is_served(other));
  });
}

TEST_F(OperatorFlood, AllWhoMayChangeTogetherLeavePlacesToRoot) {
  serve({{.name = "vda"}}, {"--control-group=" + std::to_string(kReader)});
  std::list<RawOperator> greedy;
  for (const uid_t uid : {kReader, kStranger}) {
    as_user(uid, kReader, [&] {
      for (int i = 0; i < 16; ++i) EXPECT_TRUE(is_served(greedy.emplace_back(control())));
    });
  }
  as_user(kStranger - 1, kReader, [&] {
    RawOperator one_more(control());
    EXPECT_EQ(one_more.receive_as<control::Told>().has_value(), true);
  });
  EXPECT_EQ(ask({"status"}).exit_code, 0);
}

}  // namespace
}  // namespace integration
