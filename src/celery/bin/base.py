"""Entrance. What commands are made of: options, their types, and the context that every command gets.

Public to plugins (`[cli.29]`).
"""

from __future__ import annotations

import json
import numbers
from datetime import datetime
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any

import click

from celery.signals import user_preload_options
from celery.utils.log import mlevel

if TYPE_CHECKING:
    from collections.abc import Callable

    _ParamType = click.ParamType[Any]
    _Choice = click.Choice[str]
else:
    _ParamType, _Choice = click.ParamType, click.Choice

__all__ = [
    "COMMA_SEPARATED_LIST", "EX_UNAVAILABLE", "ISO8601", "ISO8601_OR_FLOAT", "JSON_ARRAY", "JSON_OBJECT", "LOG_LEVEL",
    "CLIContext", "CeleryCommand", "CeleryDaemonCommand", "CeleryOption", "CommaSeparatedList", "DaemonOption",
    "ISO8601DateTime", "ISO8601DateTimeOrFloat", "JsonArray", "JsonObject", "LogLevel", "handle_preload_options",
]  # fmt: skip

EX_UNAVAILABLE = 69


class CLIContext:
    """`ctx.obj` of every command: the app, and how to speak."""

    def __init__(
        self, app: Any = None, no_color: bool = False, workdir: str | None = None, quiet: bool = False
    ) -> None:
        """`app`: an app, or a function that finds it when it is first asked for."""
        self._app = app
        self.no_color = no_color
        self.workdir = workdir
        self.quiet = quiet

    @cached_property
    def app(self) -> Any:
        """The app that `-A` names, or the current one."""
        return self._app() if callable(self._app) and not hasattr(self._app, "conf") else self._app

    @cached_property
    def OK(self) -> str:  # noqa: N802 - public name
        """The word, in green."""
        return self.style("OK", fg="green", bold=True)

    @cached_property
    def ERROR(self) -> str:  # noqa: N802 - public name
        """The word, in red."""
        return self.style("ERROR", fg="red", bold=True)

    def style(self, message: Any = None, **kwargs: Any) -> str:
        """Text in colours, unless there are to be none."""
        return str(message) if self.no_color else click.style(message, **kwargs)

    def secho(self, message: Any = None, **kwargs: Any) -> None:
        """Print in colours, unless there are to be none."""
        if self.no_color:
            kwargs["color"] = False
        click.secho(message, **kwargs)

    def echo(self, message: Any = None, **kwargs: Any) -> None:
        """Print."""
        if self.no_color:
            kwargs["color"] = False
        click.echo(message, **kwargs)

    def error(self, message: Any = None, **kwargs: Any) -> None:
        """Print to stderr."""
        kwargs["err"] = True
        self.echo(message, **kwargs)


# ------------------------------------------------------------------------------------------------- options, commands


class CeleryOption(click.Option):
    """An option under a heading of the help text, whose default may come from the context."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """`help_group`: the heading. `default_value_from_context`: name of an attribute of `ctx.obj`."""
        self.help_group = kwargs.pop("help_group", None)
        self.default_value_from_context = kwargs.pop("default_value_from_context", None)
        super().__init__(*args, **kwargs)

    def get_default(self, ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
        """The default; from the context if it is to come from there."""
        if self.default_value_from_context and ctx.obj is not None:
            self.default = getattr(ctx.obj, self.default_value_from_context, None)
        return super().get_default(ctx, *args, **kwargs)


class CeleryCommand(click.Command):
    """A command whose help text has its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section for each heading, in the order in which the headings come."""
        sections: dict[str, list[tuple[str, str]]] = {}
        plain: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            group = getattr(param, "help_group", None)
            (plain if group is None else sections.setdefault(group, [])).append(record)
        if plain:
            sections["Options"] = plain
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class DaemonOption(CeleryOption):
    """An option of programs that run in the background; its default is the app's setting `<command>_<option>`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("help_group", "Daemonization Options")
        kwargs["callback"] = kwargs.get("callback") or self.daemon_setting
        super().__init__(*args, **kwargs)

    def daemon_setting(self, ctx: click.Context, opt: CeleryOption, value: Any) -> Any:
        """What was given, or else the setting."""
        return value if value or ctx.obj is None else getattr(ctx.obj.app.conf, f"{ctx.command.name}_{opt.name}", None)


class CeleryDaemonCommand(CeleryCommand):
    """A command that may run in the background (`[cli.8]`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(
            (
                DaemonOption(("--logfile", "-f"), help="Write the log to this file instead of stderr"),
                DaemonOption(("--pidfile",), help="Keep the process id in this file"),
                DaemonOption(("--uid",), help="Run as this user"),
                DaemonOption(("--gid",), help="Run as this group"),
                DaemonOption(("--umask",), help="Umask of files that are made, in octal"),
                DaemonOption(("--executable",), help="Python to run it with"),
            )
        )


def handle_preload_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let `user_preload_options` receivers see the app's own `preload` options before the command runs."""

    def caller(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
        app = ctx.obj.app
        names = [option.name for option in app.user_options.get("preload", ())]
        user_preload_options.send(sender=command, app=app, options={name: kwargs.get(name) for name in names})
        return command(ctx, *args, **kwargs)

    return update_wrapper(caller, command)


# ------------------------------------------------------------------------------------------------- types of values


class CommaSeparatedList(_ParamType):
    """`a,b,c`."""

    name = "comma separated list"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        if isinstance(value, str):
            value = value.split(",")
        return [item.strip() for item in value if item.strip()]


class _Json(_ParamType):
    kind: type = object

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, self.kind):
            return value
        try:
            found = json.loads(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if not isinstance(found, self.kind):
            self.fail(f"expected a {self.name}, got {value!r}", param, ctx)
        return found


class JsonArray(_Json):
    """A list as JSON."""

    name = "json array"
    kind = list


class JsonObject(_Json):
    """A mapping as JSON."""

    name = "json object"
    kind = dict


class ISO8601DateTime(_ParamType):
    """A date and time."""

    name = "iso-86091"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value)
        except (TypeError, ValueError) as exc:
            self.fail(str(exc), param, ctx)


class ISO8601DateTimeOrFloat(_ParamType):
    """A date and time, or a number of seconds."""

    name = "iso-86091 or float"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime | float:
        try:
            return float(value)
        except (TypeError, ValueError):
            return ISO8601.convert(value, param, ctx)


class LogLevel(_Choice):
    """The name of a log level in any case, or its number; gives the number (`[cli.7]`)."""

    def __init__(self) -> None:
        super().__init__(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL"))

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, numbers.Integral):
            return int(value)
        if str(value).isdigit():
            return int(value)
        return int(mlevel(super().convert(str(value).upper(), param, ctx)))


JSON_ARRAY = JsonArray()
JSON_OBJECT = JsonObject()
ISO8601 = ISO8601DateTime()
ISO8601_OR_FLOAT = ISO8601DateTimeOrFloat()
LOG_LEVEL = LogLevel()
COMMA_SEPARATED_LIST = CommaSeparatedList()
