"""Lengths, leftovers, and what every main() of a jailed process must say."""

import re

from sources import functions, is_code, is_script, read, text_files

COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
# A longer file says why in its first lines, with these words.
LONG_FILE_REASON = "Long because"
REASON_WITHIN_LINES = 15

# Put together so that this file does not contain them.
_WORDS = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"])
_PLACES = "|".join(["wo" + "rk", "ro" + "ot", "fa" + "rm", "ho" + r"me/\w+"])
LEFTOVERS = re.compile(rf"\b({_WORDS})\b")
MACHINE_PATHS = re.compile(rf"(?<![\w.$}}*])/({_PLACES})/")


def check_columns(root) -> list:
    problems = []
    for path in text_files(root):
        if is_code(path) or is_script(path):
            for number, line in enumerate(read(path).split("\n"), 1):
                if len(line) > COLUMNS_MAX:
                    problems.append(f"{path.relative_to(root)}:{number}: {len(line)} columns, "
                                    f"at most {COLUMNS_MAX}")
    return problems


def check_function_length(root) -> list:
    problems = []
    for path in text_files(root):
        if not is_code(path):
            continue
        for function in functions(read(path)):
            if function.lines > FUNCTION_LINES_MAX:
                problems.append(f"{path.relative_to(root)}:{function.first_line}: "
                                f"{function.name}() has {function.lines} lines, at most "
                                f"{FUNCTION_LINES_MAX}")
    return problems


def check_file_length(root) -> list:
    problems = []
    for path in text_files(root):
        if not (is_code(path) or is_script(path)):
            continue
        lines = read(path).splitlines()
        excused = any(LONG_FILE_REASON in line for line in lines[:REASON_WITHIN_LINES])
        if len(lines) > FILE_LINES_MAX and not excused:
            problems.append(f"{path.relative_to(root)}: {len(lines)} lines, at most "
                            f"{FILE_LINES_MAX} (or a '{LONG_FILE_REASON} ...' at its top)")
    return problems


def check_leftovers(root) -> list:
    problems = []
    for path in text_files(root):
        for number, line in enumerate(read(path).split("\n"), 1):
            for pattern, what in ((LEFTOVERS, "unfinished"), (MACHINE_PATHS, "a machine's path")):
                found = pattern.search(line)
                if found:
                    problems.append(f"{path.relative_to(root)}:{number}: {what}: {found.group()}")
    return problems


def check_whitespace(root) -> list:
    problems = []
    for path in text_files(root):
        text = read(path)
        if text and not text.endswith("\n"):
            problems.append(f"{path.relative_to(root)}: no newline at its end")
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                problems.append(f"{path.relative_to(root)}:{number}: white space at the end")
    return problems


MAIN_SAYS = ("May:", "Must never:", "Trusts:", "Stages")


def check_mains(root) -> list:
    """The head of each jailed program is the checklist for reviewing it."""
    mains = [*root.glob("worker/*main.cpp"), *root.glob("broker/session/*main.cpp")]
    problems = [] if mains else ["no main() of a session or worker found"]
    for path in mains:
        head = re.match(r"(?://[^\n]*\n)*", read(path)).group()
        for word in MAIN_SAYS:
            if word not in head:
                problems.append(f"{path.relative_to(root)}: its opening comment lacks '{word}'")
    return problems


def check_opening_comment(root) -> list:
    """Every source file says first what it is; for x.cpp with an x.h beside it, x.h does."""
    return [f"{path.relative_to(root)}: does not open with a comment" for path in text_files(root)
            if is_code(path) and not read(path).startswith(("//", "/*"))
            and (path.suffix == ".h" or not path.with_suffix(".h").exists())
            and not path.name.endswith("_test.cpp")]  # Its tests' names say what it is.
