"""Application. What is known of a worker and of a task, from their events ([event.17], [event.18])."""

from __future__ import annotations

from bisect import insort
from decimal import Decimal
from time import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from celery import states
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery.events.state import State

__all__ = [
    "HEARTBEAT_DRIFT_MAX",
    "HEARTBEAT_EXPIRE_WINDOW",
    "TASK_EVENT_TO_STATE",
    "Task",
    "Worker",
    "heartbeat_expires",
]

logger = get_logger("celery.events.state")

#: Where these classes are known: in pickles, and to those who import them.
_HOME = "celery.events.state"

#: Percent of a worker's own interval after which a heartbeat is too old.
HEARTBEAT_EXPIRE_WINDOW = 200
#: Seconds by which a worker's clock may differ from ours before we say so.
HEARTBEAT_DRIFT_MAX = 16

#: What a task event says of the task's state. Any other event puts its own name there, in capitals.
TASK_EVENT_TO_STATE: dict[str, str] = {
    "sent": states.PENDING,
    "received": states.RECEIVED,
    "started": states.STARTED,
    "failed": states.FAILURE,
    "retried": states.RETRY,
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "rejected": states.REJECTED,
}

_state_of = TASK_EVENT_TO_STATE.get
_rank = states.precedence


def heartbeat_expires(timestamp: float, freq: float = 60, expire_window: float = HEARTBEAT_EXPIRE_WINDOW) -> float:
    """When a worker that was last heard of at `timestamp` (seconds since the epoch) counts as gone.

    `freq`: seconds between its heartbeats. `expire_window`: percent of them that may pass.
    """
    # Some readers of JSON make decimals of numbers.
    freq = float(freq) if isinstance(freq, Decimal) else freq
    timestamp = float(timestamp) if isinstance(timestamp, Decimal) else timestamp
    return timestamp + freq * (expire_window / 1e2)


class Worker:
    """What is known of a worker. Workers are equal if their names are."""

    __module__ = _HOME

    heartbeat_max = 4
    expire_window = HEARTBEAT_EXPIRE_WINDOW

    _fields = ("hostname", "pid", "freq", "heartbeats", "clock", "active", "processed", "loadavg", "sw_ident",
               "sw_ver", "sw_sys")  # fmt: skip
    _drifted = False

    def __init__(
        self,
        hostname: str | None = None,
        pid: int | None = None,
        freq: float = 60,
        heartbeats: list[float] | None = None,
        clock: int = 0,
        active: int | None = None,
        processed: int | None = None,
        loadavg: tuple[float, float, float] | None = None,
        sw_ident: str | None = None,
        sw_ver: str | None = None,
        sw_sys: str | None = None,
    ) -> None:
        self.hostname = hostname
        self.pid = pid
        self.freq = freq
        #: When it was heard of (seconds since the epoch), the last few times, oldest first.
        self.heartbeats: list[float] = [] if heartbeats is None else heartbeats
        self.clock = clock or 0
        self.active = active
        self.processed = processed
        self.loadavg = loadavg
        self.sw_ident = sw_ident
        self.sw_ver = sw_ver
        self.sw_sys = sw_sys

    def event(
        self,
        type_: str | None,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in an event. `type_`: what follows "worker-". `fields` become attributes."""
        if fields:
            self.update(fields)
        if type_ == "offline":
            self.heartbeats.clear()
        elif timestamp and local_received:
            self._beat(timestamp, local_received)

    def _beat(self, timestamp: float, local_received: float) -> None:
        drift = abs(int(local_received) - int(timestamp))
        if drift > HEARTBEAT_DRIFT_MAX and not self._drifted:
            self._drifted = True
            logger.warning(
                "The clock of %s differs from ours by %s seconds: its times cannot be relied on, nor whether it seems "
                "to be alive. Synchronize the clocks.",
                self.hostname,
                drift,
            )
        beats = self.heartbeats
        if len(beats) >= self.heartbeat_max:
            del beats[0]
        if not beats or local_received > beats[-1]:
            beats.append(local_received)
        else:
            insort(beats, local_received)

    def update(self, f: Mapping[str, Any], **kw: Any) -> None:
        """Set attributes."""
        self.__dict__.update(f, **kw)

    @property
    def status_string(self) -> str:
        """`ONLINE` or `OFFLINE`."""
        return "ONLINE" if self.alive else "OFFLINE"

    @property
    def heartbeat_expires(self) -> float:
        """When it counts as gone, unless it is heard of before. Seconds since the epoch."""
        return heartbeat_expires(self.heartbeats[-1], self.freq, self.expire_window)

    @property
    def alive(self) -> bool:
        """Whether it was heard of lately: within twice the time between its heartbeats."""
        return bool(self.heartbeats and time() < self.heartbeat_expires)

    @property
    def id(self) -> str:
        """Name and process id."""
        return f"{self.hostname}.{self.pid}"

    def __eq__(self, other: object) -> bool:
        return self.hostname == other.hostname if isinstance(other, Worker) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hostname)

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.status_string} clock:{self.clock})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in self._fields)


class Task:
    """What is known of a task. Each event's fields become attributes. Tasks are equal if their ids are."""

    __module__ = _HOME

    name: str | None = None
    received: float | None = None
    sent: float | None = None
    started: float | None = None
    succeeded: float | None = None
    failed: float | None = None
    retried: float | None = None
    revoked: float | None = None
    rejected: float | None = None
    args: str | None = None
    kwargs: str | None = None
    eta: str | None = None
    expires: str | None = None
    retries: int | None = None
    worker: Worker | None = None
    result: Any = None
    exception: str | None = None
    timestamp: float | None = None
    runtime: float | None = None
    traceback: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    client: str | None = None
    state: str = states.PENDING
    clock: int = 0

    _fields = (
        "uuid", "name", "state", "received", "sent", "started", "rejected", "succeeded", "failed", "retried",
        "revoked", "args", "kwargs", "eta", "expires", "retries", "worker", "result", "exception", "timestamp",
        "runtime", "traceback", "exchange", "routing_key", "clock", "client", "root", "root_id", "parent",
        "parent_id", "children",
    )  # fmt: skip
    _info_fields = ("args", "kwargs", "retries", "result", "eta", "runtime", "expires", "exception", "exchange",
                    "routing_key", "root_id", "parent_id")  # fmt: skip

    #: Which fields count of an event that comes after one of a later state; without a rule all do, but its state.
    merge_rules: dict[str, tuple[str, ...]] = {  # noqa: RUF012 - a public name of the class
        states.RECEIVED: ("name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires"),
    }

    _children: WeakSet[Task] | None = None

    def __init__(
        self,
        uuid: str | None = None,
        cluster_state: State | None = None,
        children: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """`children`: ids of tasks; those that `cluster_state` knows become children."""
        self.uuid = uuid
        self.cluster_state = cluster_state
        if children and cluster_state is not None:
            known = cluster_state.tasks
            self.children.update(known[child] for child in children if child in known)
        if kwargs:
            self.__dict__.update(kwargs)

    def event(
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in an event. `type_`: what follows "task-". The order in which events come does not matter much."""
        mine = self.__dict__
        state = _state_of(type_)
        if state is None:
            state = type_.upper()
        else:
            mine[type_] = timestamp
        before = self.state
        if state != before and states.RETRY not in (state, before) and _rank(state) > _rank(before):
            keep = self.merge_rules.get(state)
            if fields and keep is not None:
                fields = {name: fields[name] for name in keep if name in fields}
            mine.update(fields or ())
            return
        if fields:
            mine.update(fields)
        mine["state"] = state
        mine["timestamp"] = timestamp

    def info(self, fields: Iterable[str] | None = None, extra: Iterable[str] | None = None) -> dict[str, Any]:
        """What is worth showing: those of `fields` (by default: what the task was called with and came to) and of
        `extra` that have a value."""
        names = [*(self._info_fields if fields is None else fields), *(() if extra is None else extra)]
        return {name: value for name in names if (value := getattr(self, name, None)) is not None}

    def as_dict(self) -> dict[str, Any]:
        """All fields. Other tasks stand there by their ids."""
        fields = {name: getattr(self, name) for name in self._fields}
        return {**fields, "root": self.root_id, "parent": self.parent_id, "children": [c.uuid for c in self.children]}

    @property
    def children(self) -> WeakSet[Task]:
        """Known tasks that this one has called."""
        if self._children is None:
            self._children = WeakSet()
        return self._children

    @property
    def ready(self) -> bool:
        """Whether it has ended."""
        return self.state in states.READY_STATES

    @property
    def parent(self) -> Task | None:
        """The task that called this one, if it is known."""
        return self._relative(self.parent_id)

    @property
    def root(self) -> Task | None:
        """The task that the flow began with, if it is known."""
        return self._relative(self.root_id)

    def _relative(self, uuid: str | None) -> Task | None:
        if not uuid or self.cluster_state is None:
            return None
        found: Task | None = self.cluster_state.tasks.data.get(uuid)
        return found

    @property
    def origin(self) -> str | None:
        """Who told of it last: its worker's id, or the client's name."""
        return self.client if self.worker is None else self.worker.id

    @property
    def id(self) -> str | None:
        """The same as `uuid`."""
        return self.uuid

    def __eq__(self, other: object) -> bool:
        return self.uuid == other.uuid if isinstance(other, Task) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.uuid)

    def __repr__(self) -> str:
        return f"<Task: {self.name}({self.uuid}) {self.state} clock:{self.clock}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self.as_dict())


def _unpickled(cls: type[Task], fields: dict[str, Any]) -> Task:
    return cls(**{name: value for name, value in fields.items() if name not in ("root", "parent")})
