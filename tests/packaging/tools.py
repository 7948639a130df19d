"""Running a program, for checks: what it printed, or one sentence about why not."""

import os
import re
import subprocess


class ToolError(Exception):
    pass


def programs(root) -> list:
    """What a package installs; the other programs of a build are for tests."""
    text = (root / "packaging/CMakeLists.txt").read_text()
    return re.search(r"^set\(programs ([^)]*)\)", text, re.MULTILINE)[1].split()


def run(words: list, **options) -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8",
                                "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False,
                              env=environment, **options)
    except FileNotFoundError as error:
        raise ToolError(f"{words[0]} is not installed: packaging/build-deps test") from error
    if done.returncode != 0:
        raise ToolError(f"{words[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def problems_of(check):
    """Makes a tool that fails a problem of the check."""
    def checked(root, bin_dir) -> list:
        try:
            return check(root, bin_dir)
        except ToolError as error:
            return [str(error)]
    return checked
