"""Flow. What a tracer is made of, and what it keeps of each task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery.lifecycle import SHUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.current import Context
    from celery.lifecycle import Gate, Run, Tellers
    from celery.outcome import Further, Outcome, Record
    from celery.pending import Pending
    from celery.ports import Publication

__all__ = ["Plan", "TracerParts"]


@dataclass(slots=True)
class TracerParts:
    """What a tracer is made of; `app/assembly.py` fills it."""

    #: Name → task; raises KeyError for an unknown one.
    tasks: Mapping[str, Any]
    #: The class of the task's request.
    context: type[Context]
    #: Body, content type, content encoding → value; refuses content types that are not accepted.
    decode: Callable[[bytes, str, str], Any]
    decompress: Callable[[bytes, str], bytes]
    #: Writes state documents: `success`, `failure`, `write`.
    documents: Any
    #: Saves records at once, from this process.
    save: Callable[[list[Record]], None]
    #: Signatures of callbacks, and the value that comes first → publications, not yet sent.
    callbacks: Callable[[Sequence[Any], Any], list[Publication]]
    #: A finished request and its value → the next message of its chain, not yet sent.
    next: Callable[[Any, Any], list[Publication]]
    #: A run, the state that it came to, its value or exception and the traceback → what that means for other tasks of
    #: its flow. Asked only about members of chains and chords.
    further: Callable[[Run, str, Any, str | None], Further | None]
    #: So many members more in the chord with that group id: for a run that does not arrive there itself.
    grow: Callable[[str, int], None]
    #: A failed request, its exception and traceback → publications; other errbacks are called at once.
    errbacks: Callable[[Any, BaseException, str | None], list[Publication]]
    #: Where a record is until its run is over.
    pending: Pending
    #: The stacks that `current_task` and `task.request` read.
    enter: Callable[[Any, Any], None]
    leave: Callable[[Any], None]
    #: Makes billiard's `ExceptionInfo` of the exception being handled.
    exception_info: Callable[[], Any]
    #: Whether a task's class overrides a method of the base class.
    overrides: Callable[[Any, str], bool]
    #: Who is told what.
    tellers: Tellers
    #: A task that is not run by us, since somebody has replaced what traces tasks → what runs it; else None.
    foreign: Callable[[Any], Callable[[Run], Outcome] | None] = lambda task: None
    #: What is called before and after each run of a task: its loader's and its backend's own hooks, if they have any.
    around: Callable[[Any], tuple[Callable[[str, Any], None] | None, Callable[[], None] | None]] = field(
        default=lambda task: (None, None)
    )
    #: The document of a task that has succeeded before, by its id; asked about redelivered messages of tasks that
    #: acknowledge late. None: nobody asks (`[task.70]`).
    succeeded: Callable[[str], Mapping[str, Any] | None] | None = None
    #: Open while somebody wants to be told of each run in the main process.
    watched: Gate = SHUT
    #: What is told then: see `Outcome.told`.
    shown: Callable[[Run], tuple[str, str] | None] = lambda run: None
    hostname: str = ""
    pid: Callable[[], int] = lambda: 0
    #: False: nobody keeps results, so none is encoded.
    store_results: bool = True


@dataclass(slots=True)
class Plan:
    """What this process must know of a task, looked up once."""

    task: Any
    #: The task itself if `__call__` is overridden (`[task.8]`), else None: then `task.run` is called.
    callable: Any
    before_start: Any
    on_success: Any
    after_return: Any
    track_started: bool
    #: A failure of a task that acknowledges late is acknowledged (`[task.38]`).
    acknowledge: bool
    #: Who runs it in our place, if anybody.
    foreign: Callable[[Run], Outcome] | None
    #: Redelivered messages may have succeeded before.
    deduplicate: bool
    #: The loader's word before a run; what is to be done after each.
    init: Callable[[str, Any], None] | None
    cleanup: Callable[[], None] | None
