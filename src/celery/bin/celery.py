"""Entrance. The umbrella command: options for all commands, the app, and the table of commands (`[cli.1]`)."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import click
from click_didyoumean import DYMGroup  # type: ignore[import-untyped]
from kombu.exceptions import KombuError

from celery import VERSION_BANNER
from celery._state import get_current_app
from celery.app.search import find_app
from celery.bin.base import CeleryOption, CLIContext
from celery.exceptions import ImproperlyConfigured
from celery.platforms import EX_FAILURE

__all__ = ["celery", "main"]

UNABLE_TO_LOAD_APP_MODULE_NOT_FOUND = click.style(
    "\nUnable to load celery application.\nThe module {0} was not found.", fg="red"
)
UNABLE_TO_LOAD_APP_ERROR_OCCURRED = click.style(
    "\nUnable to load celery application.\nWhile trying to load the module {0} the following error occurred:\n{1}",
    fg="red",
)
UNABLE_TO_LOAD_APP_APP_MISSING = click.style("\nUnable to load celery application.\n{0}", fg="red")
UNABLE_TO_LOAD_APP_PATH = click.style(
    "\nUnable to load celery application.\nexpected the name of a module, such as proj or proj.celery:app, got the "
    "path {0}",
    fg="red",
)
WRONG_APP_OPTION_USAGE_MESSAGE = (
    "{option_name} names the app and comes before the command, since Celery 5:\n"
    "    celery {option_name} celeryapp {info_name} <...>\n"
    "not\n"
    "    celery {info_name} {option_name} celeryapp <...>"
)

#: Command → where it is. Loaded when used, so that `celery worker --help` loads nothing else.
_COMMANDS = {
    "amqp": "celery.bin.amqp:amqp",
    "beat": "celery.bin.beat:beat",
    "call": "celery.bin.call:call",
    "check": "celery.bin.check:command",
    "completion": "celery.bin.completion:completion",
    "control": "celery.bin.control:control",
    "dlq": "celery.bin.dlq:dlq",
    "events": "celery.bin.events:events",
    "graph": "celery.bin.graph:graph",
    "inspect": "celery.bin.control:inspect",
    "list": "celery.bin.list:list_",
    "logtool": "celery.bin.logtool:logtool",
    "migrate": "celery.bin.migrate:migrate",
    "multi": "celery.bin.multi:multi",
    "purge": "celery.bin.purge:purge",
    "queues": "celery.bin.queues:queues",
    "report": "celery.bin.report:report",
    "result": "celery.bin.result:result",
    "shell": "celery.bin.shell:shell",
    "status": "celery.bin.control:status",
    "upgrade": "celery.bin.upgrade:upgrade",
    "worker": "celery.bin.worker:worker",
}


class _Commands(DYMGroup):  # type: ignore[misc]
    """Our commands, and those of other packages' entry points (`[cli.4]`). Suggests what a typo may have meant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plugins: dict[str, Any] | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*_COMMANDS, *self._entry_points(), *self.commands})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            if cmd_name in _COMMANDS:
                module, _, name = _COMMANDS[cmd_name].partition(":")
                self.commands[cmd_name] = getattr(import_module(module), name)
            elif cmd_name in self._entry_points():
                self.commands[cmd_name] = _load_plugin(self._entry_points()[cmd_name])
        command: click.Command | None = self.commands.get(cmd_name)
        return command

    def _entry_points(self) -> dict[str, Any]:
        if self._plugins is None:
            self._plugins = {found.name: found for found in entry_points(group="celery.commands")}
        return self._plugins


def _load_plugin(entry_point: Any) -> click.Command:
    """A package's command; one that cannot be loaded says why when it is used, and disturbs no other."""
    try:
        command: click.Command = entry_point.load()
    except Exception:  # noqa: BLE001 - whatever another package does at import
        text = traceback.format_exc()

        @click.command(entry_point.name, help=f"(cannot be loaded: {entry_point.value})", add_help_option=False)
        @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
        def broken(arguments: tuple[str, ...]) -> None:
            raise click.ClickException(
                f"The command {entry_point.name} ({entry_point.value}) cannot be loaded:\n{text}"
            )

        broken.ignore_unknown_options = True
        return broken
    return command


_GLOBAL = {"help_group": "Global Options"}


@click.group(cls=_Commands, invoke_without_command=True)
@click.option("-A", "--app", envvar="APP", cls=CeleryOption, **_GLOBAL)
@click.option("-b", "--broker", envvar="BROKER_URL", cls=CeleryOption, **_GLOBAL)
@click.option("--result-backend", envvar="RESULT_BACKEND", cls=CeleryOption, **_GLOBAL)
@click.option("--loader", envvar="LOADER", cls=CeleryOption, **_GLOBAL)
@click.option("--config", envvar="CONFIG_MODULE", cls=CeleryOption, **_GLOBAL)
@click.option("--workdir", type=click.Path(exists=True, file_okay=False), cls=CeleryOption, **_GLOBAL)
@click.option("-C", "--no-color", envvar="NO_COLOR", is_flag=True, cls=CeleryOption, **_GLOBAL)
@click.option("-q", "--quiet", is_flag=True, cls=CeleryOption, **_GLOBAL)
@click.option("--version", is_flag=True, cls=CeleryOption, **_GLOBAL)
@click.option(
    "--skip-checks",
    envvar="SKIP_CHECKS",
    is_flag=True,
    cls=CeleryOption,
    help="Leave out the checks that Django makes at start.",
    **_GLOBAL,
)
@click.option(
    "--strict-settings",
    envvar="STRICT_SETTINGS",
    is_flag=True,
    cls=CeleryOption,
    help="Refuse to start with a setting that does not exist.",
    **_GLOBAL,
)
@click.pass_context
def celery(
    ctx: click.Context,
    app: str | None,
    broker: str | None,
    result_backend: str | None,
    loader: str | None,
    config: str | None,
    workdir: str | None,
    no_color: bool,
    quiet: bool,
    version: bool,
    skip_checks: bool,
    strict_settings: bool,
) -> None:
    """Run workers and talk to them; send tasks and look at their results."""
    if version:
        click.echo(VERSION_BANNER)
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()
    if workdir:
        os.chdir(workdir)
    _export(
        CELERY_LOADER=loader,
        CELERY_BROKER_URL=broker,
        CELERY_RESULT_BACKEND=result_backend,
        CELERY_CONFIG_MODULE=config,
        CELERY_SKIP_CHECKS="true" if skip_checks else None,
        CELERY_STRICT_SETTINGS="true" if strict_settings else None,
    )
    # The workers of `multi` load it; of $CELERY_APP, which is set for them, it knows nothing itself.
    found = _find_app(ctx, app) if app and ctx.invoked_subcommand != "multi" else None
    ctx.obj = CLIContext(app=found or get_current_app, no_color=no_color, workdir=workdir, quiet=quiet)
    if found is not None:
        _add_user_options(ctx, found)


def _export(**variables: str | None) -> None:
    """For child processes, and for the app that is about to be imported (`[cli.33]`)."""
    os.environ.update({name: value for name, value in variables.items() if value})


def _find_app(ctx: click.Context, name: str) -> Any:
    """Import the app, or say which of the three things went wrong (`[cli.2]`)."""
    if "/" in name or name.endswith(".py"):
        raise click.UsageError(UNABLE_TO_LOAD_APP_PATH.format(name), ctx=ctx)
    try:
        found = find_app(name)
        if hasattr(found, "user_options"):
            return found
        text = UNABLE_TO_LOAD_APP_APP_MISSING.format(f"expected a Celery app at {name}, got {found!r}")
    except ModuleNotFoundError as exc:
        if exc.name is not None and _is_part_of(exc.name, name):
            text = UNABLE_TO_LOAD_APP_MODULE_NOT_FOUND.format(exc.name)
        else:
            text = UNABLE_TO_LOAD_APP_ERROR_OCCURRED.format(name, traceback.format_exc())
    except AttributeError as exc:
        text = UNABLE_TO_LOAD_APP_APP_MISSING.format(exc.args[0] if exc.args else exc)
    except Exception:  # noqa: BLE001 - user code is imported
        text = UNABLE_TO_LOAD_APP_ERROR_OCCURRED.format(name, traceback.format_exc())
    raise click.UsageError(text, ctx=ctx)


def _is_part_of(module: str, name: str) -> bool:
    asked = name.partition(":")[0]
    return asked == module or asked.startswith(f"{module}.") or module == f"{asked}.celery"


def _add_user_options(ctx: click.Context, app: Any) -> None:
    """Options that the app adds to this command (`[app.44]`)."""
    command = ctx.command.get_command(ctx, ctx.invoked_subcommand)  # type: ignore[attr-defined]
    if command is not None:
        for option in (*app.user_options.get("preload", ()), *app.user_options.get(command.name, ())):
            if option not in command.params:
                command.params.append(option)


def main() -> int:
    """Run the command line. Exits with click's codes (`[cli.26]`)."""
    arguments = _behind_multi(sys.argv[1:])
    _warn_of_late_app(arguments)
    try:
        code: int = celery(args=arguments, auto_envvar_prefix="CELERY", prog_name="celery")
    except (ImproperlyConfigured, KombuError) as exc:  # says what to do; where it was found helps nobody
        click.echo(f"Error: {exc}", err=True)
        return EX_FAILURE
    except ImportError as exc:
        if not getattr(exc, "__notes__", None):
            raise
        click.echo(f"Error: {exc}. {' '.join(exc.__notes__)}", err=True)
        return EX_FAILURE
    return code


def _behind_multi(arguments: list[str]) -> list[str]:
    """With the options before `multi` behind it: they are for its workers, who load the app themselves (`[cli.25]`)."""
    valued = {name for param in celery.params if not getattr(param, "is_flag", False) for name in param.opts}
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 2 if arguments[at] in valued else 1
    if arguments[at : at + 1] != ["multi"] or {"--help", "--version"} & set(arguments[:at]):
        return arguments
    return ["multi", *arguments[:at], *arguments[at + 1 :]]


def _warn_of_late_app(arguments: list[str]) -> None:
    """`celery worker -A proj` was right until Celery 5; click alone would only say that there is no such option."""
    command = next((at for at, argument in enumerate(arguments) if argument in _COMMANDS), len(arguments))
    if arguments[command : command + 1] == ["multi"]:
        return
    for option in ("-A", "--app"):
        if option in arguments[command + 1 :]:
            text = WRONG_APP_OPTION_USAGE_MESSAGE.format(option_name=option, info_name=arguments[command])
            click.echo(text, err=True)
