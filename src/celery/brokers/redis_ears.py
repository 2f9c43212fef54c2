"""Adapter. Connections at which one listens to a Redis server."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import hiredis

from celery.exceptions import OperationalError
from celery.waits import wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.drivers.redis import Command, Endpoint, Link

__all__ = ["ROUND", "ChannelEar", "Ear", "lost"]

#: Seconds between two signs of life, and for which the server holds back its answer to a listener for replies.
ROUND = 10.0
#: How many messages are remembered where each comes twice.
_LATELY = 512

Heard = TypeVar("Heard")


class Ear(Generic[Heard]):
    """One connection that is listened at. Any failure ends it; the next use connects anew."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._link: Link | None = None
        self._closed = False
        #: When (monotonic) the oldest question was put that is not answered yet.
        self._asked_at: float | None = None
        #: Seconds that the server may take for it.
        self._allowed = endpoint.timeout
        #: When to ask again.
        self._next = 0.0

    def open(self) -> Link:
        """The link, connected and listening. Raises `OperationalError`."""
        if self._link is None or self._link.closed:
            self._link = self._endpoint.connect()
            self._asked_at = None
            self._next = time.monotonic() + ROUND
            self.begin(self._link)
        return self._link

    def begin(self, link: Link) -> None:
        """Listen over a new link."""
        raise NotImplementedError

    def take(self, items: Iterable[Any]) -> Iterable[Heard]:
        """What is heard in what the server sent."""
        raise NotImplementedError

    def ask(self, link: Link) -> None:
        """Ask for a sign of life."""
        raise NotImplementedError

    def fileno(self) -> int:
        return self.open().fileno()

    def collect(self) -> list[Heard]:
        """What is here by now; never blocks, but connects where it must. Raises `OperationalError`."""
        if self._closed:
            return []
        try:
            link = self.open()
            heard: list[Heard] = []
            while link.readable():
                heard += self.take(link.receive())
            return heard
        except BaseException:
            self.drop()
            raise

    def keep(self, now: float) -> float:
        """Keep the line alive; seconds until this is to be called again. Raises `OperationalError` if it is not."""
        try:
            link = self.open()
            if self._asked_at is None and now >= self._next:
                self.ask(link)
                self._asked_at, self._next = now, now + ROUND
            if self._asked_at is None:
                return max(self._next - now, 0.0)
            left = self._asked_at + self._allowed - now
            if left <= 0:
                raise OperationalError(
                    f"the Redis server at {self._endpoint.shown} did not answer within {self._allowed:g} s"
                )
            return left
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """End the line."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def close(self) -> None:
        """Listen no more. Idempotent."""
        self._closed = True
        self.drop()


class ChannelEar(Ear[Heard]):
    """Hears what is published to channels."""

    def __init__(self, endpoint: Endpoint, patterns: Iterable[str], *, repeated: bool) -> None:
        """`repeated`: the same comes over several channels."""
        super().__init__(endpoint)
        self._patterns = list(dict.fromkeys(name.encode() for name in patterns))
        #: What came lately, if each notice comes over several channels.
        self._lately: deque[int] | None = deque(maxlen=_LATELY) if repeated else None
        self._early: list[Heard] = []
        self._confirmed = 0
        self.open()

    def read(self, pattern: bytes, envelope: bytes) -> Heard | None:
        """What came over a channel or a pattern; None: it is for nobody here."""
        raise NotImplementedError

    def begin(self, link: Link) -> None:
        patterns = self._patterns
        self._confirmed = 0
        # A user who may only see channels under a prefix is refused every pattern but that prefix's own.
        plain = [pattern for pattern in patterns if b"*" not in pattern]
        globs = [pattern for pattern in patterns if b"*" in pattern]
        commands: list[Command] = [("SUBSCRIBE", *plain)] if plain else []
        link.send([*commands, ("PSUBSCRIBE", *globs)] if globs else commands)
        deadline = time.monotonic() + self._endpoint.timeout
        while self._confirmed < len(patterns):
            if not link.pending() and not wait_readable([link.fileno()], deadline - time.monotonic()):
                raise OperationalError(
                    f"the Redis server at {self._endpoint.shown} did not answer within {self._endpoint.timeout:g} s"
                )
            self._early += self.take(link.receive())

    def ask(self, link: Link) -> None:
        link.send([("PING",)])

    def take(self, items: Iterable[Any]) -> Iterable[Heard]:
        taken, self._early = self._early, []
        for item in items:
            self._asked_at = None
            if isinstance(item, hiredis.ReplyError):
                assert self._link is not None
                raise lost(self._link.refusal(str(item)))
            if not isinstance(item, list):
                continue  # the answer to a ping
            self._confirmed += item[0] in (b"subscribe", b"psubscribe")
            # Of a channel: its name and what was told; of a pattern: that, the channel and what was told.
            heard = self.read(item[1], item[-1]) if item[0] in (b"message", b"pmessage") else None
            if heard is not None:
                taken.append(heard)
        return taken

    def collect(self) -> list[Heard]:
        early, self._early = self._early, []
        return early + super().collect()

    def is_new(self, envelope: bytes) -> bool:
        """False for what another channel has brought already: each message bears a tag of its own."""
        if self._lately is None:
            return True
        mark = hash(envelope)
        if mark in self._lately:
            return False
        self._lately.append(mark)
        return True


def lost(exc: Exception) -> Exception:
    """What `hear` may raise."""
    found: Exception = exc if isinstance(exc, OperationalError) else OperationalError(str(exc))
    return found
