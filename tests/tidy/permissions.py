"""Permission tables and code, compared in both directions.

Each row of a profile in policy/*.h names the function that needs it ("file: function"), and that
function's file carries `// syscalls: name, name`. So nobody can remove the code and leave the
permission, or use a call that no table grants. The comment may stand in x.h or x.cpp.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath

from sources import functions, product_code, read, without_literals

# The lists that only sanitizer builds have: no function of ours needs those calls.
NOT_PROFILES = {"sanitizer.h", "profile.h"}

_TABLE = re.compile(r"\bSyscallRule\s+\w+\[\]\s*=\s*\{(.*?)\n\};", re.DOTALL)
_ROW = re.compile(r'\{\s*SYS_(\w+)\b.*?"([^"]*)"\s*\}', re.DOTALL)
_OPCODE_TABLE = re.compile(r"\buint8_t\s+\w*Opcodes\[\]\s*=\s*\{(.*?)\n\};", re.DOTALL)
_OPCODE_ROW = re.compile(r"\b(IORING_OP_\w+)\s*,?\s*//[^\n;]*;?\s*(\S+: \w+)")
_NEEDED_BY = re.compile(r"([\w./-]+): (\w+)$")
_ANNOTATION = re.compile(r"//\s*syscalls:\s*([^\n]*)")


@dataclass(frozen=True)
class Row:
    profile: str    # The header it stands in.
    grant: str      # System call or opcode.
    file: str
    function: str


def syscall_rows(root, problems) -> list:
    return _rows(root, _TABLE, _ROW, re.compile(r"\bSYS_\w+"), problems)


def opcode_rows(root, problems) -> list:
    return _rows(root, _OPCODE_TABLE, _OPCODE_ROW, re.compile(r"\bIORING_OP_\w+"), problems)


def _rows(root, table, row, grant, problems) -> list:
    rows = []
    for header in sorted((root / "policy").glob("*.h")):
        if header.name in NOT_PROFILES:
            continue
        for body in table.findall(read(header)):
            found = row.findall(body)
            if len(found) != len(grant.findall(without_literals(body))):
                problems.append(f"policy/{header.name}: a row does not say who needs it")
            for what, needed_by in found:
                named = _NEEDED_BY.match(needed_by)
                if not named:
                    problems.append(f"policy/{header.name}: {what}: '{needed_by}' is not "
                                    "'file: function'")
                    continue
                rows.append(Row(f"policy/{header.name}", what, *named.groups()))
    return rows


def annotations(path: Path) -> set:
    """The calls that a file, x.h or x.cpp, says it makes."""
    texts = [read(half) for half in (path.with_suffix(".h"), path.with_suffix(".cpp"))
             if half.exists()]
    return {name for text in texts for listed in _ANNOTATION.findall(text)
            for name in re.findall(r"\w+", listed)}


def stem(name: str) -> str:
    return str(PurePath(name).with_suffix(""))


def check_permissions(root) -> list:
    """Every row names an existing function; every call it grants is annotated there, and back."""
    problems = []
    rows = syscall_rows(root, problems)
    if not rows:
        problems.append("policy/*.h: no permission table found")
    for row in rows:
        problems += _missing_function(root, row)
        path = root / row.file
        # The broker's list takes in the set-up of every process; what shows that a row is needed
        # is that it is used (tests/escape/permissions), not a comment in half of all files.
        if row.profile == "policy/broker.h":
            continue
        if path.exists() and row.grant not in annotations(path):
            problems.append(f"{row.profile}: {row.grant} is granted for {row.file}: "
                            f"{row.function}, which has no '// syscalls: {row.grant}'")
    granted = {(stem(row.file), row.grant) for row in rows}
    for path in product_code(root):
        name = path.relative_to(root).as_posix()
        for call in sorted(annotations(path)):
            if (stem(name), call) not in granted:
                problems.append(f"{name}: says 'syscalls: {call}', but no profile grants it to "
                                "this file")
    return problems


def check_opcodes(root) -> list:
    """The same for what a ring may do: seccomp cannot see it."""
    problems = []
    rows = opcode_rows(root, problems)
    if not rows:
        problems.append("policy/*.h: no list of ring operations found")
    for row in rows:
        problems += _missing_function(root, row)
        path = root / row.file
        if path.exists() and row.grant not in without_literals(read(path)):
            problems.append(f"{row.profile}: {row.grant} is granted for {row.file}, which does "
                            "not use it")
    granted = {row.grant for row in rows}
    for path in (root / "worker").glob("*.cpp"):
        for opcode in sorted(set(re.findall(r"\bIORING_OP_\w+", without_literals(read(path))))):
            if opcode not in granted:
                problems.append(f"worker/{path.name}: uses {opcode}, which no list grants")
    return problems


def _missing_function(root, row: Row) -> list:
    path = root / row.file
    if not path.exists():
        return [f"{row.profile}: {row.grant} is granted for {row.file}, which does not exist"]
    if row.function not in {function.name for function in functions(read(path))}:
        return [f"{row.profile}: {row.grant} is granted for {row.function}() of {row.file}, "
                "which has no such function"]
    return []
