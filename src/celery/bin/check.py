"""Entrance. `celery check`: whether an app is set up well, for people and for deployments."""

from __future__ import annotations

import json
from typing import Any

import click

from celery.app.checking import Checked, check
from celery.bin.base import EX_UNAVAILABLE, CeleryCommand, CeleryOption, CLIContext, handle_preload_options
from celery.platforms import EX_FAILURE, EX_OK

__all__ = ["command"]

_OPTIONS: dict[str, Any] = {"cls": CeleryOption, "help_group": "Check Options"}
#: Grade → word and colour.
_WORDS = {"good": ("ok", "green"), "doubtful": ("doubtful", "yellow"), "bad": ("BAD", "red")}


@click.command("check", cls=CeleryCommand)
@click.option(
    "-t", "--timeout", type=float, default=5.0, show_default=True, help="Seconds for each server, and for workers.",
    **_OPTIONS,
)  # fmt: skip
@click.option("--strict", is_flag=True, help="What is doubtful is a problem too.", **_OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="As a JSON array.", **_OPTIONS)
@click.pass_context
@handle_preload_options
def command(ctx: click.Context, timeout: float, strict: bool, as_json: bool) -> None:
    """Look for what is wrong with the settings, the broker, the result backend, clocks and workers.

    Ends with 0 if all is well, with 1 if there are problems, and with 69 if a server does not answer. What is doubtful
    may lose or repeat work; it is a problem with --strict.
    """
    cli: CLIContext = ctx.obj
    found: list[Checked] = []
    room = ""
    for one in check(cli.app, timeout):
        found.append(one)
        if as_json or (cli.quiet and one.finding.grade == "good"):
            continue
        if one.room != room:
            room = one.room
            cli.echo(cli.style(room, bold=True))
        cli.echo(_line(cli, one))
    if as_json:
        cli.echo(json.dumps([_data(one) for one in found], indent=2))
    ctx.exit(_code(found, strict=strict))


def _line(cli: CLIContext, one: Checked) -> str:
    word, colour = _WORDS[one.finding.grade]
    place = f"{one.place}: " if one.place else ""
    return f"  {cli.style(f'{word:<8}', fg=colour)}  {place}{one.finding.text}"


def _data(one: Checked) -> dict[str, Any]:
    return {
        "room": one.room,
        "place": one.place,
        "grade": one.finding.grade,
        "text": one.finding.text,
        "reachable": not one.unreachable,
    }


def _code(found: list[Checked], *, strict: bool) -> int:
    if any(one.unreachable for one in found):
        return EX_UNAVAILABLE
    problems = {"bad", "doubtful"} if strict else {"bad"}
    return EX_FAILURE if any(one.finding.grade in problems for one in found) else EX_OK
