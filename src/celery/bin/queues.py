"""Entrance. `celery queues`: how queues stand, what lies on them, what is parked."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import OperationalError

from celery.app.inspecting import cancel, described, inspection_of, message_of, overview, parked
from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    EX_UNAVAILABLE,
    CeleryCommand,
    CeleryOption,
    CLIContext,
    handle_preload_options,
)
from celery.exceptions import CeleryCommandException

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.ports import Resting

__all__ = ["queues"]

_OUTPUT: dict[str, Any] = {"cls": CeleryOption, "help_group": "Output Options"}
_FILTERS: dict[str, Any] = {"cls": CeleryOption, "help_group": "Which Messages"}
#: Heading → field; the last two only where they are watched.
_COLUMNS = (
    ("Waiting", "waiting"), ("Oldest", "oldest"), ("Held", "held"), ("Parked", "parked"), ("Dead", "dead"),
    ("Workers", "workers"), ("In/s", "in"), ("Out/s", "out"),
)  # fmt: skip
#: Lowest unit first; how many of each make one of the next.
_UNITS = ((60, "s"), (60, "m"), (24, "h"), (365, "d"))


@click.group(invoke_without_command=True)
@click.option("-Q", "--queues", "names", type=COMMA_SEPARATED_LIST, help="Only these queues.", **_FILTERS)
@click.option("-w", "--watch", is_flag=True, help="Look again and again, and show rates.", **_OUTPUT)
@click.option(
    "-i", "--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds.", **_OUTPUT
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="End after so many looks.", **_OUTPUT)
@click.option("--no-workers", is_flag=True, help="Do not ask the workers.", **_OUTPUT)
@click.option("-t", "--timeout", type=float, default=1.0, show_default=True, help="Seconds for them.", **_OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="As JSON, a line for each look.", **_OUTPUT)
@click.pass_context
@handle_preload_options
def queues(
    ctx: click.Context,
    names: list[str] | None,
    watch: bool,
    interval: float,
    count: int | None,
    no_workers: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Show how each queue stands.

    Waiting messages and the age of the oldest, messages held by workers, parked ones (not due yet), dead letters
    (`celery dlq`), workers that take from the queue. With --watch also messages per second that came and that were
    taken.
    """
    if ctx.invoked_subcommand is not None:
        return
    cli: CLIContext = ctx.obj
    looks = _Looks(cli.app, names or [], None if no_workers else timeout)
    left = count or (sys.maxsize if watch else 1)
    while left:
        with _reaching():
            told = looks.look(rates=watch)
        if as_json:
            cli.echo(json.dumps(told))
        else:
            if watch and sys.stdout.isatty():
                click.clear()
            cli.echo(_table(cli, told, watch=watch))
        left -= 1
        if left:
            time.sleep(interval)


@queues.command(cls=CeleryCommand)
@click.argument("queue")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many.", **_OUTPUT)
@click.option("--args", "arguments", is_flag=True, help="Show what their arguments look like.", **_OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.", **_OUTPUT)
@click.pass_context
def peek(ctx: click.Context, queue: str, limit: int, arguments: bool, as_json: bool) -> None:
    """Show the messages that wait in QUEUE, the next to be taken first. It takes none."""
    cli: CLIContext = ctx.obj
    with _reaching():
        found = inspection_of(cli.app).peek(queue, limit)
    _print(cli, found, arguments=arguments, as_json=as_json, none=f"Nothing waits in {queue}.")


@queues.command("parked", cls=CeleryCommand)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-Q", "--queues", "names", type=COMMA_SEPARATED_LIST, help="Only of these queues.", **_FILTERS)
@click.option("--task", help="Name of the task; * and ? stand for more.", **_FILTERS)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many.", **_OUTPUT)
@click.option("--args", "arguments", is_flag=True, help="Show what their arguments look like.", **_OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.", **_OUTPUT)
@click.option("--cancel", "cancelling", is_flag=True, help="Revoke them, all that match.", **_FILTERS)
@click.option("-f", "--force", is_flag=True, help="Without asking.", **_FILTERS)
@click.pass_context
def parked_messages(
    ctx: click.Context,
    ids: tuple[str, ...],
    names: list[str] | None,
    task: str | None,
    limit: int,
    arguments: bool,
    as_json: bool,
    cancelling: bool,
    force: bool,
) -> None:
    """Show messages that wait in the broker until they are due (eta, countdown, retry), the first to be due first.

    ID is that of a task.
    """
    cli: CLIContext = ctx.obj
    with _reaching():
        wanted = (one for one in parked(cli.app, names or ()) if _fits(one, ids, task))
        if not cancelling:
            found = list(islice(wanted, limit))
            _print(cli, found, arguments=arguments, as_json=as_json, none="Nothing is parked.")
            return
        if not (ids or names or task):
            raise click.UsageError("Say which: ids, --task, or --queues.")
        _cancel(cli, list(wanted), force=force, as_json=as_json)


def _cancel(cli: CLIContext, found: list[Resting], *, force: bool, as_json: bool) -> None:
    if not force and found:
        click.confirm(f"{_messages(len(found))} will be revoked (-f does not ask). Revoke", abort=True, err=True)
    dropped = 0
    with click.progressbar(length=len(found), label="Revoking", file=sys.stderr, hidden=len(found) < 1000) as bar:
        for first in range(0, len(found), 1000):
            step = found[first : first + 1000]
            dropped += len(cancel(cli.app, step))
            bar.update(len(step))
    if as_json:
        cli.echo(json.dumps({"revoked": dropped}))
        return
    rest = len(found) - dropped
    cli.echo(f"Revoked {_messages(dropped)}.{f' {rest} had become due meanwhile.' if rest else ''}")


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except OperationalError as exc:
        raise CeleryCommandException(f"The broker does not answer: {exc}", EX_UNAVAILABLE) from exc


def _fits(one: Resting, ids: Sequence[str], task: str | None) -> bool:
    if not ids and not task:
        return True
    message = message_of(one)
    if message is None:
        return False
    return (not ids or message.id in ids) and (not task or fnmatchcase(message.task, task))


class _Looks:
    """Looks at queues, each beside the one before."""

    def __init__(self, app: Any, names: Sequence[str], timeout: float | None) -> None:
        """`timeout`: seconds that workers have to say what they take from; None: they are not asked."""
        self._app = app
        self._names = names
        self._timeout = timeout
        self._before: dict[str, dict[str, Any]] = {}
        self._taken: Counter[str] = Counter()
        self._at = 0.0

    def look(self, *, rates: bool) -> list[dict[str, Any]]:
        """A row for each queue."""
        workers: dict[str, dict[str, int]] = {} if self._timeout is None else self._workers(self._timeout)
        told, at = overview(self._app, self._names), time.monotonic()
        taken: Counter[str] = Counter()
        for takes in workers.values():
            taken.update(takes)
        for row in told:
            name = row["queue"]
            row["workers"] = None if self._timeout is None else sum(name in takes for takes in workers.values())
            if rates:
                row["in"], row["out"] = self._rates(row, taken.get(name), at - self._at)
        self._before, self._taken, self._at = {row["queue"]: row for row in told}, taken, at
        return told

    def _workers(self, timeout: float) -> dict[str, dict[str, int]]:
        """Which queues each worker that answers takes from, and how many messages it has taken."""
        found = self._app.control.inspect(timeout=timeout).stats() or {}
        told = {node: said["queues"] for node, said in found.items() if isinstance(said, dict) and "queues" in said}
        others = sorted({*found} - {*told})  # Celery's own do not say
        if others:
            asked = self._app.control.inspect(destination=others, timeout=timeout).active_queues() or {}
            told |= {node: {queue["name"]: 0 for queue in said} for node, said in asked.items()}
        return told

    def _rates(self, row: dict[str, Any], taken: int | None, seconds: float) -> tuple[float | None, float | None]:
        """Messages per second that came and that were taken since the last look; None: nobody knows."""
        before, had = self._before.get(row["queue"]), self._taken.get(row["queue"])
        if before is None or taken is None or had is None or taken < had:
            return None, None
        out = taken - had
        came = row["waiting"] - before["waiting"] + out
        return round(max(came, 0) / seconds, 1), round(out / seconds, 1)


def _table(cli: CLIContext, told: list[dict[str, Any]], *, watch: bool) -> str:
    if not told:
        return "There are no queues."
    columns = [column for column in _COLUMNS if watch or column[1] not in ("in", "out")]
    rows = [["Queue", *(heading for heading, _ in columns)]]
    rows += [[_printable(row["queue"]), *(_cell(field, row[field]) for _, field in columns)] for row in told]
    widths = [max(len(cells[place]) for cells in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in rows
    ]
    lines[0] = cli.style(lines[0], bold=True)
    return "\n".join(lines)


def _cell(field: str, value: Any) -> str:
    if value is None:
        return "-"
    return _age(value) if field == "oldest" else str(value)


def _age(seconds: float) -> str:
    """`12s`, `5m`, `3h`, `2d`."""
    amount = seconds
    for size, unit in _UNITS:
        if amount < size or unit == "d":
            return f"{amount:.0f}{unit}" if amount >= 1 or unit != "s" else f"{amount:.1f}s"
        amount /= size
    raise AssertionError("days are the last unit")


def _print(cli: CLIContext, found: list[Resting], *, arguments: bool, as_json: bool, none: str) -> None:
    told = [described(one, arguments=arguments) for one in found]
    if as_json:
        cli.echo(json.dumps(told, indent=2, default=repr))
        return
    for one in told:
        cli.echo(_line(cli, one))
    if not told:
        cli.echo(none)


def _line(cli: CLIContext, told: dict[str, Any]) -> str:
    if told["task"] is None:
        text = f"({told['size']} bytes, no task message)"
    else:
        text = cli.style(_printable(f"{told['task']}[{told['id']}]"), bold=True)
        if "args" in told:
            text += " " + _printable(f"args={told['args']} kwargs={told['kwargs']}")
    words = [_printable(told["queue"]), text]
    if "due" in told:
        words.insert(0, told["due"][:19].replace("T", " "))
    if told["priority"]:
        words.append(f"priority={told['priority']}")
    if told["retries"]:
        words.append(f"retries={told['retries']}")
    return "  ".join([*words, f"{told['size']} bytes"] if told["task"] is not None else words)


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
