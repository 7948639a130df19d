"""The program behind the guest's disks: Bulkhead.

Or qemu-storage-daemon, which tells whose fault a failure is.
"""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import kit

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60


class BackendError(Exception):
    """What the back-end did not do, with its log."""


@dataclass(frozen=True)
class Device:
    name: str
    image: Path
    queues: int = 4
    block_size: int = 512
    read_only: bool = False
    direct: bool = False
    engine: str = "auto"
    lock: bool = True  # False: another back-end has the image until its guest has moved.

    def table(self, sock: Path) -> str:
        """One [[device]] of `bulkhead serve --config`."""
        rows = {
            "name": self.name, "type": "blk", "socket_path": str(sock),
            "blk_file": str(self.image), "num_queues": self.queues,
            "block_size": self.block_size, "read_only": self.read_only,
            "direct": self.direct, "engine": self.engine, "serial": f"serial-{self.name}",
            "lock": self.lock, "packed_rings": True,
        }
        return table_of(rows)

    def export(self, sock: Path) -> list:
        """The same for qemu-storage-daemon."""
        cache = "on" if self.direct else "off"
        writable = "off" if self.read_only else "on"
        return [
            "--blockdev", f"driver=file,node-name={self.name},filename={self.image},"
            f"cache.direct={cache},discard=unmap,read-only={'on' if self.read_only else 'off'}",
            "--export", f"type=vhost-user-blk,id=e-{self.name},node-name={self.name},"
            f"addr.type=unix,addr.path={sock},writable={writable},num-queues={self.queues},"
            f"logical-block-size={self.block_size}",
        ]


@dataclass(frozen=True)
class Card:
    """A network card on a tap that is there."""

    name: str
    tap: str
    pairs: int = 2
    engine: str = "auto"

    def table(self, sock: Path) -> str:
        rows = {
            "name": self.name, "type": "net", "socket_path": str(sock), "tap_name": self.tap,
            "num_queues": self.pairs, "engine": self.engine, "packed_rings": True,
        }
        return table_of(rows)


def table_of(rows: dict) -> str:
    return "[[device]]\n" + rows_of(rows)


def rows_of(rows: dict) -> str:
    return "".join(f"{key} = {toml(value)}\n" for key, value in rows.items())


def toml(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else f'"{value}"'


class Backend:
    """Context manager: serves inside the block; at its end it must stop cleanly on SIGTERM."""

    def __init__(self, devices: list, workdir: Path, bin_dir: Path, peer: bool = False):
        self.workdir = Path(workdir)
        self.devices = devices
        self.is_peer = peer
        self.log = self.workdir / "backend.log"
        self._program = Path(bin_dir) / "bulkhead"
        self._log_file = open(self.log, "w", encoding="utf-8")
        self._notify_path = self.workdir / "notify"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(self._notify_path))
        self._start()

    def _start(self, takes_over: bool = False):
        program, *arguments = self._command()
        command = [program] + (["takeover"] if takes_over else []) + arguments
        self.process = subprocess.Popen(
            kit.DIES_WITH_PARENT + command, stdin=subprocess.DEVNULL, stdout=self._log_file,
            stderr=subprocess.STDOUT, env=os.environ | {"NOTIFY_SOCKET": str(self._notify_path)})

    def restart(self):
        """As a service manager does: the next one starts when the last one is gone."""
        self._stop()
        self._start()
        self._wait_ready()

    def kill_and_start_again(self):
        """kill -9: its children go on, and the next one adopts them."""
        self.process.kill()
        self.process.wait()
        self._start()
        self._wait_ready()

    def take_over(self):
        """Another one beside it, which takes its place and adopts its children."""
        before = self.process
        self._start(takes_over=True)
        self._wait_ready()
        status = before.wait(timeout=STOP_TIMEOUT_S)
        if status != 0:
            raise BackendError(self.with_log(f"exit status {status} of the one before"))

    def socket_of(self, name: str) -> str:
        return str(self.workdir / f"{name}.sock")

    def _command(self) -> list:
        if self.is_peer:
            command = ["qemu-storage-daemon", "--pidfile", str(self.workdir / "pidfile")]
            for device in self.devices:
                command += device.export(Path(self.socket_of(device.name)))
            return command
        config = self.workdir / "bulkhead.toml"
        config.write_text("\n".join(
            device.table(Path(self.socket_of(device.name))) for device in self.devices))
        return [str(self._program), "serve", f"--config={config}"]

    def __enter__(self):
        try:
            self._wait_ready()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self._stop()
        finally:
            self._kill()
            self._notify.close()
            self._log_file.close()

    def _wait_ready(self):
        """Bulkhead says so by sd_notify, the peer by a pid file once its exports are there."""
        if self.is_peer:
            wait_until(lambda: (self.workdir / "pidfile").exists() or self.process.poll(),
                       START_TIMEOUT_S)
            return
        self._notify.settimeout(1)
        for _ in range(START_TIMEOUT_S):
            try:
                if b"READY=1" in self._notify.recv(4096):
                    return
            except TimeoutError:
                self.check_alive()
        raise BackendError(self.with_log(f"not ready within {START_TIMEOUT_S} s"))

    def check_alive(self):
        if self.process.poll() is not None:
            raise BackendError(self.with_log(f"ended with exit status {self.process.returncode}"))

    def with_log(self, what: str) -> str:
        return f"{' '.join(self.process.args)}: {what}\n--- its log\n{self.log.read_text()}"

    def _stop(self):
        self.check_alive()
        left = descendants(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise BackendError(self.with_log("does not stop on SIGTERM")) from error
        if status != 0:
            raise BackendError(self.with_log(f"exit status {status} after SIGTERM"))
        for pid in left:
            if parent_of(pid) is not None:
                raise BackendError(self.with_log(f"left process {pid} behind"))

    def _kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def wait_until(condition, timeout_s: float) -> bool:
    """For what has no event to wait for: files that appear, processes of others that end."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# --- looking at processes ------------------------------------------------------------------------


def parent_of(pid: int):
    """The parent's pid; None where the process is gone or only waits to be reaped."""
    status = status_of(pid)
    return None if not status or status["State"].startswith("Z") else int(status["PPid"])


def status_of(pid: int) -> dict:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def descendants(root: int) -> list:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parents[int(entry.name)] = parent_of(int(entry.name))
    found, front = [], [root]
    while front:
        front = [pid for pid, parent in parents.items() if parent in front]
        found += front
    return found
