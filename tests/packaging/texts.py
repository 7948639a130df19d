"""Man pages, completions and lists, against what the built program itself says."""

import json
import re
import sys
import tempfile
from pathlib import Path

from tools import problems_of, programs, run

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "packaging" / "docs"))
import help_text  # noqa: E402

VERSION = "1.2.3"


def generated(root, bin_dir, place) -> Path:
    run([root / "packaging/docs/generate", f"--program={bin_dir / 'bulkhead'}",
         f"--exporter={bin_dir / 'bulkhead-exporter'}",
         f"--version={VERSION}", place])
    return Path(place)


def commands_of(bin_dir) -> list:
    return [each for each in help_text.read_program(bin_dir / "bulkhead") if each.name]


def as_text(page: Path) -> str:
    return run(["mandoc", "-T", "utf8", "-O", "width=500", page])


def without_bold(text: str) -> str:
    return re.sub(".\b", "", text)


@problems_of
def check_man_pages(root, bin_dir) -> list:
    """Each option that --help lists, in the page of its command; each key, in the file's."""
    problems = []
    with tempfile.TemporaryDirectory() as place:
        out = generated(root, bin_dir, place)
        keys = without_bold(as_text(out / "man5/bulkhead.toml.5"))
        exporter = help_text.read_exporter(bin_dir / "bulkhead-exporter")
        for command in commands_of(bin_dir) + [exporter]:
            page = out / f"man8/bulkhead-{command.name}.8"
            if not page.exists():
                problems.append(f"bulkhead {command.name} has no man page")
                continue
            text = without_bold(as_text(page))
            for option in command.options:
                shown = option.name + (f"={option.value}" if option.value else "")
                if not re.search(rf"^ +{re.escape(shown)}$", text, re.MULTILINE):
                    problems.append(f"{page.name}: {shown} is missing")
                if option.text not in text:
                    problems.append(f"{page.name}: the help of {option.name} is missing")
                if option.section in ("The device", "The broker"):
                    key = option.name.removeprefix("--").replace("-", "_")
                    if not re.search(rf"^ +{key} = ", keys, re.MULTILINE):
                        problems.append(f"bulkhead.toml.5: {key} is missing")
    return problems


def bash_completion(script: Path, words: list) -> set:
    """What bash offers for the last word."""
    # As bash splits words: '=' stands alone.
    split = [part for word in words for part in (re.split("(=)", word) if "=" in word else [word])]
    quoted = " ".join(f"'{word}'" for word in split)
    return set(run(["bash", "-c", f"""
        compopt() {{ :; }}
        source {script}
        COMP_WORDS=({quoted}); COMP_CWORD={len(split) - 1}
        _bulkhead
        printf '%s\\n' "${{COMPREPLY[@]}}" """]).split())


@problems_of
def check_completions(root, bin_dir) -> list:
    problems = []
    with tempfile.TemporaryDirectory() as place:
        out = generated(root, bin_dir, place)
        bash = out / "bash/bulkhead"
        texts = {"zsh": (out / "zsh/_bulkhead").read_text(),
                 "fish": (out / "fish/bulkhead.fish").read_text()}
        run(["zsh", "-n", out / "zsh/_bulkhead"])
        commands = commands_of(bin_dir)
        if not {each.name for each in commands} <= bash_completion(bash, ["bulkhead", ""]):
            problems.append("bash does not offer every command")
        for command in commands:
            wanted = {each.name + ("=" if each.value else "") for each in command.options}
            offered = bash_completion(bash, ["bulkhead", command.name, "--"])
            if offered != wanted:
                problems.append(f"bash, {command.name}: {sorted(offered ^ wanted)}")
            for option in command.options:
                spelled = {"zsh": f"'{option.name}", "fish": f"-l {option.name[2:]} "}
                for shell, text in texts.items():
                    if spelled[shell] not in text:
                        problems.append(f"{shell}, {command.name}: no {option.name}")
        values = bash_completion(bash, ["bulkhead", "blk", "--engine="])
        if values != {"auto", "io_uring", "fallback"}:
            problems.append(f"bash, --engine=: {sorted(values)}")
        for name, begun, wanted in (("vhost-user-blk", "--blk", "--blk-file="),
                                    ("vhost-user-net", "--macv", "--macvtap=")):
            offered = bash_completion(bash, [f"/x/{name}", begun])
            if offered != {wanted}:
                problems.append(f"bash, {name}: {sorted(offered)}")
    return problems


@problems_of
def check_help_reader(root, bin_dir) -> list:
    """The reader against a text whose content is known: it must not lose an option."""
    text = ("Usage: bulkhead x --one=A\n       bulkhead x --all\n\nDoes it.\n\nThe device:\n"
            "  --one=A                       first\n  --a-very-long-option=WITH|VALUES\n"
            "                                second\n\nOther:\n"
            "  --all                         third\n\nThe end.\n")
    command = help_text.parse("x", "", text)
    found = [(each.name, each.value, each.text, each.section) for each in command.options]
    wanted = [("--one", "A", "first", "The device"),
              ("--a-very-long-option", "WITH|VALUES", "second", "The device"),
              ("--all", "", "third", "Other")]
    problems = [] if found == wanted else [f"read as {found}"]
    if (command.usage, command.before, command.after) != (
            ["bulkhead x --one=A", "bulkhead x --all"], [["Does it."]], [["The end."]]):
        problems.append(f"prose read as {command}")
    return problems


@problems_of
def check_qemu_json(root, bin_dir) -> list:
    """QEMU docs/interop/vhost-user.json, VHostUserBackend; and the program it names keeps to the
    back-end program conventions."""
    problems = []
    for name, kind in (("blk", "block"), ("net", "net")):
        text = (root / f"packaging/qemu/50-bulkhead-{name}.json.in").read_text()
        described = json.loads(text)
        if set(described) - {"description", "type", "binary", "tags"} or described["type"] != kind:
            problems.append(f"not a VHostUserBackend: {described}")
        with tempfile.TemporaryDirectory() as place:
            link = Path(place) / Path(described["binary"]).name
            link.symlink_to(bin_dir / "bulkhead")
            if json.loads(run([link, "--print-capabilities"]))["type"] != kind:
                problems.append(f"{link.name} does not have the type {kind}")
    return problems


@problems_of
def check_spdx(root, bin_dir) -> list:
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "spdx"
        run([root / "packaging/spdx", f"--build={bin_dir.parent}", f"--version={VERSION}",
             f"--output={output}", *programs(root)])
        text = output.read_text()
    wanted = ["bulkhead STATIC_LINK SPDXRef-libseccomp-dev",
              "bulkhead STATIC_LINK SPDXRef-libcap-ng-dev",
              "bulkhead STATIC_LINK SPDXRef-libaudit-dev",
              "bulkhead STATIC_LINK SPDXRef-libmd-dev",
              "bulkhead CONTAINS SPDXRef-libcli11-dev",
              "bulkhead CONTAINS SPDXRef-libtomlplusplus-dev",
              "bulkhead-session STATIC_LINK SPDXRef-libc6-dev",
              "bulkhead-worker-blk CONTAINS SPDXRef-libboost1.74-dev",
              "bulkhead-worker-net CONTAINS SPDXRef-libboost1.74-dev"]
    problems = [f"no '{each}'" for each in wanted if f"SPDXRef-{each}" not in text]
    if re.search(r"(session|worker-\w+) DYNAMIC_LINK", text):
        problems.append("a jailed program loads a shared library")
    return problems
