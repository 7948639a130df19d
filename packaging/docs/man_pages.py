"""Man pages in scdoc's language: options, usage and prose from --help, the rest from pages/."""

import re
from pathlib import Path

PAGES = Path(__file__).resolve().parent / "pages"
# What stands for what is generated, in a page of pages/.
_MARK = re.compile(r"^@(\w+)@$", re.MULTILINE)
DEVICE_SECTION = "The device"
BROKER_SECTION = "The broker"


def page_name(command) -> str:
    return f"bulkhead-{command.name}" if command.name else "bulkhead"


def all_pages(commands: list, version: str) -> dict:
    """File name without ".scd" -> text."""
    pages = {}
    for command in commands:
        pages[f"{page_name(command)}.8"] = command_page(command, commands, version)
    pages["bulkhead.toml.5"] = config_page(commands, version)
    return pages


def escaped(text: str) -> str:
    return re.sub(r"([][|\\*_<>#~+])", r"\\\1", text)


def head(name: str, section: int, version: str, what: str) -> str:
    return (f'{name}({section}) "bulkhead {version}" "Bulkhead"\n\n'
            f"# NAME\n\n{escaped(name)} - {escaped(what)}\n\n")


def command_page(command, commands: list, version: str) -> str:
    prose = [block for block in command.before + command.after if not _is_exit_status(block)]
    what = command.summary or "serve virtio disks and network cards to guests over vhost-user"
    text = head(page_name(command), 8, version, what)
    usage = command.usage or [line.strip().split("    ")[0] for block in prose for line in block
                              if line.startswith("  bulkhead ")]
    text += "# SYNOPSIS\n\n" + "".join(f"*{escaped(line)}*++\n" for line in usage)[:-3] + "\n\n"
    text += "# DESCRIPTION\n\n" + paragraphs(command.before)
    if command.options:
        text += "# OPTIONS\n\n" + option_list(command.options)
    after = [block for block in command.after if not _is_exit_status(block)]
    if after:
        text += "# NOTES\n\n" + paragraphs(after)
    for block in command.before + command.after:
        if _is_exit_status(block):
            status = " ".join(block).removeprefix("Exit status: ")
            text += f"# EXIT STATUS\n\n{escaped(status)}\n\n"
    text += hand_written(page_name(command), {})
    others = [f"*{page_name(other)}*(8)" for other in commands if other is not command]
    return text + "# SEE ALSO\n\n" + ", ".join(others + ["*bulkhead.toml*(5)"]) + "\n"


def config_page(commands: list, version: str) -> str:
    marks = {"DEVICE_KEYS": key_list(commands, DEVICE_SECTION),
             "BROKER_KEYS": key_list(commands, BROKER_SECTION)}
    text = head("bulkhead.toml", 5, version, "configuration file of bulkhead serve")
    return text + hand_written("bulkhead.toml", marks)


def hand_written(name: str, marks: dict) -> str:
    page = PAGES / f"{name}.scd"
    if not page.exists():
        return ""
    return _MARK.sub(lambda mark: marks[mark[1]].rstrip("\n"), page.read_text()) + "\n"


def _is_exit_status(block: list) -> bool:
    return block[0].startswith("Exit status:")


def paragraphs(blocks: list) -> str:
    """Lines that are indented are shown as they are."""
    text = ""
    for block in blocks:
        literal = False
        for line in block:
            if line.startswith("  ") != literal:
                text += "```\n\n" if literal else "\n```\n"
                literal = not literal
            shown = line.removeprefix("  ").replace("\\", "\\\\") if literal else escaped(line)
            text += shown + "\n"
        text += "```\n\n" if literal else "\n"
    # A literal block that comes after an empty line has one already.
    return text.replace("\n\n\n", "\n\n").removeprefix("\n")


def option_list(options: list) -> str:
    text, section = "", None
    for option in options:
        if option.section != section and option.section not in ("", "Options"):
            text += f"## {option.section}\n\n"
        section = option.section
        value = f"=_{escaped(option.value)}_" if option.value else ""
        text += f"*{option.name}*{value}\n\t{escaped(option.text)}\n\n"
    return text


def key_list(commands: list, section: str) -> str:
    """The keys of the file: options with '_' for '-'. One entry, whichever commands have it."""
    text, seen = "", set()
    for command in commands:
        for option in command.options:
            if option.section != section or option.name in seen:
                continue
            seen.add(option.name)
            key = option.name.removeprefix("--").replace("-", "_")
            text += f"*{escaped(key)}* = {_toml_type(option)}\n\t{escaped(option.text)}\n\n"
    return text


def _toml_type(option) -> str:
    if option.value in ("", "on|off"):
        return "_true_|_false_"
    if option.value == "N[,N]":
        return "[_N_, ...]"
    if option.value in ("N", "S") or re.fullmatch(r"[\d|]+", option.value):
        return "_" + escaped(option.value) + "_"
    if option.value == "UID[,UID]":
        return "[_UID_, ...]"
    return f'"_{escaped(option.value)}_"'
