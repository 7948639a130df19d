"""AppArmor profiles and the SELinux module: the compilers accept them, and each rule names a
function that is there."""

import re
import shutil
import tempfile
from pathlib import Path

from tools import ToolError, problems_of, programs, run

APPARMOR = "policy/apparmor"
SELINUX = "policy/selinux"
_NEEDED_BY = re.compile(r"#\s*(?P<needs>\S+\.(?:cpp|h): .*)$")
_FUNCTION = re.compile(r"(?P<file>\S+\.(?:cpp|h)): (?P<names>[\w, ]+?)(?=$|;)")
# What the system itself does for a program, before or beside our code.
_SYSTEM = ("# exec", "# the dynamic linker", "# systemd")


def profiles(root) -> list:
    return sorted(path for path in (root / APPARMOR).iterdir() if path.is_file())


@problems_of
def check_apparmor(root, bin_dir) -> list:
    problems = []
    for profile in profiles(root):
        run(["apparmor_parser", "--skip-kernel-load", "--skip-cache", f"--base={root / APPARMOR}",
             "--Include=/etc/apparmor.d", f"--Include={root / APPARMOR}", profile])
        name = re.search(r"^profile (\S+)", profile.read_text(), re.MULTILINE)[1]
        if name != profile.name:
            problems.append(f"{profile.name}: holds profile {name}")
        if f"local/{name}>" not in profile.read_text():
            problems.append(f"{profile.name}: has no place for local rules")
    names = {profile.name for profile in profiles(root)}
    installed = set(programs(root))
    problems += [f"{each} has no profile" for each in sorted(installed - names)]
    problems += [f"{each} is a profile of no program" for each in sorted(names - installed)]
    return problems


def functions_missing(root, where: str, line: str) -> list:
    """Problems of one rule's comment."""
    if any(line.rstrip().endswith(each) for each in _SYSTEM):
        return []
    needed_by = _NEEDED_BY.search(line)
    if not needed_by:
        return [f"{where}: does not end with the function that needs it: {line.strip()}"]
    found_all = list(_FUNCTION.finditer(needed_by["needs"]))
    problems = [] if found_all else [f"{where}: not 'file: function': {needed_by['needs']}"]
    for found in found_all:
        source = root / found["file"]
        if not source.exists():
            problems.append(f"{where}: there is no {found['file']}")
            continue
        for name in found["names"].split(","):
            if not re.search(rf"\b{name.strip()}\(", source.read_text()):
                problems.append(f"{where}: {found['file']} has no function {name.strip()}")
    return problems


@problems_of
def check_apparmor_functions(root, bin_dir) -> list:
    problems = []
    for profile in profiles(root):
        inside = False
        for number, line in enumerate(profile.read_text().splitlines(), 1):
            if line.startswith(("profile ", "}")):
                inside = line.startswith("profile ")
                continue
            rule = line.split("#")[0].strip()
            if inside and rule and not rule.startswith("include"):
                problems += functions_missing(root, f"{profile.name}:{number}", line)
    return problems


def selinux_module(root, place) -> Path:
    run([root / SELINUX / "build", place])
    return Path(place) / "bulkhead.pp"


@problems_of
def check_selinux(root, bin_dir) -> list:
    with tempfile.TemporaryDirectory() as place:
        selinux_module(root, place)
    return []


@problems_of
def check_selinux_functions(root, bin_dir) -> list:
    problems = []
    text = (root / SELINUX / "bulkhead.te").read_text()
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*allow\b", line):
            problems += functions_missing(root, f"bulkhead.te:{number}", line)
    return problems


@problems_of
def check_selinux_assertions(root, bin_dir) -> list:
    """A rule that a worker must never have makes the module fail to build."""
    problems = []
    for rule in ("bulkhead_worker_blk_t self:process execmem",
                 "bulkhead_worker_net_t tun_tap_device_t:chr_file ioctl",
                 "bulkhead_session_t sysctl_kernel_t:file write"):
        problems += problem_of_forbidden(root, rule)
    return problems


def problem_of_forbidden(root, rule: str) -> list:
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "selinux"
        shutil.copytree(root / SELINUX, copy)
        source = copy / "bulkhead.te"
        types = re.match(r"\S+ (\w+):", rule)[1]
        required = "" if types == "self" else f"gen_require(`type {types};')\n"
        source.write_text(f"{source.read_text()}{required}allow {rule};\n")
        try:
            run([copy / "build", Path(place) / "out"])
        except ToolError as error:
            return [] if "neverallow" in str(error) else [str(error)]
    return [f"accepted, and must not be: allow {rule}"]
