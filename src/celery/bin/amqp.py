"""Entrance. `celery amqp`: the broker by hand, a command at a time or at a prompt (`[cli.24]`)."""

from __future__ import annotations

import pprint
import shlex
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from celery.bin.base import CLIContext, handle_preload_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["amqp"]

_PROMPT = "amqp> "


class Shell:
    """One connection and channel for all commands; made anew after an error, which closes a channel."""

    def __init__(self, cli: CLIContext) -> None:
        self.cli = cli
        self.app = cli.app
        self._connection: Any = None
        self._channel: Any = None

    @property
    def channel(self) -> Any:
        """The channel; connects when it is first needed."""
        if self._channel is None:
            self._connection = self.app.connection_for_write()
            self.cli.echo(f"-> connecting to {self._connection.as_uri()}.")
            self._channel = self._connection.channel()
            self.cli.echo("-> connected.")
        return self._channel

    def close(self) -> None:
        """Disconnect; the next command connects anew. Messages that were got and not acknowledged go back."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.release()

    def run(self, step: Callable[[Any], object]) -> None:
        """Do something with the channel and say how it went."""
        try:
            answer = step(self.channel)
        except click.ClickException:
            raise
        except Exception as exc:  # noqa: BLE001 - each transport raises its own
            self.cli.echo(f"{self.cli.ERROR}: {_explained(exc)}")
            self.failed = True
            try:
                self.close()
            except Exception as again:  # noqa: BLE001
                self.cli.error(f"closing the connection failed too: {again}")
            return
        if isinstance(answer, str):  # drivers return this and that
            self.cli.echo(answer)
        self.cli.echo(self.cli.OK)

    #: Something went wrong.
    failed = False


def _explained(exc: Exception) -> str:
    if isinstance(exc, NotImplementedError):
        return f"this broker has no such thing {exc}".rstrip()
    return str(exc) or type(exc).__name__


@click.group(invoke_without_command=True)
@click.pass_context
@handle_preload_options
def amqp(ctx: click.Context) -> None:
    """Talk to the broker by hand.

    Without a command it asks for commands: `help` lists them, `exit` ends. What it says is AMQP's: queues, exchanges,
    bindings; redis://, sqlite:// and memory:// know most of that.
    """
    if not isinstance(ctx.obj, Shell):
        shell = Shell(ctx.obj)
        ctx.obj = shell
        ctx.call_on_close(shell.close)
        if ctx.invoked_subcommand is None:
            ctx.invoke(repl)
        else:
            ctx.call_on_close(lambda: shell.failed and sys.exit(1))


@amqp.command("exchange.declare")
@click.argument("exchange")
@click.argument("type", default="direct")
@click.argument("passive", type=bool, default=False)
@click.argument("durable", type=bool, default=True)
@click.argument("auto_delete", type=bool, default=False)
@click.pass_obj
def exchange_declare(shell: Shell, exchange: str, type: str, passive: bool, durable: bool, auto_delete: bool) -> None:
    """Declare an exchange: direct, topic, fanout or headers."""

    def declare(channel: Any) -> None:
        channel.exchange_declare(exchange, type, passive=passive, durable=durable, auto_delete=auto_delete)

    shell.run(declare)


@amqp.command("exchange.delete")
@click.argument("exchange")
@click.argument("if_unused", type=bool, default=False)
@click.pass_obj
def exchange_delete(shell: Shell, exchange: str, if_unused: bool) -> None:
    """Delete an exchange."""
    shell.run(lambda channel: channel.exchange_delete(exchange, if_unused=if_unused))


@amqp.command("queue.bind")
@click.argument("queue")
@click.argument("exchange")
@click.argument("routing_key")
@click.pass_obj
def queue_bind(shell: Shell, queue: str, exchange: str, routing_key: str) -> None:
    """Bind a queue to an exchange."""
    shell.run(lambda channel: channel.queue_bind(queue=queue, exchange=exchange, routing_key=routing_key))


@amqp.command("queue.declare")
@click.argument("queue")
@click.argument("passive", type=bool, default=False)
@click.argument("durable", type=bool, default=True)
@click.argument("auto_delete", type=bool, default=False)
@click.pass_obj
def queue_declare(shell: Shell, queue: str, passive: bool, durable: bool, auto_delete: bool) -> None:
    """Declare a queue, and say how many messages and consumers it has."""

    def declare(channel: Any) -> str:
        found = channel.queue_declare(queue=queue, passive=passive, durable=durable, auto_delete=auto_delete)
        return f"queue:{found.queue} messages:{found.message_count} consumers:{found.consumer_count}"

    shell.run(declare)


@amqp.command("queue.delete")
@click.argument("queue")
@click.argument("if_unused", type=bool, default=False)
@click.argument("if_empty", type=bool, default=False)
@click.pass_obj
def queue_delete(shell: Shell, queue: str, if_unused: bool, if_empty: bool) -> None:
    """Delete a queue, and say how many messages it had."""

    def delete(channel: Any) -> str:
        # kombu's own transports do not say how many there were; RabbitMQ does, 0 if there is no such queue.
        count = channel.queue_declare(queue=queue, passive=True).message_count if hasattr(channel, "_size") else 0
        answer = channel.queue_delete(queue=queue, if_unused=if_unused, if_empty=if_empty)
        if answer is None and not if_empty:  # kombu's own transports delete what was bound here, and say nothing
            channel.queue_purge(queue=queue)
        return _deleted(count if answer is None else answer)

    shell.run(delete)


@amqp.command("queue.purge")
@click.argument("queue")
@click.pass_obj
def queue_purge(shell: Shell, queue: str) -> None:
    """Delete the messages of a queue."""
    shell.run(lambda channel: _deleted(channel.queue_purge(queue=queue)))


def _deleted(count: Any) -> str:
    return f"{getattr(count, 'message_count', count)} messages deleted."


@amqp.command("basic.get")
@click.argument("queue")
@click.argument("no_ack", type=bool, default=False)
@click.pass_obj
def basic_get(shell: Shell, queue: str, no_ack: bool) -> None:
    """Take the next message of a queue and show it. It goes back when the connection ends, unless it is acknowledged
    (basic.ack with its delivery_tag)."""

    def get(channel: Any) -> str:
        message = channel.basic_get(queue=queue, no_ack=no_ack)
        if message is None:
            return "No messages in queue. basic.publish something."
        shown = {
            "body": message.body,
            "properties": getattr(message, "properties", {}),
            "headers": getattr(message, "headers", {}),
            "delivery_info": {**message.delivery_info, "delivery_tag": message.delivery_tag},
        }
        return pprint.pformat(shown)

    shell.run(get)


@amqp.command("basic.publish")
@click.argument("msg")
@click.argument("exchange")
@click.argument("routing_key")
@click.argument("mandatory", type=bool, default=False)
@click.argument("immediate", type=bool, default=False)
@click.pass_obj
def basic_publish(shell: Shell, msg: str, exchange: str, routing_key: str, mandatory: bool, immediate: bool) -> None:
    """Send text to an exchange."""

    def publish(channel: Any) -> None:
        message = channel.prepare_message(
            msg, content_type="text/plain", content_encoding="utf-8", headers={}, properties={"delivery_mode": 2}
        )
        channel.basic_publish(
            message, exchange=exchange, routing_key=routing_key, mandatory=mandatory, immediate=immediate
        )

    shell.run(publish)


@amqp.command("basic.ack")
@click.argument("delivery_tag")
@click.pass_obj
def basic_ack(shell: Shell, delivery_tag: str) -> None:
    """Acknowledge a message, so that it does not go back."""
    tag: Any = int(delivery_tag) if delivery_tag.isdigit() else delivery_tag
    shell.run(lambda channel: channel.basic_ack(tag))


@amqp.command("repl")
@click.pass_context
def repl(ctx: click.Context) -> None:
    """Ask for commands."""
    group = amqp
    for line in _lines():
        try:
            words = shlex.split(line)
        except ValueError as exc:
            click.echo(f"Error: {exc}", err=True)
            continue
        if not words:
            continue
        if words[0] in {"exit", "quit", ":q"}:
            return
        if words[0] in {"help", "?"}:
            words = [*words[1:], "--help"]
        try:
            group.main(args=words, prog_name="", standalone_mode=False, obj=ctx.obj)
        except click.ClickException as exc:
            exc.show()
        except click.exceptions.Exit:
            pass


def _lines() -> Iterator[str]:
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with suppress(ModuleNotFoundError):
        import_module("readline")  # for its editing of lines
    while True:
        try:
            yield input(_PROMPT)
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return
