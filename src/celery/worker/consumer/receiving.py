"""Flow. Deliveries become jobs for the pool: each is admitted, put off, dropped or refused."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from kombu.exceptions import ContentDisallowed

from celery.exceptions import InvalidTaskError, NotRegistered, TaskRevokedError
from celery.message import MalformedMessage
from celery.ports import Job
from celery.states import FAILURE, REVOKED
from celery.worker.admission import RUN, Drop, Refuse, Wait, admit
from celery.worker.settlement import ACK, REJECT

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from celery.message import Message
    from celery.outcome import Record
    from celery.ports import Clock, Delivery
    from celery.worker.admission import Admission, TaskPolicy
    from celery.worker.consumer.observer import Observer
    from celery.worker.consumer.settling import Settler
    from celery.worker.consumer.waiting import WaitingRoom

__all__ = ["Held", "Receiver"]

_REFUSALS: dict[str, type[Exception]] = {
    "unknown": NotRegistered,
    "content": ContentDisallowed,
    "invalid": InvalidTaskError,
}


@dataclass(slots=True, eq=False)
class Held(Job):
    """A job that the worker has taken on, until it is settled. The pool sees only the job."""

    delivery: Delivery
    policy: TaskPolicy
    #: True once the acknowledgement is on its way to the broker.
    acknowledged: bool = False


class Receiver:
    """Decides on each delivery. What cannot be run is settled at once; the rest becomes jobs."""

    def __init__(
        self,
        *,
        policies: Callable[[str], TaskPolicy | None],
        accept: AbstractSet[str] | None,
        read_other: Callable[[bytes], Message],
        verdict: Callable[[Message, str, BaseException], Record | None],
        observer: Observer,
        clock: Clock,
        totals: Counter[str],
    ) -> None:
        """`policies`: task name → policy, None if there is no such task; asked once for each known name.

        `accept`: content types that may be decoded, None for all. `read_other` reads what is no protocol 2 message, or
        raises `MalformedMessage`. `verdict` makes the record of a message that ends here, in that state with that
        exception. `totals` counts the messages taken on, by task name.
        """
        self._ask = policies
        self._policies: dict[str, TaskPolicy] = {}
        self._accept = accept
        self._read_other = read_other
        self._verdict = verdict
        self._observer = observer
        self._clock = clock
        self._totals = totals
        self._keys = count(1)

    def receive(self, deliveries: Iterable[Delivery], settler: Settler, waiting: WaitingRoom) -> list[Held]:
        """Take these on; returns those that may be run now, in order."""
        now = self._clock.time()
        run: list[Held] = []
        told: list[Message] = []
        late: list[tuple[Delivery, Message]] = []
        for delivery in deliveries:
            try:
                admission, message = self._admit(delivery, now, run)
                if admission is RUN:
                    if message.eta is None or not waiting.returned(message.id):
                        told.append(message)
                elif isinstance(admission, Wait):
                    if waiting.add(delivery, admission.until, now):
                        told.append(message)
                elif isinstance(admission, Drop):
                    told.append(message)
                    late.append((delivery, message))
                elif isinstance(admission, Refuse):
                    self._refuse(delivery, admission, settler)
            except MalformedMessage as exc:
                kind = "message" if exc.__cause__ is None else "undecodable"
                self._refuse(delivery, Refuse(kind, str(exc)), settler)
            except Exception as exc:  # noqa: BLE001 - one message that upsets us must not take its neighbours with it
                self._refuse(delivery, Refuse("invalid", repr(exc)), settler)
        if told:
            self._tell(told)
        for delivery, message in late:
            self._drop(delivery, message, settler)
        return run

    def _admit(self, delivery: Delivery, now: float, run: list[Held]) -> tuple[Admission, Message]:
        message = delivery.message
        if message is None:
            message = self._other(delivery)
        policy = self._policies.get(message.task)
        if policy is None:
            policy = self._policy(message.task)
        admission = admit(message, policy, self._accept, now)
        if admission is RUN and policy is not None:
            run.append(Held(next(self._keys), message, delivery, policy))
        return admission, message

    def _tell(self, messages: list[Message]) -> None:
        self._totals.update([message.task for message in messages])
        self._observer.received(messages)

    def due(self, deliveries: Iterable[Delivery], settler: Settler, waiting: WaitingRoom) -> list[Held]:
        """Their time has come: run them, unless they have expired meanwhile (`[worker.29]`)."""
        now = self._clock.time()
        run: list[Held] = []
        for delivery in deliveries:
            admission, message = self._admit(delivery, now, run)
            if isinstance(admission, Drop):
                self._drop(delivery, message, settler)
            elif isinstance(admission, Refuse):
                self._refuse(delivery, admission, settler)
            elif isinstance(admission, Wait):  # the clock was set back
                waiting.add(delivery, admission.until, now)
        return run

    def _policy(self, name: str) -> TaskPolicy | None:
        policy = self._ask(name)
        if policy is not None:
            self._policies[name] = policy
        return policy

    def _other(self, delivery: Delivery) -> Message:
        """Read what is no protocol 2 message. Raises `MalformedMessage`."""
        if delivery.raw is None:
            raise MalformedMessage(delivery.error or "expected a task message, got nothing")
        try:
            delivery.message = message = self._read_other(delivery.raw)
        except MalformedMessage:
            raise
        except Exception as exc:  # whatever a decoder raises
            raise MalformedMessage(f"expected a task message, got what cannot be decoded: {exc!r}") from exc
        return message

    def _refuse(self, delivery: Delivery, refusal: Refuse, settler: Settler) -> None:
        self._observer.refused(delivery, refusal)
        record = None
        if delivery.message is not None:  # somebody may wait for it
            record = self._verdict(delivery.message, FAILURE, _REFUSALS[refusal.kind](refusal.reason))
        settler.add(delivery, REJECT, record)

    def _drop(self, delivery: Delivery, message: Message, settler: Settler) -> None:
        self._observer.expired(message)
        settler.add(delivery, ACK, self._verdict(message, REVOKED, TaskRevokedError("expired")))
