"""Flow. Runs that did not come to an end by themselves: their process died, or a time limit ended them.

What the pool's process can no longer do is done here, in the worker's main process: the hooks, the record, and the
settlement of the delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from celery.worker.settlement import ACK, DONE, REQUEUE, lost_disposition, timeout_disposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.message import Message
    from celery.outcome import Outcome
    from celery.worker.consumer.deliveries import Held, Settler
    from celery.worker.consumer.observer import Attendant, Observer

__all__ = ["Aftermath", "Endings"]


class Aftermath(Protocol):
    """See `Tracer.aftermath`."""

    def __call__(self, message: Message, exc: BaseException, *, hooks: bool = True) -> Outcome: ...


class Endings:
    """Settles runs that ended from outside."""

    def __init__(
        self,
        *,
        aftermath: Aftermath,
        again: Callable[[Message, BaseException], Outcome | None],
        observer: Observer,
        attendant: Attendant | None,
    ) -> None:
        """`aftermath`: what follows from a failure that the task's own process could not tell: errbacks, signals, and
        `hooks` of the task. `again`: the outcome of a run that is to be repeated because its process died, or None.
        """
        self._aftermath = aftermath
        self._again = again
        self._observer = observer
        self._attendant = attendant

    def warned(self, one: Held, limit: float) -> None:
        """The run was told of its soft limit (`[limit.2]`)."""
        limit = _plain(limit)
        self._observer.soft_limit(one.message, limit)
        if one.request is not None and self._attendant is not None:
            self._attendant.timed_out(one, limit, soft=True)

    def timed_out(self, one: Held, limit: float, settler: Settler) -> None:
        """The run was ended for its hard limit (`[limit.1]`, `[task.38]`).

        A message that goes back to its queue leaves a FAILURE all the same, until its next run succeeds.
        """
        limit = _plain(limit)
        exc = TimeLimitExceeded(limit)
        asked = None
        self._observer.hard_limit(one.message, limit)
        if one.request is not None and self._attendant is not None:
            asked = self._attendant.failed(one, exc)
            asked = self._attendant.timed_out(one, limit, soft=False) or asked
        outcome = self._aftermath(one.message, exc, hooks=True)
        disposition = timeout_disposition(one.policy, acknowledged=one.acknowledged)
        disposition = disposition if one.acknowledged else asked or disposition
        settler.add(one.delivery, disposition, outcome.record, outcome.follow, outcome.further)

    def lost(self, one: Held, why: str, settler: Settler, *, terminating: bool) -> None:
        """The process died (`[task.36]`, `[task.37]`). `terminating`: we killed it, so the task did not fail."""
        disposition = lost_disposition(one.policy, acknowledged=one.acknowledged)
        if terminating:
            settler.add(one.delivery, disposition if disposition == DONE else REQUEUE)
            return
        exc = WorkerLostError(f"Worker exited prematurely: {why} Job: {one.key}.")
        if one.request is not None and self._attendant is not None:
            asked = self._attendant.failed(one, exc)
            disposition = disposition if one.acknowledged else asked or disposition
        if one.policy.retry_on_worker_lost:
            outcome = self._again(one.message, exc)
            if outcome is not None:
                settler.add(
                    one.delivery, DONE if one.acknowledged else ACK, outcome.record, outcome.follow, outcome.further
                )
                return
        self._observer.lost(one.message, exc)
        if disposition == REQUEUE:
            settler.add(one.delivery, REQUEUE)
            return
        outcome = self._aftermath(one.message, exc, hooks=False)
        settler.add(one.delivery, disposition, outcome.record, outcome.follow, outcome.further)


def _plain(seconds: float) -> float:
    """`1`, not `1.0`: the number is shown, and stored, as the user wrote it."""
    return int(seconds) if seconds == int(seconds) else seconds
