"""Flow. Messages of tasks that this worker does not know, kept for a while for those that may know them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.ports import Clock

__all__ = ["IN_COMPANY", "Strangers"]

#: Seconds that a message waits for a worker that knows it, where other workers are or were there.
IN_COMPANY = 600.0
#: Seconds between two looks at one message: the first, how it grows, and the most. Of two workers each gets about
#: half of the messages in each round, so a thousand need ten rounds to be with the one that knows them: 2 seconds.
_FIRST, _GROWTH, _MOST = 0.05, 1.3, 15.0
#: Messages that are remembered; the one met first is forgotten first, and then begins anew.
_REMEMBERED = 100_000


class Strangers:
    """Says how long a message of an unknown task is worth keeping on its queue (decision 0010).

    In a fleet that is being renewed, old workers meet messages of tasks that only new ones know. Each gives such a
    message back, to be looked at again later, by whoever comes first then; with growing pauses, so that a queue full
    of them costs next to nothing.
    """

    def __init__(self, grace: float | None, clock: Clock) -> None:
        """`grace`: seconds from the first sight; 0: none. None: none for a worker that is alone, `IN_COMPANY` for
        one that is not or was not within that time."""
        self._grace = grace
        self._clock = clock
        #: How many other workers there are, where the broker knows.
        self.others: Callable[..., int] | None = None
        self._accompanied_until = 0.0
        #: id → when it was met first (monotonic), and how often it was.
        self._met: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def look(self, *, ask: bool = False) -> None:
        """See whether other workers are there; now and then, so that those that leave are remembered."""
        if self._grace is not None or self.others is None:
            return
        now = self._clock.monotonic()
        try:
            if self.others(ask=ask) > 0:
                self._accompanied_until = now + IN_COMPANY
        except OperationalError:
            self._accompanied_until = now + _MOST  # it is asked again when the broker answers

    def pause(self, task_id: str) -> float | None:
        """Seconds until this one should be looked at again; None: it has been kept long enough."""
        now = self._clock.monotonic()
        if now >= self._accompanied_until:
            self.look(ask=True)  # one may have come just now
        grace = self._grace
        if grace is None:
            grace = IN_COMPANY if now < self._accompanied_until else 0.0
        since, times = self._met.get(task_id, (now, 0))
        left = since + grace - now
        if left <= 0:
            self._met.pop(task_id, None)
            return None
        self._met[task_id] = (since, times + 1)
        if len(self._met) > _REMEMBERED:
            self._met.popitem(last=False)
        return min(_FIRST * _GROWTH ** min(times, 40), _MOST, left)
