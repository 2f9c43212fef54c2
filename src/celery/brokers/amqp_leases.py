"""Adapter. Custody of long runs on RabbitMQ: a copy in a queue of ours, renewed for as long as the worker lives.

A server closes the channel of whoever holds a message for longer than its consumer timeout, and hands out again what
was held over a connection that broke. So what is held for some seconds is moved: its copy lies in a queue of its own,
which nobody takes from, and dies there of old age unless it is renewed; the server then puts it back where it came
from. Neither a timeout nor a lost connection touches a long run after that, and a dead worker's runs come back.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kombu.exceptions import OperationalError
from msgspec import Struct

from celery.brokers.amqp_methods import (
    HELD,
    await_confirms,
    mark_deaths,
    message_properties,
    publish,
    with_confirms,
)
from celery.drivers.amqp_frames import framed, long_tag, method, packed, short, table
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from celery.drivers.amqp import Endpoint, Link
    from celery.ports import Delivery
    from celery.routing import QueueSpec

__all__ = ["LEASE", "Lease", "Leases"]

#: Seconds until what a dead worker ran comes back; a third of that until a run counts as long, and between renewals.
LEASE = 30.0
#: A queue that nobody has looked at for so many leases is deleted by the server: what was in it has left it long ago.
_FORGOTTEN = 20
#: Copies that may lie in a queue while it is renewed.
_MOST = 2


class Lease(Struct, eq=False):
    """A delivery whose message lies in a queue of ours."""

    delivery: Delivery
    #: Of that queue.
    name: str
    #: The method that declares it.
    declaration: bytes
    #: What puts a copy there, and the same but for the deaths puts it back.
    properties: bytes


class Leases:
    """What a consumer has moved, and the thread that moves and renews it over a connection of its own.

    The consumer's owner and this thread share what is held: whoever takes a tag out of it does so under `lock`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        held: dict[tuple[int, int], Delivery],
        early: deque[Delivery],
        queues: dict[str, QueueSpec],
        duration: float,
    ) -> None:
        """`held`, `early`, `queues`: the consumer's own. `duration`: of a lease, seconds."""
        self._endpoint = endpoint
        self._held = held
        self._early = early
        self._queues = queues
        self._duration = duration
        self.lock = threading.Lock()
        #: The consumer's connection now.
        self.link: Link | None = None
        #: By the tag that the delivery had.
        self.kept: dict[tuple[int, int], Lease] = {}
        self._lost: list[Delivery] = []
        #: Queues that nobody needs any more.
        self._over: list[str] = []
        #: The newest that was held when this thread last looked.
        self._seen = (0, 0)
        self._line: Link | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celery-amqp-leases", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------------ for the owner

    def take_lost(self) -> list[Delivery]:
        """Whose leases ran out while we were away."""
        if not self._lost:
            return []
        with self.lock:
            lost = list(self._lost)
            self._lost.clear()
        return lost

    def of(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that were moved."""
        return [delivery for delivery in deliveries if delivery.tag in self.kept]

    def settle(self, link: Link, deliveries: Sequence[Delivery]) -> None:
        """They are done with. Raises `OperationalError`; then they are not."""
        leases = [lease for delivery in deliveries if (lease := self.kept.get(delivery.tag)) is not None]
        link.send(b"".join(method(50, 40, b"\0\0" + short(lease.name) + b"\x04") for lease in leases))
        self._let_go(leases)

    def give_back(self, link: Link, deliveries: Sequence[Delivery]) -> None:
        """To the ends of their queues, marked as redelivered. Raises `OperationalError`; then they are still ours."""
        leases = [lease for delivery in deliveries if (lease := self.kept.get(delivery.tag)) is not None]
        with_confirms(link)
        frames = []
        for lease in leases:
            message = lease.delivery.message
            assert message is not None
            properties = mark_deaths(lease.properties, message.deaths + lease.delivery.died)
            frames += [publish("", lease.delivery.queue), framed(properties, message.body, link.frame_max)]
        link.send(b"".join(frames))
        await_confirms(link, len(leases))
        self.settle(link, [lease.delivery for lease in leases])

    def _let_go(self, leases: Sequence[Lease]) -> None:
        with self.lock:
            for lease in leases:
                if self.kept.pop(lease.delivery.tag, None) is not None:
                    self._over.append(lease.name)

    def stop(self) -> None:
        """Renew nothing more."""
        self._stopped.set()

    def close(self, link: Link | None) -> None:
        """Give back all that is left, where the server can be reached; where not, it comes back with its time."""
        self._stopped.set()
        self._thread.join(self._duration / 3)
        if link is not None and not link.closed and self.kept:
            with suppress(OperationalError, ImproperlyConfigured):
                self.give_back(link, [lease.delivery for lease in self.kept.values()])
        if link is not None and not link.closed and self._over:
            with suppress(OperationalError, ImproperlyConfigured):
                self._delete_queues(link)
        if self._line is not None and not self._thread.is_alive():
            self._line.close()

    # ------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        pause = period = self._duration / 3
        while not self._stopped.wait(pause):
            pause = period
            try:
                self._look()
            except (OperationalError, ImproperlyConfigured):  # the consumer's own connection has it said by now
                if self._line is not None:
                    self._line.hang_up()
                pause = min(1.0, period / 2)

    def _look(self) -> None:
        """Renew, move what has been held since the last look, and tidy up."""
        held = list(self._held.items())
        old = [delivery for tag, delivery in held if tag <= self._seen and delivery.message is not None]
        if held:
            self._seen = max(self._seen, held[-1][0])
        if not (old or self.kept or self._over):
            if self._line is not None:
                self._line.close()
                self._line = None
            return
        line = self._line
        if line is None or line.closed:
            line = self._line = self._endpoint.connect()
            with_confirms(line)
        if self.kept:
            self._renew(line)
        if old:
            self._move(line, old)
        if self._over:
            self._delete_queues(line)

    def _renew(self, line: Link) -> None:
        """Put a fresh copy behind the old one, then take the old one away."""
        with self.lock:
            leases = list(self.kept.values())
        wait = self._duration / 3
        asked = [lease.declaration + method(60, 70, b"\0\0" + short(lease.name) + b"\0") * _MOST for lease in leases]
        line.send(b"".join(asked))
        newest, alive, expired = b"", [], []
        for lease in leases:
            line.answer({(50, 11)}, wait)
            came = [line.answer({(60, 71), (60, 72)}, wait) for _ in range(_MOST)]
            tags = [one.arguments[:8] for one in came if one.kind == (60, 71)]
            if tags:
                alive.append(lease)
                newest = tags[-1]
            else:
                expired.append(lease)
        if alive:
            self._put(line, alive)
            line.send(method(60, 80, newest + b"\x01"))
        with self.lock:
            for lease in expired:
                if self.kept.pop(lease.delivery.tag, None) is not None:
                    lease.delivery.lost = True
                    self._lost.append(lease.delivery)
                    self._over.append(lease.name)
            # What was settled meanwhile may have been renewed after that.
            self._over += [one.name for one in alive if one.delivery.tag not in self.kept]

    def _put(self, line: Link, leases: Sequence[Lease]) -> None:
        frames = []
        for lease in leases:
            assert lease.delivery.message is not None
            frames += [publish("", lease.name), framed(lease.properties, lease.delivery.message.body, line.frame_max)]
        line.send(b"".join(frames))
        await_confirms(line, len(leases), self._duration / 3)

    def _move(self, line: Link, old: Sequence[Delivery]) -> None:
        """Copies first, confirmed, then the acknowledgements: who is killed in between leaves both."""
        leases = [self._lease(delivery) for delivery in old]
        line.send(b"".join(lease.declaration for lease in leases))
        for _ in leases:
            line.answer({(50, 11)}, self._duration / 3)
        self._put(line, leases)
        with self.lock:
            link = self.link
            mine = []
            if link is not None and not link.closed and not self._stopped.is_set():
                early = {delivery.tag for delivery in self._early}
                mine = [one for one in leases if one.delivery.tag in self._held and one.delivery.tag not in early]
            self._over += [one.name for one in leases if one not in mine]
            if not mine or link is None:
                return
            frames = [method(60, 80, long_tag(lease.delivery.tag[1]) + b"\0") for lease in mine]
            try:
                link.send(b"".join(frames))
            except OperationalError:
                self._over += [lease.name for lease in mine]
                raise
            for lease in mine:
                del self._held[lease.delivery.tag]
                self.kept[lease.delivery.tag] = lease

    def _lease(self, delivery: Delivery) -> Lease:
        assert delivery.message is not None
        name = f"{HELD}{uuid4()}"
        milliseconds = int(self._duration * 1000)
        arguments: dict[str, Any] = {
            "x-message-ttl": milliseconds,
            "x-expires": milliseconds * _FORGOTTEN,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": delivery.queue,
        }
        queue = self._queues.get(delivery.queue)
        if queue is not None and queue.arguments.get("x-queue-type") == "quorum":
            arguments |= {
                "x-queue-type": "quorum",
                "x-overflow": "reject-publish",
                "x-dead-letter-strategy": "at-least-once",
            }
        declaration = method(50, 10, b"\0\0" + short(name) + b"\x02" + table(arguments))
        # If it comes back from there, its worker has died of it, or of something else.
        whole = message_properties(delivery.message)
        whole.pop("expiration", None)  # or the copy would be of an age before its lease is over
        properties = mark_deaths(packed(whole), delivery.message.deaths + 1)
        return Lease(delivery, name, declaration, properties)

    def _delete_queues(self, line: Link) -> None:
        with self.lock:
            names = list(self._over)
        line.send(b"".join(method(50, 40, b"\0\0" + short(name) + b"\0") for name in names))
        for _ in names:
            line.answer({(50, 41)}, self._duration / 3)
        with self.lock:
            self._over[:] = [name for name in self._over if name not in names]
