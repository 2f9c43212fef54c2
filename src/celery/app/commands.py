"""Application. Commands as notices: where they go, how they are written, and how replies are gathered (`wirectl`)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.pidbox import Mailbox

from celery import codecs
from celery.exceptions import ImproperlyConfigured
from celery.ports import Notice
from celery.producer import new_id
from celery.routing import QueueSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.app.base import Celery
    from celery.ports import Broadcasting, Listener

__all__ = ["Command", "ControlMailbox", "MailboxSettings", "command_of", "gather", "mailbox_settings"]

logger = logging.getLogger("celery.app.control")


@dataclass(frozen=True, slots=True)
class MailboxSettings:
    """What the settings `control_…` say, and how commands are written."""

    #: First part of the exchange's name.
    namespace: str
    serializer: str
    #: Content types of commands and replies that are read.
    accept: frozenset[str]
    ttl: float | None
    expires: float | None
    durable: bool
    exclusive: bool

    @property
    def exchange(self) -> str:
        """Fanout: where commands go (`[wirectl.1]`)."""
        return f"{self.namespace}.pidbox"

    @property
    def reply_exchange(self) -> str:
        """Direct: where replies go."""
        return f"reply.{self.namespace}.pidbox"

    def node(self, hostname: str) -> QueueSpec:
        """The mailbox of a worker (`[wirectl.2]`)."""
        return self._queue(f"{hostname}.{self.exchange}", self.exchange, "fanout", "")

    def replies(self, oid: str) -> QueueSpec:
        """The mailbox of a client's thread (`[wirectl.3]`)."""
        return self._queue(f"{oid}.{self.reply_exchange}", self.reply_exchange, "direct", oid)

    def _queue(self, name: str, exchange: str, kind: str, key: str) -> QueueSpec:
        times = (("x-message-ttl", self.ttl), ("x-expires", self.expires))
        return QueueSpec(
            name,
            exchange,
            kind,
            key,
            durable=self.durable,
            auto_delete=True,
            exclusive=self.exclusive,
            arguments={argument: int(seconds * 1000) for argument, seconds in times if seconds is not None},
        )


def mailbox_settings(conf: Any) -> MailboxSettings:
    """Raises `ImproperlyConfigured` for queues that are to be durable and exclusive (`[wirectl.10]`)."""
    if conf.control_queue_durable and conf.control_queue_exclusive:
        raise ImproperlyConfigured(
            "expected control queues that are durable or exclusive, got both (who is exclusive is deleted with its "
            "connection): choose one of control_queue_durable and control_queue_exclusive"
        )
    return MailboxSettings(
        conf.control_exchange,
        conf.task_serializer,
        frozenset(codecs.accept_types([*(conf.accept_content or ()), "json"])),
        conf.control_queue_ttl,
        conf.control_queue_expires,
        bool(conf.control_queue_durable),
        bool(conf.control_queue_exclusive),
    )


class ControlMailbox(Mailbox):  # type: ignore[misc]  # kombu is not typed
    """kombu's mailbox, as `app.control.mailbox` gives it: for brokers that only kombu reaches, and for plugins."""

    @classmethod
    def of(cls, app: Celery, settings: MailboxSettings) -> ControlMailbox:
        """The mailbox of an app."""
        return cls(
            settings.namespace,
            type="fanout",
            clock=app.clock,
            accept=app.conf.accept_content,
            serializer=settings.serializer,
            producer_pool=app.producer_pool,
            queue_ttl=settings.ttl,
            queue_expires=settings.expires,
            queue_durable=settings.durable,
            queue_exclusive=settings.exclusive,
            reply_queue_ttl=settings.ttl,
            reply_queue_expires=settings.expires,
        )


@dataclass(slots=True)
class Command:
    """A command on its way (`[wirectl.4]`)."""

    settings: MailboxSettings
    body: dict[str, Any]
    clock: int
    #: Names the thread that may wait for replies.
    oid: str
    #: Wall-clock seconds since the epoch; nobody looks at it, but it is on the wire (`[wirectl.6]`).
    expires: float = 0.0

    def notice(self) -> Notice:
        """As it is told. Raises kombu's `EncodeError` for arguments that cannot be serialised."""
        content_type, content_encoding, body = codecs.encode(self.body, self.settings.serializer)
        return Notice(
            self.settings.exchange,
            "fanout",
            "",
            body,
            content_type,
            content_encoding,
            {"clock": self.clock, "expires": self.expires},
            {"delivery_mode": 2},
        )

    def ask(self) -> str:
        """Have it answered; returns the ticket that replies bear."""
        ticket = new_id()
        self.body["ticket"] = ticket
        self.body["reply_to"] = {"exchange": self.settings.reply_exchange, "routing_key": self.oid}
        return ticket


def command_of(
    app: Celery,
    settings: MailboxSettings,
    method: str,
    arguments: Mapping[str, Any],
    destination: Sequence[str] | None,
    pattern: str | None,
    matcher: str | None,
) -> Command:
    """A command to those nodes. Raises ValueError for a destination that is no list (`[wirectl.8]`)."""
    if destination is not None and not isinstance(destination, list | tuple):
        raise ValueError(f"expected destination as a list of node names, got {destination!r}: write [{destination!r}]")
    body = {
        "method": method,
        "arguments": dict(arguments),
        "destination": destination,
        "pattern": pattern if matcher is not None else None,
        "matcher": matcher if pattern is not None else None,
    }
    return Command(settings, body, app.clock.forward(), app.thread_oid)


def gather(
    carrier: Broadcasting,
    command: Command,
    timeout: float,
    limit: int | None,
    callback: Callable[[Any], object] | None,
) -> list[dict[str, Any]]:
    """Tell a command and hear what is answered: until `limit` replies have come, or none for `timeout` seconds.

    Where the broker says how many have heard the command, no more replies than these are waited for. Raises
    `OperationalError`.
    """
    ticket = command.ask()
    notice = command.notice()
    listener = carrier.listen([command.settings.replies(command.oid)])
    try:
        told = carrier.tell([notice])
        if told is not None:
            limit = told if limit is None else min(limit, told)
        return list(_collected(listener, _Wanted(command.settings, ticket, limit, callback), timeout))
    finally:
        listener.close()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which replies, how many at most, and who is called with each."""

    settings: MailboxSettings
    ticket: str
    limit: int | None
    callback: Callable[[Any], object] | None


def _collected(listener: Listener, wanted: _Wanted, timeout: float) -> Iterator[dict[str, Any]]:
    left = math.inf if wanted.limit is None else wanted.limit
    deadline = time.monotonic() + timeout
    while left > 0 and (seconds := deadline - time.monotonic()) > 0:
        for notice in listener.hear(seconds):
            reply = _reply_in(notice, wanted)
            if reply is None or left <= 0:
                continue
            left -= 1
            if wanted.callback is not None:
                wanted.callback(reply)
            deadline = time.monotonic() + timeout
            yield reply


def _reply_in(notice: Notice, wanted: _Wanted) -> dict[str, Any] | None:
    """The reply to our ticket that a notice holds; None if it is another's, too old or no reply (`[wirectl.5]`)."""
    expires = notice.headers.get("expires")
    if isinstance(expires, int | float) and expires and expires < time.time():
        return None
    if notice.headers.get("ticket", wanted.ticket) != wanted.ticket:
        return None
    try:
        reply = codecs.decode(notice.body, notice.content_type, notice.content_encoding, wanted.settings.accept)
    except Exception as exc:  # noqa: BLE001 - whatever a decoder raises
        logger.warning("A reply to a remote command cannot be read, and is passed over: %r", exc)
        return None
    if not isinstance(reply, Mapping):
        logger.warning("Expected a reply as a mapping of a node's name, got %.200r; it is passed over", reply)
        return None
    return dict(reply)
