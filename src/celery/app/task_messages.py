"""Compatibility. Messages made and sent by hand: `app.amqp.as_task_v2`, `as_task_v1` and `send_task_message`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import wire
from celery.producer import Call, Sketch

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ["as_task_v1", "as_task_v2", "by_name", "send_task_message", "task_message"]

#: What may follow args and kwargs by position, in Celery's order.
_POSITIONS = (
    "countdown", "eta", "group_id", "group_index", "expires", "retries", "chord", "callbacks", "errbacks", "reply_to",
    "time_limit", "soft_time_limit", "create_sent_event", "root_id", "parent_id", "shadow",
)  # fmt: skip
#: Fields of a `task-sent` event, as headers name them.
_SENT = ("root_id", "parent_id", "retries", "eta", "expires")


class task_message(NamedTuple):  # noqa: N801 - its public name
    """A message laid out: `headers`, `properties`, `body` not yet encoded, and the fields of its `task-sent` event."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any
    sent_event: dict[str, Any] | None


def by_name(positions: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Options that were given by position, beside those given by name."""
    if len(positions) > len(_POSITIONS):
        raise TypeError(f"expected at most {len(_POSITIONS)} options by position, got {len(positions)}")
    return {**dict(zip(_POSITIONS, positions, strict=False)), **options}


def as_task_v2(app: Celery, task_id: str, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> task_message:
    """Headers, properties and body of protocol 2 (`[wire.2]`). `now` (a datetime) stands in for the clock."""
    sketch = _sketch(app, task_id, name, args, kwargs, options)
    headers, properties = sketch.headers, sketch.properties
    headers["root_id"], headers["parent_id"] = options.get("root_id") or task_id, options.get("parent_id")
    headers["ignore_result"] = bool(options.get("ignore_result"))
    headers["origin"] = options.get("origin") or headers["origin"]
    properties = {"correlation_id": task_id, "reply_to": options.get("reply_to") or ""}
    event = {"uuid": task_id, "name": name, "args": headers["argsrepr"], "kwargs": headers["kwargsrepr"]}
    event |= {field: headers[field] for field in _SENT}
    return task_message(headers, properties, sketch.body, event if options.get("create_sent_event") else None)


def as_task_v1(app: Celery, task_id: str, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> task_message:
    """The same in protocol 1: everything is in the body."""
    made = as_task_v2(app, task_id, name, args, kwargs, options)
    event = made.sent_event
    if event is not None:
        event = {key: value for key, value in event.items() if key not in ("root_id", "parent_id")}
    inner, named, embed = made.body
    body = wire.body_v1(made.headers, inner, named, embed, bool(app.conf.enable_utc))
    return task_message({}, made.properties, body, event)


def send_task_message(app: Celery, producer: Any, name: str, message: task_message, **options: Any) -> None:
    """Publish a message on a kombu producer, with routing, signals and retries as in `apply_async`."""
    headers, properties, body, _ = message
    flow = app.assembly.producer
    inner = body if isinstance(body, tuple | list) else (body.get("args"), body.get("kwargs"), {})
    given = {**options, "producer": producer}
    route, given = app.amqp.router.route_for(name, given, inner[0], inner[1], app._tasks.get(name))
    call = Call(name, inner[0], inner[1], given, app._tasks.get(name))
    known = {"id": properties.get("correlation_id"), "task": name, "eta": None, "group": None}
    sketch = Sketch(call, route, given, (inner[0], inner[1], inner[2]), {**known, **headers}, dict(properties))
    flow.tell(sketch)
    app.assembly.kombu.publish(sketch, body, sketch.headers if headers else {})
    flow.told(sketch)


def _sketch(app: Celery, task_id: str, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Sketch:
    if args is not None and not isinstance(args, list | tuple):
        raise TypeError(f"task args must be a list or tuple, got {args!r}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"task keyword arguments must be a mapping, got {kwargs!r}")
    given = {key: value for key, value in options.items() if value is not None and key != "create_sent_event"}
    now, zone = given.pop("now", None), given.pop("timezone", None)
    if now is not None and zone is not None:
        now = now.astimezone(zone)
    for name_ in ("countdown", "expires"):
        if now is not None and isinstance(given.get(name_), int | float):
            given["eta" if name_ == "countdown" else name_] = now + dt.timedelta(seconds=given.pop(name_))
    given |= {"task_id": task_id, "link": given.pop("callbacks", None), "link_error": given.pop("errbacks", None)}
    return app.assembly.producer.lay_out(Call(name, args or (), kwargs or {}, given))
