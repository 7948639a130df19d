#include "broker/kept_record.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>

#include "broker/audit/device_events.h"
#include "broker/queue_book.h"
#include "common/device_kind.h"
#include "common/virtio_net_wire.h"

namespace broker {
namespace {

using common::fail;
using common::Fd;
using common::FdRef;

std::unexpected<std::string> unsound(const std::string& what) {
  return fail("what the last broker has left cannot be used: " + what);
}

template <std::size_t Bytes>
bool ends(const std::array<char, Bytes>& text) {
  return std::find(text.begin(), text.end(), '\0') != text.end();
}

enum class FdKind : std::uint8_t { kAny, kSocket, kFile, kDevice, kPidfd, kPipe };

// What the kernel calls an anonymous one: "anon_inode:[pidfd]", or, where pidfds have a file system
// of their own (6.9), "pidfd:[123]".
std::string link_of(FdRef fd) {
  std::array<char, 64> path{};
  std::array<char, 64> target{};
  std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", fd.number);
  const ssize_t length = ::readlink(path.data(), target.data(), target.size());
  return length <= 0 ? std::string() : std::string(target.data(), static_cast<std::size_t>(length));
}

bool is_of_kind(FdRef fd, FdKind kind) {
  struct stat status {};
  if (::fstat(fd.number, &status) != 0) return false;
  switch (kind) {
    case FdKind::kAny:
      return true;
    case FdKind::kSocket:
      return S_ISSOCK(status.st_mode);
    case FdKind::kFile:
      return S_ISREG(status.st_mode) || S_ISBLK(status.st_mode);
    case FdKind::kDevice:
      return S_ISCHR(status.st_mode);
    case FdKind::kPidfd: {
      const std::string link = link_of(fd);
      return link.starts_with("pidfd:") || link == "anon_inode:[pidfd]";
    }
    case FdKind::kPipe:
      return S_ISFIFO(status.st_mode);
  }
  return false;
}

// What belongs to a thing of each type; the last kind counts for all that follow.
struct Shape {
  KeptType type;
  std::size_t least;
  std::size_t most;
  std::array<FdKind, 4> kinds;
};
constexpr Shape kShapes[] = {
    {KeptType::kListener, 1, 1, {FdKind::kSocket}},
    {KeptType::kDisk, 1, 2, {FdKind::kFile, FdKind::kFile}},
    {KeptType::kTap,
     1,
     common::ipc::kMessageFdsMax,
     {FdKind::kDevice, FdKind::kDevice, FdKind::kDevice, FdKind::kDevice}},
    {KeptType::kCard, 0, 0, {}},
    {KeptType::kConnection,
     4,
     4,
     {FdKind::kPidfd, FdKind::kSocket, FdKind::kFile, FdKind::kSocket}},
    {KeptType::kWorker, 3, 3, {FdKind::kPidfd, FdKind::kPipe, FdKind::kFile}},
    {KeptType::kControl, 1, 1, {FdKind::kSocket}},
    {KeptType::kOperators, 1, 1, {FdKind::kSocket}},
    {KeptType::kKeeper, 2, 2, {FdKind::kPidfd, FdKind::kFile}},
    {KeptType::kRates, 1, 1, {FdKind::kFile}},
    {KeptType::kGroupRates, 1, 1, {FdKind::kFile}},
    {KeptType::kHalted, 0, 0, {}},
};

Answer<void> check_fds(KeptType type, std::span<const Fd> fds) {
  const auto* shape = std::find_if(std::begin(kShapes), std::end(kShapes),
                                   [type](const Shape& each) { return each.type == type; });
  if (shape == std::end(kShapes)) {
    return unsound("a thing of type " + std::to_string(static_cast<std::uint32_t>(type)));
  }
  if (fds.size() < shape->least || fds.size() > shape->most) {
    return unsound(std::to_string(fds.size()) + " descriptors with a thing of type " +
                   std::to_string(static_cast<std::uint32_t>(type)));
  }
  for (std::size_t i = 0; i < fds.size(); ++i) {
    if (!is_of_kind(fds[i].ref(), shape->kinds[std::min(i, shape->kinds.size() - 1)])) {
      return unsound("descriptor " + std::to_string(i) + " of a thing of type " +
                     std::to_string(static_cast<std::uint32_t>(type)) + " is none of its kind");
    }
  }
  return {};
}

Answer<void> check_numbers(const KeptRecord& record) {
  const auto type = static_cast<KeptType>(record.type);
  const bool process = type == KeptType::kConnection || type == KeptType::kWorker;
  const std::uint32_t oldest = record.ipc_oldest == 0 ? record.ipc_version : record.ipc_oldest;
  const bool speaks = record.ipc_version >= common::ipc::kIpcOldest &&
                      oldest <= common::ipc::kIpcVersion && oldest <= record.ipc_version;
  if (process && !speaks) {
    return unsound("a process that speaks version " + std::to_string(record.ipc_version) +
                   ", and this broker speaks " + std::to_string(common::ipc::kIpcOldest) + " to " +
                   std::to_string(common::ipc::kIpcVersion));
  }
  const std::uint64_t pid = record.numbers[0];
  const bool has_pid = process || type == KeptType::kKeeper;
  if (has_pid && (pid < 1 || pid > std::numeric_limits<pid_t>::max())) {
    return unsound("process " + std::to_string(pid));
  }
  const std::uint32_t queues = record.start.queues_max;
  if (type == KeptType::kConnection && (queues < 1 || queues > common::kQueuesMax ||
                                        record.start.config_bytes > record.start.config.size())) {
    return unsound("a connection with " + std::to_string(queues) + " queues");
  }
  const bool known_engine = record.numbers[2] <= static_cast<std::uint64_t>(2);
  const bool known_role = record.numbers[5] < kQueueRoleCount;
  if (type == KeptType::kWorker &&
      (record.numbers[1] >= common::kQueuesMax || !known_engine || !known_role)) {
    return unsound("a worker of queue " + std::to_string(record.numbers[1]));
  }
  const auto halt = static_cast<std::uint64_t>(Halt::kStop);
  if (type == KeptType::kHalted && (record.numbers[0] == 0 || record.numbers[0] > halt)) {
    return unsound("a device that is halted in way " + std::to_string(record.numbers[0]));
  }
  if (type == KeptType::kCard && record.start.config_bytes > record.start.config.size()) {
    return unsound("a card of " + std::to_string(record.start.config_bytes) + " bytes");
  }
  if (type == KeptType::kTap && record.numbers[0] >= common::kNetPairsMax) {
    return unsound("queue " + std::to_string(record.numbers[0]) + " of a tap");
  }
  return {};
}

}  // namespace

KeptRecord make_record(KeptType type, std::string_view device) {
  KeptRecord record;
  std::memset(static_cast<void*>(&record), 0, sizeof(record));
  record.version = KeptRecord::kVersion;
  record.type = static_cast<std::uint32_t>(type);
  record.ipc_version = common::ipc::kIpcVersion;
  record.ipc_oldest = common::ipc::kIpcOldest;
  device.copy(record.device.data(), record.device.size() - 1);
  return record;
}

KeptRecord make_card_record(std::string_view device, std::uint32_t uid,
                            std::span<const std::byte> state) {
  KeptRecord record = make_record(KeptType::kCard, device);
  record.numbers[0] = uid;
  record.start.config_bytes =
      static_cast<std::uint32_t>(std::min(state.size(), record.start.config.size()));
  std::memcpy(record.start.config.data(), state.data(), record.start.config_bytes);
  return record;
}

std::optional<audit::Process> process_in(const KeptRecord& record) {
  const auto pid = static_cast<pid_t>(record.numbers[0]);
  switch (static_cast<KeptType>(record.type)) {
    case KeptType::kConnection:
      return audit::Process{audit::Role::kSession, pid, {}};
    case KeptType::kWorker:
      return audit::Process{audit::Role::kWorker, pid,
                            static_cast<std::uint32_t>(record.numbers[1])};
    default:
      return std::nullopt;
  }
}

void set_text(KeptRecord& record, std::string_view text) {
  record.text.fill('\0');
  text.copy(record.text.data(), record.text.size() - 1);
}

Answer<void> check_kept(const common::ipc::KeepThing& message, std::span<const Fd> fds) {
  if (message.record_bytes != sizeof(KeptRecord)) {
    return unsound("a record of " + std::to_string(message.record_bytes) + " bytes, not of " +
                   std::to_string(sizeof(KeptRecord)) + ", which is another version's");
  }
  KeptRecord record;
  std::memcpy(static_cast<void*>(&record), message.record.data(), sizeof(record));
  if (record.version < KeptRecord::kOldest || record.version > KeptRecord::kVersion) {
    return unsound("a record of version " + std::to_string(record.version) + ", not " +
                   std::to_string(KeptRecord::kVersion));
  }
  if (!ends(record.device) || !ends(record.text) || record.device[0] == '\0') {
    return unsound("a name without an end");
  }
  TRY(check_fds(static_cast<KeptType>(record.type), fds));
  TRY(check_numbers(record));
  if (message.id == 0) return unsound("a thing without a number");
  return {};
}

Answer<KeptThing> read_kept(const common::ipc::KeepThing& message, std::vector<Fd> fds) {
  TRY(check_kept(message, fds));
  KeptThing thing;
  std::memcpy(static_cast<void*>(&thing.record), message.record.data(), sizeof(thing.record));
  thing.id = message.id;
  thing.group = message.group;
  thing.fds = std::move(fds);
  return thing;
}

}  // namespace broker
