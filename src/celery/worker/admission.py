"""Domain. What is done with a message that has just come: run, wait, drop or refuse it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from celery.message import Message

__all__ = [
    "RUN", "Admission", "Drop", "Limits", "Refuse", "Run", "TaskPolicy", "Wait", "admit", "limits_of", "moment",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """What a worker must know of a task beside its name, read once from the task (`[task.1]`)."""

    name: str
    acks_late: bool = False
    reject_on_worker_lost: bool = False
    #: Whether a late-acknowledged message is done with after a failure, and after a hard time limit (`[task.38]`).
    acks_on_failure: bool = True
    acks_on_timeout: bool = True
    retry_on_worker_lost: bool = False
    #: Seconds that a run may last where its message says nothing (`[limit.3]`).
    soft_limit: float | None = None
    hard_limit: float | None = None
    #: Whether runs of it are attended by request objects of the task's own class (`[task.59]`).
    attended: bool = False
    #: Whether the broker must have confirmed its acknowledgement before it runs. Not with `acks_late`.
    acks_first: bool = False
    #: Runs a second that may begin here at most (`[limit.5]`); None: as many as come.
    rate: float | None = None

    #: Nothing about a run of it needs a second look.
    plain: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        special = self.soft_limit or self.hard_limit or self.attended or self.acks_first or self.rate
        object.__setattr__(self, "plain", not special)


@dataclass(frozen=True, slots=True)
class Run:
    """Hand it to the pool."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not before `until` (seconds since the epoch)."""

    until: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Nobody wants it any more. `why`: "expired" or "revoked"."""

    why: str = "expired"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Cannot be run here. `kind` is "unknown" (no such task), "content", "invalid", "message" (no
    task message) or "undecodable"; `reason` says it in full, or names the task."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a run may last, or None."""

    soft: float | None = None
    hard: float | None = None


Admission: TypeAlias = Run | Wait | Drop | Refuse

_SERIALIZERS = {
    "application/json": "json",
    "application/x-python-serialize": "pickle",
    "application/x-yaml": "yaml",
    "application/x-msgpack": "msgpack",
}

#: Seconds: thirty years.
_FOR_EVER = 1e9
RUN = Run()
_DROP = Drop()


def moment(value: str | float) -> float:
    """Seconds since the epoch of an ISO 8601 text (one without offset is UTC) or of a number.

    Raises `ValueError` for anything else.
    """
    if isinstance(value, str):
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise ValueError(f"expected a moment, got {value!r}")
    return float(value)


def admit(message: Message, policy: TaskPolicy | None, accept: AbstractSet[str] | None, now: float) -> Admission:
    """Decide by what the headers say (`[worker.25]`, `[worker.26]`, `[worker.28]`, `[worker.29]`).

    `policy` is None if no such task is registered, `accept` the content types that may be decoded (None: all), `now`
    the wall clock. What has both expired and is not due yet is dropped at once.
    """
    if policy is None:
        return Refuse("unknown", message.task)
    if accept is not None and message.content_type not in accept:
        name = _SERIALIZERS.get(message.content_type, "untrusted")
        return Refuse("content", f"Refusing to deserialize untrusted content of type {name} ({message.content_type})")
    if message.eta is None and message.expires is None:
        return RUN
    return _admit_by_time(message, now)


def _admit_by_time(message: Message, now: float) -> Admission:
    try:
        due = now if message.eta is None else moment(message.eta)
    except (ValueError, OverflowError) as exc:
        return Refuse("invalid", f"invalid ETA value {message.eta!r}: {exc}")
    try:
        end = math.inf if message.expires is None else moment(message.expires)
    except (ValueError, OverflowError) as exc:
        return Refuse("invalid", f"invalid expires value {message.expires!r}: {exc}")
    if end <= now:
        return _DROP
    return Wait(due) if due > now else RUN


def limits_of(message: Message, policy: TaskPolicy) -> Limits:
    """What the call says counts, then the task, then the worker's default: each limit by itself; 0 says nothing.

    See `[limit.3]`. `policy` holds the last two.
    """
    hard, soft = message.timelimit
    return Limits(_limit(soft) or policy.soft_limit or None, _limit(hard) or policy.hard_limit or None)


def _limit(seconds: float | None) -> float | None:
    """What a sender wrote; longer than any process lives is no limit."""
    return seconds if seconds is not None and seconds < _FOR_EVER else None
