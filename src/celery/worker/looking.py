"""Application. Commands that only look (`celery inspect`). They answer while the engine is busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils.functional import maybe_list
from celery.utils.saferepr import saferepr
from celery.utils.serialization import jsonify
from celery.worker import memory
from celery.worker import state as worker_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.worker.request import Request
    from celery.worker.worker import WorkController

__all__ = [
    "active", "active_queues", "clock", "conf", "hello", "memdump", "memsample", "objgraph", "ping", "query_task",
    "registered", "report", "reserved", "revoked", "scheduled", "stats",
]  # fmt: skip

#: The priority that Celery's timer gives to every task that waits for its time.
_PRIORITY = 6
#: Attributes that `registered` shows of each task unless others are asked for.
_SHOWN = ("exchange", "routing_key", "rate_limit")


def ping(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Ask whether the worker is there, and fit to work."""
    trouble = state.consumer.controller.trouble()
    return {"ok": "pong"} if trouble is None else {"error": trouble}


def clock(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Show the logical clock."""
    return {"clock": state.app.clock.value}


def report(state: Any) -> dict[str, Any]:
    """Describe the installation, for bug reports."""
    return {"ok": state.app.bugreport()}


def conf(state: Any, with_defaults: bool = False, **kwargs: Any) -> Any:
    """Show the settings, secrets starred."""
    table = state.app.conf.table(with_defaults=with_defaults)
    return jsonify(table, keyfilter=lambda key: not str(key).startswith("__"), unknown_type_filter=saferepr)


def stats(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Show what the worker is, has done and has used."""
    told: dict[str, Any] = state.consumer.controller.stats()
    return told


def active(state: Any, safe: bool = False, **kwargs: Any) -> list[dict[str, Any]]:
    """List the tasks that run."""
    return [_info(request, safe) for request in worker_of(state).requests("active")]


def reserved(state: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """List the tasks that this worker holds and that do not run yet."""
    return [_info(request) for request in _not_begun(worker_of(state))]


def scheduled(state: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """List the tasks that this worker holds until their time. What is parked in the broker is nobody's."""
    return [
        {"eta": request.eta and request.eta.isoformat(), "priority": _PRIORITY, "request": _info(request)}
        for request in worker_of(state).requests("scheduled")
    ]


def query_task(state: Any, ids: Any, **kwargs: Any) -> dict[str, Any]:
    """Say where these tasks are, if they are here."""
    wanted = set(maybe_list(ids) or ())
    return {request.id: [where, _info(request)] for where, request in _found(worker_of(state)) if request.id in wanted}


def revoked(state: Any, **kwargs: Any) -> list[str]:
    """List the ids of revoked tasks."""
    return list(worker_state.revoked)


def registered(state: Any, taskinfoitems: Any = None, builtins: bool = False, **kwargs: Any) -> list[str]:
    """List the tasks that this worker knows."""
    shown = maybe_list(taskinfoitems) or _SHOWN
    tasks = state.app.tasks
    names = sorted(name for name in tasks if builtins or not name.startswith("celery."))
    return [_described(tasks[name], shown) for name in names]


def _described(task: Any, attributes: Any) -> str:
    found = [(name, getattr(task, name, None)) for name in attributes]
    fields = " ".join(f"{name}={value}" for name, value in found if value is not None)
    return f"{task.name} [{fields}]" if fields else str(task.name)


def active_queues(state: Any) -> list[dict[str, Any]]:
    """List the queues that messages are taken from."""
    queues = state.app.amqp.queues.consume_from.values()
    return [dict(queue.as_dict(recurse=True)) for queue in queues]


def hello(state: Any, from_node: str, revoked: Any = None, **kwargs: Any) -> dict[str, Any] | None:
    """Answer a worker that has just started: what is revoked, and what time it is."""
    if from_node == state.hostname:
        return None
    if revoked:
        worker_state.merge_revoked(revoked)
    return {"revoked": list(worker_state.revoked), "clock": state.app.clock.forward()}


def memsample(state: Any, **kwargs: Any) -> str | None:
    """Measure the resident memory of the main process; None without psutil."""
    return memory.sample()


def memdump(state: Any, samples: int = 10, **kwargs: Any) -> str:
    """Show what `memsample` has measured so far."""
    return memory.dump(samples)


def objgraph(state: Any, num: int = 200, max_depth: int = 10, type: str = "Request") -> dict[str, str]:
    """Draw what keeps objects of a type alive (needs the package objgraph)."""
    return {"filename": memory.draw(num, max_depth, type)}


def worker_of(state: Any) -> WorkController:
    """The worker that a command is for."""
    worker: WorkController = state.consumer.controller
    return worker


def _info(request: Request, safe: bool = False) -> dict[str, Any]:
    """As `Request.info`; arguments that cannot be decoded are shown as text."""
    try:
        return request.info(safe=safe)
    except Exception:  # noqa: BLE001 - whatever a decoder raises: one task must not hide all others
        return request.info(safe=True)


def _not_begun(worker: WorkController) -> list[Request]:
    running = {id(request) for request in worker.requests("active")}
    return [request for request in worker.requests("reserved") if id(request) not in running]


def _found(worker: WorkController) -> Iterator[tuple[str, Request]]:
    for request in _not_begun(worker):
        yield "reserved", request
    for request in worker.requests("scheduled"):
        yield "scheduled", request
    for request in worker.requests("active"):
        yield "active", request
