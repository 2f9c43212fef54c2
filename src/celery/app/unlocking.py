"""Application. Chords on storages that count no members: a task looks whether all are ready ([task.72])."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.app.chords import failure_of
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.lifecycle import Run
from celery.message import Message
from celery.outcome import Further
from celery.ports import SystemClock
from celery.producer import new_id
from celery.result import allow_join_result, result_from_tuple
from celery.states import PROPAGATE_STATES

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ["arrive", "fail_body", "join_and_send", "look", "send", "settle", "size_of"]

logger = logging.getLogger("celery.backends.base")

#: Options of the body that the task which looks for it goes by.
_ROUTING = ("queue", "exchange", "routing_key", "priority", "headers")


def send(app: Celery, header: Any, body: Any, countdown: float, kwargs: dict[str, Any]) -> None:
    """Send the task that looks. Unless the body says where, it goes where the body will go."""
    body = maybe_signature(body, app=app)
    options = {name: body.options[name] for name in _ROUTING if body.options.get(name) is not None}
    if "queue" not in options and "exchange" not in options and "routing_key" not in options:
        known: Any = app.tasks.get(body.task)
        if known is not None and getattr(known, "queue", None):
            options["queue"] = known.queue
        else:
            routed = app.amqp.router.route(dict(options), body.task, body.args, body.kwargs)
            if routed.get("queue") is not None:
                options["queue"] = routed["queue"]
    given = {name: value for name, value in kwargs.items() if value is not None or name == "interval"}
    given["result"] = [result.as_tuple() for result in header.results]
    app.tasks["celery.chord_unlock"].apply_async((header.id, body), given, countdown=countdown, **options)


def look(
    app: Celery, task: Any, group_id: str, body: Any, interval: float | None, max_retries: int | None, result: Any
) -> None:
    """What `celery.chord_unlock` does: send the body if all are ready, else look again `interval` seconds later."""
    body = maybe_signature(body, app=app)
    header = app.GroupResult(group_id, [result_from_tuple(one, app) for one in result or ()], app=app)
    try:
        with allow_join_result():
            ready = header.ready()
    except Exception as exc:
        raise task.retry(exc=exc, countdown=interval, max_retries=max_retries) from exc
    if ready:
        join_and_send(app, header, body, task.request)
        return
    seconds = app.conf.result_chord_retry_interval if interval is None else interval
    try:
        task.retry(countdown=seconds, max_retries=max_retries)
    except task.MaxRetriesExceededError as exc:
        fail_body(app, body, ChordError(f"Chord {group_id!r} was not ready after {max_retries} looks: {exc!r}"))


def join_and_send(app: Celery, header: Any, body: Any, request: Any) -> None:
    """Send the body with what the members came to, or let it fail."""
    body = maybe_signature(body, app=app)
    try:
        with allow_join_result():
            values = header.join(timeout=app.conf.result_chord_join_timeout, propagate=True)
    except Exception as exc:
        error = _error_of(header, exc)
        logger.exception("Chord %r raised: %r", header.id, error)
        fail_body(app, body, error)
        return
    try:
        body.apply_async((values,), parent_id=request.id, root_id=request.root_id, add_to_parent=False)
    except Exception as exc:
        logger.exception("Chord %r raised: %r", header.id, exc)
        fail_body(app, body, ChordError(f"Callback error: {exc!r}"))


def _error_of(header: Any, exc: Exception) -> ChordError:
    failed = next((leaf for leaf in header._leaves() if leaf.state in PROPAGATE_STATES), None)
    error = ChordError(f"Join error: {exc!r}" if failed is None else f"Dependency {failed.id} raised {exc!r}")
    error.__cause__ = exc
    return error


def size_of(body: Any) -> int | None:
    """How many members the body waits for, where the chord says so."""
    size = body.get("chord_size") if isinstance(body, dict) else getattr(body, "chord_size", None)
    return size if size is not None else (body["options"].get("chord_size") if "options" in body else None)


def fail_body(app: Celery, body: Any, exc: BaseException) -> BaseException:
    """The body of a chord fails, and so does what waits for it; its errbacks are called ([canvas.54]).

    Returns `exc`.
    """
    body = maybe_signature(body, app=app)
    firing = failure_of(
        app, app.assembly.following, "", body, exc, {"root_id": body.root_id, "parent_id": body.parent_id}
    )
    if firing.publications:
        app.assembly.broker.publish(firing.publications)
    settle(app, Further(list(firing.records), list(firing.arrivals)))
    return exc


def arrive(app: Celery, request: Any, state: str, value: Any) -> None:
    """A member of a chord has come to `state` with `value` (or an exception); if it is the last, the body is sent."""
    message = Message({"task": request.task or "unknown", "id": request.id or new_id()}, b"")
    further = app.assembly.following.further(Run(message, None, request, (), {}, {}), state, value, None)
    if further is not None:
        settle(app, further)


def settle(app: Celery, further: Further) -> None:
    """Do what an outcome means for other tasks of its flow, for a run that no worker settles."""
    store = app.assembly.store
    if store is not None and further.records:
        store.save(further.records)
    _arrive(app, further.arrivals)


def _arrive(app: Celery, arrivals: Any) -> None:
    assembly = app.assembly
    closing, store = assembly.closing, assembly.store
    if arrivals and closing is not None and store is not None:
        from celery.worker.consumer.firings import Firings

        firings = Firings(None, assembly.broker, store, closing, SystemClock())
        firings.arrive(arrivals)
        firings.tend()
