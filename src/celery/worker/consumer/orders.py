"""Flow. What others want of a running engine: revoke, terminate, other queues, another size. In the engine's thread."""

from __future__ import annotations

import logging
from collections import Counter, deque
from heapq import heapify
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from celery.ports import Killable
from celery.worker.consumer.deliveries import give_back

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.message import Message
    from celery.ports import Consumer
    from celery.routing import QueueSpec
    from celery.worker.consumer.deliveries import Held, Settler
    from celery.worker.consumer.engine import Engine
    from celery.worker.consumer.waiting import WaitingRoom

__all__ = ["Orders"]

logger = logging.getLogger("celery.worker.consumer")


class Orders:
    """Does it: a part of the engine, in a file of its own. Other threads come here by way of `Engine.commands`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._consumer: Consumer | None = None
        self._settler: Settler | None = None
        #: The queues that are taken from, by name.
        self._queues: dict[str, QueueSpec] = {spec.name: spec for spec in engine._parts.queues}
        #: Messages taken from each queue so far.
        self.taken: Counter[str] = Counter()
        #: Jobs whose runs are to be ended, and by which signal.
        self.sentenced: dict[int, int] = {}

    def attach(self, consumer: Consumer, settler: Settler) -> None:
        """From now on messages come from there."""
        self._consumer, self._settler = consumer, settler

    # -- queues ------------------------------------------------------------------------------------------------------

    @property
    def queues(self) -> list[QueueSpec]:
        return list(self._queues.values())

    def add_queue(self, spec: QueueSpec) -> None:
        """Take from this queue too, from now on. Raises `OperationalError`; then it is not taken from."""
        if self._consumer is not None and spec.name not in self._queues:
            self._consumer.add_queue(spec)
        self._queues[spec.name] = spec

    def cancel_queue(self, name: str) -> None:
        """Take from this queue no more. What came from it is run."""
        self._queues.pop(name, None)
        if self._consumer is not None:
            self._consumer.cancel_queue(name)

    # -- revoking ----------------------------------------------------------------------------------------------------

    def revoke(self, concerned: Callable[[Message], bool]) -> None:
        """Drop what is revoked and has not begun here. What the pool has of it comes back first."""
        engine, settler = self._engine, self._settler
        if settler is None:
            return
        for one in self._take_out(concerned):
            engine._receiver.revoked(one, settler)
        self._revoke_scheduled(concerned, settler)
        if any(not one.begun and concerned(one.message) for one in engine.held.values()):
            engine._parts.pool.take_back()

    def _take_out(self, concerned: Callable[[Message], bool]) -> list[Held]:
        """Remove these from what waits before the pool."""
        engine = self._engine
        suspects, rates = engine._suspects, engine.rates
        found = [one for one in (*engine._ready, *suspects.waiting, *rates.waiting) if concerned(one.message)]
        if found:
            keys = {one.key for one in found}
            engine._ready = [one for one in engine._ready if one.key not in keys]
            suspects.waiting = deque(one for one in suspects.waiting if one.key not in keys)
            rates.remove(keys)
        return found

    def _revoke_scheduled(self, concerned: Callable[[Message], bool], settler: Settler) -> None:
        waiting = self._engine._waiting
        if waiting is None:
            return
        kept = []
        for entry in waiting.heap:
            message = entry[2].message
            if message is not None and concerned(message):
                self._engine._receiver.revoked_scheduled(entry[2], message, settler)
            else:
                kept.append(entry)
        heapify(kept)
        waiting.heap = kept

    def terminate(self, concerned: Callable[[Message], bool], signum: int) -> list[Message]:
        """Revoke what is concerned, and end the runs of it by this signal. Returns all that was found here.

        Raises `NotImplementedError` where the pool cannot end what runs; it is revoked all the same.
        """
        engine = self._engine
        found = [one for one in engine.reserved() if concerned(one.message)]
        running = [one for one in found if one.key in engine.held]
        self.sentenced.update((one.key, signum) for one in running)
        try:
            self._end_runs(running)
        except NotImplementedError:
            for one in running:
                del self.sentenced[one.key]
            raise
        finally:
            self.revoke(concerned)
        return [one.message for one in found]

    def _end_runs(self, ones: Sequence[Held]) -> None:
        pool: Any = self._engine._parts.pool
        if ones and not isinstance(pool, Killable):
            raise NotImplementedError(type(pool).__name__)
        for one in ones:
            logger.info(
                "Ending the run of %s[%s] (signal %d)", one.message.task, one.message.id, self.sentenced[one.key]
            )
            pool.terminate(one.key, self.sentenced[one.key])

    def carry_out(self, begun: Sequence[int]) -> None:
        """Of those sentenced, some may have begun only now; others are over."""
        held = self._engine.held
        self.sentenced = {key: signum for key, signum in self.sentenced.items() if key in held}
        if late := [held[key] for key in begun if key in self.sentenced]:
            self._end_runs(late)

    # -- limits ------------------------------------------------------------------------------------------------------

    def limits_changed(self, task: str | None = None) -> None:
        """Policies are asked for anew; what waits because of a rate is looked at by the new one."""
        engine = self._engine
        engine._receiver.forget_policies()
        for one in engine.rates.reset(task):
            policy = engine._receiver.policy(one.message.task)
            if policy is not None:
                one.policy = policy
            if policy is not None and policy.rate:
                engine.rates.keep(one)
            elif self._settler is not None:
                engine._ready += engine._receiver.released([one], self._settler)

    # -- the end -----------------------------------------------------------------------------------------------------

    def give_back(self, waiting: WaitingRoom) -> None:
        """What waits because of a rate goes back to its place, unmarked where the broker can do that."""
        held_back = self._engine.rates.reset()
        if waiting.parks:
            for one in held_back:
                waiting.put_off(one.delivery, 0.0)
            try:
                waiting.park()
            except OperationalError as exc:  # then it goes back with all the rest, when the broker is there again
                logger.warning("What waits for its rate goes back marked as redelivered: %s", exc)
        elif self._settler is not None:
            for one in held_back:
                give_back(one, self._settler)
