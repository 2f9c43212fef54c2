"""Flow. Tasks that may not begin more often than so many times a second (`[limit.5]`)."""

from __future__ import annotations

from collections import deque
from math import ceil, inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.message import Message
    from celery.ports import Clock
    from celery.worker.admission import TaskPolicy
    from celery.worker.consumer.deliveries import Held
    from celery.worker.consumer.waiting import WaitingRoom

__all__ = ["HELD", "NOW", "PARKED", "Rates"]

#: What becomes of a message: it may begin, it waits here, or it was parked in the broker.
NOW, HELD, PARKED = "now", "held", "parked"

#: Seconds of work that may wait in memory for each task, and how many messages at least and at most.
_AHEAD, _FEWEST, _MOST = 2.0, 2, 5000
#: Seconds that a message is parked at least, if no more than these many wait, and at most before it is looked at again.
_SOON, _LATE = 1.0, 5.0
#: Of one task, so many parked messages a second are looked at again: whoever could run them now gets at them.
_LOOKED_AT = 500.0
#: Seconds that a busy engine may be late without a run being lost by it.
_SLACK = 0.05


class _Gate:
    """The limit of one task: a bucket of one token."""

    def __init__(self, rate: float) -> None:
        """`rate`: runs a second, more than 0."""
        self.rate = rate
        self.every = 1.0 / rate
        #: When the next one may begin (monotonic).
        self.next_at = -inf
        #: The next ones, in order.
        self.waiting: deque[Held] = deque()
        self.most = min(_MOST, max(_FEWEST, ceil(_AHEAD * rate)))
        self._soon = min(_LATE, max(_SOON, self.every), max(self.most * self.every / 2, 0.1))
        self._spacing = min(1.0 / _LOOKED_AT, self.every / 2)
        self._line = -inf

    def take(self, now: float, slack: float = 0.0) -> bool:
        if now < self.next_at:
            return False
        self.next_at = max(self.next_at, now - slack) + self.every
        return True

    def pause(self, now: float) -> float:
        """Seconds to park one more: at the end of those that are parked already, not denser than they can be looked
        at again."""
        self._line = max(now + self._soon, self._line + self._spacing)
        return self._line - now


class Rates:
    """Holds back what may not begin yet.

    A few of each task wait in memory, so that a token never waits for the broker; the others are parked there, so that
    they neither fill this worker nor keep other tasks, or other workers, from anything. Where the broker cannot park,
    all that was taken waits here.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gates: dict[str, _Gate] = {}
        self._room: WaitingRoom | None = None
        #: False: certainly nothing waits here.
        self.busy = False

    def attach(self, waiting: WaitingRoom) -> None:
        """From now on messages are parked by that."""
        self._room = waiting
        waiting.held_back = self.full

    def admit(self, one: Held) -> str:
        """Whether it may begin `NOW`; else it is kept: `HELD` or `PARKED`."""
        gate = self._gate(one.policy)
        now = self._clock.monotonic()
        if not gate.waiting and gate.take(now):
            return NOW
        room = self._room
        if room is not None and room.parks and len(gate.waiting) >= gate.most:
            room.put_off(one.delivery, self._clock.time() + gate.pause(now))
            return PARKED
        gate.waiting.append(one)
        self.busy = True
        return HELD

    def _gate(self, policy: TaskPolicy) -> _Gate:
        gate = self._gates.get(policy.name)
        if gate is None or gate.rate != policy.rate:
            assert policy.rate is not None
            fresh = self._gates[policy.name] = _Gate(policy.rate)
            if gate is not None:
                fresh.waiting = gate.waiting
            gate = fresh
        return gate

    def keep(self, one: Held) -> None:
        """It was held back before, and is to be by the limit that is in force now."""
        self._gate(one.policy).waiting.append(one)
        self.busy = True

    def full(self, message: Message) -> bool:
        """Whether one more of this task could only be parked."""
        gate = self._gates.get(message.task)
        return gate is not None and len(gate.waiting) >= gate.most

    def due(self) -> list[Held]:
        """Take out those that may begin now."""
        now = self._clock.monotonic()
        begin: list[Held] = []
        self.busy = False
        for gate in self._gates.values():
            waiting = gate.waiting
            while waiting and (waiting[0].delivery.lost or gate.take(now, _SLACK)):
                one = waiting.popleft()
                if not one.delivery.lost:
                    begin.append(one)
            self.busy = self.busy or bool(waiting)
        return begin

    def reset(self, name: str | None = None) -> list[Held]:
        """Forget the limit of this task, or all; returns what waited for it."""
        gates = [self._gates.pop(name, None)] if name is not None else list(self._gates.values())
        if name is None:
            self._gates = {}
        return [one for gate in gates if gate is not None for one in gate.waiting]

    def remove(self, ones: set[int]) -> None:
        """Take out those with these keys."""
        for gate in self._gates.values():
            gate.waiting = deque(one for one in gate.waiting if one.key not in ones)

    @property
    def waiting(self) -> list[Held]:
        """All that wait here. Any thread may ask."""
        return [one for gate in list(self._gates.values()) for one in list(gate.waiting)]

    @property
    def patience(self) -> float:
        """Seconds until one of those that wait may begin."""
        now = self._clock.monotonic()
        return max(0.0, min((gate.next_at - now for gate in self._gates.values() if gate.waiting), default=inf))
