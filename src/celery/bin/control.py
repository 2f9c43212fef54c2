"""Entrance. `celery inspect`, `celery control`, `celery status`: asking workers, and telling them (`[control.38]`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from kombu.utils.json import dumps

from celery.bin.base import (
    COMMA_SEPARATED_LIST,
    EX_UNAVAILABLE,
    CeleryCommand,
    CeleryOption,
    CLIContext,
    handle_preload_options,
)
from celery.exceptions import CeleryCommandException
from celery.platforms import EX_FAILURE
from celery.worker.control import Panel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery.worker.control import controller_info_t

__all__ = ["control", "inspect", "status"]

_REMOTE: dict[str, Any] = {"cls": CeleryOption, "help_group": "Remote Control Options"}
#: Seconds within which workers are to reply.
_TIMEOUT = 1.0


def _remote_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.", **_REMOTE),
        click.option(
            "-d",
            "--destination",
            type=COMMA_SEPARATED_LIST,
            help="Only these nodes (w1@example.com,w2@example.com).",
            **_REMOTE,
        ),
        click.option(
            "-t", "--timeout", type=float, default=_TIMEOUT, show_default=True, help="Seconds to wait.", **_REMOTE
        ),
    )
    for option in options:
        command = option(command)
    return command


class _RemoteCommand(CeleryCommand):
    """A command whose help lists what workers can be told, or asked: each package may add to that."""

    #: "inspect" or "control".
    kind: str

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _import_tasks(ctx)
        _format_commands(self.kind, formatter)
        super().format_epilog(ctx, formatter)


class _Inspecting(_RemoteCommand):
    kind = "inspect"


class _Controlling(_RemoteCommand):
    kind = "control"


def _list_commands(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and isinstance(ctx.command, _RemoteCommand):
        _import_tasks(ctx)
        formatter = ctx.make_formatter()
        _format_commands(ctx.command.kind, formatter)
        ctx.obj.echo(formatter.getvalue().rstrip("\n"))
        ctx.exit()


def _import_tasks(ctx: click.Context) -> None:
    """The app's modules may register commands of their own (`[control.37]`)."""
    if ctx.obj is not None:
        ctx.obj.app.loader.import_default_modules()


def _commands(kind: str) -> dict[str, controller_info_t]:
    return {name: info for name, info in sorted(Panel.meta.items()) if info.type == kind and info.visible}


def _format_commands(kind: str, formatter: click.HelpFormatter) -> None:
    with formatter.section(f"{kind.capitalize()} Commands"):
        formatter.write_dl([(_usage(name, info), info.help) for name, info in _commands(kind).items()])


def _usage(name: str, info: controller_info_t) -> str:
    return f"{name} {info.signature}" if info.signature else name


_list_option = click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_commands,
    help="List the commands, with their arguments.",
)


# ---------------------------------------------------------------------------------------------------- the commands


@click.command(cls=CeleryCommand)
@_remote_options
@click.pass_context
@handle_preload_options
def status(ctx: click.Context, timeout: float, destination: list[str] | None, as_json: bool) -> None:
    """List the workers that are online.

    Ends with 69 if there is none, and with 1 if one of them is not well.
    """
    cli: CLIContext = ctx.obj
    replies = _broadcast(cli, "ping", {}, destination, timeout, None if as_json else _Saying(cli, body=False))
    if as_json:
        cli.echo(dumps(_by_node(replies)))
    _say_how_many(cli, len(replies))
    unwell = sorted(node for node, reply in _pairs(replies) if _is_error(reply))
    if unwell:
        raise CeleryCommandException(f"{', '.join(unwell)}: not well (see above)", EX_FAILURE)


@click.command(cls=_Inspecting, context_settings={"allow_extra_args": True})
@click.argument("command")
@_list_option
@_remote_options
@click.pass_context
@handle_preload_options
def inspect(ctx: click.Context, command: str, timeout: float, destination: list[str] | None, as_json: bool) -> None:
    """Ask workers for something that COMMAND names; it changes nothing."""
    cli: CLIContext = ctx.obj
    arguments = _arguments(ctx, command, ctx.args)
    replies = _broadcast(cli, command, arguments, destination, timeout, None if as_json else _Saying(cli))
    if as_json:
        cli.echo(dumps(_by_node(replies)))
    else:
        _say_how_many(cli, len(replies))


@click.command(cls=_Controlling, context_settings={"allow_extra_args": True})
@click.argument("command")
@_list_option
@_remote_options
@click.pass_context
@handle_preload_options
def control(ctx: click.Context, command: str, timeout: float, destination: list[str] | None, as_json: bool) -> None:
    """Tell workers to do what COMMAND names."""
    cli: CLIContext = ctx.obj
    arguments = _arguments(ctx, command, ctx.args)
    replies = _broadcast(cli, command, arguments, destination, timeout, None if as_json else _Saying(cli))
    if as_json:
        cli.echo(dumps(replies))


def _broadcast(
    cli: CLIContext,
    command: str,
    arguments: dict[str, Any],
    destination: list[str] | None,
    timeout: float,
    callback: Callable[[dict[str, Any]], None] | None,
) -> list[dict[str, Any]]:
    """What workers reply, each told to `callback` as it comes. Raises `CeleryCommandException` if nobody does."""
    replies = cli.app.control.broadcast(
        command, arguments=arguments, destination=destination, reply=True, timeout=timeout, callback=callback
    )
    if not replies:
        raise CeleryCommandException("No nodes replied within time constraint", EX_UNAVAILABLE)
    found: list[dict[str, Any]] = replies
    return found


# --------------------------------------------------------------------------------------------------- the arguments


def _arguments(ctx: click.Context, command: str, words: Sequence[str]) -> dict[str, Any]:
    """The words after the command, by name and cast to their types. Raises click's `UsageError`."""
    kind = ctx.command.kind if isinstance(ctx.command, _RemoteCommand) else ""
    if command not in Panel.meta:
        _import_tasks(ctx)
    info = Panel.meta.get(command)
    if info is None or info.type != kind:
        other = "" if info is None else f" It is a command of `celery {info.type}`."
        known = ", ".join(_commands(kind))
        raise click.UsageError(f"Command {command} not recognized.{other} Available {kind} commands: {known}", ctx=ctx)
    named = list(info.args or ())
    taken: dict[str, Any] = {
        name: _cast(ctx, command, name, kind_of, word) for (name, kind_of), word in zip(named, words, strict=False)
    }
    rest = words[len(named) :]
    if info.variadic:
        taken[info.variadic] = list(rest)
    elif rest:
        raise click.UsageError(f"Too many arguments: expected {_usage(command, info)}, got also {' '.join(rest)}", ctx)
    return taken


def _cast(ctx: click.Context, command: str, name: str, kind: Any, word: str) -> Any:
    try:
        return kind(word)
    except (TypeError, ValueError) as exc:
        expected = getattr(kind, "__name__", str(kind))
        raise click.UsageError(f"{command}: expected {name} as {expected}, got {word!r}", ctx=ctx) from exc


# ------------------------------------------------------------------------------------------------------ the replies


class _Saying:
    """Prints each reply as it comes."""

    def __init__(self, cli: CLIContext, *, body: bool = True) -> None:
        """`body`: with what the worker says, unless it is only that it is well."""
        self._cli = cli
        self._body = body

    def __call__(self, reply: dict[str, Any]) -> None:
        cli = self._cli
        for node, said in reply.items():
            arrow = "" if cli.quiet else cli.style("->", fg="white", bold=True) + " "
            error = _is_error(said)
            cli.echo(f"{arrow} {node}: {cli.ERROR if error else cli.OK}")
            if self._body or error:
                cli.echo(_indented(_pretty(said)))


def _is_error(said: Any) -> bool:
    return isinstance(said, dict) and "error" in said


def _pretty(said: Any) -> str:
    """What a worker said, as people read it."""
    if isinstance(said, dict) and len(said) == 1 and said.keys() <= {"ok", "error"}:
        (text,) = said.values()
        return _indented(_pretty(text)) if not isinstance(text, str) else _indented(text)
    if isinstance(said, list | tuple):
        return "\n".join(f"* {_line(one)}" for one in said) or "- empty -"
    if isinstance(said, dict):
        return json.dumps(json.loads(dumps(said)), sort_keys=True, indent=4)
    return str(said)


def _line(one: Any) -> str:
    return one if isinstance(one, str) else repr(one)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])


def _say_how_many(cli: CLIContext, count: int) -> None:
    cli.echo(f"\n{count} {'node' if count == 1 else 'nodes'} online.")


def _pairs(replies: Iterable[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [pair for reply in replies for pair in reply.items()]


def _by_node(replies: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return dict(_pairs(replies))
