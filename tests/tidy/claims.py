"""The threat model's claims, and the tests it names for them: each of them must exist.

What stands in backquotes in the second column of policy/README.md's table "Claims" is a file or
directory, a test of ctest's own (`escape.name`), or a test of GoogleTest: `Suite.Test`, with * for
any part, `Suite`, `Test`, or the name of one parameter ("Name" in a test's table).
"""

import re
from fnmatch import fnmatchcase

from sources import read, text_files

_SECTION = re.compile(r"^## Claims.*?\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"`([^`]+)`")
_TEST = re.compile(r"\bTEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\s*\)")
_TYPED = re.compile(r"\bTYPED_TEST(?:_P)?\(\s*(\w+),\s*(\w+)\s*\)")
_CASE = re.compile(r'"([A-Z]\w+)"')
_CTEST = re.compile(r"add_test\(\s*NAME\s+(\S+)")


class Tests:
    def __init__(self, root):
        self.suites, self.tests, self.full, self.cases, self.ctest = (set() for _ in range(5))
        for path in text_files(root / "tests"):
            if path.suffix == ".cpp":
                text = read(path)
                for suite, test in _TEST.findall(text) + _TYPED.findall(text):
                    self.suites.add(suite)
                    self.tests.add(test)
                    self.full.add(f"{suite}.{test}")
                self.cases |= set(_CASE.findall(text))
            elif path.name == "CMakeLists.txt":
                self.ctest |= set(_CTEST.findall(read(path)))

    def has(self, name: str) -> bool:
        if "." in name:
            return any(fnmatchcase(each, name) for each in self.full | self.ctest)
        return any(fnmatchcase(each, name) for each in self.suites | self.tests | self.cases)


def check_claims(root) -> list:
    """Every test that the threat model names exists, and every claim names one."""
    model = root / "policy/README.md"
    if not model.exists():
        return []
    section = _SECTION.search(read(model))
    if not section:
        return ["policy/README.md: no section 'Claims'"]
    tests, problems = Tests(root), []
    for row in section[1].splitlines():
        columns = [column.strip() for column in row.strip().strip("|").split("|")]
        if not row.startswith("|") or len(columns) != 2 or columns[0] in ("claim", "---"):
            continue
        names = _NAME.findall(columns[1])
        if not names:
            problems.append(f"policy/README.md: no test is named for '{columns[0]}'")
        for name in names:
            there = (root / name.split()[0]).exists() if "/" in name else tests.has(name)
            if not there:
                problems.append(f"policy/README.md: there is no `{name}` to prove '{columns[0]}'")
    return problems
