"""Application. A thread that calls functions at their time, for whoever has no event loop ([util.12])."""

from __future__ import annotations

import os
import sys
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from kombu.asynchronous.timer import Entry, to_timestamp
from kombu.asynchronous.timer import Timer as Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Entry", "Schedule", "Timer", "to_timestamp"]

#: Say on standard error who starts a timer.
TIMER_DEBUG = os.environ.get("TIMER_DEBUG")
#: Seconds that `stop` waits for the call that is on.
_LAST_CALL = 10.0


class Timer(threading.Thread):
    """Starts by itself with the first entry; times are of the monotonic clock, in seconds.

    `on_error(exception)` hears of calls that failed, else they are logged; `on_tick(seconds)` of each wait;
    `max_interval`: the longest wait at once.
    """

    Entry = Entry
    Schedule = Schedule
    running = False
    on_tick: Callable[[float], None] | None = None
    _numbers = count(1)

    def __init__(
        self,
        schedule: Any = None,
        on_error: Callable[[Exception], None] | None = None,
        on_tick: Callable[[float], None] | None = None,
        on_start: Callable[[Timer], None] | None = None,
        max_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=f"Timer-{next(self._numbers)}", daemon=True)
        self.schedule = self.Schedule(on_error=on_error, max_interval=max_interval) if schedule is None else schedule
        self.on_start = on_start
        self.on_tick = on_tick or self.on_tick
        self._changed = threading.Condition()
        self._stopping = False
        #: How many entries have come: one that comes while a wait is worked out is not waited past.
        self._entered = 0
        if TIMER_DEBUG:
            print(f"timer2: {self.name} made", file=sys.__stderr__)

    # -- what is to be called ----------------------------------------------------------------------------------------

    def call_after(self, *args: Any, **kwargs: Any) -> Any:
        """`call_after(seconds, fun, args=(), kwargs=None, priority=0)`; returns the entry, which can be cancelled."""
        return self._enter(self.schedule.call_after, *args, **kwargs)

    def call_at(self, *args: Any, **kwargs: Any) -> Any:
        """As `call_after`, at a time of the monotonic clock or a datetime."""
        return self._enter(self.schedule.call_at, *args, **kwargs)

    def call_repeatedly(self, *args: Any, **kwargs: Any) -> Any:
        """As `call_after`, again and again until the entry is cancelled."""
        return self._enter(self.schedule.call_repeatedly, *args, **kwargs)

    def enter(self, entry: Any, eta: float, priority: int | None = None) -> Any:
        """Add an entry, for a time."""
        return self._enter(self.schedule.enter_at, entry, eta, priority=priority or 0)

    def enter_after(self, *args: Any, **kwargs: Any) -> Any:
        """`enter_after(seconds, entry, priority=0)`."""
        return self._enter(self.schedule.enter_after, *args, **kwargs)

    def exit_after(self, secs: float, priority: int = 10) -> None:
        """End this timer's thread then."""
        self.call_after(secs, self.stop, priority=priority)

    def cancel(self, tref: Any) -> None:
        """Do not call that entry any more."""
        tref.cancel()

    def clear(self) -> None:
        """Forget all entries."""
        with self._changed:
            self.schedule.clear()

    def empty(self) -> bool:
        return not self.queue

    @property
    def queue(self) -> Any:
        """What is to be called, in order."""
        return self.schedule.queue

    def _enter(self, add: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.ensure_started()
        with self._changed:
            entry = add(*args, **kwargs)
            self._entered += 1
            self._changed.notify()
        return entry

    # -- the thread --------------------------------------------------------------------------------------------------

    def ensure_started(self) -> None:
        """Start the thread, if it has not been started or stopped."""
        with self._changed:
            if self.running or self._stopping or self.ident is not None:
                return
            self.running = True
        if self.on_start is not None:
            self.on_start(self)
        self.start()

    def next(self) -> float | None:
        """Call what is due first, if it is; else how many seconds there is nothing to do."""
        with self._changed:
            delay, entry = next(iter(self.schedule))
        if entry is None:
            return float(self.schedule.max_interval if delay is None else delay)
        self.schedule.apply_entry(entry)
        return None

    def run(self) -> None:
        self.running = True
        try:
            while not self._stopping:
                self._turn()
        finally:
            self.running = False

    def _turn(self) -> None:
        seen = self._entered
        delay = self.next()
        if delay is None:
            return
        if self.on_tick is not None:
            self.on_tick(delay)
        with self._changed:
            if not self._stopping and self._entered == seen:
                self._changed.wait(delay)

    def stop(self, deadline: float | None = None) -> None:
        """End the thread once the call that is on has ended; wait for that until `deadline` (monotonic seconds)."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(_LAST_CALL if deadline is None else max(0.0, min(_LAST_CALL, deadline - time.monotonic())))
        self.running = False
