"""Entrance. `celery logtool`: what the log of a worker says, counted and picked out (`[cli.20]`)."""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from celery.bin.base import CeleryCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TextIO

__all__ = ["logtool"]

#: How a line of `worker_log_format` begins.
_HEAD = re.compile(r"\[(?P<when>[^\]]+?): (?P<level>[A-Z]+)/(?P<process>[^\]]*)\] ?(?P<text>.*)")
#: What is said of a task.
_TASK = re.compile(r"(?:Task|Discarding revoked task:) (?P<name>[^\s\[]+)\[(?P<id>[^\]]+)\](?: (?P<what>\w+))?")
_RECEIVED = "received"
_SUCCESS = "succeeded"
_ERRORS = frozenset({"ERROR", "CRITICAL"})
_HEADING = "Traceback (most recent call last):"


class Entry(NamedTuple):
    """A line of a log with what belongs to it: a traceback, more lines of the message."""

    level: str
    #: Name, id and what happened; None: it is of no task.
    task: tuple[str, str, str] | None
    lines: list[str]

    @property
    def has_traceback(self) -> bool:
        return _HEADING in self.lines[1:]


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of a log. What stands before the first (a banner) is passed over."""
    entry: Entry | None = None
    for line in lines:
        text = line.rstrip("\r\n")
        head = _HEAD.match(text)
        if head is None:
            if entry is not None:
                entry.lines.append(text)
            continue
        if entry is not None:
            yield entry
        task = _TASK.search(head["text"])
        entry = Entry(head["level"], task and (task["name"], task["id"], task["what"] or ""), [text])
    if entry is not None:
        yield entry


@click.group()
def logtool() -> None:
    """Count and pick out what workers have written to their logs.

    FILES are logs in the format of `worker_log_format`, at level INFO; standard input if there are none.
    """


def _command(function: Callable[[tuple[TextIO, ...]], None]) -> click.Command:
    files: Any = click.argument("files", nargs=-1, type=click.File("r", encoding="utf-8", errors="replace"))
    make: Any = click.command(cls=CeleryCommand)
    command: click.Command = make(files(function))
    logtool.add_command(command)
    return command


def _read(files: tuple[TextIO, ...]) -> Iterator[Entry]:
    """All entries, the files one after the other, with a bar where that can take its time."""
    if not files:
        yield from entries(sys.stdin)
        return
    for file in files:
        length = 0
        if file.seekable():
            length = file.seek(0, 2)
            file.seek(0)
        hidden = length < 20 << 20
        with click.progressbar(length=length, label=file.name, file=sys.stderr, hidden=hidden) as bar:
            yield from entries(_counting(file, bar))


def _counting(file: TextIO, bar: Any) -> Iterator[str]:
    passed = 0
    for line in file:
        passed += len(line)
        if passed > 1 << 20:
            bar.update(passed)
            passed = 0
        yield line


@_command
def stats(files: tuple[TextIO, ...]) -> None:
    """Count the tasks, and what they came to."""
    received: Counter[str] = Counter()
    errors = success = 0
    for entry in _read(files):
        if entry.task is None:
            continue
        name, _, what = entry.task
        received[name] += what == _RECEIVED
        success += what == _SUCCESS
        errors += entry.level in _ERRORS
    lines = [
        "", "Report", "======", f"Task total: {received.total()}", f"Task errors: {errors}", f"Task success: {success}",
        f"Task completed: {success + errors}", "Tasks", "=====",
    ]  # fmt: skip
    lines += [f"{name}: {count}" for name, count in received.most_common() if count]
    click.echo("\n".join([*lines, ""]))


@_command
def traces(files: tuple[TextIO, ...]) -> None:
    """Show what was logged with a traceback."""
    for entry in _read(files):
        if entry.has_traceback:
            click.echo("\n".join(entry.lines))


@_command
def errors(files: tuple[TextIO, ...]) -> None:
    """Show the lines of errors, without their tracebacks."""
    for entry in _read(files):
        if entry.level in _ERRORS:
            click.echo(entry.lines[0])


@_command
def incomplete(files: tuple[TextIO, ...]) -> None:
    """Show the ids of tasks that were received and came to no end."""
    open_: dict[str, str] = {}
    for entry in _read(files):
        if entry.task is None:
            continue
        name, id, what = entry.task
        if what == _RECEIVED:
            open_[id] = name
        else:  # it succeeded, failed, is retried (and then received again), was rejected or revoked
            open_.pop(id, None)
    for id in open_:
        click.echo(f"Did not complete: {id}")


@_command
def debug(files: tuple[TextIO, ...]) -> None:
    """Show what is said of no task."""
    for entry in _read(files):
        if entry.task is None:
            click.echo("\n".join(entry.lines))
