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

from celery.brokers.redis_scripts import QUIET, RESTORE, STRIKE, SWEEP, TICK
from celery.drivers.redis_pool import run
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator, Mapping, Sequence

    from celery.brokers.redis_layout import Layout
    from celery.drivers.redis import Command, Endpoint, Link
    from celery.ports import Clock

__all__ = ["QUIET_LEASE", "Keeper", "ack_commands", "number_of", "take_all"]

#: Part of a lease after which it is renewed, shortened by chance so that holders do not look for the dead in step.
_RENEW = 0.3
#: Part of a lease that a holder without one has to renew it before it is taken for dead; more than `_RENEW`.
_DOUBT = 0.4
#: Part of a lease within which the server must answer, else the keeper connects anew: a line gone dead costs no lease.
_ANSWER = 0.3
#: Seconds within which an ack goes out.
_ACK_WITHIN = 0.04
#: Seconds between two tries while the server is away; a lease is several times as long.
_AGAIN = 0.25
#: Seconds for which tags of a fetch that failed are looked for: its script may still arrive by a slow line.
_SUSPECT = 120.0

#: Where nobody holds anything: seconds of a lease, and between renewals at most. Who is told of a message on a queue
#: of his keeps short leases again; nobody else could run it.
QUIET_LEASE, _QUIET_EVERY = 120.0, 45.0

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
        #: Holder without a lease → when (monotonic) it may be taken for dead.
        self._doubted: dict[bytes, float] = {}
        self._sweep_at = 0.0
        self._rescore_at = 0.0
        #: Numbers below are to be reviewed; None: nothing is. Then tags that were found unknown, to be put back.
        self._review: int | None = None
        self._unknown: list[bytes] = []
        #: Seconds between two ticks at most: what is held is scored anew well within the visibility timeout.
        self._every = min(layout.lease * _RENEW, layout.visibility_timeout / 4)
        #: Nobody holds anything, and the lease is a long one.
        self.quiet = False
        self._busy_until = 0.0
        self._thread: threading.Thread | None = None
        #: Live consumers of this layout, as last seen.
        self.holders = 1
        #: When the lease was last renewed, at the earliest (monotonic).
        self.renewed = clock.monotonic()
        #: It may have run out since the owner last asked what of `held` is still its own.
        self.lapsed = False

    def start(self) -> None:
        """Begin; the first renewal happens at once."""
        self._rescore_at = self._clock.monotonic() + self._layout.visibility_timeout / 6
        self._thread = threading.Thread(target=self._keep, name=f"redis-keeper-{self._holder}", daemon=True)
        self._thread.start()

    def notice(self) -> None:
        """The owner has begun to gather acks."""
        if not self._wake.is_set():
            self._wake.set()

    def rouse(self) -> None:
        """Something happens on our queues: short leases again, and a look for the dead every other second."""
        self.quiet = False
        self._busy_until = self._clock.monotonic() + 2 * self._layout.lease
        self._wake.set()

    def suspect(self, first: int, count: int) -> None:
        """A fetch with these numbers failed: what it may have taken is to be put back."""
        self._suspects.append((self._clock.monotonic() + _SUSPECT, first, count))
        self._wake.set()

    def review(self, below: int) -> None:
        """The server is another one, or was started anew: it may not know of acks that the last one had taken.

        What lies there under our tags with numbers `below`, and is not ours any more, would lie there for the whole
        visibility timeout: we live. It is put back, and so runs again.
        """
        self._review = below
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
                    tick_at = clock.monotonic() + self._beat() * _chance.uniform(0.7, 1.0)
                    tick_at = min([tick_at, *self._doubted.values()])
            except (OperationalError, ImproperlyConfigured):
                self.lapsed = True  # the answer that would have told may be the one that was lost
                self._drop()  # the owner meets the same error, and tells
                tick_at = clock.monotonic() + min(_AGAIN, self._every)
            if self._wake.wait(max(tick_at - clock.monotonic(), 0.0)):
                self._wake.clear()
                if not self.quiet:
                    tick_at = min(tick_at, clock.monotonic() + self._every)
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

    def _beat(self) -> float:
        """Renew, and do whatever else there is to do; returns the seconds until the next time, at most."""
        now = self._clock.monotonic()
        if now >= self._busy_until and not (self._held or self._suspects or self._doubted or self._unknown):
            if self._settle_down():
                return _QUIET_EVERY
            self._busy_until = now + self._layout.lease  # somebody holds something: no use in asking each time
        self.quiet = False
        self._tick()
        return self._every

    def _settle_down(self) -> bool:
        """True if nobody holds anything; the lease is then a long one."""
        layout = self._layout
        lease = (layout.leases + self._holder, layout.holders, self._holder, int(QUIET_LEASE * 1000))
        # Said first: the owner who fetches meanwhile, and so shortens the lease, is to rouse us.
        self.quiet = True
        holders: int = self._run(QUIET.call((), (layout.unacked_index, layout.due, *lease)))[0]
        self.holders = holders or self.holders
        return self.quiet and holders > 0

    def _tick(self) -> None:
        layout, now = self._layout, self._clock.monotonic()
        rescored: list[bytes] = []
        if now >= self._rescore_at:
            self._rescore_at = now + layout.visibility_timeout / 6
            rescored = list(self._held)
        lease = (
            layout.unacked_index, layout.leases, layout.holders, self._holder, int(layout.lease * 1000), layout.due,
        )  # fmt: skip
        lapsed, self.holders, *dead = self._run(TICK.call((), (*lease, *rescored)))[0]
        self.lapsed |= bool(lapsed)
        self.renewed = now
        for holder in self._believe(dead, now):
            self._take_over(holder)
        for suspect in list(self._suspects):
            self._look_for(suspect, now)
        self._look_through()
        if now >= self._sweep_at:
            self._sweep_at = now + layout.sweep_every
            sweep = (*layout.arguments, layout.visibility_timeout, layout.mutex, layout.sweep_most)
            self._run(SWEEP.call((), sweep))

    def _believe(self, dead: Sequence[bytes], now: float) -> list[bytes]:
        """Those that were without a lease before, and had the time to renew it since.

        When the server comes back from a freeze or a restart, or its clock is set, the leases of the living have run
        out as well.
        """
        until = now + self._layout.lease * _DOUBT
        self._doubted = {holder: self._doubted.get(holder, until) for holder in dead}
        believed = [holder for holder, at in self._doubted.items() if at <= now]
        for holder in believed:
            del self._doubted[holder]
        return believed

    def _take_over(self, holder: bytes) -> None:
        """Put back what a dead holder held. Any number of keepers may do it at once; each tag goes back once."""
        lease = self._layout.leases.encode() + holder
        begun = self._layout.begun.encode() + holder
        for tags in self._tags_of(holder):
            if tags and self._restore(tags, lease, begun) < 0:
                return  # it lives after all
        gone = (self._layout.transient.encode() + holder, 2 * self._layout.separator)
        self._run(STRIKE.call((), (lease, self._layout.holders, holder, self._holder, begun, *gone)))

    def _tags_of(self, holder: bytes) -> Iterator[list[bytes]]:
        """What lies under the tags of a holder, some at a time, each time in the order of its numbers."""
        cursor: Any = b"0"
        pattern = b"*" + holder[-12:] + b".*"
        while True:
            command: Command = ("ZSCAN", self._layout.unacked_index, cursor, "MATCH", pattern, "COUNT", 1000)
            cursor, flat = self._run(command)[0]
            yield sorted((tag for tag in flat[::2] if tag.rpartition(b".")[0] == holder), key=number_of)
            if cursor == b"0":
                return

    def _look_through(self) -> None:
        """Our own tags after the server has changed. Looked at twice, a tick apart: an ack may be on its way."""
        if self._unknown:
            self._restore([tag for tag in self._unknown if tag not in self._held])
            self._unknown = []
        if self._review is not None:
            below, self._review = self._review, None
            mine = (tag for tags in self._tags_of(self._holder.encode()) for tag in tags)
            self._unknown = [tag for tag in mine if number_of(tag) < below and tag not in self._held]

    def _look_for(self, suspect: tuple[float, int, int], now: float) -> None:
        until, first, count = suspect
        self._restore([f"{self._holder}.{number}".encode() for number in range(first, first + count)])
        if now > until:
            self._suspects.remove(suspect)

    def _restore(self, tags: Sequence[bytes], lease: bytes = b"", begun: bytes = b"") -> int:
        restored: int = self._run(RESTORE.call((), (*self._layout.arguments, "1", lease, begun, *tags)))[0]
        return restored

    def _run(self, *commands: Command) -> list[Any]:
        if self._link is None or self._link.closed:
            answer = min(self._endpoint.timeout, self._layout.lease * _ANSWER)
            self._link = self._endpoint.connect(timeout=answer)
        elif self._endpoint.provider is not None:
            self._link.renew_credentials()
        return run(self._link, commands)

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def number_of(tag: bytes) -> int:
    """The number in a tag: a holder counts upwards."""
    return int(tag.rpartition(b".")[2])


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
