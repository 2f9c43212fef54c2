"""Adapter. The barriers of chords at an AMQP server: a queue for each, into which its members put what they came to.

Whoever finds as many messages in the queue as members are awaited takes them all, as its only consumer. If it holds
every member's it fires the barrier: sends the body, then deletes the queue. If it dies before that, everything goes
back, and a note that comes up every half a minute makes another worker look (decision 38).
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from celery.backends.rpc_chord_queue import NotNow, chord_queue, confirmed, count_of, head_size, take_all
from celery.backends.rpc_groups import RpcGroups
from celery.backends.rpc_wire import lease
from celery.brokers.amqp_methods import await_confirms, exists, passive_queue, publish, with_confirms
from celery.drivers.amqp_frames import framed, method, packed, short, table
from celery.ports import Full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.backends.rpc_chord_queue import Holding
    from celery.brokers.amqp import AmqpBroker
    from celery.drivers.amqp import Link
    from celery.outcome import Arrival, Record
    from celery.ports import Firing

__all__ = ["RpcBarriers"]

#: Where the notes of chords that have begun lie until it is time to look at them, and then.
WAITING, DUE = "celery.chords.waiting", "celery.chords.due"
#: Seconds between two looks at a barrier that nothing else makes anybody look at.
PATIENCE = 30.0
#: Notes that are looked at in one go.
_NOTES = 500
_BATCH = 1000
#: The first of the channels on which the messages of full barriers are held.
_CHANNELS = 10
#: Bytes of a body that each member brings along; of a longer one seconds until a process brings it again.
_SHORT, _AGAIN = 65_536, 60.0
#: Barriers that this process remembers something of.
_REMEMBERED = 10_000


class _Known:
    """What this process knows of a barrier."""

    __slots__ = ("needed", "seen", "told")

    def __init__(self) -> None:
        #: It is not full before so many messages are in its queue; None: nobody here knows.
        self.needed: int | None = None
        #: So many were there after our last arrival.
        self.seen = 0
        #: When the body that is to be sent was last put there, monotonic seconds.
        self.told = -_AGAIN


class RpcBarriers:
    """See `ports.Barrier`, `ports.Sending` and `ports.Groups`. Thread-safe. It has a connection of its own, on which
    everything is confirmed."""

    def __init__(
        self,
        broker: AmqpBroker,
        expires: float | None,
        *,
        save: Callable[[Sequence[Record]], None],
        patience: float = PATIENCE,
    ) -> None:
        """`expires`: seconds for which a barrier is kept that nobody uses. `patience`: see `PATIENCE`."""
        self._broker = broker
        self._expires = expires
        self._save = save
        self._patience = patience
        self._groups = RpcGroups(broker, expires)
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._known: dict[str, _Known] = {}
        #: Full barriers whose messages are all in our hands.
        self._held: dict[str, Holding] = {}

    @contextmanager
    def _connection(self) -> Iterator[Link]:
        """For this thread alone. Whatever goes wrong, nothing stays in our hands that nobody knows of."""
        self._own()
        with self._lock:
            link = self._connected()
            try:
                yield link
            except BaseException:
                link.hang_up()
                raise

    def _connected(self) -> Link:
        """With the lock held. What was held over a connection that is gone is in nobody's hands."""
        link = self._link
        if link is None or link.is_stale():
            link = self._broker.endpoint.connect()
            try:
                with_confirms(link)
            except BaseException:
                link.close()
                raise
            self._link = link
        return link

    def _own(self) -> None:
        if self._pid != os.getpid():
            if self._link is not None:
                self._link.hang_up()
            self._begin()

    # -- counting ----------------------------------------------------------------------------------------------------

    def open(self, id: str, size: int) -> None:
        """See `Barrier.open`; confirmed."""
        queue = chord_queue(id)
        with self._connection() as link:
            if WAITING not in link.declared:
                onward = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DUE}
                link.call(method(50, 10, b"\0\0" + short(DUE) + b"\x02" + table({})), {(50, 11)})
                link.call(method(50, 10, b"\0\0" + short(WAITING) + b"\x02" + table(onward)), {(50, 11)})
                link.declared[WAITING] = None
            link.call(method(50, 10, b"\0\0" + short(queue) + b"\x02" + lease(self._expires)), {(50, 11)})
            note = packed({"delivery_mode": 2, "type": "open", "headers": {"size": size}})
            link.send(publish("", queue) + framed(note, b"", link.frame_max) + self._note(link, id, size))
            await_confirms(link, 2)
            self._remember(id).needed = size + 1

    def _note(self, link: Link, id: str, size: int) -> bytes:
        """The frames that have somebody look at the barrier in some time."""
        after = str(max(int(self._patience * 1000), 1))
        properties = packed({"delivery_mode": 2, "expiration": after})
        return publish("", WAITING) + framed(properties, json.dumps([id, size]).encode(), link.frame_max)

    def _remember(self, id: str) -> _Known:
        known = self._known.get(id)
        if known is None:
            known = self._known[id] = _Known()
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
        return known

    def grow(self, id: str, more: int) -> None:
        """See `Barrier.grow`; confirmed."""
        note = packed({"delivery_mode": 2, "type": "grow", "headers": {"more": more}})
        with self._connection() as link:
            self._put(link, [(id, note, b"")])

    def arrive(self, arrivals: Sequence[Arrival]) -> list[Full]:
        """See `Barrier.arrive`; confirmed. One that has been fired, or that nobody has opened, is not there."""
        with self._connection() as link:
            gone = self._put(link, [(one.barrier, *self._packed(one)) for one in arrivals])
            found = []
            for id_, body in {one.barrier: one.body for one in arrivals}.items():
                if id_ in gone:
                    self._known.pop(id_, None)
                    continue
                self._notice(link, id_, body)
                full = self._look_if_it_may_be(link, id_, body)
                if full is not None:
                    found.append(full)
            return found

    def _packed(self, one: Arrival) -> tuple[bytes, bytes]:
        """Properties and data of a member's message; a long body of the chord not each time."""
        known, now = self._remember(one.barrier), time.monotonic()
        headers = {"member": one.member, "index": one.index, "more": one.more, "part": len(one.part)}
        data = one.part
        if len(one.body) <= _SHORT or now - known.told >= _AGAIN:
            data, known.told = data + one.body, now
        return packed({"delivery_mode": 2, "type": "member", "headers": headers}), data

    def _notice(self, link: Link, id: str, body: bytes) -> None:
        """If there are no more than after our last arrival, it may be another chord with the same id: forget what we
        know of the first one, and bring a long body again."""
        known, count = self._remember(id), count_of(link, id) or 0
        if count <= known.seen:
            known.needed = None
            if len(body) > _SHORT:
                self._put(link, [(id, packed({"delivery_mode": 2, "type": "body"}), body)])
                count += 1
        known.seen = count

    def _put(self, link: Link, messages: Sequence[tuple[str, bytes, bytes]]) -> set[str]:
        """Put messages into the queues of their barriers, confirmed; returns the barriers that are not there."""
        frames = [
            method(60, 40, b"\0\0\0" + short(chord_queue(id_)) + b"\x01") + framed(properties, body, link.frame_max)
            for id_, properties, body in messages
        ]
        link.send(b"".join(frames))
        returned = confirmed(link, len(frames))
        return {id_ for id_, _, _ in messages if chord_queue(id_) in returned}

    def _look_if_it_may_be(self, link: Link, id: str, body: bytes | None = None) -> Full | None:
        if id in self._held and self._held[id].link is link:
            return None  # whoever filled it is about to fire it
        known = self._remember(id)
        try:
            if known.needed is None:
                size = head_size(link, id, self._channel())
                known.needed = 0 if size is None else size + 1
            return self._look(link, id, known, body)
        except NotNow:
            return None  # somebody else looks, and looks again if something has come meanwhile

    def _look(self, link: Link, id: str, known: _Known, body: bytes | None) -> Full | None:
        """`body`: the chord's, if somebody has it at hand. Raises `NotNow`.

        Whoever has given back what he took counts again: others may have seen too little meanwhile.
        """
        while True:
            count = count_of(link, id)
            if count is None:
                self._known.pop(id, None)
                return None
            if count < (known.needed or 0):
                return None
            holding = take_all(link, id, self._channel())
            if holding is None:
                return None
            body = holding.body or body
            if holding.missing == 0 and body is not None:
                self._held[id] = holding
                return Full(id, body)
            known.needed = holding.count + max(holding.missing, 1)
            holding.release()

    def _channel(self) -> int:
        """One that nothing is held on. Raises `NotNow` if there is none."""
        taken = {holding.channel for holding in self._held.values()}
        for channel in range(_CHANNELS, _CHANNELS + 200):
            if channel not in taken:
                return channel
        raise NotNow

    # -- firing ------------------------------------------------------------------------------------------------------

    def parts(self, id: str) -> Iterator[list[bytes]]:
        """See `Barrier.parts`; of one that is full and in our hands."""
        holding = self._held.get(id)
        parts = [] if holding is None else holding.parts
        for first in range(0, len(parts), _BATCH):
            yield parts[first : first + _BATCH]

    def full(self) -> list[Full]:
        """See `Barrier.full`: of those whose notes have come up."""
        with self._connection() as link:
            if exists(link, passive_queue(DUE, channel=2), (50, 11)) is None:
                return []
            found = []
            for _ in range(_NOTES):
                came = link.call(method(60, 70, b"\0\0" + short(DUE) + b"\0"), {(60, 71), (60, 72)})
                if came.kind == (60, 72):
                    break
                id_, size = json.loads(came.body)
                full = self._look_again(link, str(id_), int(size))
                link.send(method(60, 80, came.arguments[:8] + b"\0"))
                if full is not None:
                    found.append(full)
            return found

    def _look_again(self, link: Link, id: str, size: int) -> Full | None:
        if count_of(link, id) is None:
            return None
        link.send(self._note(link, id, size))
        await_confirms(link, 1)
        known = self._remember(id)
        known.needed = size + 1  # what it was before may be of an earlier chord with that id
        return self._look_if_it_may_be(link, id)

    def fire(self, firings: Sequence[Firing]) -> list[Full]:
        """See `Joining.fire`: sent and confirmed, then the barrier goes. A kill in between sends it again, under the
        same id."""
        found: list[Full] = []
        for firing in firings:
            with self._connection() as link:
                if not self._still_held(link, firing.barrier):
                    self._held.pop(firing.barrier, None)
                    continue
                if firing.records:
                    self._save(firing.records)
                if firing.publications:
                    self._broker.publish_over(link, firing.publications)
                if firing.arrivals:
                    found += self.arrive(firing.arrivals)
                self.fired(firing.barrier, failed=firing.failed)
        return found

    def _still_held(self, link: Link, id: str) -> bool:
        """Whether all of it is in our hands; if the connection was lost meanwhile, in them again."""
        holding = self._held.get(id)
        if holding is None:
            return False
        if holding.link is link:
            return True
        del self._held[id]
        return self._look_if_it_may_be(link, id) is not None

    def fired(self, id: str, *, failed: bool = False) -> None:
        """See `Barrier.fired`. Of a failure nothing is kept either."""
        with self._connection() as link:
            holding = self._held.pop(id, None)
            link.call(method(50, 40, b"\0\0" + short(chord_queue(id)) + b"\0"), {(50, 41)})
            if holding is not None and holding.link is link:
                holding.drop()
            self._known.pop(id, None)

    def standing(self, id: str) -> tuple[int | None, int]:
        """See `Barrier.standing`. Nobody knows while another worker takes it all."""
        with self._connection() as link:
            holding = self._held.get(id)
            if holding is not None:
                return holding.size, len(holding.parts)
            if count_of(link, id) is None:
                return None, 0
            try:
                holding = take_all(link, id, self._channel())
            except NotNow:
                return None, 0
            if holding is None:
                return None, 0
            holding.release()
            return holding.size, len(holding.parts)

    def close(self) -> None:
        """Close the connection; what is in our hands goes back."""
        self._own()
        with self._lock:
            if self._link is not None:
                self._link.close()
                self._link = None

    # -- groups ------------------------------------------------------------------------------------------------------

    def save_group(self, id: str, document: bytes) -> None:
        """See `Groups.save_group`."""
        self._groups.save(id, document)

    def load_group(self, id: str) -> bytes | None:
        """See `Groups.load_group`."""
        return self._groups.load(id)

    def delete_group(self, id: str) -> None:
        """See `Groups.delete_group`."""
        self._groups.delete(id)
