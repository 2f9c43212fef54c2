"""Adapter. How often a message's process died, on AMQP: as many marks as lie in a queue of ours for that message.

AMQP says only that a message was handed out before. Where there is such a queue (`celery.deaths.<id>`), its marks
count; where there is none, whoever had the message first is suspected to have died of it: one death, which convicts
nobody. The queue is deleted when the message is settled, or when nobody has touched it for a week.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from celery.brokers.amqp_methods import await_confirms, exists, passive_queue, publish, with_confirms
from celery.drivers.amqp_frames import framed, method, packed, short, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery.drivers.amqp import Link
    from celery.message import Message
    from celery.ports import Delivery

__all__ = ["Deaths"]

#: Messages that are remembered as given back.
_REMEMBERED = 10_000
#: Milliseconds.
_KEPT = 7 * 86400 * 1000
_MARK = packed({"delivery_mode": 2})


class Deaths:
    """What one consumer knows of deaths, and tells the server. A message that has `begun` has one mark more than it had
    deaths, until it is settled."""

    def __init__(self) -> None:
        #: How many there are, by the tag of a message whose queue is there.
        self._marks: dict[object, int] = {}
        #: Ids of first deliveries that went back in good order: nobody is suspected.
        self._returned: dict[str, int] = {}

    def __bool__(self) -> bool:
        """Whether any message that is held has marks."""
        return bool(self._marks)

    def __contains__(self, tag: object) -> bool:
        """Whether that message has marks."""
        return tag in self._marks

    def count(self, link: Link, deliveries: Iterable[Delivery]) -> None:
        """Look up deaths of what the server has handed out before."""
        for delivery in deliveries:
            message = delivery.message
            if message is None:
                continue
            came = exists(link, passive_queue(_name(message), channel=2), (50, 11))
            if came is not None:
                deaths = self._marks[delivery.tag] = int.from_bytes(came.arguments[-8:-4], "big")
            else:
                deaths = message.deaths + self._returned.pop(message.id, 1)
            message.properties["delivery_info"] = {"deaths": deaths}

    def begun(self, link: Link, deliveries: Sequence[Delivery]) -> None:
        """These are about to run: one mark more, confirmed."""
        self._set(link, [(delivery, delivery.message.deaths + 1) for delivery in deliveries if delivery.message])

    def going_back(self, link: Link, deliveries: Iterable[Delivery]) -> None:
        """These are to be given back in good order; on return the server has what they have died of."""
        wanted = []
        for delivery in deliveries:
            message = delivery.message
            if message is None:
                continue
            if delivery.died or delivery.tag in self._marks or message.deaths:
                wanted.append((delivery, message.deaths + delivery.died))
            else:
                self._returned[message.id] = 0
                if len(self._returned) > _REMEMBERED:
                    del self._returned[next(iter(self._returned))]
        self._set(link, wanted)
        self.lost([delivery for delivery, _ in wanted])

    def _set(self, link: Link, wanted: Sequence[tuple[Delivery, int]]) -> None:
        """Have as many marks as that. A queue is declared first: without marks it says that nobody died."""
        sent = 0
        for delivery, number in wanted:
            assert delivery.message is not None
            name = _name(delivery.message)
            there = self._marks.get(delivery.tag)
            if there is None:
                with_confirms(link)
                link.call(method(50, 10, b"\0\0" + short(name) + b"\x02" + table({"x-expires": _KEPT})), {(50, 11)})
            there = there or 0
            if there > number:
                link.send(method(60, 70, b"\0\0" + short(name) + b"\x01") * (there - number))
                for _ in range(there - number):
                    link.answer({(60, 71), (60, 72)})
            elif there < number:
                with_confirms(link)
                link.send((publish("", name) + framed(_MARK, b"", link.frame_max)) * (number - there))
                sent += number - there
            self._marks[delivery.tag] = number
        if sent:
            await_confirms(link, sent)

    def settled(self, link: Link, deliveries: Iterable[Delivery]) -> None:
        """These are done with: nobody asks for their deaths any more."""
        frames = [
            method(50, 40, b"\0\0" + short(_name(delivery.message)) + b"\0")
            for delivery in deliveries
            if self._marks.pop(delivery.tag, None) is not None and delivery.message is not None
        ]
        if frames:
            link.send(b"".join(frames))
            for _ in frames:
                link.answer({(50, 41)})

    def closing(self, link: Link, deliveries: Iterable[Delivery]) -> None:
        """All that is held is given back: what had begun has not died of it."""
        self.going_back(link, [delivery for delivery in deliveries if delivery.tag in self._marks])

    def lost(self, deliveries: Iterable[Delivery]) -> None:
        """These are not ours any more."""
        for delivery in deliveries:
            self._marks.pop(delivery.tag, None)


def _name(message: Message) -> str:
    id = message.id
    return f"celery.deaths.{id if len(id) <= 60 else sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()}"
