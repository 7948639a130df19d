"""A Debian 12 machine with systemd, AppArmor and SELinux, under QEMU without KVM.

Its disk is made once, by mmdebstrap, and kept in the guests' cache
(tests/integration/guest/kit.py); each run works on a copy that is thrown
away. A second disk brings what the run needs, of which the machine runs the script `run` as root;
what that prints comes back.
"""

import fcntl
import hashlib
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration" / "guest"))
import kit  # noqa: E402

QEMU = "qemu-system-x86_64"
SUITE = "bookworm"
PACKAGES = (
    "systemd-sysv,udev,kmod,procps,initramfs-tools,linux-image-cloud-amd64,apparmor,auditd,"
    "selinux-policy-default,policycoreutils,selinux-utils,semodule-utils,"
    # What bulkhead's package depends on: the machine has no network.
    "libmicrohttpd12,libseccomp2,libspdlog1.10-fmt9,libstdc++6"
)
DISK_SIZE = "3G"
# What a machine without a user or a network need not wait for.
MASKED = ("getty@tty1.service", "serial-getty@ttyS0.service", "apt-daily.timer",
          "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
          "systemd-timesyncd.service", "systemd-networkd.service", "dpkg-db-backup.timer",
          "networking.service", "selinux-autorelabel-mark.service", "auditd.service")
SERVICE = """\
[Unit]
Description=What the second disk brings
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mount -o ro /dev/vdb /mnt && exec /bin/sh /mnt/run'
ExecStopPost=/bin/sh -c 'echo "@@end $EXIT_STATUS"; sync; sleep 1'
ExecStopPost=systemctl poweroff --force --force
StandardInput=null
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS1

[Install]
WantedBy=graphical.target
"""
CONSOLE_LINES_SHOWN = 60


class VmError(Exception):
    """One sentence for the person who runs the test, with the end of the console."""


@dataclass(frozen=True)
class Machine:
    disk: Path
    kernel: Path
    initrd: Path


def say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


# --- the machine's disk --------------------------------------------------------------------------


def prepare() -> Machine:
    recipe = hashlib.sha256((PACKAGES + SERVICE + DISK_SIZE + " ".join(MASKED)).encode())
    place = kit.cache_directory() / f"package-vm-{recipe.hexdigest()[:16]}"
    kit.cache_directory().mkdir(parents=True, exist_ok=True)
    with open(kit.cache_directory() / "package-vm.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            build(place)
    return Machine(place / "disk.img", place / "vmlinuz", place / "initrd.img")


def build(place: Path) -> None:
    if os.geteuid() != 0:
        raise VmError("the machine's disk is made by mmdebstrap as root; run this once as root")
    say("making a Debian machine (some minutes, once)")
    for old in place.parent.glob("package-vm-*"):
        if old.is_dir():
            shutil.rmtree(old)
    partial = place.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    root = partial / "tree"
    command(["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGES}",
             "--aptopt=APT::Install-Recommends \"false\"",
             "--dpkgopt=path-exclude=/usr/share/man/*",
             "--dpkgopt=path-exclude=/usr/share/locale/*", SUITE, root])
    furnish(root)
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd.img", "initrd.img-*")):
        shutil.copy(next((root / "boot").glob(pattern)), partial / name)
    label(root)
    command(["mke2fs", "-q", "-t", "ext4", "-d", root, partial / "disk.img", DISK_SIZE])
    shutil.rmtree(root)
    partial.rename(place)


def furnish(root: Path) -> None:
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 0\n")
    (root / "etc/hostname").write_text("bulkhead-vm\n")
    (root / "etc/selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=default\n")
    units = root / "etc/systemd/system"
    (units / "bulkhead-vm.service").write_text(SERVICE)
    wants = units / "graphical.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "bulkhead-vm.service").symlink_to("/etc/systemd/system/bulkhead-vm.service")
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")


def label(root: Path) -> None:
    """SELinux labels for every file. No kernel with SELinux is needed to write them."""
    contexts = root / "etc/selinux/default/contexts/files/file_contexts"
    command(["setfiles", "-F", "-r", root, contexts, root])


def command(words: list) -> None:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False,
                          env=kit.path_with_sbin())
    if done.returncode != 0:
        raise VmError(f"{words[0]} failed: {done.stderr.strip()[-2000:]}")


# --- one run -------------------------------------------------------------------------------------


def payload(files: dict, target: Path) -> None:
    """The second disk: name -> path of a file, or text."""
    stage = target.with_suffix(".stage")
    stage.mkdir()
    for name, content in files.items():
        if isinstance(content, Path):
            shutil.copy(content, stage / name)
        else:
            (stage / name).write_text(content)
    size = sum(path.stat().st_size for path in stage.iterdir()) // 2**20 + 16
    command(["mke2fs", "-q", "-t", "ext4", "-d", stage, target, f"{size}M"])
    shutil.rmtree(stage)


def run(files: dict, workdir: Path, kernel_options: str, timeout_s: float, echo) -> list:
    """Boots, runs files["run"], returns what it printed. Raises unless it exited with 0."""
    machine = prepare()
    extra = workdir / "payload.img"
    payload(files, extra)
    console = workdir / "console.log"
    words = kit.DIES_WITH_PARENT + [
        QEMU, "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-smp", "2", "-m", "1536M",
        "-machine", "q35", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none",
        "-kernel", machine.kernel, "-initrd", machine.initrd,
        "-append", "root=/dev/vda rw console=ttyS0 tsc=reliable no_timer_check panic=-1 "
                   "audit=1 audit_backlog_limit=8192 systemd.default_timeout_start_sec=600 "
                   f"{kernel_options}",
        "-drive", f"file={machine.disk},format=raw,if=virtio,snapshot=on",
        "-drive", f"file={extra},format=raw,if=virtio,readonly=on",
        "-device", "virtio-rng-pci",
        "-serial", f"file:{console}", "-serial", "stdio",
    ]
    with open(workdir / "qemu.stderr", "w+", encoding="utf-8") as errors:
        process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=errors)
        try:
            return listen(process, console, timeout_s, echo)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def listen(process, console: Path, timeout_s: float, echo) -> list:
    lines = queue.SimpleQueue()

    def read():
        for raw in process.stdout:
            lines.put(raw.decode(errors="replace").rstrip("\r\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + timeout_s
    output = []
    while True:
        try:
            line = lines.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            fail(f"nothing more from the machine within {timeout_s:.0f} s", console)
        if line is None:
            fail("the machine ended before its script did", console)
        ended = re.search(r"@@end (\S*)", line)
        if ended and ended[1] == "0":
            return output
        if ended:
            fail(f"the script failed with exit status {ended[1]}", console)
        output.append(line)
        echo(line)


def fail(what: str, console: Path):
    shown = console.read_text(errors="replace").splitlines() if console.exists() else []
    raise VmError(f"{what}; the end of the console:\n" + "\n".join(shown[-CONSOLE_LINES_SHOWN:]))
