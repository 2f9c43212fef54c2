"""Adapter. Taking messages from Redis: reserved in the step that pops them, held under a lease, settled once.

Waiting costs nothing: the server tells us (client tracking) when one of the lists that we found empty is written to.
"""

from __future__ import annotations

import json
import os
import random
import weakref
from collections import deque
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.backends.redis_barriers import fulls
from celery.brokers.dead_letters import Overflow
from celery.brokers.queue_options import without_effect
from celery.brokers.redis_dead import bounds_of, note_overflow, why
from celery.brokers.redis_fanout import FanoutQueues, is_fanout
from celery.brokers.redis_keeper import QUIET_LEASE, Keeper, ack_commands, number_of, take_all
from celery.brokers.redis_portions import Portions
from celery.brokers.redis_scripts import DEFER, DUE, FENCE, FETCH, FIRE, REJECT, RESTORE, SETTLE
from celery.drivers.redis_pool import run
from celery.exceptions import ImproperlyConfigured
from celery.message import MalformedMessage, Message
from celery.ports import Clock, Delivery, SystemClock
from celery.waits import wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.backends.redis_barriers import RedisBarriers
    from celery.brokers.redis import RedisBroker
    from celery.drivers.redis import Command, Link
    from celery.ports import Firing, Full, ResultBackend, Settled
    from celery.routing import QueueSpec

__all__ = ["RedisConsumer"]

#: Longest wait before lists are looked at again although nothing was heard: heals a lost invalidation, and finds out
#: that a silent server is gone.
_LOOK_AGAIN = 5.0
#: The same where nobody holds anything.
_LOOK_QUIET = 20.0
#: Where tracking is refused: first and longest pause between looks.
_POLL, _POLL_MOST = 0.005, 0.25
#: Tags that one script call is given at most.
_MOST = 2000
#: With more holders than these, who wakes waits up to this long a holder, so that not all ask in the same instant.
_CROWD, _JITTER = 4, 0.0002

_chance = random.Random()  # our own, so that a sequence that user code has seeded is not disturbed


class RedisConsumer:
    """Holds what it fetched in `unacked` under tags of its own until it is settled. Owned by one thread.

    A second thread, the keeper, renews the lease, so that an owner that is away for long (a solo pool running a task)
    keeps its messages.
    """

    def __init__(
        self,
        broker: RedisBroker,
        node: str,
        queues: Sequence[QueueSpec],
        *,
        clock: Clock = SystemClock(),  # noqa: B008
    ) -> None:
        self._broker = broker
        self._layout = broker.layout
        self._clock = clock
        self.holder = _holder(node or str(os.getpid()))
        self._tag = self.holder.encode() + b".%d"
        self._pid = os.getpid()
        self._number = 0
        self._turn = 0
        self._portions = Portions()
        self._link: Link | None = None
        self._tracking = False
        #: Which run of which server we talk to; b"" where it does not say.
        self._server: bytes | None = None
        #: Lists may hold something: nothing was heard of them since they were last found empty, if False.
        self._dirty = True
        self._look_at = 0.0
        self._due_at = float("inf")
        self._pause = _POLL
        #: What is in our custody, by tag.
        self.held: dict[bytes, Delivery] = {}
        #: Tags with lower numbers were given by a server that has changed since.
        self._known_from = 0
        self._acks: deque[bytes] = deque()
        #: Tags in the set of those that have begun.
        self._begun: set[bytes] = set()
        self._dead = (broker.layout.dead, *bounds_of(broker.bounds))
        self._overflow = Overflow()
        self._ttl_of: Callable[[str], str] = str
        self._barriers: RedisBarriers | None = None
        self._result_prefix = ""
        #: Names of queues, quoted.
        self._queues: dict[str, str] = {}
        #: Those on fanout exchanges.
        self._fanout = FanoutQueues(broker, self.holder)
        for queue in queues:
            self._take_from(queue)
        self._arrange()
        self._keeper = Keeper(broker.endpoint, self._layout, self.holder, self.held, self._acks, clock)
        self._connected()
        self._keeper.start()
        weakref.finalize(self, self._keeper.abandon)

    # ------------------------------------------------------------------------------------------------------ taking

    def fetch(self, limit: int, timeout: float, until_readable: Sequence[int] = ()) -> list[Delivery]:
        """See `Consumer.fetch`. Raises `OperationalError`; the next call connects again; what is held stays held."""
        monotonic = self._clock.monotonic
        deadline = monotonic() + timeout
        while True:
            link = self._connected()
            if self._fanout and self._fanout.keep(link):
                self._dirty = True
            if limit > 0 and (timeout <= 0 or self._dirty or monotonic() >= min(self._look_at, self._due_at)):
                deliveries = self._take(link, limit)
                if deliveries or timeout <= 0:
                    return deliveries
            elif self._acks:
                self.flush()
            now = monotonic()
            until = deadline if limit <= 0 else min(deadline, self._look_at, self._due_at)
            ready = self._wait(link, 0.0 if self._dirty and limit > 0 else until - now, until_readable)
            if ready or (monotonic() >= deadline and not (self._dirty and limit > 0)):
                return []

    def _take(self, link: Link, limit: int) -> list[Delivery]:
        """One round trip: gathered acks, then the fetch; two more if something is due, which goes first."""
        limit = self._portions.limit(limit)
        look, keeper, head = True, self._keeper, self._head
        if keeper.quiet:
            if self._dirty or not self._tracking:
                keeper.rouse()
            else:  # only looking again: nothing will be found
                head = (*head[:-1], int(QUIET_LEASE * 1000))
        while True:
            first, self._number = self._number, self._number + limit
            self._turn += 1
            fetch = FETCH.call(self._keys, (*head, limit, first, int(look), *self._tail(link)))
            renewed = self._clock.monotonic()
            try:
                due, found, lapsed = self._exchange(fetch)[-1]
            except BaseException:
                # The script may have run, or may yet run, without our knowing what it took, or what it told.
                keeper.lapsed = True
                keeper.suspect(first, limit)
                raise
            keeper.renewed = renewed
            if lapsed:
                keeper.lapsed = True
            if keeper.quiet and (
                found or head is self._head
            ):  # or the keeper settled down while we shortened the lease
                keeper.rouse()
            self._number = first + len(found) // 2
            now = self._clock.monotonic()
            self._portions.came(found[1::2], now - renewed)
            self._pause = _POLL if found else min(self._pause * 1.5, _POLL_MOST)
            self._look_at = now + ((_LOOK_QUIET if keeper.quiet else _LOOK_AGAIN) if self._tracking else self._pause)
            self._dirty = len(found) // 2 == limit
            self._due_at = float("inf") if due is None else now + max(float(due), 0.0)
            if found or not look or self._due_at > now:
                return self._deliver(first, found)
            self._exchange(DUE.call((), (*self._layout.arguments, limit, *self._names)))
            look = False

    def _deliver(self, first: int, found: list[Any]) -> list[Delivery]:
        names, held, tag = self._shown, self.held, self._tag
        read = Message.from_envelope
        deliveries = []
        raws = iter(found)
        for number, (queue, raw) in enumerate(zip(raws, raws, strict=True), first):
            mine = tag % number
            try:
                held[mine] = delivery = Delivery(mine, names[queue - 1], read(raw), raw)
            except MalformedMessage as exc:
                held[mine] = delivery = Delivery(mine, names[queue - 1], None, raw, str(exc))
            deliveries.append(delivery)
        return deliveries

    def lost(self) -> list[Delivery]:
        """See `Fenced.lost`. Asked are those whose lease had run out, or may have: whose line was lost, or who did not
        come to renew it."""
        held, keeper, layout = self.held, self._keeper, self._layout
        if not held:
            keeper.lapsed = False
            return []
        now = self._clock.monotonic()
        if not keeper.lapsed and now < keeper.renewed + layout.lease:
            return []
        keeper.lapsed = False
        tags = [tag for tag in held if number_of(tag) >= self._known_from]
        lost: list[bytes] = []
        try:
            for start in range(0, max(len(tags), 1), _MOST):
                some = tags[start : start + _MOST]
                lease = (layout.leases + self.holder, layout.holders, self.holder, int(layout.lease * 1000))
                lost += self._exchange(FENCE.call((), (layout.unacked, *lease, *some)))[-1]
        except BaseException:
            keeper.lapsed = True
            raise
        keeper.renewed = now
        gone = [held.pop(tag) for tag in lost]
        for delivery in gone:
            delivery.lost = True
        return gone

    def _wait(self, link: Link, timeout: float, until_readable: Sequence[int]) -> bool:
        """Wait until a list was written to (then `_dirty`) or time is over; True if one of the others is readable."""
        mine = link.fileno()
        if link.pushes or link.pending():
            timeout = 0.0
        watched = [mine, *until_readable]
        if self._fanout:
            ear, patience = self._fanout.watch()
            watched.append(ear)
            timeout = min(timeout, patience)
        ready = wait_readable(watched, timeout)
        if mine in ready or link.pushes or link.pending():
            self._hear(link)
        return any(descriptor in until_readable for descriptor in ready)

    def _hear(self, link: Link) -> None:
        try:
            heard = link.collect_pushes()
        except OperationalError:
            self._lose()
            raise
        if any(push[0] == b"invalidate" for push in heard):
            self._dirty = True
            if self._keeper.holders > _CROWD:
                wait_readable([], _chance.random() * _JITTER * self._keeper.holders)

    # ---------------------------------------------------------------------------------------------------- settling

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See `Consumer.ack`: sent with the next fetch, by the keeper within 50 ms otherwise."""
        held, acks = self.held, self._acks
        quiet = not acks
        for delivery in deliveries:
            held.pop(delivery.tag, None)
            acks.append(delivery.tag)
        if quiet:
            self._keeper.notice()

    def give_up(self, deliveries: Sequence[Delivery]) -> None:
        """See `Yielding.give_up`: whoever takes a tag out of `unacked` was its holder."""
        layout, tags = self._layout, [delivery.tag for delivery in deliveries]
        commands: list[Command] = [("HDEL", layout.unacked, tag) for tag in tags]
        replies = self._exchange(*commands, ("ZREM", layout.unacked_index, *tags))
        for delivery, removed in zip(deliveries, replies[-len(tags) - 1 : -1], strict=True):
            self.held.pop(delivery.tag, None)
            delivery.lost = not removed

    def reject(self, deliveries: Sequence[Delivery], *, requeue: bool) -> None:
        """See `Consumer.reject`. Dead letters are kept in a bounded stream a queue."""
        arguments = self._layout.arguments
        if requeue:
            died = [delivery.tag for delivery in deliveries if delivery.died]
            others = [delivery.tag for delivery in deliveries if not delivery.died]
            parts = [(blamed, tags) for blamed, tags in (("*", died), ("", others)) if tags]
            self._exchange(*(RESTORE.call((), (*arguments, "1", "", blamed, *tags)) for blamed, tags in parts))
        else:
            letters: list[Any] = []
            for delivery in deliveries:
                letters += (delivery.tag, delivery.queue, "!" if delivery.died else "", why(delivery))
            reply = self._exchange(REJECT.call((), (*arguments, *self._dead, *letters)))[-1]
            note_overflow(self._overflow, reply)
        for delivery in deliveries:
            self.held.pop(delivery.tag, None)
        self._dirty = True  # of what we write ourselves the server does not tell us

    def begun(self, deliveries: Sequence[Delivery]) -> None:
        """See `Blaming.begun`: a set of tags beside the lease; those that are settled leave it now."""
        key = self._layout.begun + self.holder
        settled = [tag for tag in self._begun if tag not in self.held]
        commands: list[Command] = [("SREM", key, *settled)] if settled else []
        tags = [delivery.tag for delivery in deliveries]
        self._exchange(*commands, ("SADD", key, *tags))
        self._begun.difference_update(settled)
        self._begun.update(tags)

    def defer(self, deliveries: Sequence[tuple[Delivery, float]]) -> None:
        """See `Deferring.defer`. Parked messages outlive us: any consumer of ours takes them when they are due."""
        for start in range(0, len(deliveries), _MOST):
            arguments: list[Any] = [*self._layout.arguments, self._layout.visibility_timeout]
            for delivery, due in deliveries[start : start + _MOST]:
                arguments += (delivery.tag, f"{due:.6f}")
            self._exchange(DEFER.call((), arguments))
        for delivery, _ in deliveries:
            self.held.pop(delivery.tag, None)
        if any(due <= 0 for _, due in deliveries):
            self._dirty = True
        self._look_at = 0.0  # the next look learns when the first is due

    def join(self, backend: ResultBackend) -> bool:
        """True if the backend is of this kind and keeps its records in the same database of the same server."""
        endpoint = getattr(backend, "endpoint", None)
        if endpoint is None or not self._broker.endpoint.same_server(endpoint):
            return False
        self._ttl_of, self._result_prefix = backend.ttl_of, backend.key_prefix  # type: ignore[attr-defined]
        self._barriers = backend.barriers  # type: ignore[attr-defined]
        return True

    def settle(self, settled: Sequence[Settled]) -> Sequence[Full]:
        """See `Joining.settle`: one script call."""
        arguments: list[Any] = [*self._layout.arguments, *self._dead]
        link = self._connected()
        for item in settled:
            delivery, record, disposition = item.delivery, item.record, item.disposition
            if disposition == "reject":
                arguments += (delivery.tag, "reject!" if delivery.died else "reject", delivery.queue, why(delivery))
            else:
                arguments += (delivery.tag, "requeue!" if delivery.died else disposition, "", "")
            if record is None:
                arguments += ("", "", "")
            else:
                arguments += (self._result_prefix + record.id, record.meta, self._ttl_of(record.state))
            if item.publications:
                pushes = self._broker.pushes(link, item.publications)
                arguments.append(len(pushes) // 2)
                arguments += pushes
                self._dirty = True
            else:
                arguments.append(0)
            if item.further is not None:
                assert self._barriers is not None, "settle with arrivals needs join first"
                arguments += self._barriers.arguments(item.further.records, item.further.arrivals)
            if disposition == "requeue":
                self._dirty = True
        dropped, found = self._exchange(SETTLE.call((), arguments))[-1]
        note_overflow(self._overflow, dropped)
        for item in settled:
            self.held.pop(item.delivery.tag, None)
        return fulls(found) if found else ()

    def fire(self, firings: Sequence[Firing]) -> Sequence[Full]:
        """See `Joining.fire`: one script call."""
        assert self._barriers is not None, "fire needs join first"
        arguments: list[Any] = []
        link = self._connected()
        for one in firings:
            arguments += self._barriers.firing(one, self._broker.pushes(link, one.publications))
        found = self._exchange(FIRE.call((), arguments))[-1]
        self._dirty = True
        return fulls(found)

    def others(self, *, ask: bool = False) -> int:
        """See `Accompanied.others`: consumers of ours, whatever their queues; real Celery keeps no such list."""
        if not ask:
            return self._keeper.holders - 1
        holders = self._exchange(("SMEMBERS", self._layout.holders))[-1]
        return sum(holder != self.holder.encode() for holder in holders)

    def flush(self) -> None:
        """See `Consumer.flush`."""
        if self._acks:
            self._exchange()

    # ------------------------------------------------------------------------------------------------------ queues

    def add_queue(self, queue: QueueSpec) -> None:
        """Declare a queue and take from it too."""
        without_effect([queue], self._broker.endpoint.shown)
        self._take_from(queue)
        self._arrange()

    def _take_from(self, queue: QueueSpec) -> None:
        self._broker.declare([queue])
        self._queues[queue.name] = json.dumps(queue.name)
        if is_fanout(queue):
            mine = self._fanout.add(queue)
            self._queues[mine] = json.dumps(mine)

    def cancel_queue(self, name: str) -> None:
        """Take no more from a queue."""
        self._queues.pop(name, None)
        self._queues.pop(self._fanout.remove(name), None)
        self._arrange()

    def _arrange(self) -> None:
        """Prepare the fetch script's keys and constant arguments."""
        layout, names = self._layout, list(self._queues)
        if layout.order is not None:
            names = layout.order(names)
        self._names = names
        self._shown = [layout.shown(name) for name in names]
        self._quoted = [self._queues[name] for name in names]
        self._keys = [layout.list_of(name, step) for step in layout.steps for name in names] + [layout.due]
        self._head = (
            layout.unacked, layout.unacked_index, layout.leases + self.holder, layout.holders, self.holder,
            int(layout.lease * 1000),
        )  # fmt: skip
        self._dirty = True

    def _tail(self, link: Link) -> tuple[Any, ...]:
        width = len(self._names)
        turn = self._turn % max(width, 1) if self._layout.order is None else -1
        return (max(width, 1), turn, int(link.version >= (6, 2)), *self._quoted)

    # -------------------------------------------------------------------------------------------------- connection

    def _connected(self) -> Link:
        link = self._link
        if link is None or link.closed:
            link = self._link = self._broker.endpoint.connect(protocol=3)
            self._dirty = True
            self._meet(link)
        elif self._broker.endpoint.provider is not None:
            link.renew_credentials()
        return link

    def _meet(self, link: Link) -> None:
        """Ask to be told of what is written, and see whether this is the server that was there before."""
        asked = self._clock.monotonic()
        tracked, info = link.attempt([("CLIENT", "TRACKING", "ON", "NOLOOP"), ("INFO", "server")])
        self._portions.met(self._clock.monotonic() - asked)
        self._tracking = not isinstance(tracked, Exception)
        found = b"" if isinstance(info, Exception) else info.partition(b"run_id:")[2].partition(b"\r")[0]
        if self._server not in (None, found):
            self._keeper.review(self._number)
            self._known_from = self._number
        self._server = found

    def _exchange(self, *commands: Command) -> list[Any]:
        """One round trip: gathered acks, then the commands. Acks that may not have arrived are kept."""
        tags = take_all(self._acks)
        try:
            return run(self._connected(), [*ack_commands(self._layout, tags), *commands])
        except BaseException:
            self._acks.extendleft(tags)
            raise

    def _lose(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def close(self) -> None:
        """See `Consumer.close`. Where the server is away, the lease runs out and others take over what we held."""
        if self._pid != os.getpid():
            self._lose()  # a forked child: nothing here is its own
            return
        self._keeper.stop()
        self._fanout.close()
        lease = self._layout.leases + self.holder
        try:
            if self._link is not None:
                self._exchange(
                    RESTORE.call((), (*self._layout.arguments, "1", "", "", *self.held)),
                    ("SREM", self._layout.holders, self.holder),
                    ("DEL", lease, f"{lease}.heir", self._layout.begun + self.holder),
                    *self._fanout.ending(),
                )
        except (OperationalError, ImproperlyConfigured):
            pass  # nothing to tell the owner: custody is in the server
        self.held.clear()
        self._lose()


def _holder(node: str) -> str:
    """A name that nobody had before. Longer than 64 bytes, because a sorted set whose members are short is kept as a
    list by Redis, and costs ten times as much to write to while it is small."""
    return f"{node}-{token_hex(max((65 - len(node)) // 2, 6))}"
