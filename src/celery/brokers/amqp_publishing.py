"""Adapter. Publishing over AMQP: what a message becomes, and servers that take nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from celery.brokers.amqp_methods import message_properties, publish
from celery.drivers.amqp_frames import content, framed, packed

if TYPE_CHECKING:
    from celery.brokers.amqp_routing import Destinations
    from celery.drivers.amqp import Link
    from celery.message import Form
    from celery.ports import Publication
    from celery.routing import Route

__all__ = ["PATIENCE", "NotTaking", "await_taking", "frames_of_message"]

#: Seconds that a server may take over what publishing asks of it.
PATIENCE = 8.0
#: Seconds that one waits for a server to take messages again.
_BLOCKED = 5.0


class NotTaking(OperationalError):  # type: ignore[misc]  # kombu ships no types
    """The server takes no messages now; nothing was sent."""


def await_taking(link: Link) -> None:
    """Wait until the server takes messages again, if it has said that it takes none. Raises `NotTaking`."""
    deadline = time.monotonic() + _BLOCKED
    while link.blocked:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise NotTaking(
                f"{link.shown} takes no messages now: {link.blocked} (waited {_BLOCKED:g} s). It is short of memory or "
                "of room on its disk: see its log, and let workers empty its queues"
            )
        link.wait(remaining)


def frames_of_message(link: Link, publication: Publication, destinations: Destinations) -> bytes:
    """The method and the message."""
    message, route = publication.message, publication.route
    if message.filled is not None:
        form, argsrepr, reply_to = message.filled
        kept = form.kept
        if type(kept) is not _Form or kept.route is not route:
            kept = form.kept = _Form(form, route)
        properties = kept.fill(message.id, argsrepr, reply_to)
        if properties is not None:
            return kept.head + framed(properties, message.body, link.frame_max)
    exchange, routing_key = destinations.address(link, publication)
    head = publish(exchange, routing_key, mandatory=bool(exchange))
    return head + content(message_properties(message), message.body, link.frame_max)


class _Form:
    """Properties and headers of messages of one kind, which differ in id, argsrepr and reply address.

    Made from the whole message that the form was made from, so that there is no second way to write one.
    """

    def __init__(self, form: Form, route: Route) -> None:
        self.route = route
        self.head = publish(route.exchange, route.routing_key, mandatory=bool(route.exchange))
        task_id, argsrepr, reply_to = form.marks
        properties = message_properties(form.kin)
        text = packed(properties)
        table = packed({"headers": properties["headers"]})[2:]
        self._size = len(table) - 4 - len(argsrepr)
        #: What has these lengths fits in; nothing else is ever given an id or an address.
        self._lengths = len(task_id), len(reply_to)
        before, found, after = text.partition(table)
        assert found
        holes = b"%(n)b" + table[4:].replace(b"%", b"%%").replace(_long_text(argsrepr), b"S%(a)b")
        text = before.replace(b"%", b"%%") + holes + after.replace(b"%", b"%%")
        self._text = text.replace(task_id.encode(), b"%(i)b").replace(reply_to.encode(), b"%(r)b")

    def fill(self, task_id: str, argsrepr: str, reply_to: str) -> bytes | None:
        """As they travel; None: an id or an address of another length."""
        identity, address, text = task_id.encode(), reply_to.encode(), argsrepr.encode("utf-8", "surrogatepass")
        if (len(identity), len(address)) != self._lengths:
            return None
        size = len(text)
        return self._text % {
            b"n": (self._size + size).to_bytes(4, "big"),
            b"a": size.to_bytes(4, "big") + text,
            b"i": identity,
            b"r": address,
        }


def _long_text(text: str) -> bytes:
    data = text.encode()
    return b"S" + len(data).to_bytes(4, "big") + data
