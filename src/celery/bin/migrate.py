"""Entrance. `celery migrate`: messages from one broker to another (`[cli.18]`)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from kombu import Connection

from celery.app.adapters import BROKERS, scheme_of
from celery.app.migrating import Migration
from celery.bin.base import CeleryCommand, CeleryOption, CLIContext, handle_preload_options
from celery.contrib.migrate import migrate_tasks, prepare_queues
from celery.platforms import EX_OK
from celery.utils.text import str_to_list

if TYPE_CHECKING:
    from celery.message import Message
    from celery.routing import QueueSpec

__all__ = ["migrate"]

_MIGRATION: dict[str, Any] = {"cls": CeleryOption, "help_group": "Migration Options"}
#: Schemes that both ways go through our own brokers.
_OURS = {scheme for scheme, path in BROKERS.items() if "amqp" not in path}


@click.command(cls=CeleryCommand)
@click.argument("source")
@click.argument("destination")
@click.option("-n", "--limit", type=int, help="So many messages.", **_MIGRATION)
@click.option("-t", "--timeout", type=float, default=1.0, help="Seconds without a message that end it.", **_MIGRATION)
@click.option(
    "-a", "--ack-messages", is_flag=True, help="Take them from SOURCE; else they stay there too.", **_MIGRATION
)
@click.option("-T", "--tasks", help="Only messages of these tasks (a,b).", **_MIGRATION)
@click.option("-Q", "--queues", help="Only these queues (a,b); a:b sends what lies on a to b.", **_MIGRATION)
@click.option("-F", "--forever", is_flag=True, help="Go on until it is stopped.", **_MIGRATION)
@click.pass_context
@handle_preload_options
def migrate(ctx: click.Context, source: str, destination: str, **options: Any) -> None:
    """Publish at the broker DESTINATION what waits at the broker SOURCE.

    Nothing is lost if it is stopped, or killed: a message is published first, and acknowledged then. So it may be in
    both places for a moment, and run twice if workers of both are running.
    """
    if source == destination:
        raise click.UsageError("SOURCE and DESTINATION are one broker", ctx=ctx)
    try:
        if {scheme_of(source), scheme_of(destination)} <= _OURS:
            _between_ours(ctx.obj, source, destination, options)
        else:
            _through_kombu(ctx.obj, source, destination, options)
    except KeyboardInterrupt:
        ctx.obj.error("Stopped: the rest is where it was.")
        ctx.exit(EX_OK)


def _between_ours(cli: CLIContext, source: str, destination: str, options: dict[str, Any]) -> None:
    app = cli.app
    named = prepare_queues(options["queues"]) or {name: name for name in app.amqp.queues}
    queues = {name: _spec(app, to) for name, to in named.items()}
    at, to = app.assembly.open_broker(source), app.assembly.open_broker(destination)
    saying = _Saying(cli)
    migration = Migration(
        at,
        to,
        queues,
        tasks=str_to_list(options["tasks"]) or (),
        take=options["ack_messages"],
        limit=options["limit"],
        told=saying,
    )
    try:
        with saying.counting(min(migration.expected, options["limit"] or sys.maxsize)):
            migration.run(options["timeout"], forever=options["forever"])
    finally:
        at.close()
        to.close()
        _summary(cli, migration)


def _spec(app: Any, queue: str) -> QueueSpec:
    spec: QueueSpec = app.amqp.queues.spec(queue)
    return spec


class _Saying:
    """Tells of each message: a bar on a terminal, a line elsewhere."""

    def __init__(self, cli: CLIContext) -> None:
        self._cli = cli
        self._count = self._expected = 0
        self._bar: Any = None

    def counting(self, expected: int) -> Any:
        """A context with a bar in it."""
        self._expected = expected
        hidden = not sys.stderr.isatty()
        self._bar = click.progressbar(length=expected, label="Migrating", file=sys.stderr, hidden=hidden)
        self._quiet = not hidden
        return self._bar

    def __call__(self, message: Message) -> None:
        self._count += 1
        self._bar.update(1)
        if not (self._quiet or self._cli.quiet):
            self._cli.echo(f"Migrating task {self._count}/{self._expected or '?'}: {message.task}[{message.id}]")


def _summary(cli: CLIContext, migration: Migration) -> None:
    cli.echo(f"Migrated {migration.moved} {'task' if migration.moved == 1 else 'tasks'}.")
    if migration.unreadable:
        cli.error(f"{migration.unreadable} messages are no task messages, and were left where they are.")
    if migration.twice:
        cli.error(
            f"{migration.twice} became due meanwhile and were taken by a worker at the source: they may run twice."
        )


def _through_kombu(cli: CLIContext, source: str, destination: str, options: dict[str, Any]) -> None:
    def told(state: Any, body: Any, message: Any) -> None:
        if not cli.quiet:
            headers = message.headers or {}
            name, id = headers.get("task") or body.get("task"), headers.get("id") or body.get("id")
            cli.echo(f"Migrating task {state.count}/{state.strtotal}: {name}[{id}]")

    with _connection(cli.app, source) as at, _connection(cli.app, destination) as to:
        migrate_tasks(at, to, callback=told, app=cli.app, **options)


def _connection(app: Any, url: str) -> Any:
    return app.connection(url) if scheme_of(url) in _OURS else Connection(url)
