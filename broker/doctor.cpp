#include "broker/doctor.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "broker/audit_reader.h"
#include "broker/death.h"
#include "broker/text.h"

namespace broker {
namespace {

bool has(std::string_view line, std::string_view part) {
  return line.find(part) != std::string_view::npos;
}

// The text after `start`, up to the first of `ends` or the end of the line.
std::string between(std::string_view line, std::string_view start, std::string_view ends) {
  const std::size_t at = line.find(start);
  if (at == std::string_view::npos) return "";
  const std::string_view rest = line.substr(at + start.size());
  return clean_text(rest.substr(0, rest.find_first_of(ends)));
}

// name="value" or name=value, as audit records have them.
std::string field(std::string_view line, const std::string& name) {
  const std::string quoted = between(line, " " + name + "=\"", "\"");
  return quoted.empty() ? between(line, " " + name + "=", " \"") : quoted;
}

// --- the kernel's records ------------------------------------------------------------------------

// Our own line about the same death names the queue as well; this is for hosts where it is lost.
std::optional<Finding> seccomp_record(std::string_view line) {
  if (!has(line, "type=1326") && !has(line, "type=SECCOMP")) return std::nullopt;
  const std::string program = field(line, "comm");
  if (!program.starts_with("bulkhead")) return std::nullopt;
  if (const auto kill = parse_seccomp_record(line)) {
    // As the kernel cuts it off.
    const std::string suspects = program == "bulkhead-export"
                                     ? "whoever can reach its port may be trying something: keep "
                                     : "a guest or VMM may be trying something: keep the guest's "
                                       "disk and ";
    return Finding{program + " was " + describe_kill(*kill),
                   suspects +
                       "the log. If it comes with every start, this is another C library "
                       "or kernel than Bulkhead was built for: report it with this line"};
  }
  return Finding{program + " was refused system call number " + field(line, "syscall") +
                     " by the broker's own list",
                 "serving goes on without what it was for; report it with this line"};
}

std::optional<Finding> apparmor_denial(std::string_view line) {
  if (!has(line, "apparmor=\"DENIED\"")) return std::nullopt;
  const std::string profile = field(line, "profile");
  const std::string name = field(line, "name");
  const std::string of_what = name.empty() ? field(line, "operation") : name;
  const bool ours = profile.starts_with("bulkhead");
  if (!ours && !has(line, "bulkhead")) return std::nullopt;
  if (ours) {
    return Finding{
        "AppArmor kept " + profile + " from " + field(line, "operation") + " of " + of_what,
        "let it in /etc/apparmor.d/local/" + profile +
            (name.empty()
                 ? ""
                 : " with the line '" + name + " " + field(line, "requested_mask") + ",'") +
            ", then: systemctl reload apparmor"};
  }
  return Finding{
      "AppArmor kept a VMM (" + profile + ") from " + field(line, "operation") + " of " + of_what,
      "put 'include <abstractions/bulkhead-vmm>' into the VMM's profile"};
}

std::optional<Finding> selinux_denial(std::string_view line) {
  // Before that the journal names the host, which may be called anything.
  const std::size_t begin = line.find("avc:");
  if (begin == line.npos) return std::nullopt;
  line.remove_prefix(begin);
  if (!has(line, "denied") || !has(line, "bulkhead")) return std::nullopt;
  const std::string act = between(line, "{ ", "}");
  const std::string source = field(line, "scontext");
  const std::string target = field(line, "tcontext");
  const std::string what = "SELinux kept " + source + " from { " + act + "} of " + target + " (" +
                           field(line, "tclass") + ")";
  if (!has(source, "bulkhead")) {
    return Finding{what,
                   "a VMM outside svirt_t connects by the interface bulkhead_serve(DOMAIN) of "
                   "the bulkhead module"};
  }
  return Finding{what,
                 "give the image or socket its label (restorecon -v PATH; images in "
                 "/var/lib/bulkhead have one), or see ausearch -m avc | audit2why"};
}

// --- our own lines -------------------------------------------------------------------------------

std::optional<Finding> missing_layers(std::string_view line) {
  if (!has(line, "posture: ") || !has(line, "layers enforced; ")) return std::nullopt;
  return Finding{"the jail lacks layers: " + between(line, "layers enforced; ", ""),
                 "the guest is served all the same; 'bulkhead posture --pid=N' says why each is "
                 "missing, and --require-posture=strict refuses to start without them"};
}

struct Known {
  std::string_view part;  // Of a line.
  std::string_view what;
  std::string_view remedy;
};

constexpr Known kKnown[] = {
    {"posture is below strict", "the broker refused to start: a layer of the jail is missing",
     "the line names each layer and what gives it; --require-posture=any serves without it"},
    {"guest's memory must be shared", "the VMM does not share the guest's memory",
     "QEMU: -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem; "
     "Cloud Hypervisor: --memory size=SIZE,shared=on; libvirt: <memoryBacking><source "
     "type='memfd'/><access mode='shared'/></memoryBacking>"},
    {"guest's memory is not shared", "the VMM does not share the guest's memory",
     "QEMU: -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem; "
     "Cloud Hypervisor: --memory size=SIZE,shared=on; libvirt: <memoryBacking><source "
     "type='memfd'/><access mode='shared'/></memoryBacking>"},
    {"is not among those of --allow-uid", "a VMM of a user who is not listed was turned away",
     "add its uid to --allow-uid, or start the VMM as a user who is"},
    {"killed by seccomp", "a process did what its jail forbids, and was killed",
     "a guest or VMM may be trying something: keep the guest's disk and the log. The queue stays "
     "stopped until the guest resets the device (--on-worker-violation)"},
    {"cannot make socket", "the broker could not make a socket",
     "give it a directory that its user may write to, or another --socket-path"},
    {"cannot open", "the broker could not open a file",
     "the line says which and why; the image must belong to, or be writable for, its user"},
    {"it is locked", "an image is in use by another process",
     "stop that process; an image can be served by one broker only"},
};

std::optional<Finding> own_line(std::string_view line) {
  if (auto layers = missing_layers(line)) return layers;
  const auto* const known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                         [&](const Known& each) { return has(line, each.part); });
  if (known == std::end(kKnown)) return std::nullopt;
  return Finding{std::string(known->what) + ": " + clean_text(line), std::string(known->remedy)};
}

// --- the VMM's -----------------------------------------------------------------------------------

std::optional<Finding> vmm_line(std::string_view line) {
  const bool connecting = has(line, "Failed to connect") || has(line, "failed to connect");
  if (!connecting || !has(line, ".sock")) return std::nullopt;
  if (has(line, "Permission denied")) {
    return Finding{
        "the VMM may not open the socket: " + clean_text(line),
        "give it to the VMM's group: --socket-group=GROUP (with --socket-mode=0660), and "
        "let that group enter the directory"};
  }
  if (has(line, "No such file") || has(line, "Connection refused")) {
    return Finding{"nobody listens where the VMM connects to: " + clean_text(line),
                   "start Bulkhead first (systemctl status bulkhead), and compare the paths"};
  }
  return std::nullopt;
}

}  // namespace

std::optional<Finding> explain_line(std::string_view line) {
  for (const auto explain : {seccomp_record, apparmor_denial, selinux_denial, vmm_line, own_line}) {
    if (auto finding = explain(line)) return finding;
  }
  return std::nullopt;
}

std::vector<Finding> explain_lines(std::istream& lines) {
  std::vector<Finding> findings;
  for (std::string line; std::getline(lines, line);) {
    auto found = explain_line(line);
    if (!found) continue;
    const auto same = std::find_if(findings.begin(), findings.end(), [&](const Finding& each) {
      return each.remedy == found->remedy && each.what == found->what;
    });
    if (same != findings.end()) {
      ++same->lines;
    } else if (findings.size() < kFindingsMax) {
      findings.push_back(*std::move(found));
    }
  }
  return findings;
}

std::string findings_text(const std::vector<Finding>& findings) {
  if (findings.empty()) {
    return "Nothing in these lines says why a guest would not get its device.\n"
           "Look at what jails the processes: bulkhead posture --pid=$(pidof bulkhead)\n";
  }
  std::string text;
  for (const Finding& each : findings) {
    if (!text.empty()) text += "\n";
    text +=
        each.what + (each.lines == 1 ? "" : " (" + std::to_string(each.lines) + " times)") + ".\n";
    text += "  -> " + each.remedy + ".\n";
  }
  return text;
}

int run_doctor(const std::string& path) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file) {
      std::fprintf(stderr, "bulkhead: cannot read %s: %s; give a file that this user may read\n",
                   in_quotes(path).c_str(), errno_text(errno).c_str());
      return 1;
    }
  }
  const std::string text = findings_text(explain_lines(path == "-" ? std::cin : file));
  const bool written = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  return written ? 0 : 1;
}

}  // namespace broker
