// broker/keeper/keeper.h: holds on to what a broker that dies would lose, and hands it to the next
// one. The protocol: common/ipc/keeper_messages.h; why there is a keeper at all: broker/keep.h.
//
// Trusted: brokers, who are the same user's. What they hand over is never read, only held; records
// are bytes to a keeper. A broker that breaks the protocol is hung up on.
#pragma once

#include <poll.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/fd.h"
#include "common/ipc/channel.h"
#include "common/ipc/keeper_messages.h"

namespace keeper {

// Whom to let in, beside uid 0 (which is the broker's user where we have a user namespace).
struct Guests {
  std::uint32_t uid = 0;
};

class Keeper {
 public:
  Keeper(common::FdRef door, common::Fd broker, Guests guests) noexcept;
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // Until there is no broker, and no session that one could come back for.
  void run() noexcept;

 private:
  static constexpr std::size_t kBrokersMax = 8;
  static constexpr std::size_t kThings = common::ipc::kKeptThingsMax;

  struct Broker {
    common::Fd socket;
    bool owns = false;      // What is kept is its.
    bool claims = false;    // Waits until it is.
    bool complete = false;  // An owner that has put everything here: others may look.
  };
  // Whole messages, as they came: apart, since no page of theirs is used before something is kept.
  using Message = std::array<std::byte, sizeof(common::ipc::KeepThing)>;
  struct Thing {
    std::uint64_t id = 0;  // 0: there is none.
    std::uint64_t group = 0;
    common::ipc::KeptRole role = common::ipc::KeptRole::kPlain;
    bool ended = false;       // The process of its first descriptor.
    bool told = false;        // To stop.
    std::uint32_t index = 0;  // Of slots_ and messages_.
    std::size_t fd_count = 0;
    std::array<common::Fd, common::ipc::kMessageFdsMax> fds;
  };

  // Made when it is first used, for the same reason.
  union Slot {
    Slot() noexcept {}
    ~Slot() {}
    Thing thing;
  };

  [[nodiscard]] bool needed() const noexcept;
  [[nodiscard]] Broker* owner() noexcept;
  void sleep() noexcept;  // syscalls: ppoll
  void watch(common::FdRef fd, std::uint32_t what) noexcept;
  void wake(std::uint32_t what) noexcept;
  void let_in() noexcept;  // syscalls: accept4
  // syscalls: getsockopt
  [[nodiscard]] bool may_come_in(common::FdRef socket) const noexcept;

  void hear(Broker& broker) noexcept;
  void catch_up() noexcept;
  [[nodiscard]] bool hear_next(Broker& broker) noexcept;
  [[nodiscard]] bool obey(Broker& broker, common::ipc::Packet& packet) noexcept;
  [[nodiscard]] bool put(const common::ipc::KeepThing& thing, common::ipc::FdList& fds) noexcept;
  void drop(std::uint64_t id) noexcept;
  [[nodiscard]] bool show_next(Broker& broker, std::uint64_t after) noexcept;
  [[nodiscard]] bool claim(Broker& broker, bool force) noexcept;
  void grant() noexcept;
  void hang_up(Broker& broker) noexcept;

  // While no broker is there.
  void process_ended(Thing& thing) noexcept;
  void end_groups() noexcept;
  static void stop_worker(Thing& worker) noexcept;
  void end_group(std::uint64_t group) noexcept;

  [[nodiscard]] Thing* find(std::uint64_t id) noexcept;
  [[nodiscard]] Thing* room() noexcept;
  void write_down(Thing& slot, common::ipc::KeepThing thing) noexcept;
  static void clear(Thing& thing) noexcept;

  common::FdRef door_;
  Guests guests_;
  std::array<Broker, kBrokersMax> brokers_;
  std::array<Slot, kThings> slots_;
  std::array<Message, kThings> messages_;
  std::size_t used_ = 0;  // No thing at or above it.
  std::array<pollfd, 1 + kBrokersMax + kThings> polled_;
  std::array<std::uint32_t, 1 + kBrokersMax + kThings> polled_what_;
  std::size_t polled_count_ = 0;
  common::ipc::Packet packet_;
};

}  // namespace keeper
