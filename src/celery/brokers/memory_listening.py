"""Adapter. Notices within one process: who listens at a `memory://` server hears what is told there."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from celery.brokers.bindings import matches
from celery.waits import read, wait_readable, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.drivers.memory import Server
    from celery.ports import Notice
    from celery.routing import QueueSpec

__all__ = ["MemoryListener", "tell"]


def tell(server: Server, notices: Sequence[Notice]) -> int:
    """Put each notice to those who listen for it now; how many those were in all."""
    told = 0
    with server.changed:
        for notice in notices:
            answered: set[str] = set()
            for listener in server.notice_listeners:
                told += listener.take(notice, answered)
    return told


class MemoryListener:
    """See `ports.Listener`."""

    def __init__(self, server: Server, mailboxes: Sequence[QueueSpec]) -> None:
        self._server = server
        self._mailboxes = list(mailboxes)
        self._heard: deque[Notice] = deque()
        self._readable, self._writable = os.pipe()
        for fd in (self._readable, self._writable):
            os.set_blocking(fd, False)
        self._open = True
        with server.changed:
            server.notice_listeners.append(self)

    def take(self, notice: Notice, answered: set[str]) -> bool:
        """Keep a notice if it is for us; whether it is. The caller holds the server's lock.

        `answered`: names of the mailboxes on direct exchanges that it has reached already.
        """
        for mailbox in self._mailboxes:
            if mailbox.exchange != notice.exchange:
                continue
            if not matches(mailbox.exchange_type, mailbox.routing_key, notice.routing_key):
                continue
            if mailbox.exchange_type == "direct":
                if mailbox.name in answered:
                    continue
                answered.add(mailbox.name)
            self._heard.append(notice)
            with suppress(BlockingIOError):
                write(self._writable, b"\0")
            return True
        return False

    def hear(self, timeout: float, until_readable: Sequence[int] = ()) -> list[Notice]:
        """See `Listener.hear`."""
        if not self._heard:
            wait_readable((self._readable, *until_readable), timeout)
        with self._server.changed:
            heard = list(self._heard)
            self._heard.clear()
            with suppress(BlockingIOError):
                read(self._readable, 1 << 16)
        return heard

    def close(self) -> None:
        """See `Listener.close`."""
        with self._server.changed:
            if not self._open:
                return
            self._open = False
            if self in self._server.notice_listeners:  # not in a fork, which begins with none
                self._server.notice_listeners.remove(self)
        os.close(self._readable)
        os.close(self._writable)
