"""Entrance. Everything that waits is run, here and now: a worker's engine, and a clock that leaps to what is due."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery.brokers.memory import MemoryBroker, MemoryConsumer
from celery.contrib.testing.app import current_apps_kept
from celery.exceptions import ImproperlyConfigured
from celery.ports import BrokerConfig
from celery.utils.nodenames import anon_nodename
from celery.worker import WorkController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery import Celery
    from celery.ports import Delivery, Pool
    from celery.routing import QueueSpec
    from celery.worker.consumer.engine import EngineParts

__all__ = ["LeapingClock", "drain"]

#: Looks in a row that found nothing to run and nothing put off, before it is believed that this is all.
_SURE = 3


class LeapingClock:
    """The machine's clocks, ahead by what was leaped over."""

    def __init__(self) -> None:
        #: Seconds.
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def leap(self, until: float) -> None:
        """To a time of the wall clock; a past one changes nothing."""
        self.ahead += max(0.0, until - self.time())


class _Consumer(MemoryConsumer):
    """Does not wait for what is due: time does."""

    leaping: LeapingClock
    #: Called once nothing is left; and how often nothing was found.
    done: Callable[[], None]
    _empty = 0

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        found = super().fetch(limit, 0.0, until_readable)
        if found or limit <= 0 or timeout <= 0:  # no time to wait: there is something to do
            self._empty = 0
            return found
        with self._server.changed:
            _, due = self._server.take(self._names, 0, self.leaping.time())
        if due is not None:
            self.leaping.leap(due)
            return []
        self._empty += 1
        if self._empty >= _SURE:
            self.done()
        return []


class _Broker(MemoryBroker):
    def __init__(self, broker: MemoryBroker, clock: LeapingClock, done: Callable[[], None]) -> None:
        super().__init__(BrokerConfig(url=broker.url_text, dead_letters=broker._bounds), clock=clock)
        self._leaping, self._done = clock, done

    def consume(self, queues: Sequence[QueueSpec]) -> MemoryConsumer:
        consumer = _Consumer(self.server, queues, self._clock, self._bounds)
        consumer.leaping, consumer.done = self._leaping, self._done
        return consumer


class _Drainer(WorkController):
    """A worker of one thread that stops when nothing is left, or when its time is over."""

    def __init__(self, app: Celery, broker: MemoryBroker, clock: LeapingClock, timeout: float, **options: Any) -> None:
        self._leaping = clock
        self._source = _Broker(broker, clock, self._over)
        #: Tasks that were taken on, by name.
        self.taken: Counter[str] = Counter()
        self._end = time.monotonic() + timeout
        #: Its time was over first.
        self.late = False
        super().__init__(app, anon_nodename(), pool="solo", concurrency=1, loglevel="ERROR", **options)

    def _engine_parts(self, pool: Pool) -> EngineParts:
        parts = super()._engine_parts(pool)
        return replace(parts, broker=self._source, clock=self._leaping, totals=self.taken, check=self._look)

    def _look(self) -> None:
        if time.monotonic() >= self._end:
            self.late = True
            self._over()

    def _over(self) -> None:
        self.stop(in_sighandler=True)


def drain(app: Celery, queues: Iterable[str] | None = None, *, timeout: float = 60.0) -> Counter[str]:
    """Run every task that waits, and those that they send, in this thread; returns how many, by task name.

    It is a worker's engine that does so: messages, serializers, retries, chords and results are those of a worker. What
    is put off (`countdown`, `eta`, retries) is not waited for: the clock that the engine and `delay()` read leaps to
    the next due time, so that what expires does so as it would have. `time.time()` in a task does not leap.

    `queues`: names; those of the app's settings if None. `timeout`: seconds of real time. Raises `ImproperlyConfigured`
    unless the app's broker is `memory://`, where no other process can be waiting for the time that is leaped over;
    TimeoutError if tasks are left when `timeout` is over; RuntimeError if the worker could not start.
    """
    broker = app.assembly.broker_for_read
    if type(broker) is not MemoryBroker:
        raise ImproperlyConfigured(f"drain: expected an app whose broker is memory://, got {broker!r}")
    clock = LeapingClock()
    with current_apps_kept():
        app.set_current()
        before = app.assembly.tell_time_by(clock)
        try:
            worker = _Drainer(app, broker, clock, timeout, queues=None if queues is None else list(queues))
            worker.start()
        finally:
            app.assembly.tell_time_by(before)
    if worker.late:
        raise TimeoutError(f"tasks are left after {timeout} s; run so far: {dict(worker.taken)}")
    if worker.exitcode:
        raise RuntimeError(f"The worker ended with exit code {worker.exitcode}; its log says why.")
    return worker.taken
