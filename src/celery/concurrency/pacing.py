"""Domain. Which tasks may travel to a child in batches, and how much work a child may hold: learnt from past runs.

A batch saves most of what it costs to hand a job over, but what is in a batch waits for what is before it. So only
tasks whose *name* has been seen to be short (95 of 100 runs under `SHORT`) travel together; whatever is unknown,
long or handed out before goes alone to a child that has nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.message import Message

__all__ = ["HORIZON", "MOST_BYTES", "MOST_JOBS", "SHORT", "Pacing"]

#: Seconds: a name whose 95th percentile is under this is short.
SHORT = 0.005
#: Seconds of expected work that a child may hold.
HORIZON = 0.1
#: Jobs, and bytes of their envelopes, that a child may hold.
MOST_JOBS = 2000
MOST_BYTES = 16 << 20
#: Runs of a name that are remembered (a power of two), and how many must have been seen to judge it.
_MEMORY = 64
_ENOUGH = 8
#: Names that are remembered; the one learnt first is forgotten first.
_MOST_NAMES = 1000
#: Seconds that a run costs a child beside its own duration (decoding, tracing, records).
_OVERHEAD = 30e-6


class _Pace:
    """What is known of one name."""

    __slots__ = ("_runs", "cost", "seen")

    def __init__(self) -> None:
        self._runs = [0.0] * _MEMORY
        self.seen = 0
        #: Expected seconds of a run, or None: not known to be short.
        self.cost: float | None = None

    def observe(self, runtime: float) -> None:
        seen = self.seen
        self._runs[seen % _MEMORY] = runtime
        self.seen = seen = seen + 1
        if seen % _ENOUGH == 0:
            self._judge(min(seen, _MEMORY))

    def _judge(self, known: int) -> None:
        runs = sorted(self._runs[:known])
        # The smallest value that at least 95 % of the runs do not exceed.
        p95 = runs[-(-known * 95 // 100) - 1]
        self.cost = sum(runs) / known + _OVERHEAD if p95 < SHORT else None


class Pacing:
    """Learns how long tasks take; says what each will cost, and how many of the recent kind a child may hold."""

    def __init__(self) -> None:
        self._paces: dict[str, _Pace] = {}
        #: Jobs that a child may hold while demand is unproven: see `demand` and `single`.
        self._appetite = 1
        self._recent = _OVERHEAD

    def observe(self, name: str, runtime: float) -> None:
        """A run of the task `name` took `runtime` seconds."""
        pace = self._paces.get(name)
        if pace is None:
            pace = self._learn(name)
        pace.observe(runtime)

    def cost(self, message: Message) -> float | None:
        """Seconds that running this message is expected to take, or None: it must be handed over alone."""
        if message.redelivered:
            return None
        pace = self._paces.get(message.task)
        return None if pace is None else pace.cost

    def demand(self, wanted: int, came: int) -> None:
        """`wanted` jobs were asked for and `came` were there: as long as demand holds, ask for twice as many; where
        the queues are nearly empty, for little more than there was (what comes next may be of another kind)."""
        if came >= wanted > 0:
            self._appetite = min(2 * self._appetite, MOST_JOBS)
        elif came < wanted // 4:
            self._appetite = max(1, min(self._appetite, 2 * came))

    def handed(self, cost: float) -> None:
        """Short jobs of this mean cost were handed over."""
        self._recent = cost

    def single(self) -> None:
        """A job had to go alone: the queues hold such jobs, so take few at once (another worker may be free)."""
        self._appetite = 1

    def room(self, jobs: int, backlog: float, size: int) -> int:
        """How many more short jobs suit a child that holds `jobs`, `backlog` seconds and `size` bytes. Never < 0."""
        if not jobs:
            return max(1, min(self._appetite, int(HORIZON / self._recent)))
        if size >= MOST_BYTES or backlog >= HORIZON:
            return 0
        return max(0, min(self._appetite - jobs, int((HORIZON - backlog) / self._recent)))

    def _learn(self, name: str) -> _Pace:
        if len(self._paces) >= _MOST_NAMES:
            del self._paces[next(iter(self._paces))]
        pace = self._paces[name] = _Pace()
        return pace
