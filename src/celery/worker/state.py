"""Application. What a worker process counts and holds, and the two switches that stop it from code (`[worker.31]`).

`reserved_requests`, `active_requests`, `scheduled_requests` and `requests` are views: the engines of this process know
what they hold, and request objects are made of that for whoever looks. What code adds by `task_reserved`,
`task_accepted` and `task_scheduled` is there too, until `task_ready`.
"""

from __future__ import annotations

import os
import platform
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, MutableSet
from typing import TYPE_CHECKING, Any

import celery
from celery.exceptions import ImproperlyConfigured, WorkerShutdown, WorkerTerminate
from celery.utils.collections import LimitedSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "SOFTWARE_INFO", "RequestView", "active_requests", "all_total_count", "changing", "forget_old_revocations",
    "maybe_shutdown", "merge_revoked", "requests", "reserved_requests", "reset_state", "revoke_stamps", "revoked",
    "revoked_stamps", "scheduled_requests", "should_stop", "should_terminate", "sources", "successful_requests",
    "task_accepted", "task_ready", "task_reserved", "task_scheduled", "total_count",
]  # fmt: skip

#: What a worker tells of its software.
SOFTWARE_INFO = {"sw_ident": "py-celery", "sw_ver": celery.__version__, "sw_sys": platform.system()}


def _from_environment(name: str, default: int | float) -> Any:
    """`[limit.11]`. Raises `ImproperlyConfigured`."""
    value = os.environ.get(name)
    try:
        return default if value is None else type(default)(value)
    except ValueError as exc:
        raise ImproperlyConfigured(f"{name}: expected a number in the environment, got {value!r}") from exc


#: How many ids of revoked tasks are remembered, and for how many seconds; the same for tasks that succeeded.
REVOKES_MAX: int = _from_environment("CELERY_WORKER_REVOKES_MAX", 50000)
REVOKE_EXPIRES: float = _from_environment("CELERY_WORKER_REVOKE_EXPIRES", 10800.0)
SUCCESSFUL_MAX: int = _from_environment("CELERY_WORKER_SUCCESSFUL_MAX", 1000)
SUCCESSFUL_EXPIRES: float = _from_environment("CELERY_WORKER_SUCCESSFUL_EXPIRES", 10800.0)

#: Messages taken on by this process, by task name.
total_count: Counter[str] = Counter()
#: Ids of tasks that are not to be run.
revoked = LimitedSet(maxlen=REVOKES_MAX, expires=REVOKE_EXPIRES)
#: Stamps whose tasks are not to be run: header → values. As many headers as ids, and values of each.
revoked_stamps: dict[str, LimitedSet] = {}
#: Held while these three are changed: commands come in another thread than the worker's loop.
changing = threading.Lock()
#: Ids of tasks that have succeeded.
successful_requests = LimitedSet(maxlen=SUCCESSFUL_MAX, expires=SUCCESSFUL_EXPIRES)

#: Set to an exit code to stop the worker; None and False mean no, 0 is an exit code (`[shutdown.15]`).
should_stop: int | bool | None = None
should_terminate: int | bool | None = None

#: The workers of this process: kind ("reserved", "active", "scheduled") → requests of what is held at the moment.
sources: weakref.WeakSet[Any] = weakref.WeakSet()


class _Total(list[int]):
    """One number in a list: all messages taken on, and what `task_accepted` counted beside."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index) + sum(total_count.values())


all_total_count: list[int] = _Total([0])


class RequestView(MutableSet[Any]):
    """Requests of one kind: those of the engines, and those that were added by hand."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._added: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, value: Any) -> None:
        self._added.add(value)

    def discard(self, value: Any) -> None:
        self._added.discard(value)

    def update(self, values: Iterable[Any]) -> None:
        for value in values:
            self.add(value)

    def clear(self) -> None:
        """Forget what was added by hand; what an engine holds, it holds."""
        self._added.clear()

    def __iter__(self) -> Iterator[Any]:
        added = list(self._added)
        yield from added
        for source in list(sources):
            yield from (request for request in source.requests(self._kind) if request not in added)

    def __contains__(self, value: object) -> bool:
        return value in self._added or any(request is value for request in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(set(self))


class _ById(Mapping[str, Any]):
    """All requests, by id of their task."""

    def _now(self) -> dict[str, Any]:
        every = [*reserved_requests, *active_requests, *scheduled_requests]
        return {request.id: request for request in every}

    def __getitem__(self, key: str) -> Any:
        return self._now()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


#: Taken on and not finished; of these, those that run; those that wait for their time.
reserved_requests = RequestView("reserved")
active_requests = RequestView("active")
scheduled_requests = RequestView("scheduled")
requests: Mapping[str, Any] = _ById()


def maybe_shutdown() -> None:
    """Raise `WorkerTerminate` or `WorkerShutdown`, with the exit code, if that was asked for."""
    if should_terminate is not None and should_terminate is not False:
        raise WorkerTerminate(should_terminate)
    if should_stop is not None and should_stop is not False:
        raise WorkerShutdown(should_stop)


def task_reserved(
    request: Any,
    add_request: Callable[..., Any] | None = None,
    add_reserved_request: Callable[[Any], Any] = reserved_requests.add,
    discard_scheduled_request: Callable[[Any], Any] = scheduled_requests.discard,
) -> None:
    """A request that no engine of ours knows is taken on."""
    if add_request is not None:
        add_request(request.id, request)
    discard_scheduled_request(request)
    add_reserved_request(request)


def task_scheduled(
    request: Any,
    add_request: Callable[..., Any] | None = None,
    add_scheduled_request: Callable[[Any], Any] = scheduled_requests.add,
    all_reserved_requests: Any = reserved_requests,
    all_active_requests: Any = active_requests,
) -> None:
    """A request waits for its time."""
    if add_request is not None:
        add_request(request.id, request)
    all_reserved_requests.discard(request)
    all_active_requests.discard(request)
    add_scheduled_request(request)


def task_accepted(
    request: Any,
    _all_total_count: Any = None,
    add_request: Callable[..., Any] | None = None,
    add_active_request: Callable[[Any], Any] = active_requests.add,
    add_to_total_count: Callable[[Any], Any] | None = total_count.update,
) -> None:
    """A request runs. Those of an engine are counted when they are taken on, and not again here."""
    if add_request is not None:
        add_request(request.id, request)
    add_active_request(request)
    if add_to_total_count is not None and not getattr(request, "held", None):
        add_to_total_count({request.name: 1})


def task_ready(
    request: Any,
    successful: bool = False,
    remove_request: Callable[..., Any] | None = None,
    discard_active_request: Callable[[Any], Any] = active_requests.discard,
    discard_reserved_request: Callable[[Any], Any] = reserved_requests.discard,
    discard_scheduled_request: Callable[[Any], Any] = scheduled_requests.discard,
) -> None:
    """A request is finished."""
    if successful:
        successful_requests.add(request.id)
    if remove_request is not None:
        remove_request(request.id, None)
    discard_active_request(request)
    discard_reserved_request(request)
    discard_scheduled_request(request)


def merge_revoked(task_ids: Any) -> None:
    """Have these not run any more."""
    with changing:
        revoked.update(task_ids)


def revoke_stamps(header: str, values: Iterable[Any]) -> None:
    """Have nothing run any more that bears one of these values under that header. Values can be hashed."""
    with changing:
        known = revoked_stamps.pop(header, None) or LimitedSet(maxlen=REVOKES_MAX, expires=REVOKE_EXPIRES)
        known.update(list(values))
        revoked_stamps[header] = known
        while REVOKES_MAX and len(revoked_stamps) > REVOKES_MAX:
            del revoked_stamps[next(iter(revoked_stamps))]


def forget_old_revocations() -> None:
    """Those that were revoked more than `REVOKE_EXPIRES` seconds ago."""
    with changing:
        revoked.purge()
        for header, values in list(revoked_stamps.items()):
            values.purge()
            if not values:
                del revoked_stamps[header]


def reset_state() -> None:
    """Forget everything that was counted or added; for tests."""
    for collection in (reserved_requests, active_requests, scheduled_requests, revoked, successful_requests):
        collection.clear()
    revoked_stamps.clear()
    total_count.clear()
    all_total_count[:] = [0]
