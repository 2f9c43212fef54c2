"""A transport as others write them: one that waits inside a look, and loses its connection when it is told to."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from queue import Empty
from typing import Any, ClassVar

from kombu.transport import virtual

__all__ = ["Channel", "Gone", "Transport"]


class Gone(Exception):
    """The server is away; what it said may name the password."""


class Channel(virtual.Channel):  # type: ignore[misc]  # kombu ships no types
    queues: ClassVar[dict[str, deque[Any]]] = defaultdict(deque)
    #: While it is set, a look waits.
    waits: ClassVar[threading.Event] = threading.Event()
    #: Set while a look waits.
    waiting: ClassVar[threading.Event] = threading.Event()
    goes_on: ClassVar[threading.Event] = threading.Event()
    #: While it is set, nothing works.
    away: ClassVar[threading.Event] = threading.Event()

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        self._answer()
        self.queues[queue].append(message)

    def _get(self, queue: str, **kwargs: Any) -> Any:
        self._answer()
        if self.queues[queue]:
            return self.queues[queue].popleft()
        if self.waits.is_set():
            self.waiting.set()
            self.goes_on.wait(20)
            self._answer()
        raise Empty

    def _purge(self, queue: str) -> int:
        return len(self.queues.pop(queue, ()))

    def _size(self, queue: str) -> int:
        return len(self.queues[queue])

    def _answer(self) -> None:
        if self.away.is_set():
            raise Gone("hush: the server is away")


class Transport(virtual.Transport):  # type: ignore[misc]
    Channel = Channel
    driver_type = driver_name = "slow"
    polling_interval = 0.05
    connection_errors = (Gone,)
    channel_errors = ()
    global_state = virtual.BrokerState()

    def driver_version(self) -> str:
        return "1"

    @classmethod
    def begin(cls) -> None:
        """As new."""
        for event in (Channel.waits, Channel.waiting, Channel.goes_on, Channel.away):
            event.clear()
        Channel.queues.clear()
        cls.global_state.clear()
