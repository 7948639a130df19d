#include "broker/audit/event.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace broker::audit {
namespace {

struct KindRow {
  Kind kind;
  std::string_view name;
  Ruling ruling;
  bool by_peer;
  std::string_view sentence;
};

constexpr auto kNoted = Ruling::kNoted;
constexpr auto kGranted = Ruling::kGranted;
constexpr auto kRefused = Ruling::kRefused;

constexpr KindRow kKinds[] = {
    {Kind::kAuditOpened, "audit-opened", kNoted, false,
     "the audit log was opened ({sink}, schema {schema})[; the event before it had been cut off "
     "after {torn_bytes} bytes]"},
    {Kind::kBrokerStarted, "broker-started", kNoted, false,
     "the broker started: version {version}, pid {pid}, uid {uid}"},
    {Kind::kBrokerStopped, "broker-stopped", kNoted, false, "the broker ended[: {cause}]"},
    {Kind::kBrokerTookOver, "broker-took-over", kNoted, false,
     "the broker with pid {pid} goes on with {count} processes of another, {cause}"},
    {Kind::kBrokerLeft, "broker-left", kNoted, false,
     "the broker with pid {pid} left what it served to the next one: {cause}"},
    {Kind::kProcessAdopted, "process-adopted", kNoted, false,
     "the {role} with pid {pid} of device {device}[ of VM {vm}][, queue {queue},] goes on under "
     "this broker"},
    {Kind::kEventsDropped, "events-dropped", kNoted, false,
     "{count} more events '{kind}'[ of device {device}] were left out: there were too many a "
     "second"},
    {Kind::kEventsLost, "events-lost", kNoted, false,
     "{count} events before this one are lost[: {cause}]"},
    {Kind::kPostureRefused, "posture-refused", kRefused, false,
     "[the {role} of ][device {device} was refused]: its jail is not what is required: {cause}"},
    {Kind::kDeviceAdded, "device-added", kGranted, false,
     "device {device} ({type})[ of VM {vm}][ ({uuid})][ of tenant {tenant}] is offered[, "
     "{socket}]"},
    {Kind::kDeviceRefused, "device-refused", kRefused, false,
     "device {device} ({type})[ of VM {vm}] was not offered: {cause}"},
    {Kind::kDeviceRemoved, "device-removed", kNoted, false,
     "device {device}[ of VM {vm}] is not offered any more"},
    {Kind::kBackingOpened, "backing-opened", kGranted, false,
     "{path} was opened for device {device}[ of VM {vm}][, {access}][: interface {interface}][: "
     "inode {inode}][ on device "
     "{dev}][, itself device {rdev}][, MAC {mac}]"},
    {Kind::kBackingChanged, "backing-changed", kNoted, false,
     "what device {device}[ of VM {vm}] serves has changed: {cause}"},
    {Kind::kLimitChanged, "limit-changed", kGranted, false,
     "the limit {limit}[ of device {device}][ of tenant {tenant}] was changed[ from {old}] to "
     "{new}"},
    {Kind::kOperatorRequest, "operator-request", kGranted, false,
     "an operator (uid {uid}, gid {gid}, pid {pid}[, {comm}]) had '{command}' done[ to device "
     "{device}]"},
    {Kind::kOperatorRefused, "operator-refused", kRefused, true,
     "somebody (uid {uid}, gid {gid}, pid {pid}[, {comm}]) was refused '{command}'[ of device "
     "{device}]: {cause}"},
    {Kind::kVmmConnected, "vmm-connected", kGranted, true,
     "the VMM with pid {pid}[ ({comm})], uid {uid}, gid {gid}[, label {label}] was let in to "
     "device {device}[ of VM {vm}]"},
    {Kind::kVmmRefused, "vmm-refused", kRefused, true,
     "a process[ with pid {pid}][ ({comm})][, uid {uid}][, gid {gid}][, label {label}] was turned "
     "away from device {device}[ of VM {vm}]: {cause}"},
    {Kind::kVmmDisconnected, "vmm-disconnected", kNoted, true,
     "the VMM with pid {pid} has left device {device}[ of VM {vm}], and nothing of its session is "
     "left"},
    {Kind::kVmmViolation, "vmm-violation", kRefused, true,
     "the VMM of device {device}[ of VM {vm}] broke the vhost-user protocol: {cause}"},
    {Kind::kSessionStarted, "session-started", kNoted, true,
     "a session was started for device {device}[ of VM {vm}]: pid {pid}, uid {uid}, seccomp filter "
     "{filter}"},
    {Kind::kSessionFailed, "session-failed", kNoted, true,
     "no session could be started for device {device}[ of VM {vm}]: {cause}"},
    {Kind::kSessionEnded, "session-ended", kNoted, true,
     "the session with pid {pid} of device {device}[ of VM {vm}] ended ({outcome})[: {cause}]"},
    {Kind::kWorkerStarted, "worker-started", kNoted, true,
     "a worker was started for queue {queue} of device {device}[ of VM {vm}]: pid {pid}, uid "
     "{uid}, engine {engine}, seccomp filter {filter}"},
    {Kind::kWorkerFailed, "worker-failed", kNoted, true,
     "no worker could be started for queue {queue} of device {device}[ of VM {vm}]: {cause}"},
    {Kind::kWorkerEnded, "worker-ended", kNoted, true,
     "the worker with pid {pid} of queue {queue} of device {device}[ of VM {vm}] ended "
     "({outcome})[: {cause}]"},
    {Kind::kWorkerRestarted, "worker-restarted", kNoted, true,
     "queue {queue} of device {device}[ of VM {vm}] is served again, {ms} ms after its worker "
     "died"},
    {Kind::kProcessJailed, "process-jailed", kNoted, true,
     "the {role} with pid {pid} of device {device}[ of VM {vm}][, queue {queue},] is jailed: "
     "{enforced} layers enforced[; degraded: {degraded}][; absent: {absent}]"},
    {Kind::kPolicyViolation, "policy-violation", kRefused, true,
     "the {role} with pid {pid} of device {device}[ of VM {vm}][, queue {queue},] did what it must "
     "not: {cause}"},
    {Kind::kQueueGivenUp, "queue-given-up", kNoted, true,
     "queue {queue} of device {device}[ of VM {vm}] is not served any more: {cause}"},
};
static_assert(std::size(kKinds) == kKindCount);

constexpr std::string_view kKeys[] = {
    "device",     "type",   "vm",       "uuid",     "tenant",    "schema",  "version", "sink",
    "torn_bytes", "pid",    "uid",      "gid",      "comm",      "label",   "socket",  "path",
    "inode",      "dev",    "rdev",     "access",   "interface", "mac",     "role",    "queue",
    "engine",     "filter", "enforced", "degraded", "absent",    "outcome", "cause",   "ms",
    "limit",      "old",    "new",      "command",  "kind",      "count",
};
static_assert(std::size(kKeys) == kKeyCount);

const KindRow& row_of(Kind kind) noexcept { return kKinds[static_cast<std::size_t>(kind)]; }

constexpr bool rows_in_order() {
  for (std::size_t i = 0; i < kKindCount; ++i) {
    if (static_cast<std::size_t>(kKinds[i].kind) != i) return false;
  }
  return true;
}
static_assert(rows_in_order());

}  // namespace

std::string_view name_of(Kind kind) noexcept { return row_of(kind).name; }
Ruling ruling_of(Kind kind) noexcept { return row_of(kind).ruling; }
bool by_peer(Kind kind) noexcept { return row_of(kind).by_peer; }
std::string_view sentence_of(Kind kind) noexcept { return row_of(kind).sentence; }

std::string_view name_of(Ruling ruling) noexcept {
  switch (ruling) {
    case Ruling::kNoted:
      return "noted";
    case Ruling::kGranted:
      return "granted";
    case Ruling::kRefused:
      return "refused";
  }
  return "noted";
}

std::optional<Kind> kind_named(std::string_view name) noexcept {
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                   [name](const KindRow& row) { return row.name == name; });
  if (found == std::end(kKinds)) return std::nullopt;
  return found->kind;
}

std::string_view name_of(Key key) noexcept { return kKeys[static_cast<std::size_t>(key)]; }

void Event::add(Key key, std::string_view text) {
  if (text.empty()) return;
  const std::size_t most = key == Key::kPath ? kPathBytesMax : kTextBytesMax;
  std::string kept(text.substr(0, most));
  if (text.size() > most) kept.replace(most - kCut.size(), kCut.size(), kCut);
  fields_.push_back({key, false, std::move(kept)});
}

void Event::add(Key key, std::uint64_t number) {
  fields_.push_back({key, true, std::to_string(number)});
}

Event&& Event::with(Key key, std::string_view text) && {
  add(key, text);
  return std::move(*this);
}

Event&& Event::with(Key key, std::uint64_t number) && {
  add(key, number);
  return std::move(*this);
}

Event&& Event::with(Key key, const Digest& digest) && {
  return std::move(*this).with(key, std::string_view(hex(digest)));
}

void Event::about(const Subject& subject) {
  Event first(kind_);
  first.add(Key::kDevice, subject.device);
  first.add(Key::kType, subject.type);
  first.add(Key::kVm, subject.vm);
  first.add(Key::kUuid, subject.uuid);
  first.add(Key::kTenant, subject.tenant);
  fields_.insert(fields_.begin(), std::make_move_iterator(first.fields_.begin()),
                 std::make_move_iterator(first.fields_.end()));
}

Event about(const Subject& subject, Event event) {
  event.about(subject);
  return event;
}

std::string_view Event::value(Key key) const noexcept {
  const auto found = std::find_if(fields_.begin(), fields_.end(),
                                  [key](const Field& field) { return field.key == key; });
  return found == fields_.end() ? std::string_view() : std::string_view(found->text);
}

std::string device_number_text(std::uint64_t device) {
  return std::to_string(gnu_dev_major(device)) + ":" + std::to_string(gnu_dev_minor(device));
}

}  // namespace broker::audit
