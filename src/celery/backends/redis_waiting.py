"""Adapter. Waiting for results on Redis: one subscribed connection for all threads, read by one of those that wait.

The first thread that waits reads the socket itself (no thread between it and the server); the others sleep until it
hands them their document, or its place when it leaves. The connection speaks RESP3, so that a subscription and the look
at what is stored already travel together: whatever is stored after the look is heard.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis

from celery import exceptions
from celery.backends.readiness import is_ready
from celery.backends.waiter import Waiter, wake_one
from celery.waits import wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from celery.drivers.redis import Command, Endpoint, Link
    from celery.ports import Clock

__all__ = ["Waiting"]

#: Seconds of silence after which the server is asked whether it is still there.
_SILENCE = 10.0
#: Seconds between attempts to connect again, first and longest.
_AGAIN, _AGAIN_MOST = 0.1, 1.0
#: Seconds between looks where nothing is told, first and longest.
_LOOK, _LOOK_MOST = 0.005, 0.25


class _OldProtocolError(Exception):
    """The server does not speak RESP3."""


class Waiting:
    """All waits of one process on one server."""

    def __init__(
        self,
        endpoint: Endpoint,
        prefix: str,
        clock: Clock,
        state_of: Callable[[bytes], str] | None = None,
        *,
        load: Callable[[Sequence[str]], list[bytes | None]],
    ) -> None:
        """`state_of`: see `BackendConfig`; `load`: see `ResultBackend.load`, for servers that tell nothing."""
        self._endpoint = endpoint
        self._load = load
        self._plain = False
        self._prefix = prefix
        self._clock = clock
        self._state_of = state_of
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        #: Guards what follows, and every use of the link save polling it.
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._wanted: dict[str, list[Waiter]] = {}
        #: Ids of each look that is not answered yet (none for a ping), and when the oldest one was sent.
        self._asked: deque[tuple[float, Sequence[str]]] = deque()
        self._heard_at = 0.0
        self._leader: Waiter | None = None

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        """See `ResultBackend.wait`."""
        if self._pid != os.getpid():
            self._abandon()
        if not ids:
            return {}
        if not self._plain:
            try:
                return self._wait(Waiter(ids), timeout, None)
            except _OldProtocolError:
                self._plain = True
        return self._look(ids, timeout)

    def each(self, ids: Sequence[str], patience: Callable[[], float | None]) -> Iterator[dict[str, bytes]]:
        """See `Streaming.each`: one subscription for all."""
        if self._pid != os.getpid():
            self._abandon()
        waiter, left = Waiter(ids), set(ids)
        try:
            with self._lock:
                self._enter(waiter)
            while left:
                seconds = patience()
                self._until_served(waiter, float("inf") if seconds is None else self._clock.monotonic() + seconds)
                with self._lock:
                    found, waiter.found = waiter.found, {}
                self._step_down(waiter)
                fresh = {id_: document for id_, document in found.items() if id_ in left}
                left.difference_update(fresh)
                yield fresh
        finally:
            with self._lock:
                self._leave(waiter)

    def _until_served(self, waiter: Waiter, deadline: float) -> None:
        while not waiter.found and self._clock.monotonic() < deadline:
            if self._may_lead(waiter):
                self._lead(waiter, deadline)
            else:
                waiter.sleep(self._lock, deadline - self._clock.monotonic())

    def watch(self, id_: str, timeout: float | None, heard: Callable[[bytes], object]) -> bytes | None:
        """See `Watching.watch`."""
        if self._pid != os.getpid():
            self._abandon()
        if not self._plain:
            try:
                return self._wait(Waiter([id_], deque()), timeout, heard).get(id_)
            except _OldProtocolError:
                self._plain = True
        return self._look([id_], timeout, heard).get(id_)

    def _look(
        self, ids: Sequence[str], timeout: float | None, heard: Callable[[bytes], object] | None = None
    ) -> dict[str, bytes]:
        """Wait where the server speaks the old protocol only, which has no place for answers among what is told: look
        again and again, with growing pauses."""
        deadline = float("inf") if timeout is None else self._clock.monotonic() + timeout
        pause = _LOOK
        last: bytes | None = b""  # what was there before is told only if it is final
        while True:
            stored = dict(zip(ids, self._load(ids), strict=True))
            found = {i: it for i, it in stored.items() if it is not None and is_ready(it, state_of=self._state_of)}
            told, before, last = stored[ids[0]], last, stored[ids[0]]
            if heard is not None and told is not None and told != before and (found or before != b""):
                heard(told)
            left = deadline - self._clock.monotonic()
            if found or left <= 0:
                return found
            wait_readable([], min(pause, left))
            pause = min(pause * 1.5, _LOOK_MOST)

    def _wait(self, waiter: Waiter, timeout: float | None, heard: Callable[[bytes], object] | None) -> dict[str, bytes]:
        deadline = float("inf") if timeout is None else self._clock.monotonic() + timeout
        try:
            with self._lock:
                self._enter(waiter)
            while True:
                while heard is not None and waiter.heard:
                    self._step_down(waiter)
                    heard(waiter.heard.popleft())
                if waiter.found or self._clock.monotonic() >= deadline:
                    break
                if self._may_lead(waiter):
                    self._lead(waiter, deadline)
                else:
                    waiter.sleep(self._lock, deadline - self._clock.monotonic())
        finally:
            with self._lock:
                self._leave(waiter)
        return waiter.found

    def close(self) -> None:
        """Close the connection; whoever waits connects again."""
        with self._lock:
            if self._link is not None:
                self._link.abort()
                if self._leader is None:
                    self._forget_link()

    # ----------------------------------------------------------------------------------------- with the lock held

    def _enter(self, waiter: Waiter) -> None:
        fresh = []
        for id_ in waiter.ids:
            others = self._wanted.setdefault(id_, [])
            if not others:
                fresh.append(id_)
            others.append(waiter)
        if self._leader is None and self._link is not None and not self._drain():
            self._forget_link()
        if self._link is None:
            self._connect()
        else:
            self._ask(fresh, list(waiter.ids))

    def _drain(self) -> bool:
        """Read what came while nobody waited; False if the connection has ended."""
        link = self._link
        try:
            while link is not None and link.readable():
                self._hear(link.receive())
        except exceptions.OperationalError:
            return False
        return True

    def _connect(self) -> None:
        """Connect, subscribe to everything wanted and look at all of it."""
        self._asked.clear()
        self._link = self._endpoint.connect(protocol=3)
        if self._link.protocol < 3:
            self._forget_link()
            raise _OldProtocolError
        self._heard_at = self._clock.monotonic()
        wanted = list(self._wanted)
        self._ask(wanted, wanted)

    def _ask(self, fresh: Sequence[str], ids: Sequence[str]) -> None:
        prefix = self._prefix
        commands: list[Command] = []
        if fresh:
            commands.append(("SUBSCRIBE", *[prefix + id_ for id_ in fresh]))
        commands.append(("MGET", *[prefix + id_ for id_ in ids]) if ids else ("PING",))
        assert self._link is not None
        self._asked.append((self._clock.monotonic(), ids))
        self._link.send(commands)

    def _hear(self, items: Iterable[Any]) -> None:
        self._heard_at = self._clock.monotonic()
        cut = len(self._prefix.encode())
        for item in items:
            if type(item) is hiredis.PushNotification:
                self._deliver(item[1][cut:].decode(), item[2] if item[0] == b"message" else None, True)
            elif isinstance(item, hiredis.ReplyError):
                assert self._link is not None
                raise self._link.refusal(str(item))
            else:
                _, ids = self._asked.popleft()
                for id_, document in zip(ids, item if ids else (), strict=True):
                    self._deliver(id_, document, False)

    def _deliver(self, id_: str, document: bytes | None, told: bool) -> None:
        if document is None:
            return
        waiters = self._wanted.get(id_)
        if not waiters:
            return
        ready = is_ready(document, state_of=self._state_of)
        for waiter in waiters:
            if waiter.heard is not None and (told or ready) and id_ not in waiter.found:
                waiter.heard.append(document)
            if ready:
                waiter.found[id_] = document
            if waiter.served:
                waiter.wake()

    def _leave(self, waiter: Waiter) -> None:
        unwanted = []
        for id_ in waiter.ids:
            others = self._wanted[id_]
            others.remove(waiter)
            if not others:
                del self._wanted[id_]
                unwanted.append(self._prefix + id_)
        if self._leader is waiter:
            self._leader = None
        if self._leader is None:
            wake_one(self._wanted)
        if unwanted and self._link is not None:
            try:  # noqa: SIM105 - to suppress kombu's error would be to load it
                self._link.send([("UNSUBSCRIBE", *unwanted)])
            except exceptions.OperationalError:
                pass  # with the connection the subscription ended too

    def _step_down(self, waiter: Waiter) -> None:
        """Let others read while this one is busy."""
        with self._lock:
            if self._leader is waiter:
                self._leader = None
                wake_one(self._wanted)

    def _forget_link(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None

    # --------------------------------------------------------------------------------------------- without the lock

    def _may_lead(self, waiter: Waiter) -> bool:
        with self._lock:
            if self._leader is None:
                self._leader = waiter
            if self._leader is waiter:
                return True
            waiter.asleep = not waiter.served
            return False

    def _lead(self, waiter: Waiter, deadline: float) -> None:
        """Read for everybody until this waiter has what it wants or its time is over."""
        while not waiter.served:
            now = self._clock.monotonic()
            if now >= deadline:
                return
            try:
                self._read(min(deadline - now, self._patience(now)))
            except exceptions.OperationalError:
                self._connect_again(deadline)

    def _patience(self, now: float) -> float:
        """Seconds to wait for anything before the server is to be doubted."""
        with self._lock:
            if self._asked:
                return max(self._asked[0][0] + self._endpoint.timeout - now, 0.0) + 0.001
        return _SILENCE

    def _read(self, timeout: float) -> None:
        link = self._link
        if link is None or link.closed:
            raise exceptions.OperationalError(f"lost the Redis server at {self._endpoint.shown}")
        if link.pending() or wait_readable([link.fileno()], timeout):
            with self._lock:
                self._hear(link.receive())
            return
        with self._lock:
            now = self._clock.monotonic()
            if self._asked and now - self._asked[0][0] > self._endpoint.timeout:
                raise exceptions.OperationalError(
                    f"the Redis server at {self._endpoint.shown} did not answer within {self._endpoint.timeout:g} s"
                )
            if now - self._heard_at >= _SILENCE and not self._asked:
                self._ask((), ())

    def _connect_again(self, deadline: float) -> None:
        """Connect and subscribe anew, for at most the endpoint's timeout. Raises `OperationalError`."""
        give_up = self._clock.monotonic() + self._endpoint.timeout
        pause = _AGAIN
        while True:
            try:
                with self._lock:
                    self._forget_link()
                    self._connect()
                return
            except exceptions.OperationalError:
                now = self._clock.monotonic()
                if now >= give_up:
                    raise
                if now >= deadline:
                    return
            time.sleep(min(pause, max(deadline - now, 0.0)))
            pause = min(pause * 2, _AGAIN_MOST)

    def _abandon(self) -> None:
        if self._link is not None:
            self._link.close()  # the child's copy of the descriptor
        self._begin()
