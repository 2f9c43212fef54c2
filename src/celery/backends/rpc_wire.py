"""Adapter. Results as messages, in the form in which Celery's `rpc://` sends them (`[wire.23]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.brokers.amqp_methods import publish
from celery.drivers.amqp_frames import framed, packed, properties_of, short, table

if TYPE_CHECKING:
    from typing import Any

    from celery.drivers.amqp_frames import Came
    from celery.outcome import Record

__all__ = ["Form", "lease", "milliseconds"]


class Form:
    """The messages of one app's results: they differ only in the id, the address and the document."""

    def __init__(self, content: tuple[str, str], *, persistent: bool) -> None:
        """`content`: type and encoding of documents. `persistent`: they survive the server's restart."""
        properties: dict[str, Any] = {
            "content_type": content[0],
            "content_encoding": content[1],
            "headers": {},
            "delivery_mode": 2 if persistent else 1,
            "priority": 0,
            "correlation_id": "",
        }
        #: All but the id, which comes last.
        self._head = packed(properties)[:-1]

    def frames(self, record: Record, frame_max: int) -> bytes:
        """The frames that send a record to its address; the server drops it if there is no such queue."""
        return publish("", record.reply_to) + framed(self._head + short(record.id), record.meta, frame_max)

    def id_of(self, came: Came) -> str:
        """The id of the task that a reply is about; "" if it does not say. Most are of our own form."""
        properties, length = came.properties, len(self._head)
        if properties.startswith(self._head) and len(properties) == length + 1 + properties[length]:
            return properties[length + 1 :].decode("utf-8", "replace")
        try:
            return str(properties_of(properties).get("correlation_id") or "")
        except ValueError:
            return ""


def lease(seconds: float | None, **more: Any) -> bytes:
    """Arguments of a queue that is deleted when nobody has used it for so long; None: never. `more`: others."""
    if seconds is not None:
        more["x-expires"] = milliseconds(seconds)
    return table(more)


def milliseconds(seconds: float) -> int:
    """As the server takes them, which is for seven weeks at most."""
    return min(max(int(seconds * 1000), 1), 2**32 - 1)
