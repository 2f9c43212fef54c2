"""Every form of a task message: calls that this project and the real Celery make alike. Runs under either."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from celery import Celery

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FORMS", "Form", "send"]

FAR = dt.datetime(2099, 7, 1, 12, 30, 15, 250000)
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))


@dataclass
class Form:
    """One call: `task.apply_async(args, kwargs, **options)` on an app of its own with these settings."""

    args: Any = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    #: Options of the call; a function makes those that need the app.
    options: dict[str, Any] | Callable[[Celery], dict[str, Any]] = field(default_factory=dict)
    #: Settings of the app.
    conf: dict[str, Any] = field(default_factory=dict)
    #: Options of the task's declaration.
    task: dict[str, Any] = field(default_factory=dict)
    #: By name, without the task at hand.
    by_name: bool = False


def _everything(app: Celery) -> dict[str, Any]:
    return {
        "countdown": 10,
        "expires": 60,
        "link": app.signature("p.xsum"),
        "priority": 3,
        "headers": {"foo": "bar"},
        "time_limit": 9,
        "soft_time_limit": 5,
    }


def _links(app: Celery) -> dict[str, Any]:
    whole = app.signature("p.add", (4,), {"y": 5}, immutable=True).set(queue="other", priority=6, countdown=3)
    return {"link": [app.signature("p.xsum"), whole], "link_error": app.signature("p.failed", ("why",))}


def _topic(app: Celery) -> dict[str, Any]:
    from kombu import Exchange, Queue

    app.conf.task_queues = [
        Queue("news", Exchange("feeds", type="topic"), routing_key="feed.#"),
        Queue("direct", Exchange("named", type="direct"), routing_key="key"),
    ]
    return {"exchange": "feeds", "routing_key": "feed.sport.today", "queue": "news"}


_DEEP = {"level": [{"level": [{"level": [{"level": [1, 2, 3]}]}]}]}
_EXTRAS = (
    dt.datetime(2020, 1, 1),
    dt.datetime(2020, 1, 1, 2, 3, 4, 500, tzinfo=dt.timezone.utc),  # noqa: UP017 - runs under older Pythons too
    dt.date(2020, 2, 3),
    dt.time(4, 5, 6),
    Decimal("1.50"),
    uuid.UUID(int=1),
    b"a",
    b"\xff\x00",
)
_V1 = {"task_protocol": 1}

FORMS: dict[str, Form] = {
    "plain": Form((2, 3)),
    "by_name": Form((2, 3), by_name=True),
    "no_arguments": Form(),
    "keywords": Form((1,), {"y": 2, "é": None}),
    "unicode": Form(("Ærøskøbing – 東京 🎉", '\u0000\u001f"\\'), {}),
    "numbers": Form((2**63, -(2**70), 1.5, 1e300, -0.0, True, None)),
    "nested": Form(([1, (2, [3])], {"a": {"b": []}})),
    "long_arguments": Form(("x" * 3000, list(range(500)), _DEEP), {"deep": _DEEP}),
    "typed_values": Form(_EXTRAS),
    "countdown": Form((2, 3), options={"countdown": 10}),
    "countdown_float": Form((2, 3), options={"countdown": 0.5}),
    "countdown_zero": Form((2, 3), options={"countdown": 0}),
    "eta_aware": Form((2, 3), options={"eta": FAR.replace(tzinfo=dt.timezone.utc)}),  # noqa: UP017
    "eta_other_zone": Form((2, 3), options={"eta": FAR.replace(tzinfo=EAST)}),
    "eta_naive": Form((2, 3), options={"eta": FAR}),
    "eta_naive_in_zone": Form((2, 3), options={"eta": FAR}, conf={"timezone": "Europe/Oslo"}),
    "eta_naive_local": Form((2, 3), options={"eta": FAR}, conf={"timezone": "Europe/Oslo", "enable_utc": False}),
    "eta_text": Form((2, 3), options={"eta": FAR.isoformat()}),
    "countdown_in_zone": Form((2, 3), options={"countdown": 10}, conf={"timezone": "Europe/Oslo"}),
    "countdown_local": Form((2, 3), options={"countdown": 10}, conf={"timezone": "Asia/Kolkata", "enable_utc": False}),
    "countdown_beats_eta": Form((2, 3), options={"countdown": 10, "eta": FAR}),
    "expires_seconds": Form((2, 3), options={"expires": 60}),
    "expires_float": Form((2, 3), options={"expires": 0.25}),
    "expires_aware": Form((2, 3), options={"expires": FAR.replace(tzinfo=EAST)}),
    "expires_naive": Form((2, 3), options={"expires": FAR}),
    "expires_naive_in_zone": Form((2, 3), options={"expires": FAR}, conf={"timezone": "Europe/Oslo"}),
    "expires_text": Form((2, 3), options={"expires": FAR.isoformat() + "+00:00"}),
    "expires_past": Form((2, 3), options={"expires": -5}),
    "everything": Form((2, 3), options=_everything),
    "headers": Form((2, 3), options={"headers": {"foo": "bar", "n": 1, "list": [1, None]}}),
    "shadow": Form((2, 3), options={"shadow": "p.other"}),
    "limits": Form((2, 3), options={"time_limit": 9, "soft_time_limit": 5.5}),
    "soft_limit": Form((2, 3), options={"soft_time_limit": 5}),
    "retries": Form((2, 3), options={"retries": 3}),
    "ids": Form(
        (2, 3),
        options={"root_id": "ROOT", "parent_id": "PARENT", "group_id": "GROUP", "group_index": 4},
    ),
    "representations": Form((2, 3), options={"argsrepr": "(<secret>)", "kwargsrepr": "{'a': <secret>}"}),
    "ignore_result": Form((2, 3), options={"ignore_result": True}),
    "keep_result": Form((2, 3), options={"ignore_result": False}, task={"ignore_result": True}),
    "task_ignores_result": Form((2, 3), task={"ignore_result": True}),
    "priority": Form((2, 3), options={"priority": 7}),
    "priority_zero": Form((2, 3), options={"priority": 0}, conf={"task_default_priority": 5}),
    "priority_default": Form((2, 3), conf={"task_default_priority": 5}),
    "priority_huge": Form((2, 3), options={"priority": 255}),
    "transient": Form((2, 3), options={"delivery_mode": "transient"}),
    "transient_number": Form((2, 3), options={"delivery_mode": 1}),
    "transient_default": Form((2, 3), conf={"task_default_delivery_mode": "transient"}),
    "reply_to": Form((2, 3), options={"reply_to": "HERE", "correlation_id": "C"}),
    "unknown_option": Form((2, 3), options={"colour": "blue", "app_id": "x"}),
    "queue": Form((2, 3), options={"queue": "other"}),
    "routed": Form((2, 3), conf={"task_routes": {"p.*": {"queue": "routed", "priority": 9}}}),
    "routing_key": Form((2, 3), options={"routing_key": "elsewhere"}),
    "default_queue": Form((2, 3), conf={"task_default_queue": "standard"}),
    "topic": Form((2, 3), options=_topic),
    "task_attributes": Form(
        (2, 3), task={"priority": 4, "time_limit": 8, "expires": 60, "serializer": "pickle", "compression": "zlib"}
    ),
    "links": Form((2, 3), options=_links),
    "zlib": Form(("x" * 300, 3), options={"compression": "zlib"}),
    "gzip": Form(("x" * 300, 3), options={"compression": "gzip"}),
    "bzip2": Form(("x" * 300, 3), options={"compression": "bzip2"}),
    "lzma": Form(("x" * 300, 3), options={"compression": "lzma"}),
    "compression_default": Form(("x" * 300, 3), conf={"task_compression": "zlib"}),
    "pickle": Form((2, {3}, dt.datetime(2020, 1, 1), (4, 5)), options={"serializer": "pickle"}),
    "pickle_zlib": Form((2, {3}), options={"serializer": "pickle", "compression": "zlib"}),
    "yaml": Form((2, "é", [3]), options={"serializer": "yaml"}),
    "msgpack": Form((2, "é", [3], b"\xff"), options={"serializer": "msgpack"}),
    "serializer_default": Form((2, {3}), conf={"task_serializer": "pickle"}),
    "stamped": Form((2, 3), options={"stamped_headers": ["mon"], "mon": "x"}),
    "v1_plain": Form((2, 3), conf=_V1),
    "v1_everything": Form((2, 3), {"z": "é"}, options=_everything, conf=_V1),
    "v1_eta": Form((2, 3), options={"eta": FAR.replace(tzinfo=EAST)}, conf=_V1),
    "v1_naive": Form((2, 3), options={"eta": FAR}, conf={**_V1, "timezone": "Europe/Oslo"}),
    "v1_countdown_local": Form(
        (2, 3), options={"countdown": 10}, conf={**_V1, "timezone": "Asia/Kolkata", "enable_utc": False}
    ),
    "v1_links": Form((2, 3), options=_links, conf=_V1),
    "v1_group": Form((2, 3), options={"group_id": "GROUP", "group_index": 1, "retries": 2}, conf=_V1),
    "v1_zlib": Form(("x" * 300, 3), options={"compression": "zlib"}, conf=_V1),
    "v1_pickle": Form((2, {3}), options={"serializer": "pickle"}, conf=_V1),
}


#: Any other name: a call that has nothing in common with these.
_OTHER = Form(options={"queue": "elsewhere"})


def send(name: str, url: str) -> None:
    """Make the call of that name on an app of its own; the message has the form's name as its id."""
    form = FORMS.get(name, _OTHER)
    app = Celery("p", broker=url, set_as_current=False)
    app.conf.update(form.conf)
    task = app.task(name="p.add", **form.task)(_add)
    options = form.options(app) if callable(form.options) else form.options
    if form.by_name:
        app.send_task("p.add", form.args, form.kwargs, task_id=name, **options)
    else:
        task.apply_async(form.args, form.kwargs, task_id=name, **options)
    app.close()


def _add(*args: Any, **kwargs: Any) -> None: ...
