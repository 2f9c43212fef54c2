"""Domain. What happens to a task, as values: one happening, told to many listeners (log, signals, events, spans)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from celery.message import Message
    from celery.outcome import Further

__all__ = ["MOMENTS", "SHUT", "Ended", "Gate", "Latch", "Run", "Tellers"]


class Run(Struct, eq=False):
    """One run of a task in a pool's process: what every listener may look at. `request` is the task's `Context`."""

    message: Message
    task: Any
    request: Any
    args: Any
    kwargs: dict[str, Any]
    embed: Any
    #: Envelopes of the messages that follow, once they are made: `(exchange, routing key, envelope)`.
    follow: list[tuple[str, str, bytes]] = []
    #: What it means for other tasks of its flow.
    further: Further | None = None
    #: How it ended, once that is known; hooks and receivers are told after that.
    ended: Ended | None = None
    #: Everybody has been told.
    finished: bool = False
    #: The text of its result, if somebody has made it.
    shown: str | None = None


class Ended(Struct, eq=False):
    """How a run ended. `value` is the return value, or the exception."""

    #: SUCCESS, FAILURE, RETRY, IGNORED or REJECTED; None where the process is being left (`SystemExit`).
    state: str | None
    value: Any
    #: Seconds.
    runtime: float
    #: billiard's `ExceptionInfo` where the run ended in an exception, else None.
    einfo: Any = None


class Gate(Protocol):
    """Says whether anybody listens; a signal is one."""

    @property
    def receivers(self) -> Any: ...


class Latch(Struct):
    """A gate that is opened and shut by hand."""

    receivers: bool


#: A gate that nobody opens.
SHUT = Latch(False)


#: What can be told of, in the order of `[task.51]`. `started` tells of the run; an ending (`SUCCESS`, `FAILURE`,
#: `RETRY`, `IGNORED`, `REJECTED`) and `finished`, the last of all, of the run and how it ended; `broke` of the message,
#: its run (None if it could not be read) and the exception that was raised outside the task's body (`[task.56]`).
#: `lost` tells of a failure that was seen from outside the run, in another process than the one that ran it.
MOMENTS = ("started", "SUCCESS", "FAILURE", "RETRY", "IGNORED", "REJECTED", "finished", "lost", "broke")

#: Moment → who is told of it, each behind a gate: what nobody listens to costs an attribute read.
Tellers: TypeAlias = Mapping[str, Sequence[tuple[Gate, Callable[..., None]]]]
