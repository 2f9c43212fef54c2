"""Flow. What an engine is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery.ports import SystemClock
from celery.worker.consumer.delays import trouble_delays
from celery.worker.consumer.observer import Unwatched

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from celery.message import Message
    from celery.outcome import Outcome, Record
    from celery.ports import Broker, Clock, Firing, Full, Pool, ResultBackend
    from celery.routing import QueueSpec
    from celery.worker.admission import TaskPolicy
    from celery.worker.consumer.endings import Aftermath
    from celery.worker.consumer.observer import Attendant, Observer, Watching

__all__ = ["EngineParts"]


@dataclass(slots=True, kw_only=True)
class EngineParts:
    """What an engine is made of; see `Receiver` for `policies`, `accept`, `read_other` and `verdict`."""

    broker: Broker
    #: Where follow-up messages go, if it is not the broker that is consumed from.
    publisher: Broker | None = None
    #: None: results are not kept.
    store: ResultBackend | None
    pool: Pool
    queues: Sequence[QueueSpec]
    policies: Callable[[str], TaskPolicy | None]
    accept: AbstractSet[str] | None
    read_other: Callable[[bytes], Message]
    verdict: Callable[[Message, str, BaseException], Record | None]
    #: See `Receiver`.
    fallout: Callable[[Message, str, BaseException], Outcome | None] = lambda message, state, exc: None
    #: See `Settler`.
    closing: Callable[[Full], Firing] | None = None
    observer: Observer
    #: Called about once a second; raises `WorkerShutdown` or `WorkerTerminate` to stop.
    check: Callable[[], None] = lambda: None
    clock: Clock = field(default_factory=SystemClock)
    #: Messages taken on, by task name.
    totals: Counter[str] = field(default_factory=Counter)
    #: Seconds between tries while broker or store are away.
    delays: Callable[[], Iterator[float]] = trouble_delays
    #: How often the first connection is tried; None: for ever, 0: once.
    connect_retries: int | None = 100
    #: How many messages the worker holds at most; None: as many as the pool has a use for.
    prefetch: int | None = None
    #: Whether that counts what runs and is acknowledged too (`worker_disable_prefetch`).
    prefetch_counts_running: bool = False
    #: How many deliveries may wait in memory for their time, where the broker cannot park them; None: any number.
    waiting_limit: int | None = None
    #: See `Endings`; without `aftermath` a lost task leaves its record and nothing else.
    aftermath: Aftermath | None = None
    again: Callable[[Message, BaseException], Outcome | None] = lambda message, exc: None
    #: See `Endings`.
    cancelled: Callable[[Message], Outcome | None] = lambda message: None
    attendant: Attendant | None = None
    #: Who is told of each run, if anybody.
    watching: Watching = field(default_factory=Unwatched)
    #: Seconds that a stop waits for what runs, unless it names a deadline; None: as long as that takes.
    grace: float | None = None
    #: See `Strangers`.
    unknown_grace: float | None = None
    #: Deaths of its processes after which a message is parked; 0: never. See `Suspects`.
    max_deaths: int = 3
    #: Ids of messages that are not to be run, and stamps of them; see `Revocations`.
    revoked: Collection[str] = ()
    revoked_stamps: Mapping[str, Collection[Any]] | None = None
    #: How many messages to hold at least, whatever the pool has a use for now: it is about to grow. None: never.
    ahead: Callable[[], int] | None = None
