"""The compatibility table: a row for every item of the checklist of Celery 5.7's behaviours, and the page made of it.

    python scripts/compat.py done call.4 tests/compat/test_call.py::test_countdown [more tests]
    python scripts/compat.py done call.4-6,call.9 tests/compat/test_call.py::test_options
    python scripts/compat.py differs app.50 "reason" [tests]
    python scripts/compat.py later call.9 5          # 0: in no issue yet
    python scripts/compat.py later app.38 6 "what is missing" [tests of what is there]
    python scripts/compat.py render [--check]        # docs/compatibility.md
    python scripts/compat.py import FEATURES.md      # adds the rows that are missing

A test is named by its pytest id; the name may be a pattern (`test_countdown_*`).
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "compatibility.toml"
PAGE = ROOT / "docs" / "compatibility.md"
ITEMS = 1258

HEADER = """\
# One line for each item of the checklist of Celery 5.7's behaviours. Change it with scripts/compat.py, which also
# renders docs/compatibility.md. Each row is either
#   later = N                     the issue that brings it (0: none yet); reason = "…" says what part is missing if
#                                 the rest is there, and tests = […] hold that rest
#   done = ["tests/…::test_…"]    the tests that hold it
#   differs = "reason"            on purpose; tests = [...] hold what we do instead
"""

#: The issue that brings the areas of each line, unless a row says otherwise; 0: none yet.
_AREAS_OF_ISSUES = {
    2: "app conf call loader exc log wire redis rkeys state pkg",
    3: "settings task result signal limit env test compat util wireres pool drift new57 sample",
    4: "worker shutdown",
    5: "canvas combo stamp opt",
    6: "wirectl control wireev event cli multi daemon contrib",
    7: "route broker backend",
}
ISSUES = {area: issue for issue, areas in _AREAS_OF_ISSUES.items() for area in areas.split()}


@dataclass(frozen=True)
class Row:
    area: str
    number: int
    title: str
    #: "done", "differs" or "later".
    status: str
    issue: int = 0
    reason: str = ""
    tests: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.area}.{self.number}"

    def line(self) -> str:
        parts = [f"title = {_quote(self.title)}"]
        if self.status == "later":
            parts.append(f"later = {self.issue}")
            parts += [f"reason = {_quote(self.reason)}"] if self.reason else []
            parts += [f"tests = [{', '.join(map(_quote, self.tests))}]"] if self.tests else []
        elif self.status == "done":
            parts.append(f"done = [{', '.join(map(_quote, self.tests))}]")
        else:
            parts.append(f"differs = {_quote(self.reason)}")
            parts += [f"tests = [{', '.join(map(_quote, self.tests))}]"] if self.tests else []
        return f"{self.number} = {{ {', '.join(parts)} }}"


@dataclass
class Area:
    name: str
    subject: str
    rows: dict[int, Row] = field(default_factory=dict)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# The table ---------------------------------------------------------------------------------------------------------


def read(path: Path = TABLE) -> dict[str, Area]:
    """The table, area by area. Raises `ValueError` naming the row that is neither later, done nor differs."""
    areas = {}
    for name, content in tomllib.loads(path.read_text()).items():
        area = areas[name] = Area(name, content.pop("subject"))
        for number, cells in content.items():
            area.rows[int(number)] = _row(name, int(number), cells)
    return areas


def _row(area: str, number: int, cells: dict[str, object]) -> Row:
    match cells:
        case {"title": str(title), "later": int(issue), **rest} if not rest or rest.keys() - {"tests"} == {"reason"}:
            return Row(area, number, title, "later", issue, str(rest.get("reason", "")), _tests(rest))
        case {"title": str(title), "done": [_, *_] as tests, **rest} if not rest:
            return Row(area, number, title, "done", tests=tuple(map(str, tests)))
        case {"title": str(title), "differs": str(reason), **rest} if reason and rest.keys() <= {"tests"}:
            return Row(area, number, title, "differs", reason=reason, tests=_tests(rest))
    raise ValueError(f"{area}.{number}: expected later = N, done = [tests] or differs = reason, got {cells}")


def _tests(cells: dict[str, object]) -> tuple[str, ...]:
    named = cells.get("tests", [])
    assert isinstance(named, list)
    return tuple(map(str, named))


def write(areas: dict[str, Area], path: Path = TABLE) -> None:
    parts = [HEADER]
    for area in areas.values():
        rows = [area.rows[number].line() for number in sorted(area.rows)]
        parts.append("\n".join([f"[{area.name}]", f"subject = {_quote(area.subject)}", *rows, ""]))
    path.write_text("\n".join(parts))


def change(areas: dict[str, Area], ids: str, **changes: object) -> None:
    """Give rows a new status. `ids`: "call.4", "call.4,call.9" or "call.4-9". Raises `SystemExit` for others."""
    for row in _named(areas, ids):
        cleared = {"issue": 0, "reason": "", "tests": ()}
        areas[row.area].rows[row.number] = replace(row, **{**cleared, **changes})  # type: ignore[arg-type]


def _named(areas: dict[str, Area], ids: str) -> list[Row]:
    rows = []
    for id in ids.split(","):
        name, _, numbers = id.partition(".")
        first, _, last = numbers.partition("-")
        try:
            rows += [areas[name].rows[n] for n in range(int(first), int(last or first) + 1)]
        except (KeyError, ValueError):
            raise SystemExit(f"expected items of the table such as call.4 or call.4-9,task.2, got {id!r}") from None
    return rows


# Tests named by rows -----------------------------------------------------------------------------------------------


def missing_tests(areas: dict[str, Area], root: Path = ROOT) -> list[str]:
    """What rows name and no file holds, as "call.4: tests/…::test_…"."""
    rows = [row for area in areas.values() for row in area.rows.values()]
    return [f"{row.id}: {test}" for row in rows for test in row.tests if not _exists(test, root)]


def _exists(test: str, root: Path) -> bool:
    file, _, name = test.partition("[")[0].partition("::")
    return any(fnmatchcase(known, name) for known in _tests_of(root / file)) if name else (root / file).is_file()


@cache
def _tests_of(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    found = set()
    for node in ast.parse(path.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        functions = [n for n in inner if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        found |= {prefix + f.name for f in functions if f.name.startswith("test")}
    return frozenset(found)


# The page ----------------------------------------------------------------------------------------------------------


def page(areas: dict[str, Area]) -> str:
    """The table as a page: a summary, then each area with what is done, what differs and what comes later."""
    lines = [
        "# Compatibility", "",
        f"Celery 5.7's behaviour as a checklist of {ITEMS:,} items. *Done*: a test holds it. *Differs*: on purpose,",
        "for the reason given. *Later*: not there yet; the number is the issue that brings it.", "",
        "This page is rendered from `docs/compatibility.toml` by `scripts/compat.py`.", "",
        "| area | subject | done | differs | later |", "|---|---|---:|---:|---:|",
    ]  # fmt: skip
    total: Counter[str] = Counter()
    for area in areas.values():
        count = Counter(row.status for row in area.rows.values())
        total += count
        cells = f"{count['done']} | {count['differs']} | {count['later']}"
        lines.append(f"| [{area.name}](#{area.name}) | {_cell(area.subject)} | {cells} |")
    lines.append(f"| | **all** | {total['done']} | {total['differs']} | {total['later']} |")
    for area in areas.values():
        lines += ["", f"## {area.name}", "", "| item | | status |", "|---|---|---|"]
        lines += [f"| {row.id} | {_cell(row.title)} | {_status(row)} |" for _, row in sorted(area.rows.items())]
    return "\n".join(lines) + "\n"


def _status(row: Row) -> str:
    tests = " ".join(f"`{test}`" for test in row.tests)
    match row.status:
        case "done":
            return f"done: {tests}"
        case "differs":
            return _cell(f"differs: {row.reason} {tests}".strip())
    later = f"later: issue {row.issue}" if row.issue else "later"
    return _cell(f"{later}: {row.reason} {tests}".strip()) if row.reason else later


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


# Commands ----------------------------------------------------------------------------------------------------------


def import_features(areas: dict[str, Area], source: Path) -> dict[str, Area]:
    """Add areas and items that the table lacks, all `later`; what stands in the table stays."""
    text = source.read_text()
    subjects = re.findall(r"^\| (\w+) \| (.+) \| \d+ \|$", text, re.M)
    table = {name: areas.get(name, Area(name, subject)) for name, subject in subjects if name != "total"}
    listed = re.findall(r"^- \[(\w+)\.(\d+)\] (.+)$", text, re.M)
    cells = re.findall(r"^\| (settings)\.(\d+) \| (`[^`]+`) \|", text, re.M)
    for name, number, line in listed + cells:
        row = Row(name, int(number), line.split(" — ")[0].strip(), "later", issue=ISSUES.get(name, 0))
        table[name].rows.setdefault(row.number, row)
    return table


def main(arguments: list[str]) -> None:
    areas = read() if TABLE.exists() else {}
    match arguments:
        case ["done", id, _, *_] as whole:
            change(areas, id, status="done", tests=tuple(whole[2:]))
        case ["differs", id, reason, *tests]:
            change(areas, id, status="differs", reason=reason, tests=tuple(tests))
        case ["later", id, issue]:
            change(areas, id, status="later", issue=int(issue))
        case ["later", id, issue, reason, *tests]:
            change(areas, id, status="later", issue=int(issue), reason=reason, tests=tuple(tests))
        case ["import", source]:
            areas = import_features(areas, Path(source))
        case ["render"]:
            pass
        case ["render", "--check"]:
            if PAGE.read_text() != page(areas):
                raise SystemExit(
                    "docs/compatibility.md is not what the table says: run python scripts/compat.py render"
                )
            return
        case _:
            raise SystemExit(__doc__)
    if missing := missing_tests(areas):
        raise SystemExit("\n".join(["no such test:", *missing]))
    write(areas)
    PAGE.write_text(page(areas))


if __name__ == "__main__":
    main(sys.argv[1:])
