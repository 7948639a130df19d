"""One QEMU guest on vhost-user-blk disks: boot it, read what its script prints, end it.

TCG only: the tests run wherever QEMU does, with or without /dev/kvm.
"""

import functools
import json
import os
import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import kit

QEMU = "qemu-system-x86_64"
CONSOLE_LINES_SHOWN = 40
BOOT_S, BOOT_ATTEMPTS = 60, 3  # A boot takes some 3 s.
HOTPLUG_PORT = "late-port"
MIGRATION_DOWNTIME_MS = 30_000


class GuestError(Exception):
    """What went wrong in or around the guest, with the end of its console."""


@dataclass(frozen=True)
class Disk:
    socket: str
    queues: int = 4
    reconnect: bool = False  # Whether QEMU connects again when the back-end went away.
    packed: bool = False  # Whether the guest may have packed rings, which Linux then has.


@dataclass(frozen=True)
class Card:
    socket: str = ""
    pairs: int = 2
    mac: str = "52:54:00:12:34:56"
    reconnect: bool = False
    tap: str = ""  # Instead of a socket: QEMU's own back-end, on this tap.
    announces: bool = True  # False: its guest cannot tell the network where it is.
    packed: bool = False


@functools.cache
def qemu_version() -> tuple:
    """Of the QEMU in PATH: (7, 2)."""
    words = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = words.split("version ")[1].split(".")[:2]
    return int(major), int(minor)


def connect_again() -> str:
    return ",reconnect-ms=1000" if qemu_version() >= (9, 2) else ",reconnect=1"


def on_off(value: bool) -> str:
    return "on" if value else "off"


def qemu_command(disks: list, kernel, initramfs, cpus: int = 4, memory: str = "512M",
                 cards: list = (), threads: str = "multi") -> list:
    """The lines a user would type. Without a kernel the firmware boots from the first disk."""
    command = [
        QEMU, "-accel", f"tcg,thread={threads},tb-size=128", "-cpu", "max", "-smp", str(cpus),
        "-m", memory,
        # vhost-user: the back-end maps the guest's memory, so it must be shared.
        "-object", f"memory-backend-memfd,id=mem,size={memory.split(',')[0]},share=on",
        "-machine", "q35,memory-backend=mem",
        "-nodefaults", "-display", "none",
    ]
    if kernel:
        command += ["-kernel", str(kernel), "-initrd", str(initramfs)]
    for index, disk in enumerate(disks):
        again = connect_again() if disk.reconnect else ""
        command += [
            "-chardev", f"socket,id=c{index},path={disk.socket}{again}",
            "-device", f"vhost-user-blk-pci,chardev=c{index},num-queues={disk.queues},"
            f"packed={on_off(disk.packed)}",
        ]
    for index, card in enumerate(cards):
        again = connect_again() if card.reconnect else ""
        if card.tap:
            command += ["-netdev", f"tap,id=net{index},ifname={card.tap},script=no,downscript=no,"
                        f"vhost=off,queues={card.pairs}"]
        else:
            command += [
                "-chardev", f"socket,id=n{index},path={card.socket}{again}",
                "-netdev", f"vhost-user,id=net{index},chardev=n{index},queues={card.pairs}",
            ]
        # QEMU 7.2 under TCG crashes on vhost-user network cards with MSI-X: no vectors.
        vectors = ",vectors=0" if qemu_version() < (10, 0) else ""
        command += [
            "-device", f"virtio-net-pci,netdev=net{index},mq=on{vectors},mac={card.mac},"
            f"guest_announce={on_off(card.announces)},packed={on_off(card.packed)}",
        ]
    return command


class Guest:
    """Context manager: the guest runs inside the block and is gone after it."""

    def __init__(self, disks: list, script: str, workdir: Path, *, timeout_s: float = 240,
                 may_reboot: bool = False, spare_memory: bool = False, echo=None, cards: list = (),
                 images: list = (), moves_from=None, parts: kit.Kit = None, cpus: int = 4,
                 memory: str = "512M", kernel_options: str = "", threads: str = "multi"):
        """`moves_from`: a guest that will migrate here; the script is the same."""
        self.token = moves_from.token if moves_from else secrets.token_hex(8)
        self.workdir = Path(workdir)
        self.console = self.workdir / "console.log"
        self.timeout_s = timeout_s
        self.output = []
        self._echo = echo
        self._qmp = None
        self._deleted = []
        parts = parts or kit.prepare()
        initramfs = self.workdir / "initramfs.cpio"
        kit.with_script(parts.initramfs, script, initramfs)
        memory += ",slots=2,maxmem=2G" if spare_memory else ""
        command = qemu_command(disks, parts.kernel, initramfs, cpus, memory, cards,
                               threads) + [
            # On a busy host the timer's first interrupts may come later than Linux expects.
            "-append", "console=ttyS0 tsc=reliable no_timer_check quiet panic=-1 "
            f"guest.token={self.token} {kernel_options}",
            "-serial", f"file:{self.console}", "-serial", "stdio",
            "-device", f"pcie-root-port,id={HOTPLUG_PORT}",
            "-qmp", f"unix:{self.workdir}/qmp,server=on,wait=off",
        ]
        for index, image in enumerate(images):  # QEMU's own disks.
            command += ["-drive", f"if=none,id=i{index},file={image},format=raw,snapshot=on",
                        "-device", f"virtio-blk-pci,drive=i{index}"]
        if not may_reboot:
            command.append("-no-reboot")
        if moves_from:
            command += ["-incoming", f"unix:{self.workdir}/migration"]
        if not shutil.which(QEMU):
            raise kit.KitError(f"{QEMU} is not installed: apt-get install qemu-system-x86")
        self._errors = open(self.workdir / "qemu.stderr", "w+", encoding="utf-8")
        self._command = command
        self._boots = not moves_from
        self._start()

    def _start(self):
        self._lines = queue.SimpleQueue()
        self.deadline = time.monotonic() + self.timeout_s
        self.process = subprocess.Popen(
            kit.DIES_WITH_PARENT + self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._errors)
        threading.Thread(target=self._read, args=(self.process.stdout, self._lines),
                         daemon=True).start()

    def __enter__(self):
        if self._boots:
            self._wait_booted()
        return self

    def __exit__(self, *_):
        if self._qmp:
            self._qmp.close()
        self._kill()
        self._errors.close()

    def _kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _wait_booted(self):
        """TCG stands still once in a while before Linux has said a word: then start it anew."""
        for _ in range(BOOT_ATTEMPTS - 1):
            try:
                line = self._lines.get(timeout=BOOT_S)
            except queue.Empty:
                print(f"qemu: no word from the guest within {BOOT_S} s of its start; once more",
                      file=sys.stderr, flush=True)
                self._kill()
                self._start()
                continue
            self._take(line, "waiting for it to boot")
            return

    # --- what the script prints ------------------------------------------------------------------

    def wait_line(self, text: str) -> str:
        """Reads on until a line contains `text`; that line."""
        while True:
            line = self._next_line(f"waiting for '{text}'")
            if text in line:
                return line

    def finish(self) -> str:
        """Reads on to the script's end and the guest's power-off. Fails unless it exited with 0."""
        status = self.wait_line(f"@@{self.token} end ").rsplit(" ", 1)[1]
        try:
            self.process.wait(timeout=max(1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._fail("the guest's script ended but the guest did not switch off")
        if status != "0":
            self._fail(f"the guest's script failed with exit status {status}")
        return "\n".join(self.output)

    @staticmethod
    def _read(source, lines):
        for raw in source:
            lines.put(raw.decode(errors="replace").rstrip("\r\n"))
        lines.put(None)

    def _next_line(self, doing: str) -> str:
        try:
            line = self._lines.get(timeout=max(0, self.deadline - time.monotonic()))
        except queue.Empty:
            self._fail(f"nothing more from the guest within {self.timeout_s:.0f} s, {doing}")
        return self._take(line, doing)

    def _take(self, line, doing: str) -> str:
        if line is None:
            self._fail(f"QEMU ended (exit status {self.process.wait()}), {doing}")
        if not line.startswith(f"@@{self.token}"):
            self.output.append(line)
            if self._echo:
                self._echo(line)
        return line

    def _fail(self, what: str):
        self._errors.seek(0)
        console = self.console.read_text(errors="replace") if self.console.exists() else ""
        raise GuestError("\n".join([
            what,
            f"--- what the script printed (last {CONSOLE_LINES_SHOWN} lines)",
            *self.output[-CONSOLE_LINES_SHOWN:],
            f"--- kernel console (last {CONSOLE_LINES_SHOWN} lines of {self.console})",
            *console.splitlines()[-CONSOLE_LINES_SHOWN:],
            "--- QEMU", self._errors.read().strip(),
        ]))

    # --- from outside ----------------------------------------------------------------------------

    def qmp(self, command: str, **arguments):
        """One QMP command; its return value."""
        if not self._qmp:
            self._qmp = socket.socket(socket.AF_UNIX)
            self._qmp.settimeout(max(1, self.deadline - time.monotonic()))
            self._qmp.connect(f"{self.workdir}/qmp")
            self._qmp_file = self._qmp.makefile("rw", encoding="utf-8")
            self._qmp_file.readline()  # Greeting.
            self._qmp_send("qmp_capabilities", {})
        return self._qmp_send(command, arguments)

    def _qmp_send(self, command, arguments):
        message = {"execute": command, "arguments": arguments}
        self._qmp_file.write(json.dumps(message) + "\n")
        self._qmp_file.flush()
        while True:
            answer = json.loads(self._qmp_file.readline())
            if "error" in answer:
                self._fail(f"QMP {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self._note_event(answer)

    def _note_event(self, message):
        # The part of the device that the bus owns goes first, without a "device" of its own.
        if message.get("event") == "DEVICE_DELETED" and "device" in message["data"]:
            self._deleted.append(message["data"]["device"])

    def _wait_deleted(self, device: str):
        while device not in self._deleted:
            self._note_event(json.loads(self._qmp_file.readline()))
        self._deleted.remove(device)

    def plug_disk(self, disk: Disk):
        """A disk that comes while the guest runs."""
        address = {"type": "unix", "data": {"path": disk.socket}}
        self.qmp("chardev-add", id="late",
                 backend={"type": "socket", "data": {"addr": address, "server": False}})
        self.qmp("device_add", driver="vhost-user-blk-pci", id="late-disk", chardev="late",
                 bus=HOTPLUG_PORT, **{"num-queues": disk.queues})

    def unplug_disk(self):
        self.qmp("device_del", id="late-disk")
        self._wait_deleted("late-disk")
        self.qmp("chardev-remove", id="late")

    def migrate_to(self, destination):
        """Live; what the script prints from now on, the destination's QEMU prints."""
        destination.wait_qmp()
        # It answers once it waits for us.
        state = destination.qmp("query-status")["status"]
        if state != "inmigrate":
            self._fail(f"the destination is not waiting for a migration but '{state}'")
        # A guest that works must be caught up with, however busy this host is.
        self.qmp("migrate-set-parameters", **{"downtime-limit": MIGRATION_DOWNTIME_MS})
        self._begin_migration(f"unix:{destination.workdir}/migration")
        self._wait_migration("completed")
        self.qmp("quit")
        self.process.wait()

    def try_to_migrate_and_give_up(self):
        """To nowhere, which reads a little and then no more."""
        with socket.socket(socket.AF_UNIX) as listener:
            path = self.workdir / "nowhere"
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen()
            self._begin_migration(f"unix:{path}")
            self._wait_migration("active")
            self.qmp("migrate_cancel")
            self._wait_migration("cancelled")

    def _begin_migration(self, uri: str):
        self.qmp("migrate", uri=uri)

    def _wait_migration(self, wanted: str):
        while True:
            found = self.qmp("query-migrate")
            if found.get("status") == wanted:
                return
            if found.get("status") in ("failed", "completed") or time.monotonic() > self.deadline:
                self._fail(f"migration is not '{wanted}': {found}")
            time.sleep(0.05)

    def wait_qmp(self):
        """For a guest that prints nothing yet."""
        path = self.workdir / "qmp"
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > self.deadline:
                self._fail("QEMU did not start")
            time.sleep(0.02)

    def kill_hard(self):
        """The VMM vanishes without a word, as in a crash."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
