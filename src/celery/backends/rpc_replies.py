"""Adapter. What comes to a process's reply queue, and who waits for it.

The first thread that waits reads the connection itself; the others sleep until it hands them their document, or its
place when it leaves. What came is acknowledged once it is in memory: what was lost with a connection comes again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from kombu.exceptions import OperationalError

from celery.backends.readiness import state_told
from celery.backends.waiter import Waiter, wake_one
from celery.brokers.amqp_methods import passive_queue, synchronize
from celery.drivers.amqp_frames import long_tag, method, short
from celery.states import READY_STATES, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from celery.drivers.amqp import Link
    from celery.drivers.amqp_frames import Came
    from celery.ports import Clock

__all__ = ["Replies"]

#: Seconds of silence after which the server is asked whether it is still there, and within which it has to answer.
_SILENCE = 10.0
#: Seconds between attempts to connect again, first and longest; and for how long it is tried: a node that is started
#: anew takes ten and more, and what is waited for is still in its queue then.
_AGAIN, _AGAIN_MOST, _GIVE_UP = 0.1, 1.0, 60.0
#: Documents that are kept of tasks that nobody has asked after, and of those that have been waited for.
_UNREAD, _READ = 100_000, 10_000
_CONSUME_OK, _DECLARED = frozenset({(60, 21)}), frozenset({(50, 11)})


class _Reply(NamedTuple):
    document: bytes
    state: str
    #: Wall-clock seconds since the epoch.
    came: float


class Replies:
    """The documents that came, the last of each task, and all waits of one process for more."""

    def __init__(
        self,
        connect: Callable[[], tuple[Link, str]],
        expires: float | None,
        clock: Clock,
        state_of: Callable[[bytes], str] | None,
        id_of: Callable[[Came], str],
    ) -> None:
        """`connect`: opens a connection over which the reply queue was declared; gives the queue's name too.

        `expires`: seconds that a document is kept. `state_of`: see `BackendConfig`. `id_of`: whose a reply is.
        """
        self._connect = connect
        self._expires = expires
        self._clock = clock
        self._state_of = state_of
        self._id_of = id_of
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        #: Guards what follows; the link is used by the leader alone.
        self._lock = threading.Lock()
        self._replies: dict[str, _Reply] = {}
        #: Those that have been waited for, the oldest first.
        self._read: dict[str, None] = {}
        self._wanted: dict[str, list[Waiter]] = {}
        self._leader: Waiter | None = None
        self._link: Link | None = None
        self._queue = ""

    # -- the port ----------------------------------------------------------------------------------------------------

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        """See `ResultBackend.load`; of what has come to the queue. Raises `OperationalError`."""
        self._look()
        with self._lock:
            found = [self._kept(id_) for id_ in ids]
            for id_ in ids:
                if id_ in self._replies and self._replies[id_].state in READY_STATES:
                    self._was_read(id_)
            return found

    def ready(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Those that are in a ready state now. Raises `OperationalError`."""
        self._look()
        with self._lock:
            return self._ready(ids)

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        """See `ResultBackend.wait`."""
        deadline = self._deadline(timeout)
        with self._waiting(Waiter(ids)) as waiter:
            self._until_served(waiter, deadline)
        return waiter.found

    def each(self, ids: Sequence[str], patience: Callable[[], float | None]) -> Iterator[dict[str, bytes]]:
        """See `Streaming.each`."""
        left = set(ids)
        with self._waiting(Waiter(ids)) as waiter:
            while left:
                self._until_served(waiter, self._deadline(patience()))
                with self._lock:
                    found, waiter.found = waiter.found, {}
                    self._hand_over(waiter)
                fresh = {id_: document for id_, document in found.items() if id_ in left}
                left.difference_update(fresh)
                yield fresh

    def watch(self, id: str, timeout: float | None, heard: Callable[[bytes], object]) -> bytes | None:
        """See `Watching.watch`."""
        deadline = self._deadline(timeout)
        told: deque[bytes] = deque()
        with self._waiting(Waiter([id], told)) as waiter:
            while True:
                self._until_served(waiter, deadline)
                if not told:
                    return waiter.found.get(id)
                with self._lock:
                    self._hand_over(waiter)
                while told:
                    heard(told.popleft())
                if waiter.found:
                    return waiter.found[id]

    def forget(self, ids: Iterable[str]) -> None:
        """Drop what has come of these, or is in the queue. Raises `OperationalError`."""
        self._look()
        with self._lock:
            for id_ in ids:
                self._replies.pop(id_, None)
                self._read.pop(id_, None)

    def close(self) -> None:
        """Close the connection; what has come is kept, and whoever waits connects again."""
        self._own()
        with self._lock:
            link, leads = self._link, self._leader is not None
            if not leads:
                self._link = None
        if link is not None:
            link.hang_up() if leads else link.close()

    @property
    def link(self) -> Link | None:
        """The connection, where there is one and nobody reads it."""
        with self._lock:
            free = self._leader is None and self._pid == os.getpid()
            return self._link if free and self._link is not None and not self._link.closed else None

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _deadline(self, timeout: float | None) -> float:
        return float("inf") if timeout is None else self._clock.monotonic() + timeout

    def _own(self) -> None:
        """In a forked child nothing has come yet, and the connection is the parent's."""
        if self._pid != os.getpid():
            if self._link is not None:
                self._link.hang_up()
            self._begin()

    @contextmanager
    def _waiting(self, waiter: Waiter) -> Iterator[Waiter]:
        self._own()
        with self._lock:
            for id_ in waiter.ids:
                self._wanted.setdefault(id_, []).append(waiter)
            waiter.found = self._ready(waiter.ids)
            if waiter.heard is not None:
                waiter.heard.extend(waiter.found.values())
        try:
            yield waiter
        finally:
            with self._lock:
                self._leave(waiter)

    def _until_served(self, waiter: Waiter, deadline: float) -> None:
        while not waiter.served and self._clock.monotonic() < deadline:
            with self._lock:
                if self._leader is None:
                    self._leader = waiter
                leads = self._leader is waiter
                waiter.asleep = not leads and not waiter.served
            if leads:
                self._lead(waiter, deadline)
            else:
                waiter.sleep(self._lock, deadline - self._clock.monotonic())

    def _lead(self, waiter: Waiter, deadline: float) -> None:
        """Read for everybody until this waiter has what it wants or its time is over. Raises `OperationalError` if
        there is no connection to be had for some time."""
        give_up, pause = self._clock.monotonic() + _GIVE_UP, _AGAIN
        while not waiter.served:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            try:
                self._listen(left)
                give_up, pause = self._clock.monotonic() + _GIVE_UP, _AGAIN
            except OperationalError:
                if self._clock.monotonic() >= give_up:
                    raise
                time.sleep(min(pause, max(left, 0.0)))
                pause = min(2 * pause, _AGAIN_MOST)

    def _listen(self, timeout: float) -> None:
        """Take in what comes, for as long as nothing does at most."""
        link = self._link
        if link is None or link.closed:
            self._catch_up(self._connected())
            return
        link.wait(min(timeout, _SILENCE))
        if link.inbox:
            self._hear(link)
        elif timeout > _SILENCE:
            link.call(passive_queue(self._queue, channel=1), _DECLARED, _SILENCE)
            self._hear(link)

    def _look(self) -> None:
        """Take in what has come, unless somebody is at it anyway."""
        self._own()
        me = Waiter(())
        with self._lock:
            if self._leader is not None:
                return
            self._leader = me
        try:
            try:
                self._catch_up(self._connected())
            except OperationalError:
                if self._link is not None and not self._link.closed:
                    raise
                self._catch_up(self._connected())  # it was old, and had been closed meanwhile
        finally:
            with self._lock:
                self._hand_over(me)

    # -- the connection, for the leader ------------------------------------------------------------------------------

    def _connected(self) -> Link:
        link = self._link
        if link is not None and not link.closed:
            return link
        link, self._queue = self._connect()
        try:
            link.call(method(60, 20, b"\0\0" + short(self._queue) + short("r") + b"\0\0\0\0\0"), _CONSUME_OK)
        except BaseException:
            link.close()
            raise
        self._link = link
        return link

    def _catch_up(self, link: Link) -> None:
        """Until nothing is left in the queue, nor in the channel: what that has got comes before its next answer."""
        left = 1
        while left:
            came = link.call(passive_queue(self._queue, channel=1), _DECLARED, _SILENCE)
            self._hear(link)
            left = int.from_bytes(came.arguments[-8:-4], "big")
        synchronize(link, _SILENCE)
        self._hear(link)

    def _hear(self, link: Link) -> None:
        last = 0
        with self._lock:
            while link.inbox:
                came = link.inbox.popleft()
                if came.kind == (60, 60):
                    start = 1 + came.arguments[0]
                    last = int.from_bytes(came.arguments[start : start + 8], "big")
                    self._take(self._id_of(came), came.body)
                elif came.kind == (60, 30):
                    link.hang_up()
                    raise OperationalError(f"our reply queue was deleted at {link.shown}; it is declared again")
        if last:
            link.send(method(60, 80, long_tag(last) + b"\x01"))

    # -- with the lock held ------------------------------------------------------------------------------------------

    def _take(self, id_: str, document: bytes) -> None:
        """A document has come: keep it, and hand it to those who wait. A success is final (`[state.10]`)."""
        known = self._replies.pop(id_, None)
        if known is not None and known.state == SUCCESS:
            self._replies[id_] = known
            return
        now = self._clock.time()
        state = state_told(document, self._state_of)
        self._replies[id_] = _Reply(document, state, now)
        self._drop_old(now)
        for waiter in self._wanted.get(id_, ()):
            if waiter.heard is not None and id_ not in waiter.found:
                waiter.heard.append(document)
            if state in READY_STATES:
                waiter.found[id_] = document
                self._was_read(id_)
            if waiter.served:
                waiter.wake()

    def _drop_old(self, now: float) -> None:
        while self._replies:
            oldest = next(iter(self._replies))
            if len(self._replies) <= _UNREAD and not self._expired(self._replies[oldest], now):
                return
            del self._replies[oldest]
            self._read.pop(oldest, None)

    def _expired(self, reply: _Reply, now: float) -> bool:
        return self._expires is not None and now - reply.came > self._expires

    def _kept(self, id_: str) -> bytes | None:
        reply = self._replies.get(id_)
        return None if reply is None or self._expired(reply, self._clock.time()) else reply.document

    def _ready(self, ids: Iterable[str]) -> dict[str, bytes]:
        found = {}
        for id_ in ids:
            reply = self._replies.get(id_)
            if reply is not None and reply.state in READY_STATES and (document := self._kept(id_)) is not None:
                found[id_] = document
        for id_ in found:
            self._was_read(id_)
        return found

    def _was_read(self, id_: str) -> None:
        """It may be asked for once more, but of many only the last ones are kept."""
        if id_ not in self._replies:
            return
        self._read.pop(id_, None)
        self._read[id_] = None
        if len(self._read) > _READ:
            oldest = next(iter(self._read))
            del self._read[oldest]
            self._replies.pop(oldest, None)

    def _leave(self, waiter: Waiter) -> None:
        for id_ in waiter.ids:
            others = self._wanted[id_]
            others.remove(waiter)
            if not others:
                del self._wanted[id_]
        self._hand_over(waiter)
        if self._leader is None:
            wake_one(self._wanted)

    def _hand_over(self, waiter: Waiter) -> None:
        """Let others read while this one is busy."""
        if self._leader is waiter:
            self._leader = None
            wake_one(self._wanted)
