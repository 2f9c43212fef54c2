"""Entrance. `celery list`: what the broker has (`[cli.17]`)."""

from __future__ import annotations

from typing import Any

import click

from celery.bin.base import EX_UNAVAILABLE, CeleryCommand, handle_preload_options
from celery.exceptions import CeleryCommandException
from celery.ports import Inspectable

__all__ = ["bindings", "list_"]


@click.group(name="list")
@click.pass_context
@handle_preload_options
def list_(ctx: click.Context) -> None:
    """Show what the broker has."""


@list_.command(cls=CeleryCommand)
@click.pass_context
def bindings(ctx: click.Context) -> None:
    """Show which queue gets what: its exchange and its routing key."""
    app = ctx.obj.app
    broker: Any = app.assembly.broker
    if isinstance(broker, Inspectable):
        specs = [app.amqp.queues.spec(name) for name in sorted(app.amqp.queues)]
        app.assembly.broker.declare(specs)
        found = [
            {"destination": queue.name, "source": exchange, "routing_key": key or queue.name}
            for queue in specs
            for exchange, key in [(b.exchange.name, b.routing_key) for b in queue.bound] or [(queue.name, "")]
        ]
    else:
        found = _asked(app)

    def line(queue: str, exchange: str, key: str) -> None:
        ctx.obj.echo(f"{queue:<28} {exchange:<28} {key}")

    line("Queue", "Exchange", "Routing Key")
    line("-" * 16, "-" * 16, "-" * 16)
    for binding in found:
        line(binding["destination"], binding["source"], binding["routing_key"])


def _asked(app: Any) -> list[dict[str, str]]:
    """What the server says: RabbitMQ's management plugin."""
    try:
        with app.connection() as connection:
            app.amqp.TaskConsumer(connection.default_channel).declare()
            return list(connection.manager.get_bindings())
    except NotImplementedError as exc:
        raise CeleryCommandException("This broker cannot list its bindings", EX_UNAVAILABLE) from exc
