#include "broker/device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "broker/audit/device_events.h"
#include "broker/orphans.h"
#include "broker/text.h"
#include "common/addresses.h"
#include "common/sys.h"
#include "common/virtio_blk_wire.h"

namespace broker {
namespace {

// A VMM that restarts may connect again before we have heard that it is gone.
constexpr std::chrono::milliseconds kHoldTime{500};

// A VMM that connects again and again gets its turn, but no more often than its budget allows.
constexpr std::chrono::milliseconds kTooOften{250};

}  // namespace

common::Result<void> Device::open(std::function<void()> finished, std::vector<KeptThing> left) {
  finished_handler_ = std::move(finished);
  TRY(facts_.model.hooks->opens(world()));
  log_.record(audit::device_added(doorway_->describe()));
  log_.record(audit::backing_opened(facts_.model));
  if (!left.empty()) adopt_or_end(std::move(left));
  // What an earlier broker has left is as its VMM wanted it, who is gone.
  if (!connection_ && !backing_.state.empty()) facts_.model.hooks->vmm_gone();
  save_state();
  return doorway_->open(
      services_, log_, [this](Visitor visitor) { arrive(std::move(visitor)); },
      connection_ != nullptr);
}

DeviceHooks::World Device::world() {
  using Fds = std::span<const common::FdRef>;
  return {
      .loop = services_.loop,
      .say = [this](Level level, const std::string& text) { log_.write(level, text); },
      .config_changed =
          [this](std::span<const std::byte> config) {
            auto& now = facts_.model.session_start.config;
            std::memcpy(now.data(), config.data(), std::min(config.size(), now.size()));
            if (connection_) connection_->config_changed(config);
          },
      .state_changed = [this] { save_state(); },
      .keep_for_vmm =
          [this](const KeptRecord& record, Fds fds) {
            return keep_thing(facts_.keep, connection_ ? connection_->group() : 0, record, fds);
          },
      .keep_on =
          [this](const KeptThing& thing, Fds fds) {
            facts_.keep->adopt_thing(thing, fds);
            return Kept(facts_.keep, thing.id);
          },
  };
}

void Device::save_state() const {
  if (backing_.card == 0) return;
  facts_.keep->update(backing_.card,
                      make_card_record(facts_.name, facts_.uid, facts_.model.hooks->state()));
}

// Where it cannot go on under us, it ends before anybody else may write to the disk.
void Device::adopt_or_end(std::vector<KeptThing> left) {
  Orphans orphans;
  std::vector<Keep::Id> ids;
  std::vector<audit::Process> processes;
  for (const KeptThing& thing : left) {
    orphans.add(thing.role(), thing.fds);
    ids.push_back(thing.id);
    if (const auto process = process_in(thing.record)) processes.push_back(*process);
  }
  const auto adopted = adopt(std::move(left));
  if (adopted) return;
  log_.error(
      "what an earlier broker has left of it cannot be gone on with, and ends; its VMM has "
      "to connect again: " +
      std::string(adopted.error().what) + ": " + errno_text(adopted.error().os_errno));
  if (!orphans.end(kOrphanPatience)) log_.error("a process of it waits in the kernel for its disk");
  for (const audit::Process& each : processes) {
    log_.record(audit::process_ended(each, "ended", "its broker had died"));
  }
  for (const Keep::Id id : ids) services_.keep->drop(id);
}

// A worker without its session cannot be: the keeper holds it as long as any of its group.
common::Result<void> Device::adopt(std::vector<KeptThing> left) {
  const auto session = std::find_if(left.begin(), left.end(), [](const KeptThing& thing) {
    return thing.type() == KeptType::kConnection;
  });
  if (session == left.end()) return common::fail_errno("workers without their session", ESRCH);
  std::vector<KeptThing> workers;
  DeviceHooks::Left what;
  for (KeptThing& thing : left) {
    if (thing.group != session->group) continue;
    if (thing.type() == KeptType::kControl) {
      what.controls.push_back(std::move(thing));
    } else if (thing.type() == KeptType::kWorker) {
      what.queues.push_back({static_cast<std::uint32_t>(thing.record.numbers[1]),
                             static_cast<QueueRole>(thing.record.numbers[5])});
      workers.push_back(std::move(thing));
    }
  }
  peer_ = peer_of(session->fds[3].ref()).value_or(Peer{});
  const std::span<const std::uint8_t> state(backing_.state);
  what.state = std::as_bytes(state);
  TRY(facts_.model.hooks->vmm_back(what));
  for (const KeptThing& each : what.controls) {
    if (!each.fds.empty() && each.fds[0].valid()) services_.keep->drop(each.id);
  }
  TRY_LET(connection_, Connection::adopt(services_, facts_, log_, std::move(*session),
                                         std::move(workers), [this] { on_connection_ended(); }));
  return {};
}

void Device::arrive(Visitor visitor) {
  if (!connection_) return serve(std::move(visitor));
  held_ = std::move(visitor);
  held_timer_ = services_.loop.after(kHoldTime, [this] { held_long_enough(); });
}

// While workers of a VMM that is gone still finish their requests, the next one waits: two writers
// at once are what the disk's lock is there to prevent.
void Device::held_long_enough() {
  if (connection_->ending()) return;
  log_.warn("connection from " + held_->name + " refused: " + connection_->visitor_name() +
            " is being served, and a device serves one VMM at a time");
  log_.record(audit::vmm_came(audit::Kind::kVmmRefused, held_->peer, held_->command,
                              "another VMM is being served"));
  services_.closer.close(std::move(held_->socket));
  held_.reset();
  doorway_->next(true);
}

void Device::serve(Visitor visitor) {
  log_.info("connection from " + visitor.name);
  log_.record(audit::vmm_came(audit::Kind::kVmmConnected, visitor.peer, visitor.command));
  look_for_change();
  facts_.model.hooks->vmm_came(facts_.model.session_start);
  peer_ = visitor.peer;
  auto connection = common::Result<std::unique_ptr<Connection>>();
  // The session sends and waits as it likes; we never read from this socket.
  if (const auto blocking = common::set_nonblocking(visitor.socket.ref(), false); !blocking) {
    connection = common::fail(blocking.error());
  } else {
    connection = Connection::start(services_, facts_, log_, std::move(visitor),
                                   [this] { on_connection_ended(); });
  }
  if (connection) {
    connection_ = *std::move(connection);
    return doorway_->next(true);
  }
  facts_.model.hooks->vmm_gone();
  const std::string why =
      std::string(connection.error().what) + ": " + errno_text(connection.error().os_errno);
  log_.error("no session can be started: " + why);
  log_.record(audit::Event(audit::Kind::kSessionFailed).with(audit::Key::kCause, why));
  record_vmm_gone();
  next_or_finish();
}

void Device::record_vmm_gone() {
  log_.record(audit::Event(audit::Kind::kVmmDisconnected)
                  .with(audit::Key::kPid, static_cast<std::uint64_t>(std::max(peer_.pid, 0))));
}

void Device::on_connection_ended() {
  facts_.model.hooks->vmm_gone();
  record_vmm_gone();
  add_counters(past_counters_, connection_->counters());
  if (connection_->disk_os_errno() != 0) past_disk_os_errno_ = connection_->disk_os_errno();
  // Not destroyed here: this is called from its own handler.
  services_.loop.post([dead = std::shared_ptr<Connection>(std::move(connection_))] {});
  if (!stopping_ && held_) {
    held_timer_.reset();
    Visitor visitor = *std::exchange(held_, std::nullopt);
    return serve(std::move(visitor));
  }
  next_or_finish();
}

void Device::next_or_finish() {
  if (stopping_ || doorway_->used_up()) return finish();
  if (sessions_.take()) return doorway_->next(false);
  next_timer_ = services_.loop.after(kTooOften, [this] { next_or_finish(); });
}

void Device::let_nobody_in() {
  stopping_ = true;
  doorway_->close();
  held_timer_.reset();
  next_timer_.reset();
  if (held_) services_.closer.close(std::move(held_->socket));
  held_.reset();
}

void Device::stop(std::chrono::milliseconds patience) {
  let_nobody_in();
  if (connection_) return connection_->drain(patience);
  finish();
}

void Device::drain() {
  let_nobody_in();
  if (!connection_) finish();
}

void Device::finish() {
  if (std::exchange(finished_, true)) return;
  log_.trail().record_dropped();
  log_.record(audit::Event(audit::Kind::kDeviceRemoved));
  facts_.model.release();
  backing_ = {};
  // Whoever wants it next gets it: a block device is only free when the keeper has closed it, too.
  if (facts_.keep != nullptr) facts_.keep->settle();
  finished_handler_();
}

void Device::kill() {
  if (connection_) connection_->kill("the broker stops");
}

CounterTotals Device::counters() const {
  CounterTotals sum = past_counters_;
  if (connection_) add_counters(sum, connection_->counters());
  return sum;
}

std::uint64_t Device::capacity_bytes() const {
  if (facts_.model.kind != common::DeviceKind::kBlk) return 0;
  common::blk::WireConfig space;
  std::memcpy(&space, facts_.model.session_start.config.data(), sizeof(space));
  const std::uint64_t high = space.capacity_sectors_high.get();
  return (high << 32 | space.capacity_sectors_low.get()) * common::kSectorBytes;
}

void Device::list_processes(std::vector<Connection::Process>& list) const {
  if (connection_) connection_->list_processes(list);
}

std::string Device::stats_line(double seconds) {
  CounterTotals now = past_counters_;
  std::size_t workers = 0;
  if (connection_) {
    add_counters(now, connection_->counters());
    workers = connection_->worker_count();
  }
  const CounterTotals delta = counters_since(now, reported_counters_);
  reported_counters_ = now;
  if (workers == 0 && delta == CounterTotals{}) return {};
  return facts_.model.stats_line(delta, seconds, workers);
}

void Device::look_for_change() {
  if (connection_) connection_->look_for_stalls();
  const DeviceModel::Change change = facts_.model.look_for_change();
  if (change.text.empty()) return;
  log_.write(change.is_error ? Level::kError : Level::kInfo, change.text);
  log_.record(audit::Event(audit::Kind::kBackingChanged).with(audit::Key::kCause, change.text));
  if (!change.start) return;
  // What concerns the host alone stays as it is.
  auto& start = facts_.model.session_start;
  start.config = change.start->config;
  if (!connection_) return;
  connection_->config_changed(std::as_bytes(std::span(start.config).first(start.config_bytes)));
}

std::string Device::disk_errors_line() {
  constexpr auto kSlot = static_cast<std::size_t>(common::Counter::kDiskErrors);
  std::uint64_t now = past_counters_[kSlot];
  std::uint32_t os_errno = past_disk_os_errno_;
  if (connection_) {
    now += connection_->counters()[kSlot];
    os_errno = connection_->disk_os_errno();
  }
  const std::uint64_t before = std::exchange(reported_disk_errors_, now);
  if (now == before) return {};
  return format_disk_errors(now - before, os_errno);
}

}  // namespace broker
