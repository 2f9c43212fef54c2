"""Application. What the terminal monitor asks of workers, of the broker and of the result backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.events.monitor import Fleet, arguments_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.events.state import Task

__all__ = ["Commands", "fleet_of"]

#: Seconds that replies are waited for.
_PATIENCE = 2.0


class Commands:
    """`monitor.Actions` by an app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def revoke(self, task: Task) -> str:
        """Tell all workers not to run it."""
        return _replied(self._app.control.revoke(task.uuid, reply=True, timeout=_PATIENCE))

    def terminate(self, task: Task) -> str:
        """Tell all workers not to run it, and whoever runs it to kill the process."""
        return _replied(self._app.control.revoke(task.uuid, terminate=True, reply=True, timeout=_PATIENCE))

    def rate_limit(self, task: Task, rate: str) -> str:
        """Tell all workers how often tasks of this name may run."""
        return _replied(self._app.control.rate_limit(task.name, rate, reply=True, timeout=_PATIENCE))

    def retry(self, task: Task) -> str:
        """Call it again with the same arguments. Raises `ValueError` if they are not known in full."""
        if not task.name:
            raise ValueError("the task's name is not known")
        args, kwargs = arguments_of(task)
        sent = self._app.send_task(task.name, args, kwargs, queue=getattr(task, "queue", None))
        return f"sent again as {sent.id}"

    def result(self, task: Task) -> str:
        """What the result backend keeps of it, or else what events told."""
        try:
            kept = self._app.AsyncResult(task.uuid)
            if kept.ready():
                return f"{kept.state}\n{kept.result!r}"
        except NotImplementedError:  # no result backend
            pass
        told = task.result if task.exception is None else task.exception
        return f"{task.state}\n{'(no result is kept)' if told is None else told}"

    def fleet(self) -> dict[str, Fleet]:
        """What workers say of themselves."""
        inspect = self._app.control.inspect(timeout=_PATIENCE)
        return fleet_of(inspect.stats() or {}, inspect.active_queues() or {}, inspect.ping() or {})


def _replied(replies: Any) -> str:
    """Replies of all workers in a line."""
    said = [
        f"{host}: {next(iter(reply.values()), '') if isinstance(reply, dict) else reply}"
        for answer in replies or ()
        for host, reply in answer.items()
    ]
    return "; ".join(said) or "no worker has replied"


def fleet_of(stats: Mapping[str, Any], queues: Mapping[str, Any], pings: Mapping[str, Any]) -> dict[str, Fleet]:
    """From replies of `stats`, `active_queues` and `ping`. Workers of any version may have given them."""
    return {
        host: _worker_of(_mapping(stats.get(host)), queues.get(host), _mapping(pings.get(host)))
        for host in {*stats, *pings}
    }


def _mapping(reply: Any) -> Mapping[str, Any]:
    return reply if isinstance(reply, dict) else {}


def _worker_of(said: Mapping[str, Any], queues: Any, ping: Mapping[str, Any]) -> Fleet:
    pool, usage = _mapping(said.get("pool")), _mapping(said.get("rusage"))
    kind = str(pool.get("implementation", "")).partition(":")[0].rpartition(".")[2].strip("_")
    memory = usage.get("maxrss")
    return Fleet(
        pool=f"{kind} {pool.get('max-concurrency', '')}".strip(),
        queues=", ".join(str(queue.get("name")) for queue in queues or () if isinstance(queue, dict)),
        memory=memory * 1024 if isinstance(memory, int) else None,
        trouble=str(ping.get("error") or ""),
    )
