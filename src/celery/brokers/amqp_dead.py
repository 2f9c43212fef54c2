"""Adapter. Dead letters on AMQP: a durable queue of ours for each queue that has any (`celery.dead.letters.<queue>`).

A letter is published and confirmed, and only then the message is rejected: whoever is killed in between leaves it in
both, never in none. AMQP can neither list nor count bytes, so whoever looks takes everything and gives it back in its
old order; an exclusive queue is the lock that lets one do so at a time, and goes with the connection of whoever has it.
How many bytes there are stands in a queue for one message; if that is missing or its number is wrong, they are counted.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import struct
import time
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from kombu.exceptions import OperationalError

from celery.brokers.amqp_methods import (
    await_confirms,
    envelope_of,
    exists,
    mark_deaths,
    message_of,
    packed_message,
    passive_queue,
    publish,
    ready_queue,
    with_confirms,
)
from celery.brokers.dead_letters import Overflow, cut
from celery.drivers.amqp_errors import closed
from celery.drivers.amqp_frames import Came, framed, long_tag, method, packed, short, table
from celery.ports import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from celery.drivers.amqp import Link
    from celery.ports import Clock, DeadLetterBounds, Delivery

__all__ = ["AmqpDeadLetters", "Refused"]

#: The names of all queues that ever had a letter.
_INDEX = "celery.dead.queues"
#: Seconds for which one waits until whoever looks at the same letters has done.
_PATIENCE = 30.0
#: Letters that are asked for in one round trip, at most.
_MOST = 32
_ENTRY = re.compile(r"\d{20}-[0-9a-f]{8}\Z", re.ASCII)
_DURABLE = b"\x02"
_PERSISTENT = packed({"delivery_mode": 2})


class Refused(NamedTuple):
    """What is to be buried: a delivery, and where its message is none, what came."""

    delivery: Delivery
    came: Came | None


class _Letter(NamedTuple):
    """A dead letter as it stands in its queue: JSON, a line feed, the message's AMQP properties, its body."""

    entry: str
    died_at: float
    reason: str
    traceback: str
    deaths: int
    exchange: str
    routing_key: str
    properties: bytes
    body: bytes

    @property
    def size(self) -> int:
        return sum(len(part.encode()) for part in (self.reason, self.traceback)) + len(self.properties + self.body)

    def write(self) -> bytes:
        head = json.dumps([*self[:7], len(self.properties)]).encode()
        return head + b"\n" + self.properties + self.body

    @classmethod
    def read(cls, data: bytes) -> _Letter:
        head, _, rest = data.partition(b"\n")
        *said, split = json.loads(head)
        return cls._make((*said, rest[:split], rest[split:]))

    def shown(self, queue: str) -> DeadLetter:
        came = Came(1, (60, 71), b"", self.properties, self.body)
        try:
            envelope = message_of(came, self.exchange, self.routing_key, False).to_envelope()
        except ValueError:
            envelope = envelope_of(came, self.exchange, self.routing_key)
        return DeadLetter(
            f"{queue}:{self.entry}", queue, envelope, self.reason, self.traceback, self.died_at, self.deaths
        )


class AmqpDeadLetters:
    """See `DeadLetters`; and what consumers reject is buried with it. The id of a letter is `<queue>:<entry>`."""

    def __init__(
        self, link: Callable[[], AbstractContextManager[Link]], bounds: DeadLetterBounds, clock: Clock
    ) -> None:
        """`link` lends a connection."""
        self._link = link
        self._bounds = bounds
        self._clock = clock
        self._overflow = Overflow()

    # ------------------------------------------------------------------------------------------------------ burying

    def bury(self, refused: Sequence[Refused]) -> None:
        """Keep these; on return the server has them. Raises `OperationalError`; then any of them may be kept."""
        by_queue: dict[str, list[Refused]] = {}
        for one in refused:
            by_queue.setdefault(one.delivery.queue, []).append(one)
        with self._link() as link:
            with_confirms(link)
            for queue, those in by_queue.items():
                with _locked(link, queue):
                    self._bury(link, queue, those)

    def _bury(self, link: Link, queue: str, refused: Sequence[Refused]) -> None:
        name, total = _name("letters", queue), _name("total", queue)
        self._declare(link, queue)
        known = link.call(_get(total, keep=False), {(60, 71), (60, 72)})
        letters = self._letters(refused)
        for letter in letters:
            _publish(link, name, letter.write())
        await_confirms(link, len(letters))
        count = _count(link, name)
        number, size = json.loads(known.body) if known.kind == (60, 71) else (-1, 0)
        if number + len(letters) == count:
            size += sum(letter.size for letter in letters)
        else:  # letters were taken out, or somebody died here
            size = sum(letter.size for _, letter in _browse(link, name))
            _give_back(link)
        left = self._trim(link, queue, count, size)
        _publish(link, total, json.dumps(left).encode())
        await_confirms(link, 1)

    def _letters(self, refused: Sequence[Refused]) -> list[_Letter]:
        now = self._clock.time()
        first, letters = int(now * 1e9), []
        for place, (delivery, came) in enumerate(refused):
            message = delivery.message
            deaths = (message.deaths if message is not None else 0) + delivery.died
            exchange, routing_key = (message.exchange, message.routing_key) if message is not None else ("", "")
            properties = came.properties if came is not None else b"\0\0"
            body = came.body if came is not None else b""
            if message is not None:
                properties, body = packed_message(message), message.body
            entry = f"{first + place:020d}-{os.urandom(4).hex()}"
            reason, traceback = cut(delivery.error, delivery.traceback)
            letters.append(_Letter(entry, now, reason, traceback, deaths, exchange, routing_key, properties, body))
        return letters

    def _declare(self, link: Link, queue: str) -> None:
        """The queues for a queue's letters. It stands in the index before it has any."""
        name = _name("letters", queue)
        there = _is_there(link, name)
        if there and name in link.declared:
            return
        if not there:
            _declare(link, _INDEX, {})
            _publish(link, _INDEX, queue.encode("utf-8", "surrogatepass"))
            await_confirms(link, 1)
            _declare(link, name, {})
        _declare(link, _name("total", queue), {"x-max-length": 1, "x-overflow": "drop-head"})
        link.declared[name] = None

    def _trim(self, link: Link, queue: str, count: int, size: int) -> tuple[int, int]:
        """Drop the oldest until the rest is within bounds; returns how many are left, and their bytes."""
        bounds, oldest, overflow = self._bounds, self._clock.time() - self._bounds.age, 0
        for tag, letter in _browse(link, _name("letters", queue)):
            full = count > bounds.count or size > bounds.size
            if not full and letter.died_at >= oldest:
                break
            link.send(_drop(tag))
            count, size, overflow = count - 1, size - letter.size, overflow + full
        _give_back(link)
        self._overflow.note(queue, overflow)
        return count, size

    # ------------------------------------------------------------------------------------------------------ looking

    def queues(self) -> list[str]:
        return sorted(self.counts())

    def counts(self) -> dict[str, int]:
        """See `DeadLetters.counts`: too old ones are counted until they are dropped."""
        with self._link() as link:
            counts = {queue: self._number(link, queue) for queue in _names(link)}
        return {queue: count for queue, count in counts.items() if count}

    def _number(self, link: Link, queue: str) -> int:
        """How many letters there are; 0 if all are too old."""
        oldest = self._clock.time() - self._bounds.age
        with _locked(link, queue):
            name = _name("letters", queue)
            count = _count(link, name) if _is_there(link, name) else 0
            fresh = count and any(letter.died_at >= oldest for _, letter in _browse(link, name))
            _give_back(link)
        return count if fresh else 0

    def newest(self, queue: str, limit: int, before: str = "") -> list[DeadLetter]:
        oldest, last = self._clock.time() - self._bounds.age, before.rpartition(":")[2]
        with self._link() as link, _all_of(link, queue) as letters:
            fit = (each for _, each in letters if each.died_at >= oldest and (not last or each.entry < last))
            found = heapq.nlargest(limit, fit, key=lambda letter: letter.entry)
        return [letter.shown(queue) for letter in found]

    def find(self, ids: Sequence[str]) -> list[DeadLetter]:
        found: dict[str, DeadLetter] = {}
        with self._link() as link:
            for queue, entries in _by_queue(ids).items():
                with _all_of(link, queue) as letters:
                    those = [letter.shown(queue) for _, letter in letters if letter.entry in entries]
                found.update((letter.id, letter) for letter in those)
        return [found[id] for id in dict.fromkeys(ids) if id in found]

    # -------------------------------------------------------------------------------------------------- taking out

    def requeue(self, ids: Sequence[str]) -> int:
        """See `DeadLetters.requeue`; here too, whoever is killed in between leaves a letter in both places."""
        return self._take_out(ids, self._put_back)

    def discard(self, ids: Sequence[str]) -> int:
        return self._take_out(ids, lambda link, queue, letters: None)

    def _take_out(self, ids: Sequence[str], then: Callable[[Link, str, list[_Letter]], None]) -> int:
        number = 0
        with self._link() as link:
            for queue, entries in _by_queue(ids).items():
                with _all_of(link, queue) as letters:
                    found = [(tag, letter) for tag, letter in letters if letter.entry in entries]
                    then(link, queue, [letter for _, letter in found])
                    link.send(b"".join(_drop(tag) for tag, _ in found))
                number += len(found)
        return number

    def _put_back(self, link: Link, queue: str, letters: list[_Letter]) -> None:
        if not letters:
            return
        with_confirms(link)
        ready_queue(link, queue)
        for letter in letters:
            link.send(publish("", queue) + framed(mark_deaths(letter.properties, 0), letter.body, link.frame_max))
        await_confirms(link, len(letters))


def _name(kind: str, queue: str) -> str:
    word = queue if len(queue.encode("utf-8", "surrogatepass")) <= 220 else sha256(queue.encode()).hexdigest()
    return f"celery.dead.{kind}.{word}"


def _by_queue(ids: Sequence[str]) -> dict[str, set[str]]:
    """What is no id of ours is the id of nothing here."""
    found: dict[str, set[str]] = {}
    for id in ids:
        queue, _, entry = id.rpartition(":")
        if queue and _ENTRY.match(entry):
            found.setdefault(queue, set()).add(entry)
    return found


def _names(link: Link) -> list[str]:
    """The queues that may have letters."""
    with _locked(link, ""):
        names = set()
        if _is_there(link, _INDEX):
            names = {body.decode("utf-8", "surrogatepass") for _, body in _contents(link, _INDEX)}
            _give_back(link)
    return sorted(names)


@contextmanager
def _all_of(link: Link, queue: str) -> Iterator[Iterator[tuple[int, _Letter]]]:
    """All letters of a queue, the oldest first. What is not dropped meanwhile is given back."""
    with _locked(link, queue):
        name = _name("letters", queue)
        yield _browse(link, name) if _is_there(link, name) else iter(())
        _give_back(link)


@contextmanager
def _locked(link: Link, queue: str) -> Iterator[None]:
    """Nobody else looks at these letters. After an error the lock goes with the connection."""
    name = _name("lock", queue)
    deadline = time.monotonic() + _PATIENCE
    while not _lock(link, name):
        if time.monotonic() > deadline:
            raise OperationalError(f"the dead letters of queue {queue!r} at {link.shown} were in use for 30 s")
        time.sleep(0.01)
    yield
    link.call(method(50, 40, b"\0\0" + short(name) + b"\0"), {(50, 41)})


def _lock(link: Link, name: str) -> bool:
    link.call(method(20, 10, b"\0", 2), {(20, 11)})
    came = link.call(method(50, 10, b"\0\0" + short(name) + b"\x04\0\0\0\0", 2), {(50, 11), (20, 40)})
    if came.kind == (20, 40):
        if int.from_bytes(came.arguments[:2], "big") != 405:
            raise closed(came.arguments, link.shown)
        return False
    link.call(method(20, 40, struct.pack(">HBHH", 200, 0, 0, 0), 2), {(20, 41)})
    return True


def _declare(link: Link, name: str, arguments: dict[str, object]) -> None:
    """A classic queue: what is given back to a quorum queue loses its place, and is dropped after some times. On disk,
    in the newer of two forms, which takes many back five times as fast."""
    arguments = {"x-queue-type": "classic", "x-queue-mode": "lazy", "x-queue-version": 2, **arguments}
    link.call(method(50, 10, b"\0\0" + short(name) + _DURABLE + table(arguments)), {(50, 11)})


def _is_there(link: Link, name: str) -> bool:
    return exists(link, passive_queue(name, channel=2), (50, 11)) is not None


def _count(link: Link, name: str) -> int:
    """Messages in a queue that is there, as whoever takes one learns. RabbitMQ answers a passive declaration before it
    has put back what was given back; a request for a message waits its turn."""
    came = link.call(_get(name), {(60, 71), (60, 72)})
    if came.kind == (60, 72):
        return 0
    _give_back(link)
    return int.from_bytes(came.arguments[-4:], "big") + 1


def _publish(link: Link, queue: str, body: bytes) -> None:
    link.send(publish("", queue) + framed(_PERSISTENT, body, link.frame_max))


def _get(queue: str, *, keep: bool = True) -> bytes:
    return method(60, 70, b"\0\0" + short(queue) + bytes((not keep,)))


def _browse(link: Link, name: str) -> Iterator[tuple[int, _Letter]]:
    for tag, body in _contents(link, name):
        yield tag, _Letter.read(body)


def _contents(link: Link, queue: str) -> Iterator[tuple[int, bytes]]:
    """Take what is there, with delivery tags; first one, then more and more in a round trip."""
    number = 1
    while True:
        link.send(_get(queue) * number)
        answers = [link.answer({(60, 71), (60, 72)}) for _ in range(number)]
        for came in answers:
            if came.kind == (60, 71):
                yield int.from_bytes(came.arguments[:8], "big"), came.body
        if answers[-1].kind == (60, 72):
            return
        number = min(2 * number, _MOST)


def _drop(tag: int) -> bytes:
    return method(60, 80, long_tag(tag) + b"\0")


def _give_back(link: Link) -> None:
    """What was taken and not dropped, to its old place: all in one, since `basic.recover` does it one by one, each time
    in as long as there are letters."""
    link.send(method(60, 120, long_tag(0) + b"\x03"))
