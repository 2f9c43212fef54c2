"""Flow. Messages that begin only with the broker's knowledge: redelivered ones, and those that must never run twice."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from celery.ports import Blaming, Seated, Yielding
from celery.worker.admission import Refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.message import Message
    from celery.ports import Consumer, Delivery, Pool
    from celery.worker.consumer.deliveries import Held, Settler

__all__ = ["Suspects"]


class Suspects:
    """Says when a redelivered message may run, and which has killed too often to run again (decision 0016).

    Each waits until a runner is free, so that handed over is begun; then the broker notes that it begins. If this
    process dies, that note is what it is blamed by. One whose next death would be its last runs alone in the worker:
    nobody is parked for what a neighbour did. First deliveries pass by here and cost nothing.

    So do not those that are to be acknowledged first: they wait in the same way, and what is noted is that the broker
    has no longer any claim on them (decision 0029).
    """

    def __init__(self, pool: Pool, max_deaths: int, park: Callable[[Delivery, Message, int, Settler], None]) -> None:
        """`max_deaths`: after so many a message is parked; 0: never. `park`: does that."""
        self._pool = pool
        #: The first death of a whole worker only raises a suspicion against all that it held, so it convicts nobody.
        self._limit = max(2, max_deaths) if max_deaths else 0
        self._park = park
        self._blaming: Blaming | None = None
        self._consumer: Consumer | None = None
        #: Those that have not been handed to the pool.
        self.waiting: deque[Held] = deque()
        #: False: certainly nothing `blocks`.
        self.busy = False
        #: The one that has the worker for itself.
        self._alone: Held | None = None

    def attach(self, consumer: Consumer) -> None:
        """From now on messages come from there."""
        self._consumer = consumer
        self._blaming = consumer if isinstance(consumer, Blaming) else None

    def look_at(self, message: Message) -> Refuse | None:
        """Refuse a message that has killed too often."""
        if self._limit and message.redelivered and message.deaths >= self._limit:
            return Refuse("died", message.task)
        return None

    def park(self, delivery: Delivery, message: Message, settler: Settler) -> None:
        """Make it a dead letter, and a failure for whoever waits."""
        self._park(delivery, message, message.deaths, settler)

    def add(self, one: Held) -> None:
        """Have it run when it may."""
        self.waiting.append(one)
        self.busy = True

    def forget_lost(self) -> None:
        """Drop those that others have taken over."""
        self.waiting = deque(one for one in self.waiting if not one.delivery.lost)

    def blocks(self, held: Mapping[int, Held]) -> bool:
        """Whether nothing else may begin now: one waits for its turn, or has the worker for itself."""
        alone = self._alone
        if alone is not None and (alone.key not in held or alone.acknowledged):
            self._alone = alone = None
        self.busy = alone is not None or bool(self.waiting)
        return self.busy

    def next(self, held: Mapping[int, Held]) -> list[Held]:
        """Take out those that may begin now; the broker knows of it. Raises `OperationalError`; then they wait on."""
        pool, waiting = self._pool, self.waiting
        room = pool.idle if isinstance(pool, Seated) else pool.free
        if room <= 0 or not waiting or self._alone is not None:
            return []
        batch: list[Held] = []
        if self._on_last_chance(waiting[0]):
            if held:
                return []
            batch.append(waiting[0])
        else:
            for one in waiting:
                if len(batch) == room or self._on_last_chance(one):
                    break
                batch.append(one)
        suspected = [one.delivery for one in batch if one.message.redelivered]
        if self._blaming is not None and suspected:
            self._blaming.begun(suspected)
        self._acknowledge([one for one in batch if one.policy.acks_first and not one.acknowledged])
        for _ in batch:
            waiting.popleft()
        if self._on_last_chance(batch[0]):
            self._alone = batch[0]
        return [one for one in batch if not one.delivery.lost]

    def _acknowledge(self, batch: list[Held]) -> None:
        """Only what was still ours is `acknowledged` then, and nobody else can have it; the rest is `lost`."""
        if not batch:
            return
        consumer, deliveries = self._consumer, [one.delivery for one in batch]
        if isinstance(consumer, Yielding):
            consumer.give_up(deliveries)
        else:
            assert consumer is not None, "attach comes first"
            consumer.ack(deliveries)
            consumer.flush()
        for one in batch:
            one.acknowledged = not one.delivery.lost

    def _on_last_chance(self, one: Held) -> bool:
        return bool(self._limit) and one.message.deaths >= self._limit - 1
