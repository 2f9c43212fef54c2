"""Entrance. `celery dlq`: look at dead letters, put them back on their queues, or delete them."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from kombu.exceptions import OperationalError

from celery.app.dead_letters import Wanted, dead_letters_of, described, message_of, select
from celery.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, CLIContext, handle_preload_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.ports import DeadLetter, DeadLetters

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType

__all__ = ["dlq"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
#: Letters that are moved or deleted in one step.
_STEP = 100
#: What `show` prints, a line each.
_FIELDS = ("queue", "task", "task_id", "died_at", "deaths", "exchange", "routing_key", "content_type", "size")
#: Characters of a message's bytes that `show` prints.
_SHOWN = 2_000


class _Age(_ParamType):
    """`90`, `90s`, `15m`, `2h`, `7d`; gives seconds."""

    name = "age"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", str(value).strip())
        if found is None:
            self.fail(f"expected an age such as 90s, 15m, 2h or 7d, got {value!r}", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


_AT_MOST: dict[str, Any] = {"type": click.IntRange(min=1), "show_default": True, "help": "At most so many."}
_FILTERS: dict[str, Any] = {"cls": CeleryOption, "help_group": "Which Letters"}
_OUTPUT: dict[str, Any] = {"cls": CeleryOption, "help_group": "Output Options"}


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options and arguments that say which letters are meant; the command gets them as a `Wanted`."""

    def caller(
        ctx: click.Context,
        ids: Sequence[str],
        queues: list[str] | None,
        task: str | None,
        reason: str | None,
        older: float | None,
        newer: float | None,
        **rest: Any,
    ) -> Any:
        now = time.time()
        wanted = Wanted(
            queues=queues or (),
            task=task or "",
            reason=reason or "",
            ids=ids,
            until=None if older is None else now - older,
            since=None if newer is None else now - newer,
        )
        return command(ctx, wanted, **rest)

    caller.__name__, caller.__doc__ = command.__name__, command.__doc__
    filters: tuple[Callable[[Any], Any], ...] = (
        click.option("--newer-than", "newer", type=_Age(), help="Died within that time (15m, 2h, 7d).", **_FILTERS),
        click.option("--older-than", "older", type=_Age(), help="Died longer ago than that.", **_FILTERS),
        click.option("--reason", help="The reason contains this text.", **_FILTERS),
        click.option("--task", help="Name of the task; * and ? stand for more.", **_FILTERS),
        click.option("-Q", "--queues", type=COMMA_SEPARATED_LIST, help="Only of these queues.", **_FILTERS),
        click.argument("ids", nargs=-1, metavar="[ID]..."),
    )
    for add in filters:
        caller = add(caller)
    return caller


@click.group()
@click.pass_context
@handle_preload_options
def dlq(ctx: click.Context) -> None:
    """Dead letters: messages that could not be run, kept by the broker.

    ID is that of a letter or of a task. Filters are all to hold at once.
    """


@dlq.command("list", cls=CeleryCommand)
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.", **_OUTPUT
)
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.", **_OUTPUT)
@click.pass_context
@_filters
def list_(ctx: click.Context, wanted: Wanted, limit: int, as_json: bool) -> None:
    """List dead letters, the newest first."""
    cli: CLIContext = ctx.obj
    with _dead_letters(cli) as dead:
        letters = select(dead, wanted)
        found = list(islice(letters, limit))
        more = next(letters, None) is not None
    if as_json:
        cli.echo(_json([described(letter) for letter in found]))
    else:
        for letter in found:
            cli.echo(_line(cli, letter))
        if not found:
            cli.echo("No dead letters.")
    if more:
        cli.error(f"There are more than these {limit}: see --limit.")


@dlq.command(cls=CeleryCommand)
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=10, show_default=True, help="At most so many.", **_OUTPUT
)
@click.option("--json", "as_json", is_flag=True, help="As a JSON array, with the whole messages.", **_OUTPUT)
@click.pass_context
@_filters
def show(ctx: click.Context, wanted: Wanted, limit: int, as_json: bool) -> None:
    """Show dead letters in full: reason, traceback, headers and body."""
    cli: CLIContext = ctx.obj
    with _dead_letters(cli) as dead:
        found = list(islice(select(dead, wanted), limit))
    if not found:
        raise click.ClickException("No dead letter matches.")
    told = [described(letter, whole=True) for letter in found]
    if as_json:
        cli.echo(_json(told))
        return
    for fields in told:
        cli.echo(_card(cli, fields))


@dlq.command(cls=CeleryCommand)
@click.option("--all", "everything", is_flag=True, help="All that there are.", **_FILTERS)
@click.option("--json", "as_json", is_flag=True, help="The number as JSON.", **_OUTPUT)
@click.pass_context
@_filters
def requeue(ctx: click.Context, wanted: Wanted, everything: bool, as_json: bool) -> None:
    """Put dead letters back on their queues, the oldest first, as they came.

    Each is back on its queue in the same step in which it is a letter no more. Its deaths are forgotten.
    """
    cli: CLIContext = ctx.obj
    with _dead_letters(cli) as dead:
        ids = _chosen(dead, wanted, everything)
        _say(cli, "Requeued", _in_steps(ids, "Requeueing", dead.requeue), as_json)


@dlq.command(cls=CeleryCommand)
@click.option("--all", "everything", is_flag=True, help="All that there are.", **_FILTERS)
@click.option("-f", "--force", is_flag=True, help="Delete without asking.", **_OUTPUT)
@click.option("--json", "as_json", is_flag=True, help="The number as JSON.", **_OUTPUT)
@click.pass_context
@_filters
def purge(ctx: click.Context, wanted: Wanted, everything: bool, force: bool, as_json: bool) -> None:
    """Delete dead letters for good."""
    cli: CLIContext = ctx.obj
    with _dead_letters(cli) as dead:
        ids = _chosen(dead, wanted, everything)
        if not force:
            click.confirm(
                f"{_count(len(ids))} will be deleted for good (-f does not ask). Delete", abort=True, err=True
            )
        _say(cli, "Deleted", _in_steps(ids, "Deleting", dead.discard), as_json)


@contextmanager
def _dead_letters(cli: CLIContext) -> Iterator[DeadLetters]:
    try:
        yield dead_letters_of(cli.app)
    except OperationalError as exc:
        raise click.ClickException(f"The broker does not answer: {exc}") from exc


def _chosen(dead: DeadLetters, wanted: Wanted, everything: bool) -> list[str]:
    """Ids of what is to be moved or deleted, the oldest first. Raises if nothing says what, or if an id is unknown."""
    if not everything and wanted == Wanted():
        raise click.UsageError("Name letters by their ids, by filters (see --help), or --all of them.")
    ids: list[str] = []
    unknown = set(wanted.ids)
    for letter in select(dead, wanted):
        ids.append(letter.id)
        if unknown:
            message = message_of(letter)
            unknown -= {letter.id, "" if message is None else message.id}
    if unknown:
        raise click.ClickException(f"No dead letter matches: {', '.join(sorted(unknown))}. Nothing was done.")
    return ids[::-1]


def _in_steps(ids: list[str], what: str, move: Callable[[Sequence[str]], int]) -> int:
    steps = [ids[first : first + _STEP] for first in range(0, len(ids), _STEP)]
    count = 0
    with click.progressbar(steps, label=what, file=sys.stderr, hidden=len(steps) < 2) as bar:
        for step in bar:
            count += move(step)
    return count


def _say(cli: CLIContext, done: str, count: int, as_json: bool) -> None:
    cli.echo(_json({done.lower(): count}) if as_json else f"{done} {_count(count)}.")


def _count(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, default=repr)


def _when(died_at: str) -> str:
    return died_at[:19].replace("T", " ")


def _line(cli: CLIContext, letter: DeadLetter) -> str:
    told = described(letter)
    task = f"{told['task']}[{told['task_id']}]" if told["task"] else f"({told['size']} bytes, no task message)"
    reason = _printable(letter.reason).split("\n")[0]
    deaths = f" {told['deaths']} deaths" if letter.deaths else ""
    head = f"{cli.style(letter.id, fg='cyan')}  {_when(told['died_at'])}  {letter.queue}"
    return f"{head}  {cli.style(_printable(task), bold=True)}{deaths}  {cli.style(_short(reason, 200), fg='red')}"


def _card(cli: CLIContext, told: dict[str, Any]) -> str:
    lines = [cli.style(f"Dead letter {told['id']}", fg="cyan", bold=True)]
    lines += [f"  {name}: {_printable(str(told[name]))}" for name in _FIELDS if told.get(name) not in (None, "")]
    lines.append(f"  reason: {cli.style(_printable(told['reason']), fg='red')}")
    if "headers" in told:
        lines.append(f"  headers: {_short(json.dumps(told['headers'], default=repr), _SHOWN)}")
    lines.append(f"  {'body' if 'body' in told else 'message'}: {_short(_content(told), _SHOWN)}")
    if told["traceback"]:
        lines += ["", _printable(told["traceback"])]
    return "\n".join([*lines, ""])


def _content(told: dict[str, Any]) -> str:
    content: Any = told.get("body", told.get("message"))
    return _printable(content) if isinstance(content, str) else f"(no text; base64) {content['base64']}"


def _printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... (--json shows all)"
