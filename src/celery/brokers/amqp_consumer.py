"""Adapter. Taking messages over AMQP: asked for when they are wanted: no worker holds what it has no use for.

`fetch` asks each queue for its share, many requests in one round trip. If there is nothing, it subscribes for as
long as it waits, one message a queue; the subscription ends with the wait. So prefetching follows `fetch`'s limits
exactly, the same on classic and on quorum queues, and priorities are looked at each time.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.brokers.amqp_dead import Refused
from celery.brokers.amqp_deaths import Deaths
from celery.brokers.amqp_methods import declare_queue, envelope_of, message_of
from celery.drivers.amqp_errors import MissingQueue
from celery.drivers.amqp_frames import long_tag, method, short, table
from celery.ports import Clock, Delivery, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from celery.brokers.amqp import AmqpBroker
    from celery.brokers.amqp_leases import Leases
    from celery.drivers.amqp import Link
    from celery.drivers.amqp_frames import Came
    from celery.ports import BrokerConfig
    from celery.routing import QueueSpec

__all__ = ["AmqpConsumer", "heartbeat_of"]

#: Seconds between two looks at a server where waiting for a message is not possible.
_PAUSE = 0.2
#: What dead letters and deaths need of a server.
_COUNTING = frozenset({"publisher_confirms", "basic.nack"})
#: Requests that are sent to a queue at first, and at most, before it is known how much there is.
_FIRST, _MOST = 8, 1024
#: Seconds after which either side may take the other for dead; half of that between two signs of life.
HEARTBEAT = 6.0
#: From now on subscriptions get one message at a time. It is answered, so whatever was sent before has been done then.
_ONE = method(60, 10, b"\0\0\0\0\0\x01\0")
#: As many of one queue are not asked for one by one.
_LARGE = 16
#: Seconds without a message after which those that were announced are in others' hands.
_OTHERS_TOOK_IT = 0.02


def _prefetch(n: int) -> bytes:
    """From now on subscriptions get so many messages at a time; it is answered."""
    return method(60, 10, b"\0\0\0\0" + n.to_bytes(2, "big") + b"\0")


def _consume(queue: QueueSpec, tag: str) -> bytes:
    """Subscribe; no answer wanted."""
    return method(60, 20, b"\0\0" + short(queue.name) + short(tag) + b"\x08" + table(queue.consumer_arguments))


def _is_standing(queue: QueueSpec) -> bool:
    """Whether a subscription is to last: the queue goes with its last one, or the server is to know of consumers."""
    return queue.auto_delete or _is_pushed(queue)


def _is_pushed(queue: QueueSpec) -> bool:
    """Whether its messages come by subscription alone: the server chooses who gets them."""
    arguments = queue.arguments
    return bool(queue.consumer_arguments) or bool(
        arguments.get("x-single-active-consumer") or arguments.get("x-queue-type") == "stream"
    )


def heartbeat_of(config: BrokerConfig) -> float:
    """Seconds; 0: as the server says."""
    return float(config.options.get("heartbeat", HEARTBEAT))


class AmqpConsumer:
    """Holds what it fetched, unacknowledged, until it is settled. Owned by one thread.

    A second thread sends heartbeats, so that an owner that is away for long keeps its messages. With the connection
    goes everything that is held: the server gives it to others, and `lost` tells of it.
    """

    def __init__(
        self,
        broker: AmqpBroker,
        queues: Sequence[QueueSpec],
        link: Link,
        *,
        clock: Clock = SystemClock(),  # noqa: B008
    ) -> None:
        """`link`: the first connection, which is the consumer's from now on."""
        self._broker = broker
        self._clock = clock
        self._heartbeat = heartbeat_of(broker.config)
        self._pid = os.getpid()
        self._queues = {queue.name: queue for queue in queues}
        self._link: Link | None = None
        self._pulse: _Pulse | None = None
        #: What keeps long runs, where the server can.
        self._leases: Leases | None = None
        self._lock: AbstractContextManager[Any] = nullcontext()
        #: How many connections there were: the same tag is used on each.
        self._generation = 0
        #: What is in our custody, by tag, in the order in which it came.
        self.held: dict[tuple[int, int], Delivery] = {}
        #: The newest of them, and whether one was put in behind a newer one.
        self._newest = (0, 0)
        self._disordered = False
        #: What has come and was not fetched yet.
        self._early: deque[Delivery] = deque()
        self._lost: list[Delivery] = []
        #: What came in place of those messages that are none.
        self._noise: dict[tuple[int, int], Came] = {}
        self._deaths = Deaths()
        #: What came as redelivered, and nobody has asked what it died of.
        self._suspects: list[Delivery] = []
        self._turn = 0
        #: Queues with subscriptions that last.
        self._standing: set[str] = set()
        #: Queues that do not say what they are have been what they are by default.
        self._all_classic = True
        self._hopes = dict.fromkeys(self._queues, _FIRST)
        self._seen_alive = time.monotonic()
        self._take_over(link)

    # ------------------------------------------------------------------------------------------------------ taking

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        """See `Consumer.fetch`. Raises `OperationalError`; the next call connects again."""
        link = self._connected()
        self._receive(link)
        if limit > 0:
            taken = self._taken(limit) or self._get(link, limit)
            self._receive(link)
            if taken or timeout <= 0:
                self._look_up(link)
                return taken
        deadline = time.monotonic() + timeout
        if limit > 0 and "per_consumer_qos" not in link.capabilities:
            return self._poll(link, limit, deadline, until_readable)
        subscribed = self._subscribe(link) if limit > 0 else 0
        while True:
            remaining = deadline - time.monotonic()
            ready = link.wait(min(max(remaining, 0.0), self._heartbeat), until_readable)
            self._receive(link)
            if ready or remaining <= 0 or (limit > 0 and self._early):
                break
        if subscribed:
            self._unsubscribe(link, subscribed)
        self._seen_alive = time.monotonic()
        self._look_up(link)
        return self._taken(limit)

    def _poll(self, link: Link, limit: int, deadline: float, until_readable: Sequence[int]) -> list[Delivery]:
        """Look again and again: where a prefetch count is one for all of a channel, a subscription gets nothing while
        something is held that came over another one."""
        while (remaining := deadline - time.monotonic()) > 0:
            ready = link.wait(min(remaining, _PAUSE), until_readable)
            self._receive(link)
            taken = self._taken(limit) or self._get(link, limit)
            if ready or taken:
                self._look_up(link)
                return taken
        return []

    def _look_up(self, link: Link) -> None:
        if self._suspects:
            suspects, self._suspects = self._suspects, []
            if self._counting:
                self._deaths.count(link, suspects)

    def _taken(self, limit: int) -> list[Delivery]:
        return [self._early.popleft() for _ in range(min(limit, len(self._early)))]

    def _get(self, link: Link, limit: int) -> list[Delivery]:
        """Ask the queues, in turns, until there are so many or no more."""
        names = [name for name, queue in self._queues.items() if not _is_pushed(queue)]
        self._turn += 1
        found: list[Delivery] = []
        while names and len(found) < limit:
            wanted = self._shares(names, limit - len(found))
            counts = dict.fromkeys(names, 0)
            for delivery in self._ask(link, wanted):
                counts[delivery.queue] = counts.get(delivery.queue, 0) + 1
                found.append(delivery)
            for name, share in wanted:
                if counts[name] < share:
                    names.remove(name)
                    self._hopes[name] = max(_FIRST, counts[name])
                else:
                    self._hopes[name] = min(_MOST, max(self._hopes[name], 2 * share))
        self._seen_alive = time.monotonic()
        if len(found) > limit:  # a subscription that lasts had one too
            self._early.extendleft(reversed(found[limit:]))
        return found[:limit]

    def _ask(self, link: Link, wanted: Sequence[tuple[str, int]]) -> list[Delivery]:
        """So many of each queue, or what there is.

        Few are asked for one by one. Of many the first one, whose answer tells how many there are; then those by a
        subscription, at two thirds of the cost to both sides. Not so on quorum queues: a subscription that ends while
        messages are on their way breaks the channel there (RabbitMQ 3.10).
        """
        large = {name: share for name, share in wanted if share >= _LARGE and self._is_classic(name)}
        requests = [name for name, share in wanted for _ in range(1 if name in large else share)]
        link.send(b"".join(method(60, 70, b"\0\0" + short(name) + b"\0") for name in requests))
        found: list[Delivery] = []
        coming: dict[str, int] = {}
        for name in requests:
            came = link.answer({(60, 71), (60, 72)})
            if came.kind == (60, 71):
                found.append(self._got(came, name))
                there = int.from_bytes(came.arguments[-4:], "big")
                if there and name in large:
                    coming[name] = min(large[name] - 1, there)
        if coming:
            try:
                found += self._gather(link, coming)
            except OperationalError as exc:
                if "INTERNAL_ERROR" in str(exc):  # quorum queues by the virtual host's default, which nobody tells us
                    self._all_classic = False
                raise
        return found

    def _is_classic(self, name: str) -> bool:
        return self._all_classic and self._queues[name].arguments.get("x-queue-type", "classic") == "classic"

    def _gather(self, link: Link, coming: Mapping[str, int]) -> list[Delivery]:
        """What subscriptions to so many of each queue bring, until all are there, or others were faster."""
        places = {name: place for place, name in enumerate(self._queues)}
        tags = {name: f"q{places[name]}" for name in coming}
        link.send(b"".join(_prefetch(n) + _consume(self._queues[name], tags[name]) for name, n in coming.items()))
        for _ in coming:
            link.answer({(60, 11)})
        self._receive(link)
        while len(self._early) < sum(coming.values()):
            link.wait(_OTHERS_TOOK_IT)
            if not link.inbox:
                break
            self._receive(link)
        link.send(b"".join(method(60, 30, short(tag) + b"\0") for tag in tags.values()))
        for _ in tags:
            link.answer({(60, 31)})
        self._receive(link)
        return self._taken(len(self._early))

    def _shares(self, names: list[str], n: int) -> list[tuple[str, int]]:
        turn = self._turn % len(names)
        share, rest = divmod(n, len(names))
        shares = [(name, share + (place < rest)) for place, name in enumerate([*names[turn:], *names[:turn]])]
        return [(name, min(wanted, self._hopes[name])) for name, wanted in shares if wanted]

    def _subscribe(self, link: Link) -> int:
        """To one message of each queue; returns how many answers to await."""
        frames = [
            _consume(queue, f"q{place}") for place, queue in enumerate(self._queues.values()) if not _is_standing(queue)
        ]
        if frames:
            link.call(_ONE + b"".join(frames), {(60, 11)})
        return len(frames)

    def _stand_by(self, link: Link, queue: QueueSpec) -> None:
        """Declare a queue. One that goes with its last consumer is subscribed to for good."""
        declare_queue(link, queue)
        if _is_standing(queue) and queue.name not in self._standing:
            self._standing.add(queue.name)
            link.call(_ONE + _consume(queue, f"s{queue.name}"), {(60, 11)})

    def _unsubscribe(self, link: Link, subscribed: int) -> None:
        places = [place for place, queue in enumerate(self._queues.values()) if not _is_standing(queue)]
        link.send(b"".join(method(60, 30, short(f"q{place}") + b"\0") for place in places))
        for _ in range(subscribed):
            link.answer({(60, 31)})
        self._receive(link)

    def _receive(self, link: Link) -> None:
        """Take what was delivered out of the inbox."""
        while link.inbox:
            came = link.inbox.popleft()
            if came.kind == (60, 60):
                length = came.arguments[0]
                tag = came.arguments[1 : 1 + length].decode()
                name = tag[1:] if tag[0] == "s" else list(self._queues)[int(tag[1:])]
                self._early.append(self._got(came._replace(arguments=came.arguments[1 + length :]), name))
            elif came.kind == (60, 30):
                link.hang_up()
                raise MissingQueue(f"a queue that we take from was deleted at {link.shown}; it is declared again")

    def _got(self, came: Came, queue: str) -> Delivery:
        data = came.arguments
        number, redelivered = int.from_bytes(data[:8], "big"), bool(data[8])
        middle = 10 + data[9]
        exchange = data[10:middle].decode("utf-8", "replace")
        routing_key = data[middle + 1 : middle + 1 + data[middle]].decode("utf-8", "replace")
        tag = self._generation, number
        if tag < self._newest:
            self._disordered = True
        else:
            self._newest = tag
        try:
            delivery = Delivery(tag, queue, message_of(came, exchange, routing_key, redelivered))
        except ValueError as exc:
            raw = envelope_of(came, exchange, routing_key)
            self._noise[tag] = came
            error = f"expected the headers of a task message or a message envelope: {exc}"
            delivery = Delivery(tag, queue, None, raw, error)
        self.held[tag] = delivery
        if redelivered:
            self._suspects.append(delivery)
        return delivery

    # ---------------------------------------------------------------------------------------------------- settling

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Consumer.ack`: sent at once; as one where they are the oldest that we hold."""
        if self._leases is not None and self._leases.kept and (moved := self._leases.of(deliveries)):
            self._leases.settle(self._connected(), moved)
        self._settle(deliveries, lambda tag, multiple: method(60, 80, long_tag(tag) + bytes((multiple,))))
        if self._deaths and self._link is not None:
            self._deaths.settled(self._link, deliveries)

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        """See `Consumer.reject`. What is not given back is buried first; and it goes where the queue's own dead letter
        exchange leads, if it has one."""
        if self._leases is not None and self._leases.kept and (moved := self._leases.of(deliveries)):
            self._reject_moved(self._leases, moved, requeue)
        mine = self._mine(deliveries)
        if mine and self._link is not None and self._counting:
            if requeue:
                self._deaths.going_back(self._link, mine)
            else:
                letters = [Refused(delivery, self._noise.get(delivery.tag)) for delivery in mine]
                self._broker.dead_letters.bury(letters)
        self._settle(deliveries, lambda tag, multiple: method(60, 90, long_tag(tag) + bytes((requeue,))), alone=True)
        if self._deaths and self._link is not None and not requeue:
            self._deaths.settled(self._link, mine)

    def _reject_moved(self, leases: Leases, moved: Sequence[Delivery], requeue: bool) -> None:
        link = self._connected()
        if requeue:
            marked = [delivery for delivery in moved if delivery.tag in self._deaths]
            self._deaths.going_back(link, marked)
            leases.give_back(link, moved)
        else:
            self._broker.dead_letters.bury([Refused(delivery, None) for delivery in moved])
            leases.settle(link, moved)

    def begun(self, deliveries: Sequence[Delivery]) -> None:
        """See `Blaming.begun`."""
        mine = self._mine(deliveries)
        if mine and self._link is not None and self._counting:
            self._deaths.begun(self._link, mine)

    @property
    def _counting(self) -> bool:
        """Dead letters and deaths need confirms: without them a message might be lost on the way."""
        return self._link is not None and self._link.capabilities >= _COUNTING

    def _mine(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        if self._link is None or self._link.closed:
            return []
        return [delivery for delivery in deliveries if delivery.tag in self.held]

    def _settle(
        self, deliveries: Sequence[Delivery], frame: Callable[[int, bool], bytes], *, alone: bool = False
    ) -> None:
        with self._lock:
            self._settle_held(deliveries, frame, alone)

    def _settle_held(self, deliveries: Sequence[Delivery], frame: Callable[[int, bool], bytes], alone: bool) -> None:
        tags = sorted({delivery.tag for delivery in deliveries if delivery.tag in self.held})
        if not tags or self._link is None or self._link.closed:
            self._find_lost()
            return
        self._receive(self._link)  # whatever came before the newest of these is held too, and must not go with them
        if self._disordered:
            held = sorted(self.held.items())
            self.held.clear()
            self.held.update(held)
            self._disordered = False
        prefix = 0
        if not alone:
            for oldest, tag in zip(self.held, tags, strict=False):
                if oldest != tag:
                    break
                prefix += 1
        frames = [frame(tags[prefix - 1][1], True)] if prefix else []
        frames += [frame(tag[1], False) for tag in tags[prefix:]]
        self._link.send(b"".join(frames))
        for tag in tags:
            del self.held[tag]
        if self._noise:
            for tag in tags:
                self._noise.pop(tag, None)

    def flush(self) -> None:
        """See `Consumer.flush`: whatever was sent before the answer has been done."""
        if self._link is not None and not self._link.closed:
            self._link.call(_ONE, {(60, 11)})

    def lost(self) -> list[Delivery]:
        """See `Fenced.lost`."""
        link = self._link
        if link is not None and not link.closed and time.monotonic() - self._seen_alive > self._heartbeat / 2:
            if link.is_stale():
                link.hang_up()
            else:
                self._seen_alive = time.monotonic()
        with self._lock:
            self._find_lost()
        lost, self._lost = self._lost, []
        if self._leases is not None and (expired := self._leases.take_lost()):
            self._deaths.lost(expired)
            lost += expired
        return lost

    def _find_lost(self) -> None:
        """With a connection goes what came over it; what was not fetched yet nobody misses. Called under the lock."""
        if self._link is None or not self._link.closed:
            return
        early = {delivery.tag for delivery in self._early}
        for tag, delivery in self.held.items():
            if tag not in early:
                delivery.lost = True
                self._lost.append(delivery)
        self._deaths.lost(self.held.values())
        self.held.clear()
        self._early.clear()
        self._noise.clear()
        self._suspects.clear()

    # ------------------------------------------------------------------------------------------------------ queues

    def add_queue(self, queue: QueueSpec) -> None:
        """Declare a queue and take from it too."""
        self._stand_by(self._connected(), queue)
        self._queues[queue.name] = queue
        self._hopes.setdefault(queue.name, _FIRST)

    def cancel_queue(self, name: str) -> None:
        """Take no more from a queue."""
        self._queues.pop(name, None)
        if name in self._standing:
            self._standing.remove(name)
            if self._link is not None and not self._link.closed:
                self._link.call(method(60, 30, short(f"s{name}") + b"\0"), {(60, 31)})

    # -------------------------------------------------------------------------------------------------- connection

    def _connected(self) -> Link:
        link = self._link
        if link is None or link.closed:
            with self._lock:
                self._find_lost()
            if self._pulse is not None:
                self._pulse.stop()
            link = self._broker.endpoint.connect(heartbeat=self._heartbeat)
            self._take_over(link)
        return link

    def _take_over(self, link: Link) -> None:
        self._link = link
        self._generation += 1
        if self._leases is not None:
            self._leases.link = link
        self._pulse = _Pulse(link)
        weakref.finalize(self, self._pulse.stop)
        try:
            self._standing = set()
            for queue in self._queues.values():
                self._stand_by(link, queue)
        except BaseException:
            self._pulse.stop()
            link.close()
            raise
        self._seen_alive = time.monotonic()

    def close(self) -> None:
        """See `Consumer.close`. Where the server is away, it gives back what we held when it finds out."""
        if self._pulse is not None:
            self._pulse.stop()
        if self._link is not None:
            with suppress(OperationalError):
                if not self._link.closed:
                    self._deaths.closing(self._link, list(self.held.values()))
            if self._leases is not None:
                self._leases.close(self._link)
            self._link.close()  # with it everything goes back, in its old order
        self.held.clear()
        self._early.clear()


class _Pulse:
    """Sends heartbeats over a link from a thread of its own, until it is stopped or the link is closed."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stopped = threading.Event()
        if link.heartbeat:
            threading.Thread(target=self._run, name="celery-amqp-heartbeat", daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.wait(self._link.heartbeat / 2) and not self._link.closed:
            self._link.beat()

    def stop(self) -> None:
        self._stopped.set()
