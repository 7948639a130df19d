"""Who may include whom, and which library is used where."""

import re

from sources import product_code, read, text_files, is_code

# A file may include its own directory and these.
MAY_INCLUDE = {
    "common": {"common"},
    "policy": {"policy", "common"},
    "worker": {"worker", "policy", "common"},
    "broker": {"broker", "policy", "common"},
    "broker/session": {"broker/session", "policy", "common"},
    "broker/keeper": {"broker/keeper", "policy", "common"},
    "broker/exporter": {"broker/exporter", "broker", "policy", "common"},
}

# Each third-party library is included by one file: replaceable, and its exceptions end there.
ONLY_IN = {
    r"seccomp\.h": "policy/seccomp.cpp",
    r"cap-ng\.h": "policy/capabilities.cpp",
    r"boost/": "common/shared_region.cpp",
    r"spdlog/": "broker/log.cpp",
    r"CLI/": "broker/options.cpp",
    r"toml(\+\+|plusplus)?[./]": "broker/config_file.cpp",
    r"expected>": "common/result.h",
    r"libaudit\.h": "broker/audit/kernel_log.cpp",
    r"sha2\.h": "broker/audit/digest.cpp",
    r"microhttpd\.h": "broker/exporter/http.cpp",
    r"(liburing|libaio)\.h": "nothing: system calls and netlink are made directly",
    r"(systemd/|nlohmann/)": "nothing",
    r"(gtest|gmock|benchmark)/": "tests/",
}
EXPECTED_ALIAS_FILE = "common/result.h"

_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def component_of(path: str) -> str:
    parts = path.split("/")
    own = "/".join(parts[:2])
    return own if own in MAY_INCLUDE else parts[0]


def check_layering(root) -> list:
    problems = []
    for path in product_code(root):
        name = path.relative_to(root).as_posix()
        component = component_of(name)
        for kind, included in _INCLUDE.findall(read(path)):
            if kind == "<":
                if (root / included).exists():
                    problems.append(f'{name}: include our own "{included}" with quotes')
                continue
            if not (root / included).exists():
                problems.append(f'{name}: "{included}": includes are from the root of the tree')
            elif component_of(included) not in MAY_INCLUDE[component]:
                problems.append(f"{name}: {component}/ may not include {included}")
    return problems


def check_libraries(root) -> list:
    problems = []
    for path in product_code(root):
        name = path.relative_to(root).as_posix()
        text = read(path)
        for kind, included in _INCLUDE.findall(text):
            for pattern, owner in ONLY_IN.items():
                if re.match(pattern, included + (">" if kind == "<" else "")) and name != owner:
                    problems.append(f"{name}: <{included}> may be included only by {owner}")
        if "std::expected" in text and name != EXPECTED_ALIAS_FILE:
            problems.append(f"{name}: write common::Result; only {EXPECTED_ALIAS_FILE} names "
                            "std::expected")
    return problems


def check_first_include(root) -> list:
    """x.cpp includes x.h first, which proves that the header stands alone."""
    problems = []
    for path in product_code(root):
        header = path.with_suffix(".h")
        if path.suffix != ".cpp" or not header.exists():
            continue
        wanted = header.relative_to(root).as_posix()
        included = _INCLUDE.findall(read(path))
        if not included or included[0][1] != wanted:
            problems.append(f'{path.relative_to(root)}: the first include must be "{wanted}"')
    return problems


def check_pragma_once(root) -> list:
    return [f"{path.relative_to(root)}: no #pragma once" for path in text_files(root)
            if is_code(path) and path.suffix == ".h" and "#pragma once" not in read(path)]
