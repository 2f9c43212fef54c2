"""Adapter. Taking messages over AMQP: asked for when they are wanted: no worker holds what it has no use for.

`fetch` asks each queue for its share, many requests in one round trip. If there is nothing, it subscribes for as
long as it waits, one message a queue; the subscription ends with the wait. So prefetching follows `fetch`'s limits
exactly, the same on classic and on quorum queues, and priorities are looked at each time. Where there is room for many
and there are many, on classic queues, a `Flow` of them is opened, as wide as there is room.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.brokers.amqp_asking import Asking
from celery.brokers.amqp_dead import Refused
from celery.brokers.amqp_deaths import Deaths
from celery.brokers.amqp_flow import Flow, consume, is_pushed, is_standing, prefetch
from celery.brokers.amqp_methods import acknowledged, declare_queue, envelope_of, given_back, message_of, rejected
from celery.drivers.amqp_errors import MissingQueue
from celery.drivers.amqp_frames import method, short
from celery.drivers.amqp_pulse import Pulse, heartbeat_of
from celery.ports import Clock, Delivery, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager

    from celery.brokers.amqp import AmqpBroker
    from celery.brokers.amqp_leases import Leases
    from celery.drivers.amqp import Link
    from celery.drivers.amqp_frames import Came
    from celery.routing import QueueSpec

__all__ = ["AmqpConsumer"]

#: Seconds between two looks at a server where waiting for a message is not possible.
_PAUSE = 0.2
#: What dead letters and deaths need of a server.
_COUNTING = frozenset({"publisher_confirms", "basic.nack"})
#: From now on subscriptions get one message at a time. It is answered, so whatever was sent before has been done then.
_ONE = prefetch(1)
#: As many of one queue are not asked for one by one.
_LARGE = 16
#: Seconds without a message after which those that were announced are in others' hands.
_OTHERS_TOOK_IT = 0.02
#: Seconds without a message after which a flow has dried up.
_DRIED_UP = 0.25
#: Seconds that a message stays for which there is no room after all: what goes back counts as redelivered.
_GIVEN_BACK = 5.0


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
        self._pulse: Pulse | None = None
        #: What keeps long runs, where the server can.
        self._leases: Leases | None = None
        self._lock: AbstractContextManager[Any] = nullcontext()
        #: How many connections there were: the same tag is used on each.
        self._generation = 0
        #: What is in our custody, by tag, in the order in which it came.
        self.held: dict[tuple[int, int], Delivery] = {}
        self._newest: tuple[int, int] = (0, 0)
        #: Something has come out of the order of its numbers.
        self._shuffled = False
        #: What has come and was not fetched yet.
        self._early: deque[Delivery] = deque()
        self._lost: list[Delivery] = []
        #: What came in place of those messages that are none.
        self._noise: dict[tuple[int, int], Came] = {}
        self._deaths = Deaths()
        #: What came as redelivered, and nobody has asked what it died of.
        self._suspects: list[Delivery] = []
        #: Queues with subscriptions that last.
        self._standing: set[str] = set()
        #: Queues that do not say what they are have been what they are by default.
        self._all_classic = True
        self._asking = Asking()
        self._flow = Flow()
        #: Since when there is no room for what the flow has brought.
        self._no_room_since = time.monotonic()
        self._seen_alive = time.monotonic()
        self._take_over(link)

    # ------------------------------------------------------------------------------------------------------ taking

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        """See `Consumer.fetch`. Raises `OperationalError`; the next call connects again."""
        try:
            return self._fetch(limit, timeout, until_readable)
        except OperationalError as exc:
            if "INTERNAL_ERROR" in str(exc):  # quorum queues by the virtual host's default, which nobody tells us
                self._all_classic = False
            raise

    def _fetch(self, limit: int, timeout: float, until_readable: Sequence[int]) -> list[Delivery]:
        link = self._connected()
        self._receive(link)
        if limit > 0:
            taken = self._taken(limit) or self._more(link, limit)
            self._receive(link)
            if taken or timeout <= 0:
                return self._fetched(link, taken, limit)
        deadline = time.monotonic() + timeout
        if limit > 0 and "per_consumer_qos" not in link.capabilities:
            return self._poll(link, limit, deadline, until_readable)
        subscribed = 0
        while True:
            if limit > 0 and not self._flow.width and not subscribed:
                subscribed = self._subscribe(link)
            remaining = max(deadline - time.monotonic(), 0.0)
            longest = 1.1 * _DRIED_UP if self._flow.width or self._early else self._heartbeat
            ready = link.wait(min(remaining, longest), until_readable)
            self._receive(link)
            if ready or remaining <= 0 or (limit > 0 and self._early):
                break
            if limit <= 0:
                self._narrow(link, 0)
            elif time.monotonic() - link.heard_at > _DRIED_UP:  # else a part of a message has come
                self._flow.close(link)
        if subscribed:
            self._unsubscribe(link, subscribed)
        self._seen_alive = time.monotonic()
        return self._fetched(link, self._taken(limit), limit)

    def _fetched(self, link: Link, taken: list[Delivery], limit: int) -> list[Delivery]:
        if self._suspects:
            suspects, self._suspects = self._suspects, []
            if self._counting:
                self._deaths.count(link, suspects)
        self._narrow(link, limit - len(taken))
        return taken

    def _narrow(self, link: Link, room: int) -> None:
        """What has come by a flow and finds no room after all: not too much of it, and not for long."""
        if len(self._early) > room + self._flow.width // 2:
            self._flow.close(link)
        now = time.monotonic()
        if room > 0 or not self._early:
            self._no_room_since = now
        elif now - self._no_room_since > _GIVEN_BACK:
            self._flow.close(link)
            self._give_back_early({name for name, queue in self._queues.items() if not is_standing(queue)})

    def _give_back_early(self, queues: Collection[str]) -> None:
        back = [delivery for delivery in self._early if delivery.queue in queues]
        kept = [delivery for delivery in self._early if delivery.queue not in queues]
        self._early.clear()
        self._early.extend(kept)
        self._settle(back, given_back, alone=True)

    def _poll(self, link: Link, limit: int, deadline: float, until_readable: Sequence[int]) -> list[Delivery]:
        """Look again and again: where a prefetch count is one for all of a channel, a subscription gets nothing while
        something is held that came over another one."""
        while (remaining := deadline - time.monotonic()) > 0:
            ready = link.wait(min(remaining, _PAUSE), until_readable)
            self._receive(link)
            taken = self._taken(limit) or self._get(link, limit)
            if ready or taken:
                return self._fetched(link, taken, limit)
        return []

    def _taken(self, limit: int) -> list[Delivery]:
        return [self._early.popleft() for _ in range(min(limit, len(self._early)))]

    def _more(self, link: Link, limit: int) -> list[Delivery]:
        """Ask for messages, unless they come by themselves."""
        flow = self._flow
        if flow.is_unfair:
            flow.close(link)
        if not flow.width:
            return self._get(link, limit)
        if flow.is_narrow(limit):
            flow.widen(link, limit)
        link.wait(0.0)
        self._receive(link)
        return self._taken(limit)

    def _get(self, link: Link, limit: int) -> list[Delivery]:
        """Ask the queues, in turns, until there are so many or no more, or they have begun to flow."""
        names = [name for name, queue in self._queues.items() if not is_pushed(queue)]
        self._asking.begin()
        found: list[Delivery] = []
        while names and len(found) < limit and not self._flow.width:
            wanted = self._asking.shares(names, limit - len(found))
            counts, there = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
            for name, came, more in self._asking.ask(link, wanted):
                found.append(self._got(came, name))
                counts[name] += 1
                there[name] = more
            exhausted = {name for name, share in wanted if not self._asking.learn(name, share, counts[name])}
            names = [name for name in names if name not in exhausted]
            busy = [name for name in names if there[name] >= _LARGE]
            if busy and limit - len(found) >= _LARGE * len(names) and self._may_flow(link):
                found += self._flowing(link, limit - len(found), busy, sum(there[name] for name in busy))
        self._seen_alive = time.monotonic()
        if len(found) > limit:  # a subscription that lasts had one too
            self._early.extendleft(reversed(found[limit:]))
        return found[:limit]

    def _may_flow(self, link: Link) -> bool:
        """Not so on quorum queues: a subscription that ends while messages are on their way breaks the channel there
        (RabbitMQ 3.10)."""
        kinds = {
            queue.arguments.get("x-queue-type", "classic") for queue in self._queues.values() if not is_pushed(queue)
        }
        return self._all_classic and kinds == {"classic"} and "per_consumer_qos" in link.capabilities

    def _flowing(self, link: Link, width: int, busy: Sequence[str], there: int) -> list[Delivery]:
        """Let the queues send so many; returns those that they had when they were asked, unless others were faster."""
        self._flow.open(link, width, busy, [queue for queue in self._queues.values() if not is_pushed(queue)])
        self._receive(link)
        while len(self._early) < min(width, there):
            link.wait(_OTHERS_TOOK_IT)
            if not link.inbox:
                break
            self._receive(link)
        return self._taken(width)

    def _subscribe(self, link: Link) -> int:
        """To one message of each queue; returns how many answers to await."""
        frames = [
            consume(queue, f"q{place}") for place, queue in enumerate(self._queues.values()) if not is_standing(queue)
        ]
        if frames:
            link.call(_ONE + b"".join(frames), {(60, 11)})
        return len(frames)

    def _stand_by(self, link: Link, queue: QueueSpec) -> None:
        """Declare a queue. One that goes with its last consumer is subscribed to for good."""
        declare_queue(link, queue)
        if is_standing(queue) and queue.name not in self._standing:
            self._standing.add(queue.name)
            link.call(_ONE + consume(queue, f"s{queue.name}"), {(60, 11)})

    def _unsubscribe(self, link: Link, subscribed: int) -> None:
        places = [place for place, queue in enumerate(self._queues.values()) if not is_standing(queue)]
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
                came = came._replace(arguments=came.arguments[1 + length :])
                name = self._queue_of(tag, came.arguments)
                if tag[0] == "f" and name not in self._queues:  # it was on its way when the queue was cancelled
                    link.send(given_back(int.from_bytes(came.arguments[:8], "big")))
                else:
                    self._early.append(self._got(came, name))
            elif came.kind == (60, 30):
                link.hang_up()
                raise MissingQueue(f"a queue that we take from was deleted at {link.shown}; it is declared again")

    def _queue_of(self, tag: str, arguments: bytes) -> str:
        if tag[0] == "f":
            return self._flow.came(tag, int.from_bytes(arguments[:8], "big"))
        return tag[1:] if tag[0] == "s" else list(self._queues)[int(tag[1:])]

    def _got(self, came: Came, queue: str) -> Delivery:
        data = came.arguments
        number, redelivered = int.from_bytes(data[:8], "big"), bool(data[8])
        middle = 10 + data[9]
        exchange = data[10:middle].decode("utf-8", "replace")
        routing_key = data[middle + 1 : middle + 1 + data[middle]].decode("utf-8", "replace")
        tag = self._generation, number
        try:
            delivery = Delivery(tag, queue, message_of(came, exchange, routing_key, redelivered))
        except ValueError as exc:
            raw = envelope_of(came, exchange, routing_key)
            self._noise[tag] = came
            error = f"expected the headers of a task message or a message envelope: {exc}"
            delivery = Delivery(tag, queue, None, raw, error)
        self.held[tag] = delivery
        if tag < self._newest:
            self._shuffled = True
        else:
            self._newest = tag
        if redelivered:
            self._suspects.append(delivery)
        return delivery

    # ---------------------------------------------------------------------------------------------------- settling

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Consumer.ack`: sent at once; as one where they are the oldest that we hold."""
        if self._leases is not None and self._leases.kept and (moved := self._leases.of(deliveries)):
            self._leases.settle(self._connected(), moved)
        self._settle(deliveries, acknowledged)
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
                self._flow.close(self._link)  # it would bring them again, room or not
                self._deaths.going_back(self._link, mine)
            else:
                letters = [Refused(delivery, self._noise.get(delivery.tag)) for delivery in mine]
                self._broker.dead_letters.bury(letters)
        self._settle(deliveries, given_back if requeue else rejected, alone=True)
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
        prefix = 0
        if not alone:
            self._put_in_order(self._link)
            for oldest, tag in zip(self.held, tags, strict=False):
                if oldest != tag:
                    break
                prefix += 1
        frames = [frame(tags[prefix - 1][1], True)] if prefix else []
        frames += [frame(tag[1], False) for tag in tags[prefix:]]
        self._link.send(b"".join(frames))
        for tag in tags:
            del self.held[tag]
        self._flow.settled([number for _, number in tags])
        if self._noise:
            for tag in tags:
                self._noise.pop(tag, None)

    def _put_in_order(self, link: Link) -> None:
        """What a standing subscription has brought while others were asked for comes after them, with a lower number:
        it is not to be acknowledged along with them."""
        if link.inbox:
            self._receive(link)
        if self._shuffled:
            self._shuffled = False
            items = sorted(self.held.items())
            self.held.clear()
            self.held.update(items)

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
        link = self._connected()
        self._flow.close(link)  # so that this one has its share
        self._stand_by(link, queue)
        self._queues[queue.name] = queue

    def cancel_queue(self, name: str) -> None:
        """Take no more from a queue."""
        self._queues.pop(name, None)
        if name in self._standing:
            self._standing.remove(name)
            if self._link is not None and not self._link.closed:
                self._link.call(method(60, 30, short(f"s{name}") + b"\0"), {(60, 31)})
        if self._link is not None and not self._link.closed:
            if self._flow.width:
                self._flow.close(self._link)
                self.flush()
            self._receive(self._link)
            self._give_back_early({name})

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
        self._pulse = Pulse(link)
        weakref.finalize(self, self._pulse.stop)
        try:
            self._standing, self._flow = set(), Flow()
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
