"""What --help says, as data: commands, and for each its usage, options and prose.

The help of the options is printed from the one table in broker/settings.cpp, so what is made of it
knows every option and no other.
"""

import re
import subprocess
from dataclasses import dataclass, field


class HelpError(Exception):
    """--help reads as nobody here expects; one sentence."""


@dataclass(frozen=True)
class Option:
    name: str  # "--queue-size"
    value: str  # "N", or empty for a flag.
    text: str
    section: str  # "The device"


@dataclass
class Command:
    name: str  # "blk"; empty for the program itself.
    summary: str
    usage: list = field(default_factory=list)
    options: list = field(default_factory=list)
    # Prose before and after the options: paragraphs, each a list of lines.
    before: list = field(default_factory=list)
    after: list = field(default_factory=list)


_COMMAND = re.compile(r"  bulkhead ([a-z][a-z-]*)(?: .*?)?  +(\S.*)")
_OPTION = re.compile(r"  (--[a-z][a-z-]*)(?:=(\S+))?(?:  +(\S.*))?")
_SECTION = re.compile(r"([A-Z][a-z ]*):")
_CONTINUED = re.compile(r" {20,}(\S.*)")


def read_program(program) -> list:
    """The program itself and all its commands."""
    general = parse("", "", _help_of(program))
    commands = [general]
    for line in [line for lines in general.before + general.after for line in lines]:
        found = _COMMAND.fullmatch(line)
        if found:
            commands.append(parse(found[1], found[2], _help_of(program, found[1])))
    if len(commands) == 1:
        raise HelpError(f"{program} --help lists no command")
    return commands


def read_exporter(program) -> Command:
    """A program of its own, with a page like a command's."""
    return parse("exporter", "serve a broker's counters over HTTP, for Prometheus",
                 _help_of(program))


def _help_of(program, *command) -> str:
    done = subprocess.run([program, *command, "--help"], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise HelpError(f"{program} {' '.join(command)} --help failed: {done.stderr.strip()}")
    return done.stdout


def parse(name: str, summary: str, text: str) -> Command:
    command = Command(name, summary)
    section = ""
    for block in _blocks(text):
        if block[0].startswith("Usage:"):
            command.usage += [line.removeprefix("Usage:").strip() for line in block]
        elif _SECTION.fullmatch(block[0]) and len(block) > 1 and _OPTION.fullmatch(block[1]):
            section = block[0].rstrip(":")
            command.options += _options(block[1:], section)
        elif _OPTION.fullmatch(block[0]):
            command.options += _options(block, section)
        elif command.options:
            command.after.append(block)
        else:
            command.before.append(block)
    if name and not command.usage:
        raise HelpError(f"bulkhead {name} --help does not start with 'Usage:'")
    return command


def _blocks(text: str) -> list:
    """Paragraphs. What is indented stays one, with its empty lines."""
    blocks = []
    for line in text.rstrip("\n").split("\n"):
        if not line:
            blocks.append([])
        elif blocks and (blocks[-1] or len(blocks) == 1):
            blocks[-1].append(line)
        elif blocks:
            blocks[-1] = [line]
        else:
            blocks.append([line])
    return [block for block in blocks if block]


def _options(lines: list, section: str) -> list:
    found = []
    for line in lines:
        option = _OPTION.fullmatch(line)
        more = _CONTINUED.fullmatch(line)
        if option:
            found.append(Option(option[1], option[2] or "", option[3] or "", section))
        elif more and found:
            last = found.pop()
            found.append(Option(last.name, last.value, f"{last.text} {more[1]}".strip(), section))
        else:
            raise HelpError(f"not an option of --help: {line!r}")
    return found
