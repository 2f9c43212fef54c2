"""Application. Commands that change something (`celery control`).

What belongs to the engine's thread is handed to it, and its answer is awaited for less time than a caller waits: a
worker that is too busy to come round says so.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import platforms
from celery.exceptions import WorkerShutdown
from celery.ports import Killable
from celery.utils.functional import maybe_list
from celery.utils.time import rate
from celery.worker import state as worker_state
from celery.worker.consumer.commands import Late
from celery.worker.consumer.revocations import bears, stamp_values
from celery.worker.looking import worker_of
from celery.worker.recalling import mark_revoked

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.message import Message

__all__ = [
    "add_consumer", "autoscale", "cancel_consumer", "disable_events", "election", "enable_events", "heartbeat",
    "pool_grow", "pool_restart", "pool_shrink", "rate_limit", "revoke", "revoke_by_stamped_headers", "shutdown",
    "terminate", "time_limit",
]  # fmt: skip

logger = logging.getLogger("celery.worker.control")

#: Seconds that the engine has for an order: callers wait for one second.
_PATIENCE = 0.7
_CANNOT = (
    "terminate: a pool of the kind {} cannot end what runs (-P prefork can); the tasks are flagged as revoked, so they "
    "are not run again"
)


def _ok(text: str) -> dict[str, str]:
    return {"ok": text}


def _nok(text: str) -> dict[str, str]:
    return {"error": text}


def _have(state: Any, call: Callable[[], Any]) -> Any:
    """Let the engine make this call. Raises `Late` and whatever the call raises."""
    return worker_of(state).consumer.commands.ask(call, _PATIENCE)


# -- revoking --------------------------------------------------------------------------------------------------------


def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **kwargs: Any) -> dict[str, str]:
    """Have tasks not run, by their ids; with `terminate`, end their runs too."""
    ids = set(maybe_list(task_id) or ())
    if wrong := [each for each in ids if not isinstance(each, str)]:
        return _nok(f"expected ids of tasks, got {wrong!r}")
    signum = _signum(signal or "TERM") if terminate else 0
    worker = worker_of(state)
    worker_state.merge_revoked(ids)
    worker.remember_soon()
    mark_revoked(worker, ids)
    if terminate:
        return _terminate(state, lambda message: message.id in ids, signum)
    worker.consumer.commands.post(partial(worker.consumer.orders.revoke, lambda message: message.id in ids))
    logger.info("Revoked, so not to be run: %s", ", ".join(sorted(ids)))
    return _ok(f"tasks {ids} flagged as revoked")


def terminate(state: Any, signal: Any, task_id: Any, **kwargs: Any) -> dict[str, str]:
    """End the runs of tasks by a signal, and have them not run again."""
    return revoke(state, task_id, terminate=True, signal=signal)


def _terminate(state: Any, concerned: Callable[[Message], bool], signum: int) -> dict[str, str]:
    worker = worker_of(state)
    orders = worker.consumer.orders
    if not isinstance(worker.pool, Killable):
        worker.consumer.commands.post(partial(orders.revoke, concerned))
        if any(concerned(one.message) for one in worker.consumer.reserved()):
            return _nok(_CANNOT.format(type(worker.pool).__name__))
        return _ok("terminate: tasks unknown")
    try:
        found: list[Message] = _have(state, partial(orders.terminate, concerned, signum))
    except Late as exc:
        return _nok(f"terminate: flagged as revoked, but {exc}")
    except NotImplementedError:
        return _nok(_CANNOT.format(type(worker.pool).__name__))
    if not found:
        return _ok("terminate: tasks unknown")
    return _ok(f"terminate: {', '.join(sorted(message.id for message in found))}")


def revoke_by_stamped_headers(
    state: Any, headers: Any, terminate: bool = False, signal: Any = None, **kwargs: Any
) -> dict[str, str]:
    """Have tasks not run, by their stamps; with `terminate`, end their runs too."""
    stamps = _stamps(headers)
    signum = _signum(signal or "TERM") if terminate else 0
    wanted = {header: stamp_values(values) for header, values in stamps.items()}
    for header, values in wanted.items():
        worker_state.revoke_stamps(header, values)
    worker = worker_of(state)
    concerned = partial(bears, stamps=wanted)
    if not terminate:
        worker.consumer.commands.post(partial(worker.consumer.orders.revoke, concerned))
        return _ok(f"headers {stamps} flagged as revoked, but not terminated")
    reply = _terminate(state, concerned, signum)
    if reply == _ok("terminate: tasks unknown"):
        return _ok(f"headers {stamps} were not terminated")
    return _ok(f"headers {stamps} revoked") if "ok" in reply else reply


def _stamps(headers: Any) -> dict[str, Any]:
    """Of a dict, or of `name=value` words as the command line gives them."""
    if isinstance(headers, dict):
        return headers
    words = maybe_list(headers) or ()
    if any("=" not in str(word) for word in words):
        raise ValueError(f"expected stamps as a mapping or as words such as name=value, got {headers!r}")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _signum(signal: Any) -> int:
    """Raises `ValueError` for what is no signal of this system."""
    try:
        if isinstance(signal, str) and signal.isdigit():
            signal = int(signal)
        return int(platforms.signals.signum(signal))
    except (AttributeError, TypeError) as exc:
        raise ValueError(f"expected a signal by its number or name, such as 9 or 'SIGKILL', got {signal!r}") from exc


# -- limits ----------------------------------------------------------------------------------------------------------


def rate_limit(state: Any, task_name: str, rate_limit: Any, **kwargs: Any) -> dict[str, str]:
    """Let a task begin at most so often: 10/s, 100/m, 5/h; 0 for no limit."""
    try:
        wanted = rate(rate_limit)
        if wanted < 0:
            raise ValueError(f"expected no negative rate, got {rate_limit!r}")
    except (ValueError, KeyError, TypeError) as exc:
        return _nok(f"Invalid rate limit string: {exc!r}")
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("A rate was wanted for %s, which is no task of this worker", task_name)
        return _nok("unknown task")
    task.rate_limit = rate_limit
    _limits_changed(state, task_name)
    if not wanted:
        logger.info("%s may begin as often as it comes", task_name)
        return _ok("rate limit disabled successfully")
    logger.info("%s may begin at most so often: %s", task_name, rate_limit)
    return _ok("new rate limit set successfully")


def time_limit(state: Any, task_name: Any = None, hard: Any = None, soft: Any = None, **kwargs: Any) -> dict[str, str]:
    """Let runs of a task last so many seconds, from the next run on."""
    task = state.app.tasks.get(task_name)
    if task is None:
        logger.error("A time limit was wanted for %s, which is no task of this worker", task_name)
        return _nok("unknown task")
    for name, seconds in (("soft", soft), ("hard", hard)):
        if seconds is not None and (isinstance(seconds, bool | str) or not isinstance(seconds, int | float)):
            return _nok(f"time_limit: expected {name} as a number of seconds, got {seconds!r}")
    task.soft_time_limit, task.time_limit = soft, hard
    type(task)._exec_options = type(task)._given_options = None  # what this process sends bears the new ones
    _limits_changed(state, task_name)
    logger.info("Runs of %s may last: soft %s s, hard %s s", task_name, soft, hard)
    return _ok("time limits set successfully")


def _limits_changed(state: Any, task_name: str) -> None:
    engine = worker_of(state).consumer
    engine.commands.post(partial(engine.orders.limits_changed, task_name))


# -- queues ----------------------------------------------------------------------------------------------------------


def add_consumer(
    state: Any,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> dict[str, str]:
    """Take messages from a queue too."""
    _have(state, lambda: state.consumer.add_task_queue(queue, exchange, exchange_type, routing_key, **options))
    return _ok(f"add consumer {queue}")


def cancel_consumer(state: Any, queue: str, **_: Any) -> dict[str, str]:
    """Take no more messages from a queue."""
    _have(state, lambda: state.consumer.cancel_task_queue(queue))
    return _ok(f"no longer consuming from {queue}")


# -- the pool --------------------------------------------------------------------------------------------------------


def pool_grow(state: Any, n: int = 1, **kwargs: Any) -> dict[str, str]:
    """Run so many more tasks at once."""
    return _resize(state, "grow", n)


def pool_shrink(state: Any, n: int = 1, **kwargs: Any) -> dict[str, str]:
    """Run so many fewer tasks at once."""
    return _resize(state, "shrink", n)


def _resize(state: Any, how: str, n: int) -> dict[str, str]:
    worker = worker_of(state)
    if worker.autoscaler is not None:
        return _nok(f"pool_{how} is not supported with autoscale. Adjust autoscale range instead.")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"pool_{how}: expected a positive number of processes or threads, got {n!r}")
    _have(state, partial(getattr(worker.size, how), n))
    return _ok(f"pool will {how}")


def pool_restart(
    state: Any, modules: Any = None, reload: bool = False, reloader: Any = None, **kwargs: Any
) -> dict[str, str]:
    """Make the pool anew, with these modules imported (or reloaded) before."""
    worker = worker_of(state)
    if not state.app.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    worker.reload(modules, reload, reloader=reloader)
    return _ok("reload started")


def autoscale(state: Any, max: int | None = None, min: int | None = None) -> dict[str, str]:
    """Change the range within which the pool grows and shrinks by itself."""
    autoscaler = worker_of(state).autoscaler
    if autoscaler is None:
        raise ValueError("Autoscale not enabled")
    most, least = _have(state, partial(autoscaler.update, max, min))
    return _ok(f"autoscale now max={most} min={least}")


def shutdown(state: Any, msg: str = "Got shutdown from remote", **kwargs: Any) -> None:
    """Stop the worker, once the tasks that run have ended."""
    logger.warning("%s", msg)
    raise WorkerShutdown(platforms.EX_OK)  # whoever hears commands stops the worker, and sends no reply


# -- events ----------------------------------------------------------------------------------------------------------


def enable_events(state: Any) -> dict[str, str]:
    """Tell monitors of each task."""
    groups = _dispatcher(state).groups
    if not groups or "task" in groups:  # without groups everything is told
        return _ok("task events already enabled")
    groups.add("task")
    logger.info("Events of tasks are sent from now on: it was asked for by remote control")
    return _ok("task events enabled")


def disable_events(state: Any) -> dict[str, str]:
    """Tell monitors no more of each task."""
    groups = _dispatcher(state).groups
    if groups and "task" not in groups:
        return _ok("task events already disabled")
    groups.add("worker")
    groups.discard("task")
    logger.info("Events of tasks are sent no more: it was asked for by remote control")
    return _ok("task events disabled")


def heartbeat(state: Any) -> None:
    """Tell monitors at once that the worker is there."""
    _dispatcher(state).send("worker-heartbeat", freq=5, **worker_state.SOFTWARE_INFO)


def _dispatcher(state: Any) -> Any:
    dispatcher = state.consumer.event_dispatcher
    if dispatcher is None:
        raise RuntimeError("expected a worker that sends events, got one without a dispatcher")
    return dispatcher


def election(state: Any, id: str, topic: str, action: Any = None, **kwargs: Any) -> None:
    """Let the workers elect one of them to do something."""
    gossip = state.consumer.gossip
    if gossip is None:
        raise RuntimeError("expected a worker with gossip, got one without: it takes no part in elections")
    gossip.election(id, topic, action)
