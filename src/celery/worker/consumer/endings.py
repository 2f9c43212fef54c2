"""Flow. Runs that did not come to an end by themselves: their process died, or a time limit ended them.

What the pool's process can no longer do is done here, in the worker's main process: the hooks, the record, and the
settlement of the delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from celery.exceptions import TaskRevokedError
from celery.states import REVOKED
from celery.worker.settlement import ACK, DONE, REJECT, REQUEUE, lost_disposition, timeout_disposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.message import Message
    from celery.outcome import Outcome
    from celery.ports import Delivery
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
        cancelled: Callable[[Message], Outcome | None],
        observer: Observer,
        attendant: Attendant | None,
        end: Callable[..., None],
        max_deaths: int = 0,
    ) -> None:
        """`aftermath`: what follows from a failure that the task's own process could not tell: errbacks, signals, and
        `hooks` of the task. `again`: the outcome of a run that is to be repeated because its process died, or None.
        `cancelled`: the outcome of a run that we cut short and that nobody runs again, for whoever looks at it.
        `end`: see `Receiver.end`. `max_deaths`: after so many deaths a message does not go back to its queue; 0: it
        always does.
        """
        self._max_deaths = max_deaths
        self._end = end
        self._aftermath = aftermath
        self._again = again
        self._cancelled = cancelled
        #: How many runs were cut short because the worker stopped.
        self.cut_short = 0
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
        """The process died (`[task.36]`, `[task.37]`). `terminating`: we killed it, so the task did not fail
        (`[shutdown.6]`)."""
        if terminating:
            self._cut(one, settler)
            return
        disposition = lost_disposition(one.policy, acknowledged=one.acknowledged)
        exc = WorkerLostError(f"Worker exited prematurely: {why} Job: {one.key}.")
        if one.request is not None and self._attendant is not None:
            asked = self._attendant.failed(one, exc)
            disposition = disposition if one.acknowledged else asked or disposition
        if one.policy.retry_on_worker_lost:
            outcome = self._again(one.message, exc)
            if outcome is not None:
                self._observer.tried_again(one.message, exc)
                settler.add(
                    one.delivery, DONE if one.acknowledged else ACK, outcome.record, outcome.follow, outcome.further
                )
                return
        if disposition == REQUEUE:
            self._give_back(one, exc, settler)
            return
        self._observer.lost(one.message, exc)
        outcome = self._aftermath(one.message, exc, hooks=False)
        if disposition == REJECT:
            one.delivery.error = str(exc)
        settler.add(one.delivery, disposition, outcome.record, outcome.follow, outcome.further)

    def terminated(self, one: Held, signum: int, settler: Settler) -> None:
        """Somebody had the run ended by revoking the task (`[limit.10]`): it is done with, whatever it was promised."""
        exc = TaskRevokedError("terminated")
        self._observer.terminated(one.message, signum)
        if one.request is not None and self._attendant is not None:
            self._attendant.failed(one, exc)
        self._end(one.delivery, one.message, DONE if one.acknowledged else ACK, (REVOKED, exc), settler)

    def _cut(self, one: Held, settler: Settler) -> None:
        """It goes back to its queue, unless it was acknowledged: then its record is all that remains of it."""
        self.cut_short += 1
        self._observer.cut_short(one.message, goes_back=not one.acknowledged)
        if not one.acknowledged:
            settler.add(one.delivery, REQUEUE)
        elif (outcome := self._cancelled(one.message)) is None:
            settler.add(one.delivery, DONE)
        else:
            settler.add(one.delivery, DONE, outcome.record, outcome.follow, outcome.further)

    def _give_back(self, one: Held, exc: WorkerLostError, settler: Settler) -> None:
        """To its queue, with a death more; not for ever."""
        one.delivery.died = True
        deaths = one.message.deaths + 1
        if self._max_deaths and deaths >= self._max_deaths:
            self.park(one.delivery, one.message, deaths, settler, last=str(exc))
        else:
            self._observer.lost(one.message, exc, goes_back=True)
            settler.add(one.delivery, REQUEUE)

    def park(self, delivery: Delivery, message: Message, deaths: int, settler: Settler, last: str = "") -> None:
        """Its processes have died too often: it becomes a dead letter, and a failure for whoever waits."""
        exc = WorkerLostError(
            f"{deaths} processes died that ran this task (task_max_deaths is {self._max_deaths}): it is not run again, "
            f"and kept as a dead letter. {last}".rstrip()
        )
        self._observer.lost(message, exc)
        outcome = self._aftermath(message, exc, hooks=False)
        delivery.error = str(exc)
        settler.add(delivery, REJECT, outcome.record, outcome.follow, outcome.further)


def _plain(seconds: float) -> float:
    """`1`, not `1.0`: the number is shown, and stored, as the user wrote it."""
    return int(seconds) if seconds == int(seconds) else seconds
