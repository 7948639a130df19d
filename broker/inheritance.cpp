#include "broker/inheritance.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <thread>
#include <utility>

#include "broker/orphans.h"
#include "broker/settings.h"
#include "broker/text.h"

namespace broker {
namespace {

using common::fail;
using common::Fd;
using common::FdRef;

constexpr std::string_view kTakeoverSuffix = ".takeover";

// What has no device has a name all the same.
constexpr std::string_view kOperatorsName = "operators";

// Every broker of one configuration looks in the same place. The operator's socket is one, devices
// come and go.
std::string takeover_path(const BrokerConfig& config) {
  if (!config.keeps_orphans()) return {};
  if (!config.takeover_socket.empty()) return config.takeover_socket;
  const auto beside = [](const std::string& path) {
    const std::string found = path.empty() ? "" : path + std::string(kTakeoverSuffix);
    return found.size() <= kSocketPathBytesMax ? found : std::string();
  };
  if (std::string path = beside(config.control_socket.value_or("")); !path.empty()) return path;
  for (const DeviceConfig& device : config.devices) {
    if (std::string path = beside(device.socket_path); !path.empty()) return path;
  }
  return {};
}

Listener listener_in(const KeptRecord& record) {
  Listener listener;
  listener.path = record.text.data();
  listener.device = record.numbers[0];
  listener.inode = record.numbers[1];
  return listener;
}

// A second in all.
constexpr int kReleaseLooks = 50;
constexpr std::chrono::milliseconds kReleaseLook{20};

// Of what is unsound: as it says itself.
std::string name_in(const KeptRecord& record) {
  const auto end = std::find(record.device.begin(), record.device.end(), '\0');
  return clean_text(std::string(record.device.begin(), end));
}

bool is_listener(KeptType type) {
  return type == KeptType::kListener || type == KeptType::kOperators;
}

}  // namespace

Answer<Inheritance> Inheritance::find(const BrokerConfig& config,
                                      std::vector<std::string> devices) {
  Inheritance found;
  found.devices_ = std::move(devices);
  found.path_ = takeover_path(config);
  if (!found.path_.empty()) TRY(found.look());
  if (!config.take_over) TRY(found.wait_for_release());
  if (!found.link_.valid()) {
    if (!config.take_over) return found;
    return fail("there is nothing to take over: no broker keeps anything at " +
                in_quotes(found.path_) + "; start it without 'takeover'");
  }
  if (found.left_.owned && !config.take_over) {
    return fail("another broker serves this already (" + in_quotes(found.path_) +
                "); 'bulkhead takeover' before the same command takes its place, or stop it first");
  }
  found.owned_ = found.left_.owned;
  if (found.owned_) {
    TRY(found.refuse_what_is_lost());
    return found;
  }
  // Nobody serves, so nobody else is to begin.
  TRY(found.link_.claim(false));
  TRY(found.end_what_is_lost());
  return found;
}

// A process that was being started when the broker was killed holds that one's descriptors until it
// has a program of its own, and to the keeper it looks as if the broker lived.
Answer<void> Inheritance::wait_for_release() {
  for (int looks = 1; link_.valid() && left_.owned && looks < kReleaseLooks; ++looks) {
    std::this_thread::sleep_for(kReleaseLook);
    TRY(look());
  }
  return {};
}

// A keeper that has nothing to keep any more ends, and hangs up on whoever has just come; then
// there is none. One that hangs up again and again does not want us.
Answer<void> Inheritance::look() {
  constexpr int kAttempts = 3;
  for (int attempt = 1;; ++attempt) {
    TRY_LET(link_, KeeperLink::find(path_));
    if (!link_.valid()) return {};
    Answer<void> looked = read();
    if (looked || attempt == kAttempts) return looked;
  }
}

Answer<void> Inheritance::read() {
  TRY_LET(left_, link_.read_all());
  return {};
}

bool Inheritance::is_known(const KeptThing& thing) const {
  return !thing.is_of_device() ||
         std::find(devices_.begin(), devices_.end(), thing.device()) != devices_.end();
}

// Another broker serves it, and can go on doing so.
Answer<void> Inheritance::refuse_what_is_lost() const {
  for (const KeptThing& thing : left_.things) {
    if (is_known(thing)) continue;
    return fail("device " + in_quotes(thing.device()) +
                " is served and not configured any more; configure it, or end it first: take "
                "over with it, and stop that broker by SIGTERM");
  }
  if (!left_.unsound.empty()) return fail(left_.unsound.front().why);
  return {};
}

// Of a device that is not configured any more everything is lost. What is unsound takes along its
// connection, or, where it is of none, what it would have been.
void Inheritance::note_lost_groups() {
  for (const KeptThing& thing : left_.things) {
    if (is_known(thing)) continue;
    if (thing.group != 0) lost_groups_.insert(thing.group);
    const bool said = std::any_of(lost_.begin(), lost_.end(),
                                  [&](const Lost& each) { return each.device == thing.device(); });
    if (!said) lost_.push_back({thing.device(), "it is not configured any more"});
  }
  for (const KeeperLink::Unsound& each : left_.unsound) {
    if (each.group != 0) lost_groups_.insert(each.group);
    const auto same = std::find_if(
        left_.things.begin(), left_.things.end(),
        [&](const auto& thing) { return each.group != 0 && thing.group == each.group; });
    lost_.push_back({same == left_.things.end() ? name_in(each.record) : same->device(), each.why});
  }
  // Without its lock the disk cannot be gone on with.
  for (const KeptThing& thing : left_.things) {
    if (thing.type() != KeptType::kConnection || lost_groups_.contains(thing.group)) continue;
    if (find_backing(thing.device()) != nullptr) continue;
    lost_groups_.insert(thing.group);
    lost_.push_back({thing.device(), "its disk or tap was not kept"});
  }
}

// Nobody serves what is there: what ends here cannot go on by itself.
Answer<void> Inheritance::end_what_is_lost() {
  TRY(read());
  note_lost_groups();
  Orphans orphans;
  std::vector<Keep::Id> dropped;
  for (const KeptThing& thing : left_.things) {
    if (is_known(thing) && !lost_groups_.contains(thing.group)) continue;
    orphans.add(thing.role(), thing.fds);
    note_end(thing.record);
    dropped.push_back(thing.id);
    if (is_listener(thing.type())) remove_socket(listener_in(thing.record));
  }
  for (const KeeperLink::Unsound& each : left_.unsound) {
    orphans.add(each.role, each.fds);
    note_end(each.record);
    dropped.push_back(each.id);
  }
  if (dropped.empty()) return {};
  if (!orphans.end(kOrphanPatience)) {
    lost_.push_back({"",
                     "a process that has lost its broker does not end: it waits in the kernel "
                     "for its disk, and is left behind"});
  }
  for (const Keep::Id id : dropped) link_.drop(id);
  lost_groups_.clear();
  return read();
}

// Of what is unsound, as it said itself.
void Inheritance::note_end(const KeptRecord& record) {
  if (const auto process = process_in(record)) ended_.push_back({name_in(record), *process});
}

std::size_t Inheritance::process_count() const noexcept {
  return static_cast<std::size_t>(
      std::count_if(left_.things.begin(), left_.things.end(), [](const KeptThing& thing) {
        return thing.type() == KeptType::kConnection || thing.type() == KeptType::kWorker;
      }));
}

const KeptThing* Inheritance::find_thing(KeptType type, std::string_view name) const {
  const auto found = std::find_if(left_.things.begin(), left_.things.end(),
                                  [&](const KeptThing& each) { return each.is_of(type, name); });
  return found == left_.things.end() ? nullptr : &*found;
}

KeptThing* Inheritance::find_thing(KeptType type, std::string_view name) {
  return const_cast<KeptThing*>(std::as_const(*this).find_thing(type, name));
}

const KeptThing* Inheritance::find_backing(std::string_view name) const {
  const KeptThing* const disk = find_thing(KeptType::kDisk, name);
  return disk != nullptr ? disk : find_thing(KeptType::kCard, name);
}

std::vector<Fd> Inheritance::files_of(std::string_view name) {
  if (KeptThing* const disk = find_thing(KeptType::kDisk, name)) return std::move(disk->fds);
  std::vector<Fd> queues;
  for (KeptThing& thing : left_.things) {
    const bool next = thing.is_of(KeptType::kTap, name) && thing.record.numbers[0] == queues.size();
    if (next) std::move(thing.fds.begin(), thing.fds.end(), std::back_inserter(queues));
  }
  return queues;
}

std::optional<std::vector<std::uint8_t>> Inheritance::card_of(std::string_view name) const {
  const KeptThing* const left = find_thing(KeptType::kCard, name);
  if (left == nullptr) return std::nullopt;
  const auto& start = left->record.start;
  return std::vector<std::uint8_t>(start.config.begin(), start.config.begin() + start.config_bytes);
}

std::optional<std::uint32_t> Inheritance::uid_of(std::string_view name) {
  const KeptThing* const left = find_backing(name);
  if (left == nullptr) return std::nullopt;
  return static_cast<std::uint32_t>(left->record.numbers[0]);
}

std::vector<std::uint32_t> Inheritance::uids() const {
  std::vector<std::uint32_t> all;
  for (const KeptThing& thing : left_.things) {
    if (thing.type() != KeptType::kDisk && thing.type() != KeptType::kCard) continue;
    all.push_back(static_cast<std::uint32_t>(thing.record.numbers[0]));
  }
  return all;
}

std::optional<Listener> Inheritance::listener_of(const DeviceConfig& config) {
  return take_listener(KeptType::kListener, config.name, config.socket_path);
}

std::optional<Listener> Inheritance::operators_listener(const std::string& path) {
  return take_listener(KeptType::kOperators, kOperatorsName, path);
}

// Not where it is to listen elsewhere from now on.
std::optional<Listener> Inheritance::take_listener(KeptType type, std::string_view name,
                                                   const std::string& path) {
  KeptThing* const left = find_thing(type, name);
  if (left == nullptr || left->fds.empty() || path != left->record.text.data()) {
    return std::nullopt;
  }
  Listener listener = listener_in(left->record);
  listener.fd = std::move(left->fds[0]);
  left->fds.clear();
  return listener;
}

std::vector<KeptThing> Inheritance::connection_of(std::string_view name) {
  std::vector<KeptThing> found;
  for (KeptThing& thing : left_.things) {
    if (thing.group != 0 && thing.device() == name) found.push_back(std::move(thing));
  }
  return found;
}

Answer<void> Inheritance::open_door() {
  if (path_.empty() || link_.valid()) return {};
  auto door = listen_for_brokers(path_);
  if (!door) {
    path_.clear();
    return fail(door.error());
  }
  door_ = *std::move(door);
  return {};
}

Answer<void> Inheritance::make_way() {
  if (!left_.owned) return {};
  TRY(link_.claim(true));
  return end_what_is_lost();  // It may have changed until now.
}

Answer<std::unique_ptr<Keep>> Inheritance::take_over(EventLoop& loop, Jailer& jailer,
                                                     Keep::Events events) {
  TRY(make_way());
  TRY_LET(std::unique_ptr<Keep> keep,
          Keep::adopt(loop, jailer, std::move(link_), path_, std::move(events)));
  // Until somebody takes it, or done(): so that nothing new gets its number.
  for (const KeptThing& thing : left_.things) keep->adopt_thing(thing, {});
  for (KeptThing& thing : left_.things) {
    if (thing.type() != KeptType::kKeeper) continue;
    used_.insert(thing.id);
    TRY(keep->adopt_keeper(std::move(thing)));
    break;
  }
  return keep;
}

void Inheritance::done(Keep* keep) {
  Orphans orphans;  // Of devices that could not be served after all.
  for (const KeptThing& thing : left_.things) {
    if (thing.group == 0 || thing.fds.empty()) continue;
    orphans.add(thing.role(), thing.fds);
    note_end(thing.record);
  }
  if (!orphans.empty()) (void)orphans.end(kOrphanPatience);
  for (const KeptThing& thing : left_.things) {
    const bool adopted = thing.group != 0 && thing.fds.empty();  // By its device.
    if (keep == nullptr || adopted || used_.contains(thing.id)) continue;
    if (is_listener(thing.type())) remove_socket(listener_in(thing.record));
    keep->drop(thing.id);
  }
  left_ = {};
  used_.clear();
}

// By whatever version of a broker it was put there.
std::vector<KeptThing>::iterator Inheritance::find_same(const KeptRecord& record) {
  return std::find_if(left_.things.begin(), left_.things.end(), [&](const KeptThing& each) {
    KeptRecord other = each.record;
    other.ipc_version = record.ipc_version;
    other.ipc_oldest = record.ipc_oldest;
    return std::memcmp(&other, &record, sizeof(record)) == 0;
  });
}

std::optional<KeptThing> Inheritance::take(const KeptRecord& record) {
  const auto left = find_same(record);
  if (left == left_.things.end() || !used_.insert(left->id).second) return std::nullopt;
  return std::move(*left);
}

Halt Inheritance::halt_of(std::string_view name) const {
  const KeptThing* const left = find_thing(KeptType::kHalted, name);
  return left == nullptr ? Halt::kNone : static_cast<Halt>(left->record.numbers[0]);
}

bool Inheritance::is_served(std::string_view name) const {
  return std::any_of(left_.things.begin(), left_.things.end(), [&](const KeptThing& thing) {
    return thing.group != 0 && thing.device() == name;
  });
}

// What an earlier broker had put there is what we use, unless something is different now.
Answer<Kept> Inheritance::keep_one(Keep& keep, const KeptRecord& record,
                                   const std::vector<FdRef>& fds) {
  const auto left = find_same(record);
  if (left != left_.things.end()) {
    used_.insert(left->id);
    keep.adopt_thing(*left, fds);
    return Kept(&keep, left->id);
  }
  auto fresh = keep_thing(&keep, 0, record, fds);
  if (!fresh) {
    return fail("the keeper cannot hold what it serves (" + std::string(fresh.error().what) + ": " +
                errno_text(fresh.error().os_errno) +
                "); serve fewer devices, or start with --orphans=end");
  }
  return *std::move(fresh);
}

Answer<KeptBacking> Inheritance::keep_backing(Keep& keep, const DeviceFacts& facts) {
  if (facts.model.kind == common::DeviceKind::kNet) return keep_card(keep, facts);
  KeptRecord record = make_record(KeptType::kDisk, facts.name);
  record.numbers[0] = facts.uid;
  KeptBacking backing;
  TRY_LET(Kept disk, keep_one(keep, record, facts.model.files()));
  backing.things.push_back(std::move(disk));
  return backing;
}

// Its queues, as many at once as a message takes; and what it is, which will change.
Answer<KeptBacking> Inheritance::keep_card(Keep& keep, const DeviceFacts& facts) {
  KeptBacking backing;
  const std::vector<FdRef> queues = facts.model.files();
  for (std::size_t first = 0; first < queues.size(); first += common::ipc::kMessageFdsMax) {
    const std::size_t count = std::min(common::ipc::kMessageFdsMax, queues.size() - first);
    KeptRecord record = make_record(KeptType::kTap, facts.name);
    record.numbers[0] = first;
    const auto from = queues.begin() + static_cast<std::ptrdiff_t>(first);
    TRY_LET(Kept some, keep_one(keep, record, {from, from + static_cast<std::ptrdiff_t>(count)}));
    backing.things.push_back(std::move(some));
  }
  KeptRecord record = make_card_record(facts.name, facts.uid, facts.model.hooks->state());
  if (const KeptThing* const left = find_thing(KeptType::kCard, facts.name); left != nullptr) {
    record = left->record;  // Until its VMM goes on, or is gone.
    const auto& start = record.start;
    backing.state.assign(start.config.begin(), start.config.begin() + start.config_bytes);
  }
  TRY_LET(Kept card, keep_one(keep, record, {}));
  backing.card = card.id();
  backing.things.push_back(std::move(card));
  return backing;
}

Answer<Kept> Inheritance::keep_listener(Keep& keep, KeptType type, const std::string& name,
                                        const Listener& listener) {
  if (!listener.fd.valid()) return Kept();
  KeptRecord record = make_record(type, type == KeptType::kOperators ? kOperatorsName : name);
  record.numbers[0] = listener.device;
  record.numbers[1] = listener.inode;
  set_text(record, listener.path);
  return keep_one(keep, record, {listener.fd.ref()});
}

}  // namespace broker
