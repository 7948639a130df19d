// broker/keep.h: the broker may die or be replaced, and no I/O stops.
//
// The design
// * Sessions and workers do not end with the broker (--orphans=keep). What would end with it are
//   its descriptors: listening sockets, the disk under its lock, the VMM's and the session's
//   sockets, pidfds, the pipes that stop workers, status pages. So copies of them are held by a
//   tiny jailed process, the keeper (broker/keeper), with one record of a fixed size for each
//   (kept_record.h). A descriptor that is in a socket's queue or in the keeper lives on, whoever
//   dies: a worker is handed to the keeper before its session hears of it.
// * The keeper listens on a socket beside the device's (--takeover-socket), mode 0600, and asks who
//   connects for his uid. A broker that starts looks there first, and where a keeper is, adopts:
//   the same way after SIGKILL (nobody owns what is kept), SIGRTMIN+1, and for `bulkhead
//   takeover`, where the running broker is asked to leave once the new one is ready. systemd keeps
//   nothing for us: its store loses what a process sent that is dead by then, and rings of io_uring
//   can be in no store at all.
// * What changes while a device serves is not kept, but said again: the adopting broker sends
//   Resume to each session, whose answer says what it believes of each queue, and what it still
//   waits for. Everything that was asked before that answer is void. So there is no moment at which
//   a broker may not die, and no record that could be half written.
// * A worker's ring of io_uring cannot be handed on, and with it the way to send it messages. An
//   adopted worker is stopped through a pipe, and where its call eventfd changes it is replaced.
// * An adopted process is not our child: its pidfd says when it ended, PIDFD_GET_INFO (Linux 6.15)
//   or else its status page says how.
// * While no broker is there, a session goes on and what it asks for waits for the next broker.
//   When its VMM hangs up it ends, and the keeper stops its workers; when no session is left, the
//   keeper ends, and with it the sockets and the disk are let go.
// * Nobody else holds the other ends of a session's socket and of the pipe that stops a worker. So
//   where broker and keeper die together, all that is left drains and ends.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "broker/config.h"
#include "broker/event_loop.h"
#include "broker/jailer.h"
#include "broker/kept.h"
#include "broker/kept_record.h"
#include "broker/log.h"
#include "broker/socket.h"
#include "common/fd.h"
#include "common/ipc/channel.h"
#include "common/result.h"

namespace broker {

// A connection to a keeper that was there before us.
class KeeperLink {
 public:
  // Not valid() where there is none at `path`.
  [[nodiscard]] static Answer<KeeperLink> find(const std::string& path);
  [[nodiscard]] bool valid() const noexcept { return socket_.valid(); }

  // One that nobody can go on with.
  struct Unsound {
    std::uint64_t id = 0;
    std::uint64_t group = 0;
    common::ipc::KeptRole role = common::ipc::KeptRole::kPlain;
    std::string why;
    KeptRecord record{};  // For the eye only; zeros where it is not even of our size.
    std::vector<common::Fd> fds;
  };
  struct Left {
    std::vector<KeptThing> things;
    std::vector<Unsound> unsound;
    bool owned = false;  // By a broker that runs.
  };
  [[nodiscard]] Answer<Left> read_all() const;
  // What is kept is ours once this has returned. With `force` a broker that has it is asked to
  // leave, and waited for.
  [[nodiscard]] Answer<void> claim(bool force) const;
  // Ours, and not wanted.
  void drop(std::uint64_t id) const noexcept;

  [[nodiscard]] common::Fd take_socket() noexcept { return std::move(socket_); }

 private:
  [[nodiscard]] Answer<void> receive(common::ipc::Packet& packet,
                                     std::chrono::milliseconds patience) const;
  common::Fd socket_;
};

class Keep {
 public:
  using Id = std::uint64_t;
  struct Events {
    std::function<void()> leave;  // Another broker takes over.
    // The keeper has died; `again`: another one has all of it now.
    std::function<void(bool again)> lost;
  };

  // A keeper of our own, which takes `door`: listen_for_brokers().
  [[nodiscard]] static Answer<std::unique_ptr<Keep>> start(EventLoop& loop, Jailer& jailer,
                                                           Listener door, Events events);
  // The one that was there, claimed.
  [[nodiscard]] static Answer<std::unique_ptr<Keep>> adopt(EventLoop& loop, Jailer& jailer,
                                                           KeeperLink link, const std::string& path,
                                                           Events events);
  // A thing that was there is ours from now on.
  void adopt_thing(const KeptThing& thing, std::span<const common::FdRef> fds);
  // The keeper's own.
  [[nodiscard]] Answer<void> adopt_keeper(KeptThing thing);
  // Waits until the keeper has let go of what was dropped.
  ~Keep();
  Keep(const Keep&) = delete;
  Keep& operator=(const Keep&) = delete;

  // The number of a group, or of a thing.
  [[nodiscard]] Id next_id() noexcept { return ++last_id_; }
  // False where it cannot be kept.
  [[nodiscard]] bool put(Id id, Id group, const KeptRecord& record,
                         std::span<const common::FdRef> fds);
  void update(Id id, const KeptRecord& record);
  void drop(Id id) noexcept;
  // Waits until the keeper has closed what was dropped.
  void settle() noexcept;
  // All that there is was put: other brokers may look at it from now on.
  void complete();

  // For the posture.
  [[nodiscard]] const Jailed* keeper() const noexcept {
    return keeper_.child.pidfd.valid() ? &keeper_ : nullptr;
  }

 private:
  // As it was put: another keeper may have to be told.
  struct Copy {
    Id group = 0;
    KeptRecord record;
    std::vector<common::FdRef> fds;  // Whoever has put them drops them first.
  };

  // One that dies whenever it is started is given up; one that has lived for long may die again.
  static constexpr int kRestarts = 5;
  static constexpr std::chrono::minutes kForgetAfter{1};

  Keep(EventLoop& loop, Jailer& jailer, Events events)
      : loop_(loop), jailer_(jailer), events_(std::move(events)) {}
  [[nodiscard]] Answer<void> start_keeper();
  [[nodiscard]] bool put_keeper();
  [[nodiscard]] Answer<void> watch();
  void on_packet();
  void on_lost();
  [[nodiscard]] bool send(Id id, const Copy& what, bool update);

  EventLoop& loop_;
  Jailer& jailer_;
  Events events_;
  common::Fd socket_;
  Listener door_;  // Without a descriptor: that is the keeper's.
  Jailed keeper_;
  Id last_id_ = 0;
  std::map<Id, Copy> copies_;
  int restarts_left_ = kRestarts;
  std::chrono::steady_clock::time_point since_{};  // We have this keeper.
  bool complete_ = false;
  bool given_up_ = false;  // There is no keeper, and there will be none.
  EventLoop::Registration watch_;
};

// Nothing where `keep` is null. A connection leads the group of its own number. An error is one of
// the keeper's.
[[nodiscard]] common::Result<Kept> keep_thing(Keep* keep, Keep::Id group, const KeptRecord& record,
                                              std::span<const common::FdRef> fds);

}  // namespace broker
