"""Application. The terminal monitor's screen as text: what there is to draw, at a width and a height ([event.21])."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celery import states

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from celery.events.monitor import Monitor
    from celery.events.state import State, Task, Worker

__all__ = ["Line", "draw", "fit"]

#: Pieces of a line: text, and how it looks (`plain`, `bar`, `head`, `selected`, `good`, `bad`, `busy`, `dim`).
Line = list[tuple[str, str]]

_LOOKS = {states.SUCCESS: "good", states.FAILURE: "bad", states.RETRY: "busy", states.STARTED: "busy",
          states.REVOKED: "bad", states.REJECTED: "bad"}  # fmt: skip
_KEYS = "j/k move  i info  t trace  r result  c revoke  l limit  / search  ? help"
_HELP = """\
Move      j k, arrows, PgUp PgDn      g top           G bottom

Task      i, enter  all that is known, and where in its flow
          t         traceback
          r         result, from the result backend

Change    c  revoke    x  terminate    l  rate limit of its name
          y  retry: send it again with the same arguments

Show      /  search    n  only names   w  only workers   s  only a state
          o  sort by the next column   O  the other way round
          a  all tasks again
          W, tab  workers              h, ?  this page

Leave     q, esc  a page, then the monitor               Ctrl-C  at once
          Ctrl-L  draw everything anew"""
#: From this height on workers are shown below the tasks.
_TALL = 40


def fit(text: Any, width: int) -> str:
    """Exactly `width` columns: cut, with a mark, or filled up. Nothing in it can move the cursor."""
    clean = "".join(c if c.isprintable() else "·" for c in str(text))
    if clean.isascii():
        return clean.ljust(width) if len(clean) <= width else clean[: max(0, width - 1)] + "…"[:width]
    found, used = "", 0
    for character in clean:
        columns = 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        if used + columns > width:
            return found[:-1] + "…" if columns == 1 and used == width else found.ljust(len(found) + width - used)
        found, used = found + character, used + columns
    return found + " " * (width - used)


def draw(monitor: Monitor, state: State, size: tuple[int, int], now: float, zone: tzinfo | None = None) -> list[Line]:
    """The screen, line by line. `size`: columns and lines. `now`: seconds since the epoch, shown in `zone`."""
    width, height = size
    if width < 40 or height < 8:
        return [[(fit("Too small: 40 × 8 at least", width), "bad")]]
    pages = {"tasks": _tasks, "workers": _workers, "help": _help, "text": _text}
    middle = pages[monitor.page](monitor, state, (width, height - 2), zone)
    blank: Line = [("", "plain")]
    return [
        _title(monitor, state, width, now, zone),
        *(middle + [blank] * (height - 2 - len(middle)))[: height - 2],
        _foot(monitor, width),
    ]


def _title(monitor: Monitor, state: State, width: int, now: float, zone: tzinfo | None) -> Line:
    workers = list(state.workers.data.values())
    alive = sum(worker.alive for worker in workers)
    stuck = sum(worker.alive and _stuck(monitor, worker) for worker in workers)
    fleet = f"{alive} of {len(workers)} workers{f', {stuck} stuck' if stuck else ''}"
    left = f" celery  {fleet}  {len(state.tasks.data):,} tasks  {monitor.rate:,.0f} events/s"
    return [(fit(left, width - 10) + _clock(now, zone).rjust(9) + " ", "bar")]


def _foot(monitor: Monitor, width: int) -> Line:
    if monitor.asked is not None:
        return [(fit(f" {monitor.asked.label}: {monitor.asked.text}_", width), "selected")]
    if monitor.message:
        return [(fit(f" {monitor.message}", width), "busy")]
    keys = _KEYS if monitor.page == "tasks" else "q back  j/k scroll  ? help"
    return [(fit(f" {keys}", width), "bar")]


def _clock(stamp: Any, zone: tzinfo | None) -> str:
    try:
        return datetime.fromtimestamp(stamp, zone).strftime("%H:%M:%S")
    except (TypeError, ValueError, OverflowError, OSError):
        return "-"


# -- tasks ---------------------------------------------------------------------------------------------------------


def _tasks(monitor: Monitor, state: State, size: tuple[int, int], zone: tzinfo | None) -> list[Line]:
    width, height = size
    below = [*_selected(monitor, width)]
    if height >= _TALL - 2:
        below += _worker_rows(monitor, state, width, 11)
    monitor.rows = max(1, height - 2 - len(below))
    columns = _columns(width)
    head = "".join(fit(name, wide) for name, wide in columns)
    rows = [
        _row(task, columns, uuid == monitor.selected, zone)
        for uuid, task in monitor.table.window(monitor.first, monitor.rows)
    ]
    blank: Line = [("", "plain")]
    return [_filters(monitor, width), [(head, "head")], *rows, *[blank] * (monitor.rows - len(rows)), *below]


def _columns(width: int) -> list[tuple[str, int]]:
    """Names and widths. A narrow screen has only the beginning of ids."""
    uuid = 37 if width >= 120 else 9
    left = width - 1 - 9 - 9 - 10 - uuid
    host = min(left // 3, 40)
    return [("", 1), ("TIME", 9), ("STATE", 9), ("RUNTIME", 10), ("TASK", left - host), ("WORKER", host),
            ("ID", uuid)]  # fmt: skip


def _row(task: Task, columns: Sequence[tuple[str, int]], selected: bool, zone: tzinfo | None) -> Line:
    cells = (
        ">" if selected else "",
        _clock(task.timestamp, zone),
        task.state,
        f"{task.runtime:.3f} s" if isinstance(task.runtime, (int, float)) else "",
        task.name or "?",
        (task.worker.hostname if task.worker is not None else task.client) or "",
        str(task.uuid or "")[: columns[-1][1] - 1],
    )
    line = [fit(fit(cell, wide - 1) + " " if wide > 1 else cell, wide)
            for cell, (_, wide) in zip(cells, columns, strict=True)]  # fmt: skip
    if selected:
        return [("".join(line), "selected")]
    return [("".join(line[:2]), "plain"), (line[2], _LOOKS.get(task.state, "dim")), ("".join(line[3:]), "plain")]


def _filters(monitor: Monitor, width: int) -> Line:
    view = monitor.view
    parts = [f"state {view.state}" if view.state else "", f"name ~ {view.name}" if view.name else "",
             f"worker ~ {view.worker}" if view.worker else "", f"/{view.search}" if view.search else ""]  # fmt: skip
    shown = "  ".join(part for part in parts if part) or "all tasks"
    right = f"{len(monitor.table):,} shown, by {view.order} {'↓' if view.reverse else '↑'} "
    return [(fit(f" {shown}", width - len(right)) + right, "dim")]


def _selected(monitor: Monitor, width: int) -> list[Line]:
    task = monitor.task
    if task is None:
        return [[("─" * width, "dim")], [(fit(" Waiting for events: workers send them with -E", width), "dim")]]
    came = task.result if task.exception is None else task.exception
    family = [f"{len(task.children)} children" if task.children else "", f"parent {task.parent_id}" if task.parent_id
              else "", f"root {task.root_id}" if task.root_id not in (None, task.uuid) else ""]  # fmt: skip
    return [
        [(fit(f"── {task.name or '?'} {task.uuid} " + "─" * width, width).replace("…", "─"), "dim")],
        [(fit(f" called with {task.args or '?'} {task.kwargs or ''}", width), "plain")],
        [
            (
                fit(
                    f" came to {came}" if came is not None else " came to nothing" if task.ready else " has not ended",
                    width,
                ),
                "plain",
            )
        ],
        [(fit(" " + ("  ".join(part for part in family if part) or "in no flow"), width), "dim")],
    ]


# -- workers ---------------------------------------------------------------------------------------------------------


def _worker_rows(monitor: Monitor, state: State, width: int, most: int, skip: int = 0) -> list[Line]:
    """A heading and a row a worker, the lines that there is room for."""
    wide = max(12, min(40, width - 62))
    columns = [("WORKER", wide), ("STATUS", 8), ("ACTIVE", 7), ("DONE", 10), ("LOAD", 6), ("MEMORY", 8),
               ("POOL", 12), ("QUEUES", max(0, width - wide - 52))]  # fmt: skip
    head = " " + "".join(fit(name, size) for name, size in columns)
    workers = sorted(state.workers.data.values(), key=lambda worker: str(worker.hostname))
    lines: list[Line] = [[(fit(head, width), "head")]]
    for worker in workers[skip : skip + most - 1]:
        cells = _worker_cells(monitor, worker)
        text = " " + "".join(fit(cell, size - 1) + " " for cell, (_, size) in zip(cells, columns, strict=True) if size)
        lines.append([(fit(text, width), "plain" if cells[1] == "ONLINE" else "bad")])
    return lines


def _stuck(monitor: Monitor, worker: Worker) -> bool:
    """Whether it says so itself: it lives, and its pool does not."""
    said = monitor.fleet.get(str(worker.hostname))
    return said is not None and bool(said.trouble)


def _worker_cells(monitor: Monitor, worker: Worker) -> tuple[str, ...]:
    said = monitor.fleet.get(str(worker.hostname))
    load = worker.loadavg
    return (
        str(worker.hostname),
        "STUCK" if worker.alive and _stuck(monitor, worker) else worker.status_string,
        "" if worker.active is None else str(worker.active),
        "" if worker.processed is None else str(worker.processed),
        f"{load[0]:.2f}" if isinstance(load, (list, tuple)) and load and isinstance(load[0], (int, float)) else "",
        "" if said is None or said.memory is None else f"{said.memory / 2**20:.0f} MiB",
        "" if said is None else said.pool,
        "" if said is None else said.queues,
    )


def _workers(monitor: Monitor, state: State, size: tuple[int, int], _: tzinfo | None) -> list[Line]:
    monitor.lines = [""] * len(state.workers.data)
    return _worker_rows(monitor, state, size[0], size[1], monitor.scroll)


# -- texts -----------------------------------------------------------------------------------------------------------


def _help(_: Monitor, __: State, size: tuple[int, int], ___: tzinfo | None) -> list[Line]:
    return [[("", "plain")], *([(fit(" " + line, size[0]), "plain")] for line in _HELP.splitlines())]


def _text(monitor: Monitor, _: State, size: tuple[int, int], __: tzinfo | None) -> list[Line]:
    width, height = size
    lines = [
        line[at : at + width - 2]
        for line in monitor.lines[monitor.scroll : monitor.scroll + height]
        for at in range(0, max(1, len(line)), width - 2)
    ]
    return [[(fit(f" {monitor.title}", width), "head")], *([(fit(" " + line, width), "plain")] for line in lines)]
