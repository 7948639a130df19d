"""A guest that libvirt starts, on a disk and a card with the lines of `bulkhead snippet`.

libvirtd is one user's (qemu:///session), with directories of its own, in a PID namespace with
which everything that it has started ends.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import backend
import kit
import qemu

USER = "nobody"
DAEMON_S, GUEST_S = 60, 240
DOMAIN = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>guest</name>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  {memory}
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{place}/vmlinuz</kernel>
    <initrd>{place}/initramfs.cpio</initrd>
    <cmdline>console=ttyS0 tsc=reliable no_timer_check quiet panic=-1 guest.token={token}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='maximum'/>
  <on_reboot>destroy</on_reboot>
  <devices>
    {devices}
    <serial type='file'><source path='{place}/libvirt/console'/><target port='0'/></serial>
    <serial type='unix'>
      <source mode='connect' path='{place}/libvirt/words'/><target port='1'/>
    </serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <!-- QEMU 7.2 under TCG crashes on vhost-user network cards with MSI-X: no vectors. -->
  <qemu:override><qemu:device alias='net0'><qemu:frontend>
    <qemu:property name='vectors' type='unsigned' value='0'/>
  </qemu:frontend></qemu:device></qemu:override>
</domain>
"""


class LibvirtError(Exception):
    """What libvirt refused or its guest did not do, with what was said."""


@dataclass(frozen=True)
class OwnedDisk(backend.Device):
    """Whose socket QEMU may open as a user without rights."""

    def table(self, sock: Path) -> str:
        return super().table(sock) + backend.rows_of({"socket_owner": USER})


@dataclass(frozen=True)
class OwnedCard(backend.Card):
    def table(self, sock: Path) -> str:
        return super().table(sock) + backend.rows_of({"socket_owner": USER, "mac": qemu.Card.mac})


class Libvirt:
    """Context manager: a libvirtd inside the block, and no process of its own after it."""

    def __init__(self, broker, bin_dir: Path):
        self._broker, self._bin_dir = broker, bin_dir
        self.place = broker.workdir
        self._own = self.place / "libvirt"
        self._log = self.place / "libvirtd.log"
        for program in ("libvirtd", "virsh"):
            if not shutil.which(program, path=kit.path_with_sbin()["PATH"]):
                raise kit.KitError(f"{program} is not installed: packaging/build-deps test")
        self._own.mkdir(mode=0o700)
        shutil.chown(self._own, USER)
        self.place.chmod(0o711)
        self._environment = kit.path_with_sbin() | {
            "HOME": str(self._own), "XDG_RUNTIME_DIR": str(self._own),
            "XDG_CONFIG_HOME": str(self._own / "config"),
            "XDG_CACHE_HOME": str(self._own / "cache")}

    def __enter__(self):
        with open(self._log, "w", encoding="utf-8") as log:
            self._daemon = subprocess.Popen(
                [*kit.DIES_WITH_PARENT, "unshare", "--pid", "--fork", "--kill-child=KILL",
                 "--mount-proc", *as_user("libvirtd")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment)
        listens = self._own / "libvirt" / "libvirt-sock"
        backend.wait_until(lambda: listens.exists() or self._daemon.poll() is not None, DAEMON_S)
        if not listens.exists():
            self.__exit__()
            raise LibvirtError(f"libvirtd does not start: {self._log.read_text()}")
        return self

    def __exit__(self, *_):
        """libvirtd is the namespace's first process: it is reaped when all others are gone."""
        parent = self._daemon.pid
        if self._daemon.poll() is None:
            for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        self._daemon.wait()

    def virsh(self, *words) -> str:
        done = subprocess.run(
            as_user("virsh", "-c", "qemu:///session", *map(str, words)), text=True,
            stdin=subprocess.DEVNULL, capture_output=True, check=False, env=self._environment)
        if done.returncode != 0:
            raise self.error(f"virsh {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def error(self, what: str) -> LibvirtError:
        console = self._own / "console"
        return LibvirtError("\n".join([
            what, "--- libvirtd", self._log.read_text().strip(), "--- kernel console",
            console.read_text(errors="replace") if console.exists() else ""]))

    def start(self, script: str, devices: list):
        """A guest on these devices of the broker's; what its script prints."""
        parts = kit.prepare()
        shutil.copy(parts.kernel, self.place / "vmlinuz")
        kit.with_script(parts.initramfs, script, self.place / "initramfs.cpio")
        snippets = [self._snippet(name) for name in devices]
        token = secrets.token_hex(8)
        domain = self.place / "domain.xml"
        domain.write_text(DOMAIN.format(
            memory=snippets[0][0], devices="".join(each[1] for each in snippets),
            place=self.place, token=token))
        words = Words(self, token, self._own / "words")
        self._boot(domain, words)
        return words

    def _snippet(self, name: str) -> list:
        """What goes into <domain>, which is the same for all devices, and what into <devices>."""
        text = kit.run([self._bin_dir / "bulkhead", "snippet", name, "--for=libvirt",
                        f"--config={self.place / 'bulkhead.toml'}"])
        return text.split("<!-- Into <devices>. -->\n")

    def _boot(self, domain: Path, words) -> None:
        """TCG stands still once in a while before Linux has said a word: then start it anew."""
        for _ in range(qemu.BOOT_ATTEMPTS):
            self.virsh("create", domain)
            if words.has_begun(qemu.BOOT_S):
                return
            print("libvirt: no word from the guest; once more", file=sys.stderr, flush=True)
            self.virsh("destroy", "guest")
        raise self.error("the guest does not boot")


class Words:
    """The guest's second serial port, to which QEMU connects."""

    def __init__(self, libvirt: Libvirt, token: str, path: Path):
        self._libvirt, self._token = libvirt, token
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        shutil.chown(path, USER)
        self._deadline = time.monotonic() + GUEST_S
        self._lines = None

    def has_begun(self, within_s: float) -> bool:
        connection, _ = self._listener.accept()
        connection.settimeout(within_s)
        self._lines = connection.makefile("r", errors="replace", newline="\n")
        try:
            first = self._lines.readline()
        except TimeoutError:
            return False
        connection.settimeout(max(1, self._deadline - time.monotonic()))
        return f"@@{self._token} begin" in first

    def wait_line(self, text: str) -> str:
        """Reads on until a line contains `text`; that line."""
        while True:
            try:
                line = self._lines.readline()
            except TimeoutError as error:
                raise self._libvirt.error(f"the guest does not come to '{text}'") from error
            if not line:
                raise self._libvirt.error(f"the guest ended before '{text}'")
            print(line.rstrip("\r\n"), flush=True)
            if text in line:
                return line

    def finish(self) -> None:
        """The script's end, with 0, and the guest's."""
        status = self.wait_line(f"@@{self._token} end ").split()[-1]
        if status != "0":
            raise self._libvirt.error(f"the guest's script failed with exit status {status}")
        self._lines.read()  # Until QEMU closes it.


def as_user(*words) -> list:
    """Ends with the parent, which the kernel forgets where a process changes its user."""
    return ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups",
            "--pdeathsig", "KILL", "--", *words]
