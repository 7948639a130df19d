#include "broker/help_text.h"

#include <string_view>

#include "broker/control/command.h"
#include "broker/settings.h"

namespace broker {
namespace {

constexpr std::size_t kHelpColumn = 32;

std::string setting_lines(Scope scope, DeviceKinds kinds = kForAll) {
  std::string lines;
  for (const Setting& setting : all_settings()) {
    if (setting.scope != scope || (setting.kinds & kinds) == 0) continue;
    std::string option = spelled(setting.name, Spelling::kCommandLine);
    if (!setting.value.empty()) option.append("=").append(setting.value);
    lines += option_line(option, setting.help);
  }
  return lines;
}

constexpr std::string_view kGeneral =
    R"(bulkhead serves virtio disks and network cards to virtual machines over vhost-user, with one
jailed process for every virtqueue.

  bulkhead blk --socket-path=PATH --blk-file=PATH [OPTION]...    serve one disk
  bulkhead net --socket-path=PATH --tap-name=NAME [OPTION]...    serve one network card
  bulkhead serve --config=FILE                                   serve what a TOML file lists
  bulkhead takeover COMMAND [OPTION]...                          take the place of a running broker
  bulkhead upgrade-workers --pid=N                               replace the workers of a broker
  bulkhead posture                                               show what jails running processes
)";

constexpr std::string_view kGeneralEnd =
    R"(  bulkhead doctor [--log=FILE]                                   explain what a log says
  bulkhead audit verify|explain FILE...                          check an audit log, or read it
  bulkhead --version | --help

'bulkhead COMMAND --help' lists the options of a command.
)";

constexpr std::string_view kBlkUsage =
    R"(Usage: bulkhead blk --socket-path=PATH --blk-file=PATH [OPTION]...
       bulkhead blk --fd=N --blk-file=PATH [OPTION]...
       bulkhead blk --print-capabilities

Serves one disk to one VMM at a time, in the foreground, until SIGTERM.

)";

constexpr std::string_view kBlkEnd = R"(
[ ] is what holds where the option is not given. Options may be written with '_' for '-', and as
'--option=VALUE' or '--option VALUE'; on and off also as true and false, yes and no, 1 and 0.

With QEMU, share the guest's memory (2G is its size here):
  qemu-system-x86_64 -m 2G -machine q35,memory-backend=mem \
    -object memory-backend-memfd,id=mem,size=2G,share=on \
    -chardev socket,id=vda,path=PATH -device vhost-user-blk-pci,chardev=vda,num-queues=4 ...
With Cloud Hypervisor:
  cloud-hypervisor --memory size=2G,shared=on --disk vhost_user=true,socket=PATH ...

Exit status: 0 after a clean stop, 1 where it could not start, 2 for wrong usage.
)";

constexpr std::string_view kNetUsage =
    R"(Usage: bulkhead net --socket-path=PATH --tap-name=NAME [OPTION]...
       bulkhead net --socket-path=PATH --tap-fd=N[,N] [OPTION]...
       bulkhead net --socket-path=PATH --macvtap=NAME [OPTION]...
       bulkhead net --print-capabilities

Serves one network card, connected to a tap, to one VMM at a time, in the foreground, until SIGTERM.

)";

constexpr std::string_view kNetEnd = R"(
[ ] is what holds where the option is not given. Options may be written with '_' for '-', and as
'--option=VALUE' or '--option VALUE'; on and off also as true and false, yes and no, 1 and 0.

Make a tap, as root:
  ip tuntap add dev tap0 mode tap multi_queue && ip link set tap0 up
With QEMU, share the guest's memory (2G is its size here):
  qemu-system-x86_64 -m 2G -machine q35,memory-backend=mem \
    -object memory-backend-memfd,id=mem,size=2G,share=on \
    -chardev socket,id=net0,path=PATH -netdev vhost-user,id=n0,chardev=net0,queues=2 \
    -device virtio-net-pci,netdev=n0,mq=on ...
With Cloud Hypervisor:
  cloud-hypervisor --memory size=2G,shared=on --net vhost_user=true,socket=PATH,num_queues=4 ...

Exit status: 0 after a clean stop, 1 where it could not start, 2 for wrong usage.
)";

constexpr std::string_view kServeUsage =
    R"(Usage: bulkhead serve --config=FILE [OPTION]...

Serves every device that FILE lists, in the foreground, until SIGTERM. FILE is TOML with one
[[device]] table for each:

  require_posture = "any"         # for the whole broker; also in a table [broker]

  [[device]]
  type = "blk"
  name = "vda"
  socket_path = "/run/bulkhead/vda.sock"
  blk_file = "/var/lib/images/vda.img"
  num_queues = 4
  read_only = false

  [[device]]
  type = "net"
  name = "eth0"
  socket_path = "/run/bulkhead/eth0.sock"
  tap_name = "tap0"

The keys are the options of 'bulkhead blk' and 'bulkhead net' with '_' for '-'. Paths that are not
absolute start from the working directory.

)";

constexpr std::string_view kServeEnd = R"(
These options override the file. SIGUSR1 prints the posture of every process; on SIGUSR2 the audit
log is opened anew, after it was moved away.

Exit status: 0 after a clean stop, 1 where it could not start, 2 where the usage or FILE is wrong.
)";

constexpr std::string_view kDoctorText =
    R"(Usage: journalctl -b | bulkhead doctor
       bulkhead doctor --log=FILE

Reads log lines and says in plain words why a guest does not get its device, and what to do: deaths
by seccomp, what AppArmor or SELinux denied, sockets that a VMM may not open, memory that is not
shared, layers of the jail that are missing. The lines may be those of Bulkhead, of the kernel, of
an audit log and of the VMM, all together.

  --log=FILE                    read these lines, not standard input; also - for that
  --help                        this text

Exit status: 0, 1 where FILE cannot be read, 2 for wrong usage.
)";

constexpr std::string_view kPostureText =
    R"(Usage: bulkhead posture [NAME]... [--json] [--control-socket=PATH] [--timeout-s=N]
       bulkhead posture --pid=N | --permissions

Shows what jails a broker, or only the sessions and workers of the devices that are named, or
process N and everything it started: read from the kernel's own view of them. Layers are enforced,
degraded or absent, and the reason stands beside them; what may not be looked at is unknown: then
run this as root.

  --control-socket=PATH         the operator's socket of the broker [/run/bulkhead/control.sock]
  --json                        for programs: one JSON object, bulkhead-status(8)
  --timeout-s=N                 give up a broker that has not answered for so many seconds [10]
  --pid=N                       the process
  --permissions                 print what each kind of process may do once it is sealed, as built
                                into this program: every system call, with the arguments checked
  --help                        this text

Exit status: 0, or 1 where there is no such process, device or broker, 2 for wrong usage.
)";

constexpr std::string_view kAuditText =
    R"(Usage: bulkhead audit verify [--head=EVENT:HASH] FILE...
       bulkhead audit explain [EVENT] [FILE...]

verify says whether the lines of an audit log (--audit-log) are all there, unchanged and in order:
each has a number and the hash of the one before. Name all its files, rotated ones too, in any
order; - is standard input, for compressed ones and for the journal:

  journalctl BULKHEAD_AUDIT=1 -o cat --output-fields=BULKHEAD_JSON | bulkhead audit verify -

A chain of hashes shows what was changed by somebody who does not write all of it anew, or cut off
its end. The broker says the head of the chain in its own log when it starts and when it ends: keep
that log elsewhere, and give the head to verify.

explain says in words what the events of a log are: one by its number, or all; without a FILE those
on standard input.

  --head=EVENT:HASH             verify: this event must be among them
  --help                        this text

Exit status: 0; 1 where the log is not whole, or has no such event; 2 where the usage is wrong or a
file cannot be read.
)";

constexpr std::string_view kTakeoverText =
    R"(Usage: bulkhead takeover blk|net|serve OPTION...

Takes the place of a running broker that was started with the same command and options: a new
version of Bulkhead, or another configuration of the same devices. Sessions and workers go on, and
no I/O stops. The running broker leaves once the new one is ready, and stays where that fails.

A broker that was killed needs no 'takeover': whoever starts it again goes on with what it has left.
Both need --orphans=keep, and the same user.

Exit status: as of the command.
)";

constexpr std::string_view kUpgradeText =
    R"(Usage: bulkhead upgrade-workers --pid=N

Has broker N replace its workers, one queue of each device after the other, while they serve: after
'bulkhead takeover' by a new version the old workers go on until their queues are started anew. Each
queue pauses for some milliseconds, as where a worker dies. Sessions are replaced when their VMMs
connect again.

  --pid=N                       the broker
  --help                        this text

Exit status: 0 once the broker was told, 1 where N is no broker or another user's.
)";

std::string device_help(std::string_view usage, DeviceKinds kinds, std::string_view end) {
  return std::string(usage) + "The device:\n" + setting_lines(Scope::kDevice, kinds) +
         "\nThe broker:\n" + setting_lines(Scope::kBroker) + "\nOther:\n" +
         option_line("--print-capabilities", "print what this back-end can do as JSON, and exit") +
         option_line("--help", "this text") + std::string(end);
}

}  // namespace

std::string option_line(std::string_view option, std::string_view help) {
  std::string line = "  ";
  line += option;
  if (line.size() + 2 > kHelpColumn) line.append("\n").append(kHelpColumn, ' ');
  if (line.size() < kHelpColumn) line.resize(kHelpColumn, ' ');
  return line + std::string(help) + "\n";
}

std::string general_help() {
  return std::string(kGeneral) + control::operator_summaries() + std::string(kGeneralEnd);
}

std::string device_options_help() { return setting_lines(Scope::kDevice); }

std::string blk_help() { return device_help(kBlkUsage, kForBlk, kBlkEnd); }

std::string net_help() { return device_help(kNetUsage, kForNet, kNetEnd); }

std::string serve_help() {
  return std::string(kServeUsage) + "Options:\n" +
         option_line("--config=FILE", "the configuration file") + setting_lines(Scope::kBroker) +
         option_line("--help", "this text") + std::string(kServeEnd);
}

std::string doctor_help() { return std::string(kDoctorText); }
std::string takeover_help() { return std::string(kTakeoverText); }

std::string upgrade_help() { return std::string(kUpgradeText); }

std::string posture_help() { return std::string(kPostureText); }

std::string audit_help() { return std::string(kAuditText); }

}  // namespace broker
