"""Adapter. Results over `rpc://`: messages to whoever sent the task, through the app's AMQP broker ([backend.15]).

Each process has one reply queue, for all its threads. A result is there for the process that sent the task, and for no
other; one whose process is gone is dropped by the server.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from celery.backends.rpc_barriers import RpcBarriers
from celery.backends.rpc_replies import Replies
from celery.backends.rpc_wire import Form, lease, milliseconds
from celery.brokers.amqp import AmqpBroker
from celery.brokers.amqp_methods import await_confirms, with_confirms
from celery.drivers.amqp_frames import method, short
from celery.exceptions import ImproperlyConfigured
from celery.ports import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.drivers.amqp import Link
    from celery.outcome import Record
    from celery.ports import BackendConfig, Broker

__all__ = ["RpcStore"]

_E_BROKER = (
    "result_backend: rpc:// sends results through the broker, which has to be an AMQP server (amqp://, amqps:// or "
    "pyamqp://); this app's is {}. Give results a place of their own: result_backend = {!r}"
)


class RpcStore:
    """See `ports.ResultBackend`, `Watching` and `Streaming`; what is saved goes to `Record.reply_to`."""

    def __init__(
        self,
        config: BackendConfig,
        broker: Broker,
        name: Callable[[], str],
        *,
        clock: Clock = SystemClock(),  # noqa: B008 - stateless
    ) -> None:
        """`name`: names this process, for as long as it lives. Raises `ImproperlyConfigured` for another broker."""
        if not isinstance(broker, AmqpBroker):
            server: Any = getattr(broker, "endpoint", None)
            shown: str = getattr(broker, "url_text", "") or getattr(server, "shown", "another")
            raise ImproperlyConfigured(_E_BROKER.format(shown, _instead(shown)))
        self._broker = broker
        self._name = name
        self._clock = clock
        self._expires = config.expires
        self._form = Form(config.content, persistent=config.persistent)
        #: What is to survive the server is known to do so before anything is settled.
        self._confirm = config.persistent or bool(broker.config.options.get("confirm_publish"))
        self.url_text = "rpc://"
        self.replies = Replies(self._open, config.expires, clock, config.state_of, self._form.id_of)
        #: See `Barrier` and `Groups`.
        self.barriers = self.groups = RpcBarriers(broker, config.chord_expires, save=self.save)
        self._declaring = threading.Lock()
        #: The process and the queue that it has declared, and until when (monotonic seconds) that is enough.
        self._declared: tuple[int, str, float] = (0, "", 0.0)
        #: The same for whoever takes leave.
        self._where: list[Any] = [0, ""]
        weakref.finalize(self, _part, self.replies, broker, self._where)

    # -- the queue ---------------------------------------------------------------------------------------------------

    def address(self) -> str:
        """The reply queue of this process; on return it is there. Raises `OperationalError`."""
        pid, name, until = self._declared
        if pid == os.getpid() and self._clock.monotonic() < until:
            return name
        with self._declaring, self._broker.link() as link:
            return self._declare(link)

    def name(self) -> str:
        """The name of that queue, whether or not it is there: the server drops results for one that is not."""
        return self._name()

    def _declare(self, link: Link) -> str:
        name = self._name()
        kept = {} if self._expires is None else {"x-message-ttl": milliseconds(self._expires)}
        link.call(method(50, 10, b"\0\0" + short(name) + b"\x02" + lease(self._expires, **kept)), {(50, 11)})
        half = inf if self._expires is None else self._clock.monotonic() + self._expires / 2
        self._declared = os.getpid(), name, half
        self._where[:] = os.getpid(), name
        return name

    def _open(self) -> tuple[Link, str]:
        link = self._broker.endpoint.connect()
        try:
            return link, self._declare(link)
        except BaseException:
            link.close()
            raise

    # -- the port ----------------------------------------------------------------------------------------------------

    def save(self, records: Sequence[Record]) -> None:
        """Send each to whoever waits for it, all in one write; a record without an address goes nowhere."""
        sent = [record for record in records if record.reply_to]
        if not sent:
            return
        with self._broker.link() as link:
            if self._confirm:
                with_confirms(link)
            frame_max, frames = link.frame_max, self._form.frames
            link.send(b"".join([frames(record, frame_max) for record in sent]))
            if link.published is not None:
                await_confirms(link, len(sent))

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        """See `ResultBackend.load`: the last document that has come of each. Nothing has for a process that has never
        given its address away."""
        if not self._expecting:
            return [None] * len(ids)
        return self.replies.load(ids)

    @property
    def _expecting(self) -> bool:
        return self._declared[0] == os.getpid()

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        """See `ResultBackend.wait`."""
        if not ids:
            return {}
        if timeout is not None and timeout <= 0:
            return self.replies.ready(ids) if self._expecting else {}
        return self.replies.wait(ids, timeout)

    def each(self, ids: Sequence[str], patience: Callable[[], float | None]) -> Iterator[dict[str, bytes]]:
        """See `Streaming.each`."""
        return self.replies.each(ids, patience)

    def watch(self, id: str, timeout: float | None, heard: Callable[[bytes], object]) -> bytes | None:
        """See `Watching.watch`."""
        return self.replies.watch(id, timeout, heard)

    def forget(self, ids: Sequence[str]) -> None:
        """Drop what is kept of these here; it is nowhere else."""
        if ids and self._expecting:
            self.replies.forget(ids)

    def close(self) -> None:
        """See `ResultBackend.close`. The reply queue stays until the process ends, or expires."""
        self.replies.close()
        self.barriers.close()

    def __repr__(self) -> str:
        return f"<RpcStore: {self._broker.url_text}>"


def _instead(shown: str) -> str:
    return "redis://…" if shown.startswith(("redis", "sentinel", "unix")) else "sqlite:///results.db"


def _part(replies: Replies, broker: AmqpBroker, where: list[Any]) -> None:
    """The process ends, or nobody can ask any more: its reply queue goes, if the server can be told at once."""
    pid, name = where
    if pid != os.getpid():
        return
    with suppress(Exception):
        link = replies.link or broker.idle_link()
        if link is not None:
            link.send(method(50, 40, b"\0\0" + short(name) + b"\x04"))
            if link is not replies.link:
                broker.keep(link)
        replies.close()
