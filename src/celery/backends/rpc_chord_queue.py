"""Adapter. The queue of one chord's barrier: counted, read at its head, taken as a whole.

In it lie one message for each time that the chord was opened (its size), one for each that it grew, and one for each
end of a member, with the chord's body if that is short; the first to go in is an opening. Only one connection takes
them at a time.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.brokers.amqp_methods import CONFIRMED_WITHIN, passive_queue, returned_from
from celery.drivers.amqp_errors import closed
from celery.drivers.amqp_frames import method, properties_of, short

if TYPE_CHECKING:
    from celery.drivers.amqp import Link
    from celery.drivers.amqp_frames import Came

__all__ = ["Holding", "NotNow", "chord_queue", "confirmed", "count_of", "head_size", "take_all"]

#: Channel on which it is asked whether there is such a queue.
_ASKING = 4
_CLOSE_OK = frozenset({(20, 41)})
_ALL_BACK = b"\0\0\0\0\0\0\0\0\x03"  # multiple, requeue
_CODE_MISSING = (404).to_bytes(2, "big")
#: Somebody else is the only consumer, or the queue is his.
_CODES_TAKEN = frozenset({(403).to_bytes(2, "big"), (405).to_bytes(2, "big")})


class NotNow(Exception):
    """Somebody else is taking the messages."""


def chord_queue(id: str) -> str:
    """The name of a barrier's queue."""
    return f"celery.chord.{id if len(id) <= 60 else sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def confirmed(link: Link, n: int) -> set[str]:
    """Wait until the last n messages are confirmed; returns the names of queues that some were for and that are not
    there. Raises `OperationalError` if one is not accepted."""
    assert link.published is not None
    lowest = link.published + 1  # of those that may be missing
    missing = set(range(lowest, lowest + n))
    link.published += n
    returned: set[str] = set()
    while missing:
        came = link.answer({(60, 80), (60, 120), (60, 50)}, CONFIRMED_WITHIN)
        if came.kind == (60, 50):
            returned.add(returned_from(came.arguments)[1])
            continue
        tag = int.from_bytes(came.arguments[:8], "big")
        multiple = came.arguments[8] & 1
        told = missing.intersection(range(lowest, tag + 1) if multiple else (tag,))
        if came.kind == (60, 120) and told:
            raise OperationalError(f"{link.shown} has not accepted what a chord's members came to")
        missing -= told
        lowest = max(lowest, tag + 1) if multiple else lowest
    return returned


def _on(channel: int, class_id: int, method_id: int, arguments: bytes) -> bytes:
    return method(class_id, method_id, arguments, channel)


def count_of(link: Link, id: str) -> int | None:
    """Messages that lie in the queue, those in somebody's hands not among them; None: there is no such queue."""
    if "asking" not in link.declared:
        link.call(_on(_ASKING, 20, 10, b"\0"), {(20, 11)})
        link.declared["asking"] = None
    came = link.call(passive_queue(chord_queue(id), channel=_ASKING), {(50, 11), (20, 40)})
    if came.kind == (50, 11):
        return int.from_bytes(came.arguments[-8:-4], "big")
    del link.declared["asking"]  # the server has closed the channel
    if came.arguments[:2] != _CODE_MISSING:
        raise closed(came.arguments, link.shown)
    return None


def head_size(link: Link, id: str, channel: int) -> int | None:
    """The size that the message at the head of the queue tells; None: it is another one, or there is none.

    Raises `NotNow`.
    """
    link.call(_on(channel, 20, 10, b"\0"), {(20, 11)})
    came = link.call(_on(channel, 60, 70, b"\0\0" + short(chord_queue(id)) + b"\0"), {(60, 71), (60, 72), (20, 40)})
    if came.kind == (20, 40):
        _check(came, link)
        return None
    size = None
    if came.kind == (60, 71):
        properties = properties_of(came.properties)
        if properties.get("type") == "open":
            size = int(properties["headers"]["size"])
        link.send(_on(channel, 60, 120, _ALL_BACK))
    _close(link, channel)
    return size


def _check(came: Came, link: Link) -> None:
    """The server has closed a channel. Raises `NotNow` where somebody else takes; nothing if the queue is gone."""
    code = came.arguments[:2]
    if code in _CODES_TAKEN:
        raise NotNow
    if code != _CODE_MISSING:
        raise closed(came.arguments, link.shown)


def _close(link: Link, channel: int) -> None:
    link.call(_on(channel, 20, 40, b"\0\xc8\0\0\0\0\0"), _CLOSE_OK)
    _taken_from(link, channel)


def _taken_from(link: Link, channel: int) -> list[Came]:
    """Take what has come on a channel out of the inbox."""
    found: list[Came] = []
    others: list[Came] = []
    for came in link.inbox:
        (found if came.channel == channel else others).append(came)
    if found:
        link.inbox.clear()
        link.inbox.extend(others)
    return found


class Holding:
    """All the messages of a barrier, in our hands until `release`, or until the connection goes."""

    def __init__(self, link: Link, channel: int, came: list[Came]) -> None:
        self.link = link
        self.channel = channel
        self.count = len(came)
        #: Members awaited; None: no opening was among the messages.
        self.size: int | None = None
        #: The chord's body, packed; None: it was not among them.
        self.body: bytes | None = None
        more = 0
        members: dict[str, tuple[float, bytes]] = {}
        for one in came:
            properties = properties_of(one.properties)
            kind, headers = properties.get("type"), properties.get("headers") or {}
            if kind == "open":
                self.size = int(headers["size"])
            elif kind == "grow":
                more += int(headers["more"])
            elif kind == "body":
                self.body = one.body
            elif kind == "member":
                more += self._member(members, headers, one.body)
        if self.size is not None:
            self.size += more
        #: What the members came to, in the order of their places.
        self.parts = [part for _, part in sorted(members.values(), key=lambda member: member[0])]

    def _member(self, members: dict[str, tuple[float, bytes]], headers: dict[str, Any], data: bytes) -> int:
        """One that counts once; returns how many it has added."""
        length = int(headers["part"])
        if len(data) > length:
            self.body = data[length:]
        if headers["member"] in members:
            return 0
        index = headers["index"]
        members[headers["member"]] = (1e15 + len(members) if index is None else float(index), data[:length])
        return int(headers["more"])

    @property
    def missing(self) -> int:
        """Members that have not arrived; 1 where it is not known how many there are."""
        return 1 if self.size is None else max(self.size - len(self.parts), 0)

    def release(self) -> None:
        """Give all back, to their old places; on return the server has them."""
        self.link.call(_on(self.channel, 60, 30, short("all") + b"\0"), {(60, 31)})
        self.link.send(_on(self.channel, 60, 120, _ALL_BACK))
        _close(self.link, self.channel)

    def drop(self) -> None:
        """The queue is gone, and all with it."""
        _close(self.link, self.channel)


def take_all(link: Link, id: str, channel: int) -> Holding | None:
    """Everything that lies in the queue, taken as its only consumer; None: there is no such queue. Raises `NotNow`."""
    queue = chord_queue(id)
    link.call(_on(channel, 20, 10, b"\0"), {(20, 11)})
    consume = b"\0\0" + short(queue) + short("all") + b"\x04\0\0\0\0"  # exclusive
    came = link.call(_on(channel, 60, 20, consume), {(60, 21), (20, 40)})
    if came.kind == (20, 40):
        _check(came, link)
        return None
    taken: list[Came] = []
    left = 1
    while left:
        came = link.call(passive_queue(queue, channel), {(50, 11), (20, 40)})
        taken += [one for one in _taken_from(link, channel) if one.kind == (60, 60)]
        if came.kind == (20, 40):
            _check(came, link)
            return None
        left = int.from_bytes(came.arguments[-8:-4], "big")
    link.call(_on(channel, 60, 10, b"\0\0\0\0\0\0\0"), {(60, 11)})  # what the channel has got comes before
    taken += [one for one in _taken_from(link, channel) if one.kind == (60, 60)]
    return Holding(link, channel, taken)
