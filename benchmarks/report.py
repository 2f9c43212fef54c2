"""Figures as a table, on the screen and in RESULTS.md."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """One figure of all subjects."""

    what: str
    unit: str
    #: subject → median
    values: dict[str, float]
    goal: str
    #: The ratio that the goal speaks of, and whether it is met.
    ratio: str = ""
    met: bool | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _number(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| figure | unit | ours | Celery 5.7 | Huey | other | ratio | goal | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        known = ("ours", "celery", "huey")
        other = ", ".join(f"{name} {_number(value)}" for name, value in row.values.items() if name not in known)
        cells = [row.what, row.unit, *(_number(row.values.get(name)) for name in known)]
        met = "" if row.met is None else "yes" if row.met else "**no**"
        lines.append("| " + " | ".join([*cells, other, row.ratio, row.goal, met]) + " |")
    notes = [f"- {row.what}: {note}" for row in rows for note in row.notes]
    return "\n".join([*lines, "", *notes] if notes else lines)


def update(rows: Sequence[Row], path: Path, rounds: int) -> None:
    """Put rows that were measured again in the place of those of the same name, new ones at the table's end; the date
    is told below."""
    fresh = {line.split("|")[1].strip(): line for line in table(rows).splitlines()[2:] if line.startswith("| ")}
    lines = [
        fresh.pop(line.split("|")[1].strip(), line) if line.startswith("|") else line
        for line in path.read_text().splitlines()
    ]
    end = max(place for place, line in enumerate(lines) if line.startswith("|")) + 1
    lines[end:end] = fresh.values()
    others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    lines += ["", f"{rows[0].what}{others}: {rounds} rounds on {dt.datetime.now(dt.UTC).date()}."]
    path.write_text("\n".join(lines) + "\n")


def write(rows: Sequence[Row], path: Path, rounds: int) -> None:
    head = (
        "# Results\n\n"
        f"`make bench` on {dt.datetime.now(dt.UTC).date()}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, medians of {rounds} interleaved rounds. Celery 5.7.0 and Huey run from an\n"
        "environment of their own in the same run; ratios are what counts, absolute figures are this machine's.\n"
        "Prefork of 2 on a private Redis on loopback, default settings, unless a row says otherwise.\n\n"
    )
    tail = ""
    if path.exists() and "<!-- kept -->" in path.read_text():
        tail = "\n<!-- kept -->" + path.read_text().split("<!-- kept -->", 1)[1]
    path.write_text(head + table(rows) + "\n" + tail)
