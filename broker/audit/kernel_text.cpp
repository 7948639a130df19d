#include "broker/audit/kernel_text.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <system_error>
#include <utility>

namespace broker::audit {
namespace {

// In hexadecimal it is twice as long, and a record holds 8970 bytes.
constexpr std::size_t kValueBytesMax = 2048;

std::string_view or_unknown(std::string_view text) { return text.empty() ? "?" : text; }

bool needs_hex(char character) {
  return character <= ' ' || character == '"' || character == '\'' || character > '~';
}

// As it is where it can be, since libvirt does not quote these.
std::string bare(std::string_view name, std::string_view value) {
  const bool plain = std::none_of(value.begin(), value.end(), needs_hex);
  return plain ? std::string(name) + "=" + std::string(or_unknown(value)) : nv_string(name, value);
}

std::string virt() { return "virt=vhost-user"; }

// A device without a VM's name goes by its own.
std::string machine(const Event& event) {
  const std::string_view vm = event.value(Key::kVm);
  return nv_string("vm", vm.empty() ? or_unknown(event.value(Key::kDevice)) : vm) + " " +
         bare("uuid", event.value(Key::kUuid));
}

bool is_net(const Event& event) { return event.value(Key::kType) == "net"; }

std::string change(const Event& event, bool attach) {
  const char* name = is_net(event) ? "net" : "disk";
  const std::string_view thing = event.value(is_net(event) ? Key::kMac : Key::kPath);
  const auto one = [&](const char* which, std::string_view value) {
    const std::string field = std::string(which) + "-" + name;
    return is_net(event) ? bare(field, value) : nv_string(field, or_unknown(value));
  };
  return one("old", attach ? "" : thing) + " " + one("new", attach ? thing : "");
}

KernelRecord resource(const Event& event, bool attach) {
  return {RecordType::kVirtResource,
          virt() + " resrc=" + (is_net(event) ? "net" : "disk") + " reason=" +
              (attach ? "attach" : "detach") + " " + machine(event) + " " + change(event, attach),
          ruling_of(event.kind()) != Ruling::kRefused};
}

// SELinux labels have four parts.
std::string_view model_of(std::string_view label) {
  return std::count(label.begin(), label.end(), ':') >= 3 ? "selinux" : "apparmor";
}

KernelRecord machine_id(const Event& event) {
  const std::string_view label = event.value(Key::kLabel);
  return {RecordType::kVirtMachineId,
          virt() + " " + machine(event) + " " + bare("vm-ctx", label) +
              " img-ctx=? model=" + std::string(model_of(label)),
          true};
}

KernelRecord control(const Event& event, bool start) {
  return {RecordType::kVirtControl,
          virt() + " op=" + (start ? "start reason=connected " : "stop reason=disconnected ") +
              machine(event) + " " + bare("vm-pid", event.value(Key::kPid)),
          true};
}

std::vector<KernelRecord> connected(const Event& event, VmTurn turn) {
  std::vector<KernelRecord> records;
  const bool first = turn == VmTurn::kFirstDevice;
  if (first && !event.value(Key::kLabel).empty()) records.push_back(machine_id(event));
  records.push_back(resource(event, true));
  if (first) records.push_back(control(event, true));
  return records;
}

std::vector<KernelRecord> disconnected(const Event& event, VmTurn turn) {
  std::vector<KernelRecord> records = {resource(event, false)};
  if (turn == VmTurn::kLastDevice) records.push_back(control(event, false));
  return records;
}

// "8:16" in libvirt's hexadecimal: "08:10".
std::string rdev(std::string_view text) {
  unsigned major = 0;
  unsigned minor = 0;
  const char* const end = text.data() + text.size();
  const auto [colon, bad_major] = std::from_chars(text.data(), end, major);
  if (bad_major != std::errc() || colon == end || *colon != ':') return "rdev=?";
  const auto [behind, bad_minor] = std::from_chars(colon + 1, end, minor);
  if (bad_minor != std::errc() || behind != end) return "rdev=?";
  char out[32];
  std::snprintf(out, sizeof(out), "rdev=%02X:%02X", major, minor);
  return out;
}

KernelRecord opened(const Event& event) {
  const std::string mac = is_net(event) ? bare("net", event.value(Key::kMac)) + " " : "";
  return {RecordType::kVirtResource,
          virt() + " resrc=" + (is_net(event) ? "net" : "disk") + " reason=open " + machine(event) +
              " " + mac +
              nv_string("path", or_unknown(event.value(Key::kPath).substr(0, kValueBytesMax))) +
              " " + rdev(event.value(Key::kRdev)),
          true};
}

// --- what libvirt has no form for ----------------------------------------------------------------

// The kernel writes pid= and uid= of the broker itself before ours.
std::string field_name(Key key, Kind kind) {
  const bool is_ours = kind >= Kind::kSessionStarted;
  switch (key) {
    case Key::kPid:
      return is_ours ? "child-pid" : "peer-pid";
    case Key::kUid:
      return is_ours ? "child-uid" : "peer-uid";
    case Key::kGid:
      return "peer-gid";
    case Key::kComm:
      return "peer-comm";
    default: {
      std::string name(name_of(key));
      std::replace(name.begin(), name.end(), '_', '-');
      return name;
    }
  }
}

std::string own_fields(const Event& event) {
  std::string text;
  for (const Event::Field& field : event.fields()) {
    if (field.key == Key::kVm || field.key == Key::kUuid) continue;
    const std::string name = field_name(field.key, event.kind());
    const std::string_view value = std::string_view(field.text).substr(0, kValueBytesMax);
    text += " " + (field.number ? bare(name, value) : nv_string(name, value));
  }
  return text;
}

KernelRecord in_own_form(const Event& event) {
  const bool success = ruling_of(event.kind()) != Ruling::kRefused;
  const std::string name(name_of(event.kind()));
  if (event.kind() == Kind::kOperatorRequest || event.kind() == Kind::kOperatorRefused) {
    return {RecordType::kUsysConfig, "op=" + name + own_fields(event), success};
  }
  if (event.value(Key::kDevice).empty()) {
    return {RecordType::kTrustedApp, "op=" + name + own_fields(event), success};
  }
  return {RecordType::kVirtResource,
          virt() + " resrc=vhost-user reason=" + name + " " + machine(event) + own_fields(event),
          success};
}

}  // namespace

std::vector<KernelRecord> kernel_records(const Event& event, VmTurn turn) {
  switch (event.kind()) {
    case Kind::kVmmConnected:
      return connected(event, turn);
    case Kind::kVmmDisconnected:
      return disconnected(event, turn);
    case Kind::kVmmRefused:
      return {resource(event, true)};
    case Kind::kBackingOpened:
      return {opened(event)};
    default:
      return {in_own_form(event)};
  }
}

std::string nv_string(std::string_view name, std::string_view value) {
  std::string text = std::string(name) + "=";
  if (std::none_of(value.begin(), value.end(), needs_hex)) {
    return text + "\"" + std::string(value) + "\"";
  }
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (const char character : value) {
    text += kDigits[static_cast<unsigned char>(character) >> 4];
    text += kDigits[static_cast<unsigned char>(character) & 15];
  }
  return text;
}

}  // namespace broker::audit
