"""A guest that is the host: it runs our own programs, on kernels and with settings that the machine
on which the tests run does not have.

Its root is a disk of its own and not the initramfs: nobody can leave that one by pivot_root, as
jailed processes do.
"""

import hashlib
import shutil
from pathlib import Path

import kit
import qemu

DRIVERS = ("virtio_pci", "virtio_blk", "ext4", "crc32c_intel", "null_blk")
ROOT_BYTES_FREE = 96 << 20
MEMORY = "768M"
TIMEOUT_S = 240

# The initramfs' part: the disk becomes the root. Not by chroot alone, in which the kernel makes no
# user namespaces.
ENTER_ROOT = """
set -e
mkdir /disk
mount -t ext4 /dev/vda /disk
for place in dev proc sys; do mount --move /$place /disk/$place; done
cp -r /modules /disk/
cd /disk
mount --move . /
exec chroot . /bin/sh /script
"""


def prepare(kernel: str) -> kit.Kit:
    """The kernel and an initramfs that has drivers and busybox only; kept for the next time."""
    cache = kit.cache_directory()
    with kit.locked(cache):
        tree = kit.kernel_tree(cache, kernel)
        version = next((tree / "lib/modules").iterdir()).name
        tools = kit.find_tools({})
        recipe = hashlib.sha256(Path(__file__).read_bytes())
        recipe.update(kit.fingerprint(version, tools).encode())
        initramfs = cache / f"host-{kernel}-{recipe.hexdigest()[:16]}.cpio"
        if not initramfs.exists():
            for old in cache.glob(f"host-{kernel}-*.cpio"):
                old.unlink()
            kit.build_initramfs(initramfs, tree, version, tools, DRIVERS)
        return kit.Kit(tree / "boot" / f"vmlinuz-{version}", initramfs)


def root_disk(target: Path, programs: list, script: str) -> None:
    """An ext4 image: busybox, `programs` where they are on this machine, and the script."""
    stage = target.with_suffix(".stage")
    for name in ("bin", "dev", "proc", "sys", "tmp", "run", "etc", "images"):
        (stage / name).mkdir(parents=True)
    kit.install_busybox(stage, kit.find_tools({})["busybox"])
    for program in programs:
        kit.install(stage, program, program)
    (stage / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (stage / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (stage / "script").write_text(script)
    used = sum(path.stat().st_size for path in stage.rglob("*") if not path.is_symlink())
    kit.run(["mke2fs", "-q", "-t", "ext4", "-d", stage, target,
             f"{(used + ROOT_BYTES_FREE) >> 20}M"], env=kit.path_with_sbin())
    shutil.rmtree(stage)


def boot(kernel: str, programs: list, script: str, workdir: Path, *, kernel_options: str = "",
         echo=None, **more) -> list:
    """Runs the script as root of that machine; the lines that it printed."""
    disk = workdir / "root.img"
    root_disk(disk, programs, script)
    # In turns on one thread: limits of cgroups make Linux patch its scheduler, and TCG may run into
    # half a patch on another processor.
    with qemu.Guest([], ENTER_ROOT, workdir, parts=prepare(kernel), images=[disk], memory=MEMORY,
                    kernel_options=kernel_options, cpus=2, threads="single", timeout_s=TIMEOUT_S,
                    echo=echo, **more) as guest:
        return guest.finish().splitlines()
