"""Adapter. Notices over AMQP: each mailbox is a queue that is bound to the exchange of what it hears."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from celery.brokers.amqp_methods import (
    ASK,
    ASKED,
    CONFIRMED_WITHIN,
    CONFIRMING,
    RETURNED,
    Confirms,
    declare_exchange,
    declare_queue,
    publish,
    returned_from,
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
#: Seconds after which it is looked whether a server that does not answer has stopped taking messages.
_LOOK = 0.25


#: Exchanges of these kinds bring back what they have put on no queue.
_SAYS = frozenset({"fanout", "topic"})


def tell(link: Link, notices: Sequence[Notice]) -> int | None:
    """See `Broadcasting.tell`. 0: all came back, nobody listens; None: somebody does, or it is not known."""
    asks = not link.blocked and all(notice.exchange_type in _SAYS for notice in notices)
    frames = b"".join(_frames_of(link, notice, comes_back=asks) for notice in notices)
    if link.published is None:
        link.send(frames + ASK if asks else frames)
        back = _came_back(link, notices) if asks else 0
    else:
        link.send(frames)
        back = _confirmed(link, len(notices))
    return 0 if asks and back == len(notices) else None


def _confirmed(link: Link, n: int) -> int:
    """Wait until the last n notices are confirmed; how many of them came back. Raises `OperationalError`."""
    confirms, back = Confirms(link, n), 0
    while confirms.missing:
        came = link.answer(CONFIRMING, CONFIRMED_WITHIN)
        if came.kind == RETURNED:
            back += 1
        else:
            confirms.take(came)
    if confirms.refused:
        raise OperationalError(confirms.complaint)
    return back


def _came_back(link: Link, notices: Sequence[Notice]) -> int:
    """The server has been asked something: what it sends back, it sends before it answers. Tasks that came back stay
    in the inbox. Raises `OperationalError`."""
    deadline = time.monotonic() + link.patience
    while link.heard({ASKED}, _LOOK) is None:
        if link.blocked:  # it will read all this some time, and answer when nobody asks any more
            link.hang_up()
            return 0
        if time.monotonic() > deadline:
            link.hang_up()
            raise OperationalError(f"{link.shown} did not answer for {link.patience:g} s")
    addresses = {(notice.exchange, notice.routing_key) for notice in notices}
    back = [came for came in link.inbox if came.kind == RETURNED and returned_from(came.arguments) in addresses]
    for came in back:
        link.inbox.remove(came)
    return len(back)


def _frames_of(link: Link, notice: Notice, *, comes_back: bool) -> bytes:
    """Declares the exchange, once; the frames that tell the notice. `comes_back`: if nobody listens."""
    if notice.exchange:
        declare_exchange(link, notice.exchange, notice.exchange_type, durable=notice.durable)
    properties = {
        "delivery_mode": 1,
        **notice.properties,
        "content_type": notice.content_type,
        "content_encoding": notice.content_encoding,
        "headers": dict(notice.headers),
    }
    method = publish(notice.exchange, notice.routing_key, mandatory=comes_back)
    return method + content(properties, notice.body, link.frame_max)


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
