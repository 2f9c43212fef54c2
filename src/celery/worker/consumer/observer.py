"""Port. What a worker tells of the messages that come to it, before and after they are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from celery.lifecycle import SHUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.lifecycle import Gate
    from celery.message import Message
    from celery.outcome import Outcome
    from celery.ports import Delivery, Report
    from celery.worker.admission import Refuse
    from celery.worker.consumer.deliveries import Held

__all__ = ["Attendant", "Observer", "Unwatched", "Watching"]


class Observer(Protocol):
    """Hears what happens in a worker's main process, in its engine's thread. Everything here is quick."""

    @property
    def gates(self) -> Sequence[Gate]:
        """`received` is called while one of these is open: telling nobody should cost nothing."""

    def received(self, messages: Sequence[Message]) -> None:
        """These were taken on: they will be run, now or when they are due."""

    def refused(self, delivery: Delivery, refusal: Refuse) -> None:
        """This cannot be run here; it is kept as a dead letter where the broker has a place for it."""

    def unknown(self, message: Message, seconds: float) -> None:
        """There is no such task here; another worker may know it, so it is looked at again in `seconds`."""

    def dropped(self, message: Message, why: str) -> None:
        """Nobody wants this any more: it is "expired" or "revoked"."""

    def terminated(self, message: Message, signum: int) -> None:
        """The run of this was ended by that signal, because the task was revoked."""

    def lost(self, message: Message, exc: BaseException, *, goes_back: bool = False) -> None:
        """The process that ran this died, and it is not repeated as a retry. `goes_back`: to its queue."""

    def tried_again(self, message: Message, exc: BaseException) -> None:
        """The process that ran this died, and it is repeated as a retry."""

    def cut_short(self, message: Message, *, goes_back: bool) -> None:
        """The run of this was ended because the worker stops. `goes_back`: to its queue; else nobody runs it again."""

    def soft_limit(self, message: Message, limit: float) -> None:
        """The run of this was told that it has lasted `limit` seconds."""

    def hard_limit(self, message: Message, limit: float) -> None:
        """The run of this was ended, having lasted `limit` seconds."""

    def connecting_failed(self, exc: BaseException, attempt: int, limit: int | None, seconds: float) -> None:
        """The broker did not answer at start; it is tried again in `seconds`."""

    def connected(self) -> None: ...

    def ready(self) -> None:
        """Messages are being taken from now on."""

    def trouble(self, exc: BaseException, seconds: float) -> None:
        """Taking or settling failed; it is tried again in `seconds`. What runs keeps running."""

    def recovered(self) -> None: ...

    def flush(self) -> None:
        """Write out what was told: the engine is about to hand work on, or to wait."""


class Watching(Protocol):
    """Who is told of each run while the gate is open: in the engine's thread, once for each report of the pool."""

    @property
    def gate(self) -> Gate: ...

    def reported(self, report: Report, held: Mapping[int, Held]) -> None:
        """The pool has told this; `held` is what it held until then."""


class Unwatched:
    """Nobody is."""

    gate: Gate = SHUT

    def reported(self, report: Report, held: Mapping[int, Held]) -> None:
        """See `Watching`."""


class Attendant(Protocol):
    """Lets request objects of tasks' own classes take part in their runs (`[task.59]`), in the engine's thread.

    A run takes part if `attend` gave it a request. What the request asks for by its `acknowledge` and `reject` is done
    by the engine.
    """

    def attend(self, held: Held) -> Any:
        """A request for this run."""

    def begun(self, held: Held, pid: int | None) -> str | None:
        """A process has begun to run it. Returns what the request asks for: a disposition, or None."""

    def ended(self, held: Held, outcome: Outcome) -> str | None:
        """It came to an outcome."""

    def timed_out(self, held: Held, limit: float, *, soft: bool) -> str | None:
        """A time limit has passed."""

    def failed(self, held: Held, exc: BaseException) -> str | None:
        """It failed where the task could not see it."""
