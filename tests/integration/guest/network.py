"""The host's side of a guest's network: a namespace with a tap in it, and servers on the tap.

The whole test process moves into the namespace, so the back-end and the guest start there, too.
"""

import ctypes
import hashlib
import os
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import kit

CLONE_NEWNET = 0x40000000
TAP = "tap0"
SECOND_TAP = "tap1"
BRIDGE = "br0"
ETH_P_RARP = 0x8035
HOST = "192.0.2.1"  # RFC 5737.
TESTPMD_ADDRESS = "192.0.2.9"
SINK_PORT, SOURCE_PORT, BOOT_PORT = 5001, 5002, 5003
SOURCE_BYTES = 3 << 20
WAIT_S = 60


class Network:
    """Context manager: the tap and its servers are there inside the block."""

    def __init__(self, second_tap: bool = False):
        """With a second tap there is a bridge, which has the address then."""
        self.tap = TAP
        self.second = SECOND_TAP if second_tap else None
        self._boots = 0
        self._source = os.urandom(SOURCE_BYTES)
        self._servers = []
        self._iperf = None

    def __enter__(self):
        enter_namespace()
        self.ip("link", "set", "lo", "up")
        port = self.tap
        if self.second:
            port = BRIDGE
            self.ip("link", "add", BRIDGE, "type", "bridge", "stp_state", "0")
        for tap in filter(None, (self.tap, self.second)):
            self.ip("tuntap", "add", "dev", tap, "mode", "tap", "multi_queue")
            if self.second:
                self.ip("link", "set", tap, "master", BRIDGE)
            self.ip("link", "set", tap, "up")
        self.ip("addr", "add", f"{HOST}/24", "dev", port)
        self.ip("link", "set", port, "up")
        self._serve(SINK_PORT, self._sink)
        self._serve(SOURCE_PORT, self._send)
        self._serve(BOOT_PORT, self._count_boot)
        self._iperf = subprocess.Popen(
            kit.DIES_WITH_PARENT + ["iperf3", "--server", "--bind", HOST],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        for server in self._servers:
            server.close()
        self._iperf.kill()
        self._iperf.wait()

    def ip(self, *words) -> str:
        return kit.run(["ip", *words], env=kit.path_with_sbin())

    def listen_for_rarp(self, tap: str) -> socket.socket:
        """For wait_rarp(): from now on."""
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_RARP))
        listener.bind((tap, ETH_P_RARP))
        listener.settimeout(WAIT_S)
        return listener

    @staticmethod
    def wait_rarp(listener: socket.socket, mac: str) -> None:
        """Until somebody has said that `mac` is there."""
        wanted = bytes.fromhex(mac.replace(":", ""))
        while True:
            try:
                frame = listener.recv(2048)
            except TimeoutError as error:
                raise kit.KitError(f"no RARP frame of {mac} came") from error
            if frame[6:12] == wanted:
                return

    def ping(self, address: str, count: int, size: int) -> None:
        kit.run(["ping", "-q", "-c", str(count), "-i", "0.1", "-w", "30", "-s", str(size), address])

    def received_packets(self) -> int:
        """What the guest has sent, by the interface's own count."""
        return int(self._statistics("rx_packets"))

    def packets(self) -> int:
        """Both ways, as they went through the tap."""
        return self.received_packets() + int(self._statistics("tx_packets"))

    def wait_received(self, packets: int) -> None:
        end = time.monotonic() + WAIT_S
        while self.received_packets() < packets:
            if time.monotonic() > end:
                raise kit.KitError(f"{self.received_packets()} packets came, not {packets}")
            time.sleep(0.05)

    def complaints(self) -> int:
        """Packets of the guest's that the host could not make sense of."""
        return int(self._statistics("rx_errors")) + int(self._statistics("rx_frame_errors"))

    def _statistics(self, name: str) -> int:
        fields = re.search(rf"^\s*{self.tap}:(.*)$", Path("/proc/net/dev").read_text(), re.M)
        values = [int(value) for value in fields.group(1).split()]
        return values[("rx_bytes", "rx_packets", "rx_errors", "rx_drop", "rx_fifo",
                       "rx_frame_errors", "rx_compressed", "rx_multicast", "tx_bytes",
                       "tx_packets").index(name)]

    # --- servers ---------------------------------------------------------------------------------

    def _serve(self, port: int, answer) -> None:
        listener = socket.create_server((HOST, port))
        self._servers.append(listener)

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=self._answer, args=(answer, connection),
                                 daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    @staticmethod
    def _answer(answer, connection) -> None:
        try:
            with connection:
                answer(connection)
        except OSError:
            pass  # The guest was killed, or has changed its mind: its script will tell.

    @staticmethod
    def _sink(connection) -> None:
        """Everything to its end, and the md5 of it as the answer."""
        digest = hashlib.md5(usedforsecurity=False)
        while data := connection.recv(1 << 16):
            digest.update(data)
        connection.sendall(digest.hexdigest().encode() + b"\n")

    def _send(self, connection) -> None:
        """32 characters of md5, then what it is of."""
        digest = hashlib.md5(self._source, usedforsecurity=False).hexdigest()
        connection.sendall(digest.encode() + self._source)

    def _count_boot(self, connection) -> None:
        self._boots += 1
        connection.sendall(f"{self._boots}\n".encode())


def enter_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        error = os.strerror(ctypes.get_errno())
        raise kit.KitError(f"cannot make a network namespace ({error}): run this as root")
    # Router solicitations and the like would only be noise.
    for name in ("all", "default"):
        path = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        if path.exists():
            path.write_text("1")


class Testpmd:
    """Context manager: DPDK's virtio-user on a vhost-user socket, without hugepages."""

    address = TESTPMD_ADDRESS

    def __init__(self, sock: str, workdir: Path, mode: str, packed: bool = False):
        rings = ",packed_vq=1" if packed else ""
        self.log = Path(workdir) / f"testpmd-{mode}{rings}.log"
        self._file = open(self.log, "w+", encoding="utf-8")
        command = [
            "dpdk-testpmd", "-l", "0,1", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry",
            f"--file-prefix=bulkhead-{os.getpid()}",
            f"--vdev=net_virtio_user0,path={sock},queues=2,queue_size=256,"
            f"mac=52:54:00:00:00:09{rings}",
            "--", "-i", f"--forward-mode={mode}", "--rxq=2", "--txq=2", "--auto-start",
            "--total-num-mbufs=8192",
        ]
        try:
            self.process = subprocess.Popen(
                kit.DIES_WITH_PARENT + command, stdin=subprocess.PIPE, stdout=self._file,
                stderr=subprocess.STDOUT, env=kit.path_with_sbin())
        except FileNotFoundError as error:
            raise kit.KitError("dpdk-testpmd is not installed: apt-get install dpdk-dev") from error

    def __enter__(self):
        return self

    def wait_started(self) -> None:
        end = time.monotonic() + WAIT_S
        while "Press enter to exit" not in self._text() and "testpmd> " not in self._text():
            if self.process.poll() is not None or time.monotonic() > end:
                raise kit.KitError(f"dpdk-testpmd did not start:\n{self._text()}")
            time.sleep(0.05)

    def _text(self) -> str:
        return self.log.read_text(errors="replace")

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.process.communicate(b"stop\nquit\n", timeout=WAIT_S)
                if self.process.returncode != 0:
                    raise kit.KitError(f"dpdk-testpmd failed:\n{self._text()}")
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self._file.close()
