"""Entrance. `celery purge`: erase waiting messages (`[cli.16]`)."""

from __future__ import annotations

from typing import Any

import click

from celery.bin.base import COMMA_SEPARATED_LIST, CeleryCommand, CeleryOption, handle_preload_options

_PURGE: dict[str, Any] = {"cls": CeleryOption, "help_group": "Purging Options"}


@click.command(cls=CeleryCommand)
@click.option("-f", "--force", is_flag=True, help="Delete without asking.", **_PURGE)
@click.option("-Q", "--queues", type=COMMA_SEPARATED_LIST, help="Only these queues.", **_PURGE)
@click.option("-X", "--exclude-queues", type=COMMA_SEPARATED_LIST, help="All but these queues.", **_PURGE)
@click.pass_context
@handle_preload_options
def purge(ctx: click.Context, force: bool, queues: list[str] | None, exclude_queues: list[str] | None) -> None:
    """Delete the messages that wait in all known queues."""
    app = ctx.obj.app
    names = set(queues or app.amqp.queues) - set(exclude_queues or ())
    if not names:
        return
    listed, plural = ", ".join(sorted(names)), "queue" if len(names) == 1 else "queues"
    if not force:
        click.confirm(
            f"All messages waiting in the {plural} {listed} will be deleted for good (-f does not ask). Delete them",
            abort=True,
        )
    broker = app.assembly.broker
    broker.declare([app.amqp.queues.spec(name) for name in sorted(names)])
    count = sum(broker.purge(name) for name in sorted(names))
    if count:
        messages = "message" if count == 1 else "messages"
        ctx.obj.echo(f"Purged {count} {messages} from {len(names)} known task {plural}.")
    else:
        ctx.obj.echo(f"No messages purged from {len(names)} {plural}.")
