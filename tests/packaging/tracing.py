"""For those who watch: tracepoints as the programs' notes have them, and the dashboard's queries,
against what is documented and what `bulkhead metrics` prints."""

import json
import os
import re
import tempfile
from pathlib import Path

from service import NeedsRoot
from tools import ToolError, problems_of, run

_ROW = re.compile(r"^\| `(?P<program>[\w-]+)` \| `(?P<probe>\w+)` \| (?P<arguments>[\w, ]*)\|",
                  re.MULTILINE)
_NOTE = re.compile(r"Provider: (?P<provider>\S+)\s+Name: (?P<name>\S+)\s+Location:.*\n"
                   r"\s*Arguments:(?P<arguments>.*)")
_USED = re.compile(r"^usdt:(?P<path>\S+):bulkhead:(?P<probe>\w+)", re.MULTILINE)
INSTALLED = "/usr/libexec/bulkhead/"


def documented(root) -> dict:
    """(program, probe) -> how many arguments."""
    text = (root / "packaging/tracing/README.md").read_text()
    return {(row["program"], row["probe"]): len(row["arguments"].replace(",", " ").split())
            for row in _ROW.finditer(text)}


def in_program(program: Path) -> dict:
    """Probe -> the numbers of arguments of its places."""
    found = {}
    for note in _NOTE.finditer(run(["readelf", "--notes", "--wide", program])):
        if note["provider"] == "bulkhead":
            count = len(re.findall(r"-?[1248]@", note["arguments"]))
            found.setdefault(note["name"], set()).add(count)
    return found


@problems_of
def check_probes(root, bin_dir) -> list:
    problems = []
    rows = documented(root)
    for program in sorted({program for program, _ in rows}):
        found = in_program(bin_dir / program)
        for (_, probe), arguments in ((key, rows[key]) for key in rows if key[0] == program):
            if found.get(probe) != {arguments}:
                problems.append(f"{program}: {probe} has {found.get(probe, 'no place')} arguments, "
                                f"documented are {arguments}")
        undocumented = set(found) - {probe for owner, probe in rows if owner == program}
        problems += [f"{program}: {probe} is not documented" for probe in sorted(undocumented)]
    return problems if rows else ["packaging/tracing/README.md documents no probe"]


@problems_of
def check_scripts(root, bin_dir) -> list:
    """Each probe that a script names is documented, and bpftrace accepts the script."""
    problems = []
    known = set(documented(root))
    scripts = sorted((root / "packaging/tracing").glob("*.bt"))
    for script in scripts:
        text = script.read_text()
        for used in _USED.finditer(text):
            program = used["path"].removeprefix(INSTALLED)
            if (program, used["probe"]) not in known:
                problems.append(f"{script.name}: {program} has no documented probe {used['probe']}")
    if os.geteuid() != 0:
        raise NeedsRoot("bpftrace parses for root only")
    with tempfile.TemporaryDirectory() as place:
        for script in scripts:
            here = Path(place) / script.name
            here.write_text(script.read_text().replace(INSTALLED, f"{bin_dir}/"))
            try:
                run(["bpftrace", "-d", here])
            except ToolError as error:
                problems.append(f"{script.name}: {error}")
    return problems if scripts else ["there is no script"]


def metric_names(root) -> set:
    """As the sources have them: each family's name, and what a histogram's series are called."""
    names = set()
    for source in (root / "broker/control").glob("*metrics.cpp"):
        names |= set(re.findall(r'"(bulkhead_[a-z_]+)"', source.read_text()))
    return names | {f"{name}_{part}" for name in names if name.endswith("_seconds")
                    for part in ("bucket", "sum", "count")}


def queries_of(dashboard) -> list:
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [each["query"] for each in dashboard["templating"]["list"]
                     if each["type"] == "query"]


@problems_of
def check_dashboard(root, bin_dir) -> list:
    problems = []
    known = metric_names(root)
    dashboard = json.loads((root / "packaging/grafana/bulkhead.json").read_text())
    queries = queries_of(dashboard)
    for query in queries:
        used = re.findall(r"\bbulkhead_\w+", query)
        problems += [f"there is no metric {name}: {query}" for name in used if name not in known]
        if not used:
            problems.append(f"asks for no metric of ours: {query}")
    return problems if queries else ["the dashboard asks for nothing"]
