"""Adapter. Notices over a broker of kombu's: each mailbox is a queue that is bound to the exchange of what it hears."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu import Consumer, Queue
from kombu.transport import virtual

from celery.brokers.kombu_messages import declare_queue, notice_of
from celery.drivers.kombu import is_local, open_line
from celery.waits import wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.drivers.kombu import Line
    from celery.ports import BrokerConfig, Notice
    from celery.routing import QueueSpec

__all__ = ["KombuListener"]

logger = logging.getLogger("celery.brokers.kombu")

#: Seconds of one look at the mailboxes.
_ONE_LOOK = 0.001
#: Seconds between two looks, at a broker on this machine and at others: whoever asks waits for a second.
_LOCAL_PAUSE, _PAUSE = 0.05, 0.25


class KombuListener:
    """See `ports.Listener`."""

    def __init__(
        self,
        config: BrokerConfig,
        mailboxes: Sequence[QueueSpec],
        left: Callable[[Sequence[QueueSpec]], Sequence[QueueSpec]],
    ) -> None:
        """`left` is told when we listen no more; returns the mailboxes at which nobody does."""
        self._config = config
        self._mailboxes = list(mailboxes)
        self._left = left
        self._heard: list[Notice] = []
        self._closed = False
        self._line: Line | None = self._open()

    def _open(self) -> Line:
        line = open_line(self._config)
        try:
            with line.translated():
                transport = line.connection.transport
                self._pause = min(getattr(transport, "polling_interval", None) or 1.0, _PAUSE)
                if is_local(line):
                    self._pause = _LOCAL_PAUSE
                if type(transport).drain_events is virtual.Transport.drain_events:
                    transport.polling_interval = None
                for mailbox in self._mailboxes:
                    declare_queue(line, mailbox)
                    hear = partial(self._hear, mailbox.exchange_type)
                    Consumer(
                        line.channel,
                        [Queue(mailbox.name)],
                        no_ack=True,
                        on_message=hear,
                        on_decode_error=_not_heard,
                        auto_declare=False,
                    ).consume()
        except BaseException:
            line.close()
            raise
        return line

    def _hear(self, kind: str, came: Any) -> None:
        self._heard.append(notice_of(came, kind))

    def hear(self, timeout: float, until_readable: Sequence[int] = ()) -> list[Notice]:
        """See `Listener.hear`."""
        line = self._line
        if line is None:
            line = self._line = self._open()
        deadline = time.monotonic() + timeout
        while True:
            self._look(line)
            remaining = deadline - time.monotonic()
            if self._heard or remaining <= 0:
                break
            if wait_readable(until_readable, min(remaining, self._pause)):
                break
        heard, self._heard = self._heard, []
        return heard

    def _look(self, line: Line) -> None:
        """Take all that is there."""
        try:
            with line.translated():
                while self._drain(line):
                    pass
        except BaseException:
            self._line = None
            line.close()
            raise

    @staticmethod
    def _drain(line: Line) -> bool:
        """Take what the next look brings; False: nothing."""
        try:
            line.connection.drain_events(timeout=_ONE_LOOK)
        except TimeoutError:
            return False
        except (ValueError, KeyError, TypeError) as exc:  # kombu has taken what it cannot read
            logger.warning("%s: a notice cannot be read: %r", line.shown, exc)
        return True

    def close(self) -> None:
        """See `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        line, self._line = self._line, None
        gone = [mailbox for mailbox in self._left(self._mailboxes) if mailbox.auto_delete]
        if line is None:
            return
        with suppress(Exception):  # it is only tidying; whoever stops is not to be kept
            for mailbox in gone:
                line.channel.queue_delete(mailbox.name)
        line.close()


def _not_heard(message: Any, exc: Exception) -> None:
    logger.warning("a notice cannot be read: %r", exc)
