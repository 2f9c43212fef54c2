"""Entrance. `celery call`: send a task by its name (`[cli.14]`)."""

from __future__ import annotations

from typing import Any

import click

from celery.bin.base import (
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    CeleryCommand,
    CeleryOption,
    handle_preload_options,
)

_CALLING: dict[str, Any] = {"cls": CeleryOption, "help_group": "Calling Options"}
_ROUTING: dict[str, Any] = {"cls": CeleryOption, "help_group": "Routing Options"}


@click.command(cls=CeleryCommand)
@click.argument("name")
@click.option("-a", "--args", type=JSON_ARRAY, default="[]", help="Positional arguments.", **_CALLING)
@click.option("-k", "--kwargs", type=JSON_OBJECT, default="{}", help="Keyword arguments.", **_CALLING)
@click.option("--eta", type=ISO8601, help="Earliest time.", **_CALLING)
@click.option("--countdown", type=float, help="Seconds before it may run.", **_CALLING)
@click.option("--expires", type=ISO8601_OR_FLOAT, help="When it is not wanted any more.", **_CALLING)
@click.option("--serializer", default="json", help="Serializer of the arguments.", **_CALLING)
@click.option("--queue", help="Queue to send it to.", **_ROUTING)
@click.option("--exchange", help="Exchange to send it to.", **_ROUTING)
@click.option("--routing-key", help="Its routing key.", **_ROUTING)
@click.pass_context
@handle_preload_options
def call(ctx: click.Context, name: str, args: list[Any], kwargs: dict[str, Any], **options: Any) -> None:
    """Send a task by its name and print its id."""
    wanted = {key: value for key, value in options.items() if value is not None}
    try:
        sent = ctx.obj.app.send_task(name, args=args, kwargs=kwargs, **wanted)
    except (TypeError, ValueError) as exc:  # says what was expected
        raise click.UsageError(str(exc), ctx=ctx) from exc
    ctx.obj.echo(sent.id)
