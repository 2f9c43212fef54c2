"""Domain. What a run came to, as a value.

An outcome crosses from a pool's child to the main process as data (msgpack), so it holds encoded records, never user
objects: the main process neither decodes nor unpickles what user code returned or raised.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

__all__ = ["Arrival", "Failure", "Further", "Ignored", "Outcome", "Record", "Rejected", "Retrying", "Success"]


class Record(msgspec.Struct, array_like=True):
    """What a result backend keeps of one task: its state document (`[state.1]`), already encoded."""

    id: str
    state: str
    #: The whole document `{"status", "result", "traceback", "children", "date_done", "task_id", …}`, encoded.
    meta: bytes
    #: Where an rpc reply goes (`[wire.23]`); "" elsewhere.
    reply_to: str = ""


class Arrival(msgspec.Struct, array_like=True):
    """A task of a chord's header has come to its end: what the chord's barrier is told."""

    #: The barrier: the header's group id.
    barrier: str
    #: The task's id. A member counts once, however often it is told of.
    member: str
    #: Its place among the members; None: after those that have one.
    index: int | None
    #: `[1, id, state, result]`, encoded like a result (`[rkeys.4]`).
    part: bytes
    #: The signature of the chord's body, packed (`chords.pack`): whoever finds the barrier full sends it.
    body: bytes
    #: Members that this one has added to the chord (`Task.add_to_chord`).
    more: int = 0


class Further(msgspec.Struct, array_like=True):
    """What an outcome means for other tasks of its flow; settled in the same step."""

    #: Failures of tasks that will never run since this one failed.
    records: list[Record] = []
    arrivals: list[Arrival] = []


class _Trailing(msgspec.Struct, array_like=True, kw_only=True):
    further: Further | None = None
    #: For monitors, where somebody listens: text of the result, or of what was raised; and its traceback.
    told: tuple[str, str] | None = None


class _Base(_Trailing, array_like=True, tag_field="kind"):
    #: Saved by whoever settles the delivery; None where results are ignored or the child has saved it itself.
    record: Record | None = None
    #: Envelopes of the messages that follow from this run (callbacks, chain, retry), published when it is settled.
    follow: list[tuple[str, str, bytes]] = []  # (exchange, routing key, envelope)
    #: Seconds that the run took, user code and hooks.
    runtime: float = 0.0


class Success(_Base, array_like=True, tag="success"):
    """The task returned."""


class Failure(_Base, array_like=True, tag="failure"):
    """The task raised. `reason` is `repr(exc)`, cut to a bounded length."""

    reason: str = ""
    #: False where a late-acknowledged failure is to be rejected instead (`[task.38]`).
    acknowledge: bool = True
    #: Where it is to be rejected; else "".
    traceback: str = ""


class Retrying(_Base, array_like=True, tag="retrying"):
    """The task asked to be run again; the message that will do so is in `follow`."""

    reason: str = ""


class Ignored(_Base, array_like=True, tag="ignored"):
    """The task raised `Ignore`: acknowledge, store nothing."""


class Rejected(_Base, array_like=True, tag="rejected"):
    """The task raised `Reject`, or the message could not be run at all (`reason` says why)."""

    reason: str = ""
    requeue: bool = False
    traceback: str = ""


Outcome: TypeAlias = Success | Failure | Retrying | Ignored | Rejected
