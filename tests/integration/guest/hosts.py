"""What Bulkhead makes of hosts that refuse it something: each row of README.md's table of hosts is
found out on such a host, a guest (host_kit.py), and compared.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import host_kit

HERE = Path(__file__).resolve().parent
README = HERE.parents[2] / "README.md"
PROGRAMS = ("bulkhead", "bulkhead-keeper", "bulkhead-session", "bulkhead-worker-blk",
            "bulkhead-worker-net", "bulkhead-bench", "integration")
# Requests whose data is checked, with the engine that is chosen by itself.
TESTS = "Connection.NextVmmIsServedAfterTheFirstHasGone"


class HostError(Exception):
    """What was expected of Bulkhead on that host, and what was found."""


@dataclass(frozen=True)
class Host:
    title: str  # As the table says it.
    kernel: str = "newer"
    options: str = ""  # The kernel's command line.
    setup: str = ""  # Shell commands before Bulkhead is started.
    later: str = ""  # A sysctl that is 2 for a while; the next VMM is served all the same.


LSMS = "lockdown,yama,integrity,apparmor,bpf"
HOSTS = {
    "stock": Host("Debian 12: Linux 6.1", "stock"),
    "newer": Host("Debian 12's newer kernel: Linux 6.12",
                  later="kernel.io_uring_disabled"),
    "io_uring_1": Host("6.12, `kernel.io_uring_disabled=1`",
                       setup="sysctl -w kernel.io_uring_disabled=1"),
    "io_uring_2": Host("6.12, `kernel.io_uring_disabled=2`",
                       setup="sysctl -w kernel.io_uring_disabled=2"),
    "no_user_namespaces": Host("6.1, `user.max_user_namespaces=0`", "stock",
                               setup="sysctl -w user.max_user_namespaces=0"),
    "no_unprivileged_user_namespaces": Host(
        "6.1, `kernel.unprivileged_userns_clone=0`", "stock",
        setup="sysctl -w kernel.unprivileged_userns_clone=0"),
    "no_landlock": Host("6.1, `lsm=` without landlock", "stock", f"lsm={LSMS}"),
    "apparmor": Host("6.12, `security=apparmor`", options="apparmor=1 security=apparmor"),
    "selinux": Host("6.12, `security=selinux`, no policy", options="selinux=1 security=selinux"),
}


# name -> kernel: the broker in a cgroup that was delegated to it (scripts/host_cgroup.sh).
CGROUP_HOSTS = {"cgroup_6.1": "stock", "cgroup_6.12": "newer"}


def run(name: str, bin_dir: Path, workdir: Path) -> None:
    if name in CGROUP_HOSTS:
        script = f"bin={bin_dir}\n" + (HERE / "scripts/host_cgroup.sh").read_text()
        host_kit.boot(CGROUP_HOSTS[name], [bin_dir / program for program in PROGRAMS], script,
                      workdir, echo=print)
        return
    host = HOSTS[name]
    script = "\n".join([f"bin={bin_dir}", f"tests='{TESTS}'", f"later='{host.later}'",
                        host.setup,
                        (HERE / "scripts/host.sh").read_text()])
    lines = host_kit.boot(host.kernel, [bin_dir / program for program in PROGRAMS], script,
                          workdir, kernel_options=host.options, echo=show)
    found = dict(line[1:].partition(" ")[::2] for line in lines if line.startswith("@"))
    row = row_of(host, found)
    if row not in README.read_text().splitlines():
        raise HostError(f"README.md's table of hosts has no such row as was found:\n{row}")


def show(line: str) -> None:
    if not line.startswith("@posture"):
        print(line, flush=True)


def row_of(host: Host, found: dict) -> str:
    """One line of the table; an error where something is not as it must be on any host."""
    if " engine " not in found.get("serving", ""):
        raise HostError(f"the disk is not served: {found.get('serving')}")
    if found.get("stopped") != "0" or "held" not in found:
        raise HostError(f"front-end or broker did not end as they should: {found}")
    if host.later and found.get("later") != "works":
        raise HostError(f"no VMM is served any more with {host.later}=2")
    if found.get("io") != "works":
        raise HostError("I/O fails")
    engine, _, rest = found["serving"].partition(" engine ")[2].partition(", listening")
    promised = rest.partition("; posture: ")[2]
    compare_with_kernels_view(promised, found)
    return f"| {host.title} | {engine} | {promised} | {strict_of(found)} |"


def strict_of(found: dict) -> str:
    status, _, line = found["strict"].partition(" ")
    if " engine " in line and status == "0":
        return "serves"
    missing = line.partition("posture is below strict: ")[2]
    if not missing or status != "1" or "use --require-posture=any" not in line:
        raise HostError(f"strict neither serves nor says what is missing: {found['strict']}")
    # What is missing; how to help it is for the log.
    return "refuses: " + "; ".join(part.partition(": ")[0]
                                   for part in missing.split("; ")[:-1])


def compare_with_kernels_view(promised: str, found: dict) -> None:
    """What the broker promised when it started is what `bulkhead posture` sees of its processes."""
    weak = {layer["name"] for process in json.loads(found["posture"])["processes"]
            if process["role"] in ("session", "worker")
            for layer in process["layers"] if layer["state"] != "enforced"}
    said = promised.partition(" layers enforced")[2]
    unsaid = [name for name in weak if name not in said]
    if unsaid or not weak and said:
        raise HostError(f"promised: {promised}; seen not enforced: {sorted(weak)}")
