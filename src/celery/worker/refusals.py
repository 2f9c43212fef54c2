"""Application. What a worker says of messages that it cannot run (`[worker.24]` to `[worker.27]`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celery.failures import bounded
from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from celery.message import Message
    from celery.ports import Delivery
    from celery.worker.admission import Refuse

__all__ = ["describe"]

_KEPT = "It was not run. It is kept as a dead letter where the broker has a place for one: see `celery dlq list`."
#: Characters of what came that are shown: a name or a reason, headers.
_NAME, _HEADERS = 1_000, 4_000

_UNKNOWN = """\
Received unregistered task of type {reason!r}.
{kept}

Is the module that defines the task imported by this worker (include=, imports, -I, autodiscover_tasks)?
Do the worker and the sender know it by the same name? Names follow from how a module is imported.
{details}"""

_INVALID = """\
Received invalid task message: {reason}
{kept}

Content types that this worker may read are named by the setting accept_content.
{details}"""

_UNDECODABLE = """\
Can't decode message body: {reason}
{kept}
{details}"""

_NO_TASK = """\
Received unknown message.  Wrong destination?!?
{kept}
{reason}
{details}"""

_TEXTS = {
    "unknown": (logging.ERROR, _UNKNOWN),
    "content": (logging.ERROR, _INVALID),
    "invalid": (logging.ERROR, _INVALID),
    "undecodable": (logging.CRITICAL, _UNDECODABLE),
    "message": (logging.WARNING, _NO_TASK),
}


def describe(delivery: Delivery, refusal: Refuse) -> tuple[int, str]:
    """The severity and the text of the log line, with body, headers and where it came from."""
    severity, text = _TEXTS[refusal.kind]
    return severity, text.format(reason=bounded(refusal.reason, _NAME), kept=_KEPT, details=_details(delivery))


def _details(delivery: Delivery) -> str:
    message = delivery.message
    body = delivery.raw or b"" if message is None else _body(message)
    lines = ["", "Body:", _cut(body)]
    if message is not None:
        lines += ["", "Headers:", bounded(saferepr(message.headers, _HEADERS), _HEADERS)]
        info = {"exchange": message.exchange, "routing_key": message.routing_key, "queue": delivery.queue}
        lines += ["", f"type: {message.content_type!r} encoding: {message.content_encoding!r}"]
    else:
        info = {"queue": delivery.queue}
    return "\n".join([*lines, "", "Came from:", repr(info)])


def _body(message: Message) -> bytes:
    try:
        return message.body
    except ValueError:
        return b"(not base64)"


def _cut(body: bytes, limit: int = 1024) -> str:
    shown = repr(bytes(body[:limit]))
    return f"{shown}{'...' if len(body) > limit else ''} ({len(body)}b)"
