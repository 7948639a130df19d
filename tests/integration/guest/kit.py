"""The guest's software: a Debian cloud kernel and an initramfs with the tools the tests use.

Both are made once and kept in ${XDG_CACHE_HOME:-~/.cache}/bulkhead, or in $BULKHEAD_GUEST_CACHE.
Nothing is installed: the kernel's package is downloaded and unpacked, the tools are this
machine's own.
"""

import fcntl
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
DRIVERS = ("virtio_pci", "virtio_blk", "virtio_net", "ext4", "xfs", "crc32c_intel")
# Of a guest that is a host itself (host_kit.py): beside the kernel above, Debian's next one.
HOST_KERNELS = {"stock": (KERNEL_META_PACKAGE, "kernel"),
                "newer": ("linux-image-6.12-cloud-amd64", "newer-kernel")}
# name -> Debian package: what the guest has besides busybox.
TOOLS = {
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "xfs_repair": "xfsprogs",
    "fio": "fio",
    "blkdiscard": "util-linux",
    "ethtool": "ethtool",
    "iperf3": "iperf3",
}


class KitError(Exception):
    """One sentence for the person who runs the tests: what is missing and what to do."""


@dataclass(frozen=True)
class Kit:
    kernel: Path
    initramfs: Path


def cache_directory() -> Path:
    override = os.environ.get("BULKHEAD_GUEST_CACHE")
    if override:
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "bulkhead"


def say(text: str) -> None:
    print(f"guest kit: {text}", file=sys.stderr, flush=True)


def run(command: list, **options) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    except FileNotFoundError as error:
        raise KitError(f"{command[0]} is not installed ({error})") from error
    if done.returncode != 0:
        raise KitError(f"{' '.join(map(str, command))} failed: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def locked(directory: Path):
    """ctest may start several guests at once; one of them makes the kit, the others wait."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def prepare() -> Kit:
    cache = cache_directory()
    with locked(cache):
        tree = kernel_tree(cache)
        version = next((tree / "lib/modules").iterdir()).name
        tools = find_tools()
        initramfs = cache / f"initramfs-{fingerprint(version, tools)}.cpio"
        if not initramfs.exists():
            say(f"building {initramfs.name}")
            for old in cache.glob("initramfs-*.cpio"):
                old.unlink()
            build_initramfs(initramfs, tree, version, tools)
        return Kit(tree / "boot" / f"vmlinuz-{version}", initramfs)


# --- kernel --------------------------------------------------------------------------------------


def kernel_tree(cache: Path, which: str = "stock") -> Path:
    """The unpacked kernel package. Any version that is already there will do."""
    meta_package, prefix = HOST_KERNELS[which]
    for tree in sorted(cache.glob(f"{prefix}-*"), reverse=True):
        return tree
    download = cache / "download"
    try:
        download_kernel(download, meta_package)
    except KitError as error:
        # The usual reason: apt's lists are missing or older than the archive.
        if os.geteuid() != 0:
            raise KitError(f"{error}\nRun 'apt-get update' as root, then try again.") from error
        say("apt-get update, and once more")
        run(["apt-get", "update"])
        download_kernel(download, meta_package)
    partial = cache / "unpacking"
    shutil.rmtree(partial, ignore_errors=True)
    run(["dpkg-deb", "-x", next(download.glob("*.deb")), partial])
    shutil.rmtree(download)
    version = next((partial / "lib/modules").iterdir()).name
    run(["depmod", "-b", partial, version], env=path_with_sbin())
    tree = cache / f"{prefix}-{version}"
    partial.rename(tree)
    return tree


def download_kernel(directory: Path, meta_package: str) -> None:
    package = kernel_package_name(meta_package)
    say(f"downloading {package} (about 30 MB)")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    run(["apt-get", "download", package], cwd=directory)


def kernel_package_name(meta_package: str) -> str:
    listing = run(["apt-cache", "depends", meta_package])
    found = re.search(r"Depends: (linux-image-\S+)", listing)
    if not found:
        raise KitError(f"apt knows no {meta_package} (the guests need Debian 12 on amd64)")
    return found.group(1)


# Put before a command: it ends with the program that started it, even where that was killed.
DIES_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL", "--"]


def path_with_sbin() -> dict:
    """mkfs, depmod and others are in sbin, which users other than root do not have in PATH."""
    return os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


def module_files(tree: Path, version: str, drivers: tuple = DRIVERS) -> list:
    """The drivers and what they need, in the order in which they can be loaded."""
    base = tree / "lib/modules" / version
    depends = {}
    for line in (base / "modules.dep").read_text().splitlines():
        module, _, needs = line.partition(":")
        depends[module] = needs.split()
    by_name = {Path(module).name.partition(".ko")[0]: module for module in depends}
    order = []
    for driver in drivers:
        if driver not in by_name:
            continue  # Built into this kernel.
        module = by_name[driver]
        # modules.dep lists what must be there first at the end.
        for needed in [*reversed(depends[module]), module]:
            if needed not in order:
                order.append(needed)
    return [base / module for module in order]


# --- initramfs -----------------------------------------------------------------------------------


def find_tools(wanted: dict = TOOLS) -> dict:
    path = path_with_sbin()["PATH"]
    found = {}
    for name, package in {**wanted, "busybox": "busybox-static"}.items():
        place = shutil.which(name, path=path)
        if not place:
            raise KitError(f"{name} is not installed: apt-get install {package}")
        found[name] = Path(place).resolve()
    return found


def fingerprint(version: str, tools: dict) -> str:
    """Changes when the kernel, a tool or this recipe does: no stale initramfs is used."""
    digest = hashlib.sha256(version.encode())
    for source in (HERE / "init", HERE / "kit.py"):
        digest.update(source.read_bytes())
    for name, place in sorted(tools.items()):
        status = place.stat()
        digest.update(f"{name} {place} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def libraries_of(program: Path) -> list:
    listing = run(["ldd", program])
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listing)]


def build_initramfs(target: Path, tree: Path, version: str, tools: dict,
                    drivers: tuple = DRIVERS) -> None:
    stage = target.with_suffix(".stage")
    shutil.rmtree(stage, ignore_errors=True)
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "mnt", "modules"):
        (stage / name).mkdir(parents=True)
    install_busybox(stage, tools["busybox"])
    for name in tools.keys() - {"busybox"}:
        (stage / "bin" / name).unlink(missing_ok=True)  # Instead of busybox's own.
        install(stage, tools[name], Path("/bin") / name)
    loads = []
    for module in module_files(tree, version, drivers):
        name = module.name.removesuffix(".xz")  # As some kernels have them.
        content = module.read_bytes()
        (stage / "modules" / name).write_bytes(
            content if name == module.name else lzma.decompress(content))
        loads.append(f"/modules/{name}")
    (stage / "modules.list").write_text("".join(line + "\n" for line in loads))
    (stage / "etc/mtab").symlink_to("/proc/mounts")
    shutil.copy(HERE / "init", stage / "init")
    (stage / "init").chmod(0o755)
    partial = target.with_suffix(".partial")
    write_cpio(stage, partial)
    shutil.rmtree(stage)
    partial.rename(target)


def install(stage: Path, program: Path, place: Path) -> None:
    """A program of this machine, and the libraries that it needs."""
    for source, target in [(program, place), *((lib, lib) for lib in libraries_of(program))]:
        there = stage / target.relative_to("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, there)


def install_busybox(stage: Path, busybox: Path) -> None:
    if subprocess.run(["ldd", busybox], capture_output=True, check=False).stdout.count(b"=>"):
        raise KitError(f"{busybox} is not static: apt-get install busybox-static")
    shutil.copy(busybox, stage / "bin/busybox")
    for applet in run([busybox, "--list"]).split():
        if applet != "busybox":
            (stage / "bin" / applet).symlink_to("busybox")


def write_cpio(stage: Path, target: Path) -> None:
    """Not compressed: unpacking would cost more in the guest than it saves."""
    names = subprocess.run(["find", ".", "-print0"], cwd=stage, capture_output=True, check=True)
    with open(target, "wb") as archive:
        subprocess.run(
            ["busybox", "cpio", "-0", "-o", "-H", "newc", "-R", "0:0"],
            cwd=stage, input=names.stdout, stdout=archive, stderr=subprocess.DEVNULL, check=True,
        )


def with_script(initramfs: Path, script: str, target: Path) -> None:
    """initramfs plus /script: the kernel unpacks archives that follow one another."""
    shutil.copy(initramfs, target)
    with open(target, "ab") as archive:
        archive.write(cpio_file("script", script.encode()) + cpio_file("TRAILER!!!", b""))


def cpio_file(name: str, content: bytes) -> bytes:
    """One regular file in the "newc" format: a header of hexadecimal words, padded to 4 bytes."""
    encoded = name.encode() + b"\0"
    words = [0, 0o100755, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
    header = b"070701" + b"".join(b"%08x" % word for word in words)
    return pad4(header + encoded) + pad4(content)


def pad4(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
