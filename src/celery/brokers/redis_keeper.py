"""Adapter. What keeps a Redis consumer's promises while its owner is busy: the lease, late acks, the dead and the lost.

A thread with a connection of its own. It sleeps for seconds; only while acks are being gathered it looks every 50 ms
whether the owner has left some unsent.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.brokers.redis_scripts import RESTORE, STRIKE, SWEEP, TICK
from celery.drivers.redis_pool import run

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping, Sequence

    from celery.brokers.redis_layout import Layout
    from celery.drivers.redis import Command, Endpoint, Link
    from celery.ports import Clock

__all__ = ["Keeper", "ack_commands", "take_all"]

#: Part of a lease after which it is renewed, shortened by chance so that holders do not look for the dead in step.
_RENEW = 0.3
#: Seconds within which an ack goes out.
_ACK_WITHIN = 0.04
#: Seconds between looks for messages past their visibility timeout, and how many one look restores (`[redis.8]`).
_SWEEP, _SWEEP_MOST = 10.0, 100
#: Seconds for which tags of a fetch that failed are looked for: its script may still arrive by a slow line.
_SUSPECT = 120.0

#: Our own, so that a sequence that user code has seeded is not disturbed.
_chance = random.Random()


class Keeper:
    """Renews the lease of one holder, takes back what dead holders held, restores what was abandoned.

    `held` and `acks` belong to the owner: the keeper copies the first and takes from the second, both atomic.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        layout: Layout,
        holder: str,
        held: Mapping[bytes, Any],
        acks: deque[bytes],
        clock: Clock,
    ) -> None:
        self._endpoint = endpoint
        self._layout = layout
        self._holder = holder
        self._held = held
        self._acks = acks
        self._clock = clock
        self._link: Link | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._suspects: list[tuple[float, int, int]] = []
        self._sweep_at = 0.0
        self._rescore_at = 0.0
        #: Seconds between two ticks at most: what is held is scored anew well within the visibility timeout.
        self._every = min(layout.lease * _RENEW, layout.visibility_timeout / 4)
        self._thread: threading.Thread | None = None
        #: Live consumers of this layout, as last seen.
        self.holders = 1

    def start(self) -> None:
        """Begin; the first renewal happens at once."""
        self._rescore_at = self._clock.monotonic() + self._layout.visibility_timeout / 6
        self._thread = threading.Thread(target=self._keep, name=f"redis-keeper-{self._holder}", daemon=True)
        self._thread.start()

    def notice(self) -> None:
        """The owner has begun to gather acks."""
        if not self._wake.is_set():
            self._wake.set()

    def suspect(self, first: int, count: int) -> None:
        """A fetch with these numbers failed: what it may have taken is to be put back."""
        self._suspects.append((self._clock.monotonic() + _SUSPECT, first, count))
        self._wake.set()

    def abandon(self) -> None:
        """End the thread without waiting for it."""
        self._stopping = True
        self._wake.set()

    def stop(self) -> None:
        """End the thread; renews nothing from now on. Waits for what it is doing, at most a read deadline."""
        self.abandon()
        if self._thread is not None:
            self._thread.join(self._endpoint.timeout + self._endpoint.connect_timeout)

    def _keep(self) -> None:
        clock = self._clock
        tick_at = clock.monotonic()
        while not self._stopping:
            try:
                if self._acks:
                    self._send_acks()
                if clock.monotonic() >= tick_at or self._suspects:
                    tick_at = clock.monotonic() + self._every * _chance.uniform(0.7, 1.0)
                    self._tick()
            except OperationalError:
                self._drop()  # the owner meets the same error, and tells
            if self._wake.wait(max(tick_at - clock.monotonic(), 0.0)):
                self._wake.clear()
                if not self._stopping:
                    time.sleep(_ACK_WITHIN)  # the owner's time to send acks with its next fetch
        self._drop()

    def _send_acks(self) -> None:
        tags = take_all(self._acks)
        try:
            self._run(*ack_commands(self._layout, tags))
        except BaseException:
            self._acks.extendleft(tags)
            raise

    def _tick(self) -> None:
        layout, now = self._layout, self._clock.monotonic()
        rescored: list[bytes] = []
        if now >= self._rescore_at:
            self._rescore_at = now + layout.visibility_timeout / 6
            rescored = list(self._held)
        lease = (
            layout.unacked_index, layout.leases, layout.holders, self._holder, int(layout.lease * 1000), layout.due,
        )  # fmt: skip
        self.holders, *dead = self._run(TICK.call((), (*lease, *rescored)))[0]
        for holder in dead:
            self._take_over(holder)
        for suspect in list(self._suspects):
            self._look_for(suspect, now)
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP
            sweep = (*layout.arguments, layout.visibility_timeout, layout.mutex, _SWEEP_MOST)
            self._run(SWEEP.call((), sweep))

    def _take_over(self, holder: bytes) -> None:
        """Put back what a dead holder held. Any number of keepers may do it at once; each tag goes back once."""
        layout = self._layout
        lease = layout.leases.encode() + holder
        cursor: Any = b"0"
        pattern = b"*" + holder[-12:] + b".*"
        while True:
            cursor, flat = self._run(("ZSCAN", layout.unacked_index, cursor, "MATCH", pattern, "COUNT", 1000))[0]
            tags = [tag for tag in flat[::2] if tag.rpartition(b".")[0] == holder]
            tags.sort(key=lambda tag: int(tag.rpartition(b".")[2]))
            if tags and self._restore(tags, lease) < 0:
                return  # it lives after all
            if cursor == b"0":
                break
        self._run(STRIKE.call((), (lease, layout.holders, holder, self._holder)))

    def _look_for(self, suspect: tuple[float, int, int], now: float) -> None:
        until, first, count = suspect
        self._restore([f"{self._holder}.{number}".encode() for number in range(first, first + count)], b"")
        if now > until:
            self._suspects.remove(suspect)

    def _restore(self, tags: Sequence[bytes], lease: bytes) -> int:
        restored: int = self._run(RESTORE.call((), (*self._layout.arguments, "1", lease, *tags)))[0]
        return restored

    def _run(self, *commands: Command) -> list[Any]:
        if self._link is None or self._link.closed:
            self._link = self._endpoint.connect()
        return run(self._link, commands)

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def take_all(acks: deque[bytes]) -> list[bytes]:
    """Everything gathered so far; the other thread may take or add meanwhile."""
    tags: list[bytes] = []
    while acks:
        try:
            tags.append(acks.popleft())
        except IndexError:
            break
    return tags


def ack_commands(layout: Layout, tags: Sequence[bytes]) -> list[Command]:
    """Let go of messages for good."""
    return [("HDEL", layout.unacked, *tags), ("ZREM", layout.unacked_index, *tags)] if tags else []
