"""The units: what systemd thinks of them, and whether the jail holds under their conditions."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tools import ToolError, problems_of, programs, run

# What systemd-analyze may say at most, in tenths.
UNITS = {"bulkhead.service": 25, "bulkhead@.service": 25, "bulkhead-exporter.service": 10}
PATIENCE_S = 30
# That no account has.
SERVICE_UID, SERVICE_GID = 64990, 64991


class NeedsRoot(Exception):
    pass


def units_of(root, place: Path) -> Path:
    """The units as a build makes them."""
    run(["cmake", "-S", root, "-B", place, "-G", "Ninja", "-DBULKHEAD_TESTS=OFF",
         "-DBULKHEAD_PACKAGE=ON", "-DCMAKE_INSTALL_PREFIX=/usr"])
    out = place / "root/usr/lib/systemd/system"
    out.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(place / "packaging" / unit, out)
    shutil.copy(root / "packaging/systemd/bulkhead@.socket", out)
    return place / "root"


def score_of(image: Path, unit: str) -> int:
    shown = run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                 f"--root={image}", unit.replace("@.", "@x.")])
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)
    return round(float(found[1]) * 10)


@problems_of
def check_units(root, bin_dir) -> list:
    problems = []
    with tempfile.TemporaryDirectory() as place:
        image = units_of(root, Path(place))
        for unit, score_max in UNITS.items():
            text = (image / "usr/lib/systemd/system" / unit).read_text()
            score = score_of(image, unit)
            if score > score_max:
                problems.append(f"{unit}: exposure {score / 10}, at most {score_max / 10}")
            if re.search(r"@[A-Z]+@", text):
                problems.append(f"{unit}: something is not filled in")
            if "bulkhead-exporter" in unit:
                continue  # It has no workers.
            if "KillMode=process" not in text:
                problems.append(f"{unit}: SIGTERM would reach workers, whose disk still works")
    return problems


def conditions(root) -> list:
    """What the unit asks of the kernel, by the same names: setpriv's options."""
    text = (root / "packaging/systemd/hardening.conf").read_text()
    capabilities = re.search(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)[1].split()
    kept = ",".join(["-all"] + ["+" + each.removeprefix("CAP_").lower() for each in capabilities])
    words = ["setpriv", f"--reuid={SERVICE_UID}", f"--regid={SERVICE_GID}", "--clear-groups",
             f"--bounding-set={kept}", f"--inh-caps={kept}", f"--ambient-caps={kept}"]
    if "NoNewPrivileges=yes" in text:
        words.append("--no-new-privs")
    return words


def example_in(root, place: Path) -> Path:
    """The example of the configuration, with its files in another place."""
    text = (root / "packaging/config/bulkhead.toml").read_text()
    for directory in ("/run/bulkhead", "/var/lib/bulkhead", "/var/log/bulkhead"):
        text = text.replace(directory, str(place))
    config = place / "bulkhead.toml"
    config.write_text(text)
    image = place / "example.img"
    image.touch()
    os.truncate(image, 4 << 20)
    for path in (place, image, config):
        os.chown(path, SERVICE_UID, SERVICE_GID)
    return config


@problems_of
def check_example(root, bin_dir) -> list:
    """Uid, capabilities, no_new_privs and a /proc with hidepid, as systemd would have it; every
    layer of the jail must hold, or strict does not start."""
    if os.geteuid() != 0:
        raise NeedsRoot("needs root to become the service's user")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        copies = place / "bin"  # The build may be where only root can look.
        copies.mkdir()
        for program in programs(root):
            shutil.copy(bin_dir / program, copies)
        config = example_in(root, place)
        words = ["unshare", "--mount", "sh", "-c",
                 'mount -t proc -o hidepid=invisible proc /proc && exec "$@"', "sh",
                 *conditions(root), str(copies / "bulkhead"), "serve", f"--config={config}",
                 "--require-posture=strict"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(place / "notify"))
            os.chmod(place / "notify", 0o777)
            manager.settimeout(PATIENCE_S)
            told = {"NOTIFY_SOCKET": str(place / "notify"), "WATCHDOG_USEC": "100000"}
            with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                  text=True, env=os.environ | told) as broker:
                try:
                    return (drive(broker, bin_dir, place / "example.sock") or
                            listen(manager))
                finally:
                    broker.terminate()


def listen(manager) -> list:
    """What systemd hears: ready once, then alive, again and again."""
    heard = []
    try:
        while heard.count("WATCHDOG=1") < 3:
            heard.append(manager.recv(4096).decode())
    except TimeoutError:
        return [f"systemd would have heard {heard}"]
    return [] if heard[0].startswith("READY=1\n") else [f"systemd would have heard {heard}"]


def drive(broker, bin_dir, address: Path) -> list:
    said = []
    for line in broker.stderr:
        said.append(line.rstrip())
        if ": serving " in line:
            break
    else:
        return [f"does not start: {said}"]
    try:
        result = run([bin_dir / "bulkhead-bench", f"--socket={address}", "--mode=randwrite",
                      "--seconds=1", "--warmup=0.1"])
    except ToolError as error:
        return [str(error)]
    return [] if re.search(r"^failed\s+0$", result, re.MULTILINE) else [result]
