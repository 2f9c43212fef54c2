"""Adapter. A small stack of Redis connections for many threads; scripts that a server does not know are sent to it."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import hiredis

from celery import exceptions
from celery.drivers.redis import Command, Endpoint, Link, is_stale

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LinkPool", "run", "script_bodies"]

#: Seconds for which a link just used is trusted without looking whether the server has closed it.
_TRUSTED = 1.0
#: Seconds within which a server that is asked whether it is there must say so.
_HEALTHY = 2.0
#: Digest → text of each script that this process has made.
script_bodies: dict[str, str] = {}


def run(link: Link, commands: Sequence[Command]) -> list[Any]:
    """Exchange commands over a link; scripts that the server does not know (restarted, flushed) are loaded and run.

    Raises `ServerReply` for an error reply, `OperationalError` if the line fails.
    """
    replies = link.attempt(commands)
    for place, reply in enumerate(replies):
        if isinstance(reply, hiredis.ReplyError):
            replies[place] = _again(link, commands[place], reply)
    return replies


def _again(link: Link, command: Command, error: hiredis.ReplyError) -> Any:
    body = script_bodies.get(str(command[1])) if command[0] == "EVALSHA" else None
    if body is None or not str(error).startswith("NOSCRIPT"):
        raise link.refusal(str(error))
    return link.exchange([("EVAL", body, *command[2:])])[0]  # which makes it known, too


class LinkPool:
    """Connections of one process to one server, the last used on top. Thread-safe; a forked child begins with none.

    `limit`: connections open at once, more callers wait for at most the endpoint's timeout; None or 0: each call opens
    one of its own and closes it.
    """

    def __init__(self, endpoint: Endpoint, limit: int | None = 10) -> None:
        self.endpoint = endpoint
        self._limit = limit or 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        #: A link, or None for one that may be opened. Taking and putting back are single steps: no lock while some are
        #: left.
        self._places: list[Link | None] = [None] * self._limit
        self._waiters = 0
        #: How often a server that said nothing has cost somebody his time.
        self._silences = 0
        self._freed = threading.Condition()

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Exchange commands over any link; see `run`. Twice, with `retry_on_timeout`, if no answer came."""
        try:
            return self._run(commands)
        except exceptions.OperationalError as exc:
            if not self.endpoint.retry_on_timeout or not isinstance(exc.__cause__, TimeoutError | BlockingIOError):
                raise
        return self._run(commands)

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        link = self.take()
        try:
            return run(link, commands)
        finally:
            self.give_back(link)

    def take(self) -> Link:
        """A link for this thread alone until `give_back`. Raises `OperationalError`."""
        if self._pid != os.getpid():
            self._abandon()
        if not self._limit:
            return self.endpoint.connect()
        try:
            link = self._places.pop()
        except IndexError:
            link = self._wait_for_place()
        try:
            if link is not None and (is_stale(link) or not self._is_healthy(link)):
                link.close()
                link = None
            return link or self.endpoint.connect()
        except BaseException as exc:
            if _is_silence(exc):
                self._note_silence()
            self._put(None)
            raise

    def give_back(self, link: Link) -> None:
        """Done with it, whatever happened to it."""
        if not self._limit:
            link.close()
        elif link.pid != os.getpid():
            pass  # taken before a fork: the place belongs to the parent's pool
        elif link.closed:
            self._drop_idle()  # what ended this one has likely ended those too, and not all ends can be seen
            if link.silent:
                self._note_silence()
            self._put(None)
        else:
            now = time.monotonic()
            link.usable_until = now + _TRUSTED
            link.checked_until = now + self.endpoint.health_check_interval
            self._put(link)

    def close(self) -> None:
        """Close idle links; the pool may be used again."""
        self._drop_idle()

    def _drop_idle(self) -> None:
        with suppress(IndexError):
            while (link := self._places.pop()) is not None:
                link.close()
                self._put(None)
            self._put(None)

    def _is_healthy(self, link: Link) -> bool:
        """Ask over a link that was idle for `health_check_interval`, and let it have new credentials, if any."""
        endpoint = self.endpoint
        if endpoint.provider is not None:
            link.renew_credentials()
        if not endpoint.health_check_interval or time.monotonic() < link.checked_until:
            return True
        try:
            return link.answers(_HEALTHY)
        except exceptions.OperationalError:
            return False

    def _note_silence(self) -> None:
        """Those who wait for a place would only find out the same, one group after the other."""
        with self._freed:
            self._silences += 1
            self._freed.notify_all()

    def _put(self, link: Link | None) -> None:
        if link is None:
            self._places.insert(0, None)  # open links are used first
        else:
            self._places.append(link)
        if self._waiters:
            with self._freed:
                self._freed.notify()

    def _wait_for_place(self) -> Link | None:
        deadline = time.monotonic() + self.endpoint.timeout
        with self._freed:
            self._waiters += 1
            silences = self._silences
            try:
                # Others take without the lock: a place that was seen may be gone.
                while not (found := self._places[-1:]) or not self._take_place(found):
                    self._sleep(deadline - time.monotonic(), silences)
                return found[0]
            finally:
                self._waiters -= 1

    def _take_place(self, found: list[Link | None]) -> bool:
        """Take whatever is on top now into `found`; False if nothing is."""
        try:
            found[0] = self._places.pop()
        except IndexError:
            return False
        return True

    def _sleep(self, seconds: float, silences: int) -> None:
        if seconds <= 0 or not self._freed.wait(seconds):
            raise exceptions.OperationalError(
                f"all {self._limit} connections to {self.endpoint.shown} were busy for {self.endpoint.timeout:g} s: "
                "raise broker_pool_limit or publish from fewer threads"
            )
        if self._silences != silences:
            raise exceptions.OperationalError(f"{self.endpoint.shown} did not answer the calls before this one")

    def _abandon(self) -> None:
        for link in self._places:
            if link is not None:
                link.close()
        self._begin()


def _is_silence(exc: BaseException | None) -> bool:
    """True if it comes from a wait that was in vain."""
    while exc is not None:
        if isinstance(exc, (TimeoutError, BlockingIOError)):
            return True
        exc = exc.__cause__
    return False
