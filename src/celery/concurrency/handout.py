"""Adapter. Which child gets which of the waiting jobs, and when jobs are better moved to another child."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from celery.concurrency.pacing import HORIZON, Pacing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from celery.concurrency.seat import Seat
    from celery.ports import Job

__all__ = ["Handout"]

#: Seconds of work that a child may have left and still be as good as free.
_NEARLY_FREE = 0.02


class Handout:
    """The jobs that wait in the main process, in order, and the rules by which they are handed to children."""

    def __init__(self) -> None:
        self.waiting: deque[Job] = deque()
        self.pacing = Pacing()

    def take(self, jobs: Sequence[Job], seats: Collection[Seat]) -> None:
        """Let these wait behind the others."""
        self.pacing.demand(self.free(seats), len(jobs))
        self.waiting.extend(jobs)

    def free(self, seats: Iterable[Seat]) -> int:
        """How many more jobs these children and the queue before them have a use for."""
        room = self.pacing.room
        free = -len(self.waiting)
        for seat in seats:
            if seat.batches:
                free += min(seat.rest, room(len(seat.window), seat.backlog, int(seat.size)))
        return free

    def feed(self, seats: Collection[Seat]) -> list[Seat]:
        """Hand out what suits; returns who got something. First come, first served: what must go alone waits for a
        child that has nothing else, and all that is behind it waits too (so that it is not overtaken for ever)."""
        waiting, fed = self.waiting, []
        while waiting:
            if self.pacing.cost(waiting[0].message) is not None:
                handed = self._feed_batches(seats)
                if not handed:
                    break
                fed += handed
            else:
                self.pacing.single()
                idle = next((seat for seat in seats if seat.idle), None)
                if idle is None:
                    break
                idle.alone = True
                idle.hand([waiting.popleft()], HORIZON)
                fed.append(idle)
        return fed

    def _feed_batches(self, seats: Collection[Seat]) -> list[Seat]:
        """Hand the short jobs at the head of the queue to the children, so that all have equally much to do."""
        pacing = self.pacing
        rooms = [
            (seat.backlog, room, seat)
            for seat in seats
            if seat.batches and (room := min(seat.rest, pacing.room(len(seat.window), seat.backlog, int(seat.size))))
        ]
        if not rooms:
            return []
        rooms.sort(key=lambda entry: entry[0])
        jobs, costs = self._short(sum(room for _, room, _ in rooms))
        total = sum(costs)
        level = (total + sum(backlog for backlog, _, _ in rooms)) / len(rooms)
        at, fed = 0, []
        for backlog, room, seat in rooms:
            start, most, work = at, min(len(jobs), at + room), 0.0
            while at < most and backlog + work < level:
                work += costs[at]
                at += 1
            if at > start:
                seat.hand(jobs[start:at], work)
                fed.append(seat)
        self.waiting.extendleft(reversed(jobs[at:]))
        pacing.handed(total / len(jobs))
        return fed

    def _short(self, most: int) -> tuple[list[Job], list[float]]:
        """Take the short jobs at the head of the queue, up to so many, and what each will cost."""
        waiting, estimate = self.waiting, self.pacing.cost
        jobs: list[Job] = []
        costs: list[float] = []
        while waiting and len(jobs) < most:
            cost = estimate(waiting[0].message)
            if cost is None:
                break
            jobs.append(waiting.popleft())
            costs.append(cost)
        return jobs, costs

    def overtaken(self, seats: Collection[Seat]) -> list[Seat]:
        """Children in which jobs wait behind a long run while another child is free or nearly so: to be recalled."""
        late = [seat for seat in seats if seat.slow is not None and len(seat.window) > 1 and not seat.recalls]
        if late and any(seat.batches and seat.backlog < _NEARLY_FREE for seat in seats):
            return late
        return []
