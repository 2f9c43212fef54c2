"""Application. What a worker says of itself when it is asked (`[worker.32]`)."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from celery.worker import state

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ["info", "rusage", "stats"]


def info(worker: WorkController) -> dict[str, Any]:
    """Messages taken on by task, process, logical clock and seconds since it was made."""
    uptime = (dt.datetime.now(dt.UTC) - worker.startup_time).total_seconds()
    clock = str(worker.app.clock)
    return {"total": dict(state.total_count), "pid": worker.pid, "clock": clock, "uptime": round(uptime)}


def stats(worker: WorkController) -> dict[str, Any]:
    """`info`, with broker, pool, prefetching and `rusage`. The broker without its password."""
    broker = worker.app.connection_for_read().info()
    broker.pop("password", None)
    broker.pop("credential_provider", None)
    if not isinstance(broker.get("transport"), str):
        broker["transport"] = worker.broker_url.partition(":")[0]
    ours = getattr(worker.pool, "info", dict)
    pool: dict[str, Any] = ours() if callable(ours) else dict(ours)
    return {
        **info(worker),
        "pool": {
            "max-concurrency": worker.concurrency,
            **pool,
            "timeouts": [worker.soft_time_limit or 0, worker.time_limit or 0],
        },
        **({} if worker.autoscaler is None else {"autoscaler": worker.autoscaler.info()}),
        "broker": broker,
        "prefetch_count": worker.max_prefetch_count or 0,
        # Not Celery's: messages taken so far from each queue that it takes from now.
        "queues": {name: worker.consumer.orders.taken[name] for name in worker.app.amqp.queues.consume_from},
        "rusage": "N/A" if resource is None else rusage(),
    }


def rusage() -> dict[str, Any]:
    """What this process has used, as `getrusage(2)` tells: seconds, KiB, counts. Raises
    `NotImplementedError` where the system does not tell."""
    if resource is None:
        raise NotImplementedError("rusage: this system does not tell what a process has used")
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {name.removeprefix("ru_"): getattr(used, name) for name in dir(used) if name.startswith("ru_")}
