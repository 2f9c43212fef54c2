"""Adapter. What a prefork pool tells of its children: as numbers for `stats`, and as log lines when one dies."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.concurrency.deaths import ASKED_TO_GO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from celery.concurrency.seat import Seat
    from celery.concurrency.terms import Terms

__all__ = ["log_death", "told"]

logger = logging.getLogger("celery.concurrency.prefork")


def told(implementation: str, size: int, terms: Terms, seats: Mapping[int, Seat]) -> dict[str, Any]:
    """What `stats` shows of the pool."""
    in_order = [seat for _, seat in sorted(seats.items())]
    return {
        "implementation": implementation,
        "max-concurrency": size,
        "max-tasks-per-child": terms.max_tasks or "N/A",
        "processes": [seat.pid for seat in in_order],
        "put-guarded-by-semaphore": False,
        "writes": writes(in_order),
    }


def writes(seats: Iterable[Seat]) -> dict[str, Any]:
    """How many jobs each child was given (`[pool.14]`)."""
    seats = list(seats)
    given = [seat.given for seat in seats]
    total = sum(given)
    return {
        "total": total,
        "avg": f"{1 / len(given) if total else 0:.2f}",
        "all": ", ".join(f"{each / total:.2f}" for each in given) if total else "",
        "raw": ", ".join(map(str, given)) if total else "",
        "strategy": "fair",
        "inqueues": {"total": len(seats), "active": sum(bool(seat.window) for seat in seats)},
    }


def log_death(seat: Seat, how: str, terms: Terms, begun: Sequence[int]) -> None:
    """Say that a child died, having begun these jobs, where that is a misfortune."""
    if seat.ended == -1:
        logger.error(
            "Pool child %d (pid %d) was not ready after %s s (worker_proc_alive_timeout) and was killed",
            seat.index, seat.pid, terms.alive_timeout,
        )  # fmt: skip
    # An idle child that was asked to go (a TERM to the whole process group at shutdown) is no misfortune; what a hard
    # limit means, or the end of a run that was asked for, is for the caller to say.
    elif not (seat.leaving or seat.ended is not None or seat.doomed in begun or (not begun and how == ASKED_TO_GO)):
        logger.error("Pool child %d (pid %d) died: %s", seat.index, seat.pid, how)
