"""Adapter. Notices over AMQP: each mailbox is a queue that is bound to the exchange of what it hears."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celery.brokers.amqp_methods import (
    await_confirms,
    declare_exchange,
    declare_queue,
    publish,
    returned_from,
    synchronize,
)
from celery.drivers.amqp_frames import content, method, properties_of, short
from celery.ports import Notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.drivers.amqp import Endpoint, Link
    from celery.drivers.amqp_frames import Came
    from celery.routing import QueueSpec

__all__ = ["AmqpListener", "tell"]

#: Seconds after which either side may take the other for dead.
_HEARTBEAT = 6.0


def tell(link: Link, notices: Sequence[Notice]) -> int | None:
    """Tell all of them. 0 if they are for everybody and reach nobody, as the server says of messages that it has put on
    no queue (only of commands: that costs a round trip); else None."""
    if link.published is not None:
        link.send(b"".join(_frames_of(link, notice) for notice in notices))
        await_confirms(link, len(notices))
        return None
    link.send(b"".join(_frames_of(link, notice, mandatory=_is_for_all(notice)) for notice in notices))
    if not any(map(_is_for_all, notices)):
        return None if notices else 0
    synchronize(link)
    back = [came for came in link.inbox if came.kind == (60, 50) and _is_one_of(notices, came)]
    for came in back:
        link.inbox.remove(came)
    return 0 if len(back) == len(notices) else None


def _is_for_all(notice: Notice) -> bool:
    return notice.exchange_type == "fanout"


def _is_one_of(notices: Sequence[Notice], came: Came) -> bool:
    return returned_from(came.arguments)[0] in {notice.exchange for notice in notices}


def _frames_of(link: Link, notice: Notice, *, mandatory: bool = False) -> bytes:
    """Declares the exchange, once; the frames that tell the notice."""
    if notice.exchange:
        declare_exchange(link, notice.exchange, notice.exchange_type, durable=notice.durable)
    properties = {
        "delivery_mode": 1,
        **notice.properties,
        "content_type": notice.content_type,
        "content_encoding": notice.content_encoding,
        "headers": dict(notice.headers),
    }
    told = publish(notice.exchange, notice.routing_key, mandatory=mandatory)
    return told + content(properties, notice.body, link.frame_max)


class AmqpListener:
    """See `ports.Listener`."""

    def __init__(self, endpoint: Endpoint, mailboxes: Sequence[QueueSpec]) -> None:
        self._endpoint = endpoint
        self._mailboxes = list(mailboxes)
        self._link: Link | None = self._open()

    def _open(self) -> Link:
        link = self._endpoint.connect(heartbeat=_HEARTBEAT)
        try:
            for place, mailbox in enumerate(self._mailboxes):
                declare_queue(link, mailbox)
                consume = b"\0\0" + short(mailbox.name) + short(f"m{place}") + b"\x02\0\0\0\0"  # nothing to settle
                link.call(method(60, 20, consume), {(60, 21)})
        except BaseException:
            link.close()
            raise
        return link

    def hear(self, timeout: float, until_readable: Sequence[int] = ()) -> list[Notice]:
        """See `Listener.hear`."""
        link = self._link
        if link is None or link.closed:
            link = self._link = self._open()
        deadline = time.monotonic() + timeout
        while True:
            heard = [_notice(came) for came in link.inbox if came.kind == (60, 60)]
            link.inbox.clear()
            remaining = deadline - time.monotonic()
            if heard or remaining < 0:
                return heard
            if link.heartbeat:
                link.beat()
            if link.wait(min(remaining, link.heartbeat / 2 or remaining), until_readable):
                deadline = 0.0

    def close(self) -> None:
        """See `Listener.close`: mailboxes that are to be deleted with their last listener are."""
        if self._link is not None:
            self._link.close()
            self._link = None


def _notice(came: Came) -> Notice:
    data = came.arguments
    start = 1 + data[0] + 9
    middle = start + 1 + data[start]
    exchange = data[start + 1 : middle].decode("utf-8", "replace")
    routing_key = data[middle + 1 : middle + 1 + data[middle]].decode("utf-8", "replace")
    properties = properties_of(came.properties)
    headers = properties.pop("headers", None) or {}
    content_type = properties.pop("content_type", None) or "application/data"
    encoding = properties.pop("content_encoding", None) or "binary"
    return Notice(exchange, "", routing_key, came.body, content_type, encoding, headers, properties)
