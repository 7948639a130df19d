"""What the checks look at: the project's files, and the functions in them.

A brace-matching reader, not a compiler: good to a line or two, and blind inside macros.
"""

import re
from dataclasses import dataclass
from pathlib import Path

PRODUCT = ("common", "policy", "worker", "broker")
SKIPPED_DIRECTORIES = {".git", "build", ".cache", "__pycache__", "corpus"}
CODE_SUFFIXES = {".h", ".cpp"}
SCRIPT_SUFFIXES = {".py", ".sh", ".cmake"}


def text_files(root: Path) -> list:
    found = []
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).parts
        if path.is_symlink() or not path.is_file() or SKIPPED_DIRECTORIES.intersection(inside):
            continue
        if b"\0" not in path.read_bytes()[:4096]:
            found.append(path)
    return found


def is_code(path: Path) -> bool:
    return path.suffix in CODE_SUFFIXES


def is_script(path: Path) -> bool:
    if path.suffix in SCRIPT_SUFFIXES or path.name == "CMakeLists.txt":
        return True
    return path.suffix == "" and path.read_bytes()[:2] == b"#!"


def product_code(root: Path) -> list:
    return [path for path in text_files(root)
            if is_code(path) and path.relative_to(root).parts[0] in PRODUCT]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


_LITERALS = re.compile(
    r'R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"'  # raw string
    r'|"(?:\\.|[^"\\\n])*"'                # string
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'"  # character, not the separator of 1'000
    r"|//[^\n]*|/\*.*?\*/",
    re.DOTALL)


def without_literals(text: str) -> str:
    """Comments, strings and characters become spaces; every line stays where it is."""
    return _LITERALS.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


@dataclass(frozen=True)
class Function:
    name: str
    first_line: int  # Of its head, from 1.
    last_line: int

    @property
    def lines(self) -> int:
        return self.last_line - self.first_line + 1


_CONTAINER = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
_NOISE = re.compile(r"\[\[.*?\]\]|\b(?:alignas|decltype|noexcept|requires|__attribute__)\s*\(")
_NAME = re.compile(r"(operator\s*\S+|~?\w+)\s*\(")
_NOT_FUNCTIONS = {"if", "for", "while", "switch", "return", "catch", "static_assert"}


def functions(text: str) -> list:
    """Functions at namespace or class level: lambdas and local classes count with theirs."""
    plain = re.sub(r"(?m)^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", _blank, without_literals(text))
    found, stack, head_start = [], [], 0
    for position, char in enumerate(plain):
        if char == "{" and re.match(r"[\w>]", plain[position - 1:position]):
            stack.append((None, None, ""))  # member_{value}: its head goes on after it.
        elif char == "{":
            head = plain[head_start:position]
            stack.append((_kind_of(head, stack), head_start, head))
            head_start = position + 1
        elif char == "}":
            if not stack:
                continue
            kind, start, head = stack.pop()
            if start is None:
                continue
            head_start = position + 1
            if kind:
                start += len(head) - len(head.lstrip())
                found.append(Function(kind, plain.count("\n", 0, start) + 1,
                                      plain.count("\n", 0, position) + 1))
        elif char == ";":
            head_start = position + 1
    return found


def _blank(match) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def _kind_of(head: str, stack: list):
    """The function's name; "" for a namespace or type; None for anything else."""
    if any(kind != "" for kind, _, _ in stack):
        return None
    cleaned = _NOISE.sub("", head)
    named = _NAME.search(cleaned)
    if named and "=" not in cleaned[:named.start()]:
        name = re.sub(r"\s", "", named.group(1))
        if name not in _NOT_FUNCTIONS:
            return name
    return "" if _CONTAINER.search(head) else None
