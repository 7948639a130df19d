"""What is tested with real guests: one function, several ctest entries (engine, --direct).

Long because the scenarios of all parts are in one table.
"""

import dataclasses
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import backend
import kit
import libvirt
import network
import power_cut as power
import qemu

MIB = 1 << 20
SCRIPTS = Path(__file__).resolve().parent / "scripts"
WORKERS_GONE_TIMEOUT_S = 60
VIRTIO_F_RING_PACKED = 1 << 34


class ScenarioError(Exception):
    """What was expected and what was found."""


@dataclass(frozen=True)
class Setting:
    """One cell of the matrix, and where things are."""

    workdir: Path
    bin_dir: Path
    engine: str
    direct: bool
    peer: bool = False  # qemu-storage-daemon instead of Bulkhead.

    def device(self, name: str, image: Path, **more) -> backend.Device:
        options = {"engine": self.engine, "direct": self.direct} | more
        return backend.Device(name, image, **options)

    @contextmanager
    def serve(self, *devices, directory: str = "."):
        place = self.workdir / directory
        place.mkdir(exist_ok=True)
        with backend.Backend(list(devices), place, self.bin_dir, self.peer) as broker:
            try:
                yield broker
            except Exception as error:
                raise ScenarioError(f"{error}\n--- back-end\n{broker.log.read_text()}") from error

    def guest(self, broker, script: str, *names, directory: str = "guest",
              reconnect: bool = False, packed: bool = False, variables: str = "", hear=print,
              **more):
        place = self.workdir / directory
        place.mkdir(exist_ok=True)
        disks = [qemu.Disk(broker.socket_of(name), reconnect=reconnect, packed=packed)
                 for name in names]
        text = variables + (SCRIPTS / script).read_text()
        return qemu.Guest(disks, text, place, echo=hear, **more)

    def card(self, name: str, tap: str, **more) -> backend.Card:
        return backend.Card(name, tap, **({"engine": self.engine} | more))

    def guest_on_net(self, broker, script: str, name: str, directory: str = "guest",
                     reconnect: bool = False, announces: bool = True, packed: bool = False,
                     **more):
        place = self.workdir / directory
        place.mkdir(exist_ok=True)
        cards = [qemu.Card(broker.socket_of(name), reconnect=reconnect, announces=announces,
                           packed=packed)]
        text = (SCRIPTS / "net_lib.sh").read_text() + (SCRIPTS / script).read_text()
        return qemu.Guest([], text, place, echo=print, cards=cards, **more)

    def sparse_image(self, name: str, mebibytes: int) -> Path:
        path = self.workdir / f"{name}.img"
        with open(path, "wb") as image:
            image.truncate(mebibytes * MIB)
        return path

    def random_image(self, name: str, mebibytes: int) -> Path:
        path = self.workdir / f"{name}.img"
        path.write_bytes(os.urandom(mebibytes * MIB))
        return path


def expect(what: str, holds: bool) -> None:
    if not holds:
        raise ScenarioError(f"expected: {what}")


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def allocated_bytes(path: Path) -> int:
    os.sync()
    return path.stat().st_blocks * 512


# --- scenarios -----------------------------------------------------------------------------------


def firmware_boot(setting: Setting) -> None:
    """SeaBIOS, another driver than Linux's, boots from the disk and reads its last block."""
    text = b"read by the firmware\r\n"
    image = setting.sparse_image("boot", 8)
    last_block = 8 * MIB // 512 - 1
    with open(image, "r+b") as disk:
        disk.write(boot_sector(last_block))
        disk.seek(last_block * 512)
        disk.write(text + b"\0")
    with setting.serve(setting.device("boot", image)) as broker:
        # Command line without a kernel; the boot sector writes to the first serial port.
        command = qemu.qemu_command([qemu.Disk(broker.socket_of("boot"))], None, None, cpus=1)
        command += ["-serial", "stdio", "-no-reboot"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
                              check=False)
        expect(f"'{text.strip().decode()}' on the serial port, not {done.stdout!r} {done.stderr!r}",
               text in done.stdout)


def boot_sector(block: int) -> bytes:
    """Reads `block` by INT 13h, writes its text to COM1, switches the machine off."""
    code = bytes([
        0x31, 0xC0, 0x8E, 0xD8,  # xor ax,ax; mov ds,ax
        0xBE, 0x80, 0x7C,        # mov si,0x7c80: the address packet below
        0xB4, 0x42, 0xCD, 0x13,  # mov ah,0x42; int 0x13 (dl is the boot drive)
        0xBE, 0x00, 0x80,        # mov si,0x8000
        0xAC, 0x84, 0xC0,        # next: lodsb; test al,al
        0x74, 0x06,              # jz off
        0xBA, 0xF8, 0x03, 0xEE,  # mov dx,0x3f8; out dx,al
        0xEB, 0xF5,              # jmp next
        0xBA, 0x04, 0x06,        # off: mov dx,0x604 (q35's PM1a control)
        0xB8, 0x00, 0x20, 0xEF,  # mov ax,0x2000; out dx,ax
        0xF4, 0xEB, 0xFD,        # hlt; jmp back
    ])
    packet = (bytes([0x10, 0, 1, 0]) + (0x8000).to_bytes(2, "little") + bytes(2)
              + block.to_bytes(8, "little"))
    return code.ljust(0x80, b"\0") + packet.ljust(510 - 0x80, b"\0") + b"\x55\xaa"


def four_queues(setting: Setting) -> None:
    """Two disks of one broker, four queues each: file system, fio with verify, a known image."""
    disk = setting.sparse_image("disk", 192)
    known = setting.random_image("known", 24)
    with setting.serve(setting.device("disk", disk), setting.device("known", known)) as broker:
        with setting.guest(broker, "four_queues.sh", "disk", "known") as guest:
            guest.wait_line("load-begins")
            if not setting.peer:
                check_jail(setting, broker)
            output = guest.finish()
    expect(f"md5 of the known image, {md5_of(known.read_bytes())}, as read by the guest",
           f"vdb-md5 {md5_of(known.read_bytes())}" in output)
    if not setting.peer:
        expect("the serials of the configuration", "serials serial-disk serial-known" in output)
        expect("a volatile cache to begin with", "cache write back" in output)
    kit.run(["e2fsck", "-fn", disk], env=kit.path_with_sbin())


def check_jail(setting: Setting, broker) -> None:
    """While the guest runs: who is there, and does the kernel see them locked up?"""
    pids = backend.descendants(broker.process.pid)
    sessions = [pid for pid in pids if "session" in backend.title_of(pid)]
    workers = [pid for pid in pids if "worker" in backend.title_of(pid)]
    titles = [backend.title_of(pid) for pid in pids]
    expect(f"2 sessions among {titles}", len(sessions) == 2)
    expect(f"8 workers or more among {titles}", len(workers) >= 8)
    sealed = 0
    for pid in sessions + workers:
        status = backend.status_of(pid)
        expect(f"no_new_privs in {backend.title_of(pid)}", status["NoNewPrivs"] == "1")
        capabilities = [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
        expect(f"no capability in {backend.title_of(pid)}: {capabilities}",
               all(int(each, 16) == 0 for each in capabilities))
        if status["Seccomp"] != "2":
            continue  # A spare that waits for its first queue.
        sealed += 1
        if pid in workers and setting.engine == "io_uring" and os.geteuid() == 0:
            expect("no descriptor in a sealed worker", os.listdir(f"/proc/{pid}/fd") == [])
    expect(f"10 sealed processes, not {sealed}", sealed == 10)
    posture = kit.run([setting.bin_dir / "bulkhead", "posture", f"--pid={broker.process.pid}"])
    expect(f"every process in the posture table:\n{posture}",
           all(str(pid) in posture for pid in sessions + workers))


def reset(setting: Setting) -> None:
    """A reset from outside in the middle of a load, then a reboot by the guest."""
    disk = setting.sparse_image("disk", 192)
    with setting.serve(setting.device("disk", disk)) as broker:
        with setting.guest(broker, "reset.sh", "disk", may_reboot=True) as guest:
            guest.wait_line("first-boot-loaded")
            guest.qmp("system_reset")
            guest.wait_line("second-boot-done")
            guest.wait_line("third-boot-done")
            guest.finish()


def disk_kinds(setting: Setting) -> None:
    """4096-byte blocks, read-only, discard and write-zeroes: one guest with four disks."""
    blocks = setting.sparse_image("blocks", 128)
    fixed = setting.sparse_image("fixed", 32)
    content = setting.workdir / "content"
    content.mkdir()
    (content / "known").write_text("what the host wrote\n")
    kit.run(["mkfs.ext4", "-q", "-F", "-d", content, fixed], env=kit.path_with_sbin())
    trim = setting.sparse_image("trim", 64)
    wipe = setting.random_image("wipe", 64)
    before = (wipe.read_bytes(), fixed.read_bytes())
    with setting.serve(
        setting.device("blocks", blocks, block_size=4096),
        setting.device("fixed", fixed, read_only=True),
        setting.device("trim", trim), setting.device("wipe", wipe)) as broker:
        with setting.guest(broker, "disk_kinds.sh", "blocks", "fixed", "trim", "wipe") as guest:
            guest.finish()
    expect("a read-only image that did not change", fixed.read_bytes() == before[1])
    expect(f"fstrim gave the file's space back: {allocated_bytes(trim)} bytes are allocated",
           allocated_bytes(trim) < 16 * MIB)
    expect(f"blkdiscard gave space back: {allocated_bytes(wipe)} bytes are allocated",
           allocated_bytes(wipe) < 56 * MIB)
    after = wipe.read_bytes()
    expect("zeroes where the guest wrote zeroes", after[16 * MIB:32 * MIB] == bytes(16 * MIB))
    expect("the rest of the image as it was", after[32 * MIB:] == before[0][32 * MIB:])


def memory_added(setting: Setting) -> None:
    """Memory hot-plug under load: a new region for workers whose memory map never changes."""
    disk = setting.sparse_image("disk", 128)
    with setting.serve(setting.device("disk", disk)) as broker:
        with setting.guest(broker, "memory_added.sh", "disk", spare_memory=True) as guest:
            guest.wait_line("loaded")
            guest.qmp("object-add", **{"qom-type": "memory-backend-memfd", "id": "more",
                                       "size": 256 * MIB, "share": True})
            guest.qmp("device_add", driver="pc-dimm", id="dimm", memdev="more")
            guest.finish()


def disk_plugged(setting: Setting) -> None:
    """A disk comes, goes and comes again while the guest runs: two sessions for one VMM."""
    fixed = setting.sparse_image("fixed", 16)
    late = setting.sparse_image("late", 64)
    with setting.serve(setting.device("fixed", fixed), setting.device("late", late)) as broker:
        with setting.guest(broker, "disk_plugged.sh", "fixed") as guest:
            late_disk = qemu.Disk(broker.socket_of("late"))
            guest.wait_line("bring-it")
            guest.plug_disk(late_disk)
            guest.wait_line("take-it")
            guest.unplug_disk()
            guest.wait_line("bring-it")
            guest.plug_disk(late_disk)
            guest.finish()


def broker_restarted(setting: Setting) -> None:
    """SIGTERM under load, and started again: QEMU reconnects and the guest goes on."""
    disk = setting.sparse_image("disk", 64)
    with setting.serve(setting.device("disk", disk)) as broker:
        with setting.guest(broker, "verify_loop.sh", "disk", reconnect=True) as guest:
            guest.wait_line("verifying")
            broker.restart()
            guest.finish()


def broker_replaced(setting: Setting) -> None:
    """kill -9, takeover, and new workers under fio with verify: nothing that QEMU could notice.

    It could not connect again.
    """
    disk = setting.sparse_image("disk", 64)
    with setting.serve(setting.device("disk", disk)) as broker:
        with setting.guest(broker, "verify_loop.sh", "disk") as guest:
            guest.wait_line("verifying")
            broker.kill_and_start_again()
            wait_lines(broker, "goes on serving", 1)
            broker.take_over()
            wait_lines(broker, "goes on serving", 2)
            before = broker.log.read_text().count(" serving (")
            broker.process.send_signal(signal.SIGRTMIN)
            wait_lines(broker, " serving (", before + 4)
            guest.finish()


def wait_lines(broker, line: str, times: int) -> None:
    """Until the log has that many of them."""
    came = backend.wait_until(lambda: broker.log.read_text().count(line) >= times,
                              WORKERS_GONE_TIMEOUT_S)
    expect(f"'{line}' {times} times", came)


def qemu_killed(setting: Setting) -> None:
    """kill -9 of a VMM under load: its neighbour notices nothing, a new guest gets the disk."""
    first = setting.sparse_image("first", 128)
    second = setting.sparse_image("second", 64)
    with setting.serve(setting.device("first", first), setting.device("second", second)) as broker:
        with setting.guest(broker, "verify_loop.sh", "second", directory="neighbour") as neighbour:
            neighbour.wait_line("verifying")
            with setting.guest(broker, "load.sh", "first") as guest:
                guest.wait_line("loaded")
                guest.kill_hard()
            neighbour.finish()
        if not setting.peer:
            wait_workers_gone(broker)
        with setting.guest(broker, "verify.sh", "first", directory="next") as guest:
            guest.finish()


def processes_killed(setting: Setting) -> None:
    """kill -9 of each process in turn under fio with verify: QEMU reconnects, nothing is lost."""
    kill_processes(setting, packed=False)


def packed_processes_killed(setting: Setting) -> None:
    """The same of a guest that has chosen packed rings."""
    kill_processes(setting, packed=True)


def kill_processes(setting: Setting, packed: bool) -> None:
    disk = setting.sparse_image("disk", 64)
    with setting.serve(setting.device("disk", disk)) as broker:
        with setting.guest(broker, "verify_loop.sh", "disk", reconnect=True,
                           packed=packed) as guest:
            guest.wait_line("verifying")
            for queue in range(4):
                kill_and_wait(broker, [f"disk/{queue}"], "is served again", 1)
            kill_and_wait(broker, ["bulkhead-worker"], "is served again", 4)
            # QEMU connects again, and every queue gets a worker that resumes.
            kill_and_wait(broker, ["bulkhead-session"], " serving (", 4)
            kill_and_wait(broker, ["bulkhead-session", "bulkhead-worker"], " serving (", 4)
            broker.kill_and_start_again()
            guest.finish()
        expect("rings of the kind that was offered", has_packed_rings(broker) == packed)


def has_packed_rings(broker) -> bool:
    """Whether the driver that came last has chosen them."""
    words = re.findall("acknowledged features (0x[0-9a-f]+)", broker.log.read_text())
    return int(words[-1], 16) & VIRTIO_F_RING_PACKED != 0


def kill_and_wait(broker, titles: list, line: str, times: int) -> None:
    """Kills everything whose title has one of these; waits for so many new lines of the log."""
    before = broker.log.read_text().count(line)
    for pid in backend.descendants(broker.process.pid):
        if any(title in backend.title_of(pid) for title in titles):
            os.kill(pid, signal.SIGKILL)
    came = backend.wait_until(lambda: broker.log.read_text().count(line) >= before + times,
                              WORKERS_GONE_TIMEOUT_S)
    expect(f"'{line}' {times} times after {titles} were killed", came)


def resize(setting: Setting) -> None:
    """A disk that grows on the host grows in the guest, under load and without a reboot."""
    disk = setting.sparse_image("disk", 64)
    with setting.serve(setting.device("disk", disk)) as broker:
        with setting.guest(broker, "resize.sh", "disk") as guest:
            guest.wait_line("working")
            os.truncate(disk, 96 * MIB)
            output = guest.finish()
    expect("the guest sees 96 MiB", f"sectors {96 * MIB // 512}" in output)


CUTS = 12  # Disks of one guest that checks them; it has slots for twice as many.


def power_cut(setting: Setting) -> None:
    """The power fails at any moment: what a guest was told is durable is there, and all sound."""
    kinds = [("ext4", "write back"), ("xfs", "write back"), ("ext4", "write through")]
    if setting.direct:
        kinds.pop()  # On FUSE, as the recorder is: Bulkhead does not offer it there.
    for fs, cache in kinds:
        place = setting.workdir / f"{fs}-{cache.replace(' ', '-')}"
        place.mkdir()
        try:
            power_cut_on(dataclasses.replace(setting, workdir=place), fs, cache)
        except (ScenarioError, qemu.GuestError) as error:
            raise ScenarioError(f"{fs}, {cache}: {error}") from error
        shutil.rmtree(place)


def power_cut_on(setting: Setting, fs: str, cache: str) -> None:
    fresh = setting.sparse_image("fresh", 300 if fs == "xfs" else 64)
    make = ["mkfs.ext4", "-q", "-b", "4096"] if fs == "ext4" else ["mkfs.xfs", "-q"]
    kit.run(make + [fresh], env=kit.path_with_sbin())
    image = setting.workdir / "disk.img"
    shutil.copyfile(fresh, image)
    files = 8
    variables = f'fs={fs} cache="{cache}" files={files}\n'
    with power.Recorder(image, setting.workdir, setting.bin_dir) as recorder:
        claims = power.Claims(recorder, [])
        with setting.serve(setting.device("disk", recorder.disk)) as broker:
            with setting.guest(broker, "power_cut_load.sh", "disk", variables=variables,
                               hear=claims.hear) as guest:
                guest.finish()
        history = power.History(recorder.log)
    expect("promises of each writer", len(claims.made) == len(power.WRITERS) * 2 * files)
    dice = random.Random(len(history.records))
    cuts = power.choose_cuts(history, claims, CUTS, dice)
    print(f"{fs}, {cache}: {len(history.records)} records, {history.flushes()} flushes")
    made = [power.make_disk(setting.workdir / f"cut{place}.img", fresh, history, cut, place, dice)
            for place, cut in enumerate(cuts)]
    promises = [claims.at(history.position(cut)) for cut in cuts]
    check_disks(setting, fs, made, promises)
    # A disk that forgets what it was told to keep: the check must see that.
    try:
        check_disks(setting, fs, [fresh], promises[-1:])
    except qemu.GuestError as error:
        expect(f"a loss that is found, not: {error}", "LOST" in str(error))
    else:
        expect("an empty disk to be found out", False)


def check_disks(setting: Setting, fs: str, disks: list, promises: list) -> None:
    place = setting.workdir / "check"
    place.mkdir(exist_ok=True)
    text = (f"fs={fs} expected='{power.expected_lines(promises)}'\n"
            + (SCRIPTS / "power_cut_check.sh").read_text())
    with qemu.Guest([], text, place, echo=print, images=disks) as guest:
        output = guest.finish()
    expect(f"{len(disks)} sound disks", output.count("sound vd") == len(disks))


def migrated(setting: Setting) -> None:
    """Live, under fio with verify, to another back-end and back; some attempts given up."""
    disk = setting.sparse_image("disk", 64)
    here = setting.device("disk", disk)
    away = setting.device("disk", disk, lock=False)
    with setting.serve(here) as source, setting.serve(away, directory="away") as destination:
        with setting.guest(source, "migrate.sh", "disk", timeout_s=600) as guest:
            guest.wait_line("round 1")
            for _ in range(3):
                guest.try_to_migrate_and_give_up()
            guest.wait_line("round")
            with setting.guest(destination, "migrate.sh", "disk", directory="there",
                               moves_from=guest, timeout_s=600) as there:
                guest.migrate_to(there)
                there.wait_line("round")
                there.wait_line("round")
                with setting.guest(source, "migrate.sh", "disk", directory="back",
                                   moves_from=there, timeout_s=600) as back:
                    there.migrate_to(back)
                    back.wait_line("round")
                    back.wait_line("round")
                    # A new device tells the script that this is enough.
                    back.qmp("device_add", driver="virtio-balloon-pci", bus=qemu.HOTPLUG_PORT)
                    back.finish()
        log = source.log.read_text()
        expect("that the log of a migration was kept and given up 3 times, and kept once more",
               log.count("log of written pages is on") == 4)
    kit.run(["e2fsck", "-fn", disk], env=kit.path_with_sbin())


def wait_workers_gone(broker) -> None:
    """Both VMMs are gone: nothing that served them may stay. Spares are not sealed yet, and the
    keeper serves nobody."""
    def sealed() -> list:
        return [pid for pid in backend.descendants(broker.process.pid)
                if backend.status_of(pid).get("Seccomp") == "2"
                and backend.title_of(pid) != "bulkhead-keeper"]
    gone = backend.wait_until(lambda: not sealed(), WORKERS_GONE_TIMEOUT_S)
    expect(f"no session or worker of a VMM that is gone: {list(map(backend.title_of, sealed()))}",
           gone)


# --- network cards -------------------------------------------------------------------------------


def net_traffic(setting: Setting) -> None:
    """Ping, iperf3 and files both ways, through every combination of offloads and channels."""
    with network.Network() as net, setting.serve(setting.card("eth0", net.tap)) as broker:
        with setting.guest_on_net(broker, "net_traffic.sh", "eth0", timeout_s=600) as guest:
            guest.finish()
    expect("no complaint of the host about what the guest sent", not net.complaints())


def net_migrated(setting: Setting) -> None:
    """Live, while files go both ways, to another tap: the network hears of it, and nothing ends."""
    def guest_at(broker, directory: str, **more):
        return setting.guest_on_net(broker, "net_migrate.sh", "eth0", directory=directory,
                                    announces=False, timeout_s=600, **more)

    with network.Network(second_tap=True) as net, \
            setting.serve(setting.card("eth0", net.tap)) as source, \
            setting.serve(setting.card("eth0", net.second), directory="away") as destination:
        with guest_at(source, "guest") as guest:
            guest.wait_line("transferred")
            with guest_at(destination, "there", moves_from=guest) as there:
                rarp = net.listen_for_rarp(network.BRIDGE)
                guest.migrate_to(there)
                net.wait_rarp(rarp, qemu.Card.mac)
                there.wait_line("transferred")
                there.wait_line("transferred")
                there.qmp("device_add", driver="virtio-balloon-pci", bus=qemu.HOTPLUG_PORT)
                there.finish()
    expect("no complaint of the host about what the guest sent", not net.complaints())


def net_changes(setting: Setting) -> None:
    """The tap goes down and comes up, the guest reboots, its VMM is killed: the net goes on."""
    with network.Network() as net, setting.serve(setting.card("eth0", net.tap)) as broker:
        with setting.guest_on_net(broker, "net_changes.sh", "eth0", may_reboot=True) as guest:
            guest.wait_line("take-it-down")
            net.ip("link", "set", net.tap, "down")
            guest.wait_line("bring-it-up")
            net.ip("link", "set", net.tap, "up")
            guest.wait_line("second-boot")
            guest.wait_line("kill-me")
            guest.kill_hard()
        with setting.guest_on_net(broker, "net_once.sh", "eth0", directory="next") as guest:
            guest.finish()


def packed_net(setting: Setting) -> None:
    """Files both ways on packed rings, while each worker is killed."""
    with network.Network() as net, setting.serve(setting.card("eth0", net.tap)) as broker:
        with setting.guest_on_net(broker, "net_long.sh", "eth0", packed=True) as guest:
            guest.wait_line("transferring")
            for queue in range(2):
                kill_and_wait(broker, [f"eth0/{queue}"], "is served again", 1)
            guest.finish()
        expect("packed rings", has_packed_rings(broker))
    expect("no complaint of the host about what the guest sent", not net.complaints())


def net_broker_restarted(setting: Setting) -> None:
    """SIGTERM in the middle of a transfer, and started again: QEMU reconnects, it goes on."""
    with network.Network() as net, setting.serve(setting.card("eth0", net.tap)) as broker:
        with setting.guest_on_net(broker, "net_long.sh", "eth0", reconnect=True) as guest:
            guest.wait_line("transferring")
            broker.restart()
            guest.finish()


def net_testpmd(setting: Setting) -> None:
    """DPDK's virtio-user as the front-end: it answers pings, and sends as fast as it can."""
    with network.Network() as net, setting.serve(setting.card("eth0", net.tap)) as broker:
        with network.Testpmd(broker.socket_of("eth0"), setting.workdir, "icmpecho") as testpmd:
            testpmd.wait_started()
            net.ping(testpmd.address, 10, 56)
            net.ping(testpmd.address, 10, 1400)
        with network.Testpmd(broker.socket_of("eth0"), setting.workdir, "txonly") as testpmd:
            testpmd.wait_started()
            net.wait_received(100_000)
        with network.Testpmd(broker.socket_of("eth0"), setting.workdir, "icmpecho",
                             packed=True) as testpmd:
            testpmd.wait_started()
            net.ping(testpmd.address, 10, 1400)
        with network.Testpmd(broker.socket_of("eth0"), setting.workdir, "txonly",
                             packed=True) as testpmd:
            testpmd.wait_started()
            net.wait_received(net.received_packets() + 100_000)
        expect("packed rings of testpmd's", has_packed_rings(broker))


def libvirt_guest(setting: Setting) -> None:
    """libvirt's guest, by the lines of `bulkhead snippet`, which outlive a restart of the broker.

    QEMU is a user's that may do nothing but open the sockets.
    """
    disk = libvirt.OwnedDisk("vda", setting.sparse_image("disk", 64), queues=2,
                             engine=setting.engine, direct=setting.direct)
    with network.Network() as net:
        card = libvirt.OwnedCard("eth0", net.tap, pairs=1, engine=setting.engine)
        with setting.serve(disk, card) as broker, \
                libvirt.Libvirt(broker, setting.bin_dir) as virtual:
            script = "".join((SCRIPTS / name).read_text() for name in ("net_lib.sh", "libvirt.sh"))
            guest = virtual.start(script, ["vda", "eth0"])
            guest.wait_line("first-half")
            broker.restart()
            guest.finish()
    kit.run(["e2fsck", "-fn", disk.image], env=kit.path_with_sbin())


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (firmware_boot, four_queues, reset, disk_kinds, memory_added, disk_plugged,
                     broker_restarted, broker_replaced, processes_killed, qemu_killed, resize,
                     power_cut, migrated, net_traffic, net_migrated, net_changes,
                     net_broker_restarted, net_testpmd, libvirt_guest, packed_processes_killed,
                     packed_net)
}
