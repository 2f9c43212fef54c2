"""Flow. Deliveries come in and become jobs for the pool; outcomes go out, and settle them.

Coming in, each is admitted, put off, dropped or refused. Going out, records go to the store, follow-ups to the broker,
and only then is the delivery settled.
"""

from __future__ import annotations

import logging
import traceback
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from kombu.exceptions import ContentDisallowed

from celery.exceptions import InvalidTaskError, NotRegistered, TaskRevokedError
from celery.failures import bounded, repr_of
from celery.message import MalformedMessage, Message
from celery.outcome import Failure, Further, Rejected
from celery.ports import Job, Joining, Publication, Settled, SystemClock
from celery.routing import Route
from celery.states import FAILURE, REVOKED
from celery.worker.admission import RUN, Drop, Refuse, Run, Wait, admit, limits_of
from celery.worker.consumer.firings import Firings
from celery.worker.consumer.rates import NOW, PARKED
from celery.worker.settlement import ACK, DONE, REJECT, REQUEUE

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from celery.outcome import Arrival, Outcome, Record
    from celery.ports import Broker, Clock, Consumer, Delivery, Firing, Full, ResultBackend
    from celery.worker.admission import Admission, TaskPolicy
    from celery.worker.consumer.observer import Attendant, Observer
    from celery.worker.consumer.rates import Rates
    from celery.worker.consumer.revocations import Revocations
    from celery.worker.consumer.strangers import Strangers
    from celery.worker.consumer.suspects import Suspects
    from celery.worker.consumer.waiting import WaitingRoom

__all__ = ["REFUSALS", "Held", "Receiver", "Settler", "explain", "give_back", "publications"]

logger = logging.getLogger("celery.worker.consumer")

_NO_LIMITS = (None, None)
#: It is parked until there is room for one more of its kind.
_LATER = Run()
#: The exception that a refusal is shown as, by its kind.
REFUSALS: dict[str, type[Exception]] = {
    "unknown": NotRegistered,
    "content": ContentDisallowed,
    "invalid": InvalidTaskError,
}


class Held(Job, eq=False):
    """A job that the worker has taken on, until it is settled. The pool sees only the job."""

    delivery: Delivery
    policy: TaskPolicy
    #: True once the acknowledgement is on its way to the broker.
    acknowledged: bool = False
    #: True once the pool has told that it runs.
    begun: bool = False
    #: Wall-clock time of that.
    began_at: float | None = None
    #: The task's own request object, where it has a class for that.
    request: Any = None
    #: A request object that was made for whoever looked (`celery.worker.state`).
    shown: Any = None


class Receiver:
    """Decides on each delivery. What cannot be run is settled at once; the rest becomes jobs."""

    def __init__(
        self,
        *,
        policies: Callable[[str], TaskPolicy | None],
        accept: AbstractSet[str] | None,
        read_other: Callable[[bytes], Message],
        verdict: Callable[[Message, str, BaseException], Record | None],
        fallout: Callable[[Message, str, BaseException], Outcome | None] = lambda message, state, exc: None,
        observer: Observer,
        clock: Clock,
        totals: Counter[str],
        strangers: Strangers,
        suspects: Suspects,
        rates: Rates,
        revocations: Revocations,
        attendant: Attendant | None = None,
    ) -> None:
        """`policies`: task name → policy, None if there is no such task; asked once for each known name.

        `accept`: content types that may be decoded, None for all. `read_other` reads what is no protocol 2 message, or
        raises `MalformedMessage`. `verdict` makes the record of a message that ends here, in that state with that
        exception; `fallout`, what that means for its flow. `totals` counts the messages taken on, by task name.
        """
        self._ask = policies
        self._policies: dict[str, TaskPolicy] = {}
        self._accept = accept
        self._read_other = read_other
        self._verdict = verdict
        self._fallout = fallout
        self._observer = observer
        self._gates = tuple(observer.gates)
        self._clock = clock
        self._totals = totals
        self._strangers = strangers
        self._suspects = suspects
        self._rates = rates
        self._revocations = revocations
        self._attendant = attendant
        self._keys = count(1)

    def receive(self, deliveries: Iterable[Delivery], settler: Settler, waiting: WaitingRoom) -> list[Held]:
        """Take these on; returns those that may be run now, in order. What was redelivered joins the suspects."""
        policies, accept, keys = self._policies, self._accept, self._keys
        revoked = self._revocations.ids
        if self._revocations.stamps:
            policies = {}  # each is looked at
        run: list[Held] = []
        told: list[Message] = []
        for delivery in deliveries:
            message = delivery.message
            if (  # what `admit` says of nearly every message, without asking it
                message is not None
                and not message.redelivered
                and message.eta is None
                and message.expires is None
                and (policy := policies.get(message.task)) is not None
                and policy.plain
                and message.timelimit == _NO_LIMITS
                and (accept is None or message.content_type in accept)
                and message.id not in revoked
            ):
                run.append(Held(next(keys), message, delivery, policy))
                told.append(message)
            else:
                self._receive_other(delivery, run, told, settler, waiting)
        if told:
            self._totals.update([message.task for message in told])
            for gate in self._gates:
                if gate.receivers:
                    self._observer.received(told)
                    break
        return run

    def _receive_other(
        self, delivery: Delivery, run: list[Held], told: list[Message], settler: Settler, waiting: WaitingRoom
    ) -> None:
        try:
            admission, message = self._admit(delivery, run)
            if isinstance(admission, Refuse):
                self._refuse_or_wait(delivery, admission, settler, waiting)
            elif isinstance(admission, Drop):
                if admission.why != "revoked":
                    self._observer.received([message])
                self._drop(delivery, message, admission, settler)
            elif self._is_new(delivery, message, admission, waiting):
                told.append(message)
        except MalformedMessage as exc:
            kind = "message" if exc.__cause__ is None else "undecodable"
            self._refuse(delivery, Refuse(kind, str(exc)), settler)
        except Exception as exc:  # noqa: BLE001 - one message that upsets us must not take its neighbours with it
            delivery.traceback = traceback.format_exc()
            self._refuse(delivery, Refuse("invalid", repr_of(exc)), settler)

    def _is_new(self, delivery: Delivery, message: Message, admission: Run | Wait, waiting: WaitingRoom) -> bool:
        """Put off what has to wait. False for what came before, was parked and is back, or is only parked now."""
        if admission is _LATER:
            return False
        if isinstance(admission, Wait):
            return waiting.add(delivery, admission.until)
        return message.eta is None or not waiting.returned(message)

    def _admit(self, delivery: Delivery, run: list[Held]) -> tuple[Admission, Message]:
        message = delivery.message
        if message is None:
            message = self._other(delivery)
        refusal = self._suspects.look_at(message)
        if refusal is not None:
            return refusal, message
        policy = self._policies.get(message.task)
        if policy is None:
            policy = self.policy(message.task)
        admission = admit(message, policy, self._accept, self._clock.time())
        if policy is not None and self._revocations.concern(message):
            return Drop("revoked"), message
        if admission is RUN and policy is not None:
            held = self._hold(message, delivery, policy)
            if policy.rate:
                kept = self._rates.admit(held)
                if kept != NOW:
                    return _LATER if kept == PARKED else RUN, message
            self.line_up(held, run)
        return admission, message

    def line_up(self, held: Held, run: list[Held]) -> None:
        """Nothing holds it back any more: it runs, when it may."""
        if held.message.redelivered or held.policy.acks_first:
            self._suspects.add(held)
        else:
            run.append(held)

    def released(self, ones: Iterable[Held], settler: Settler) -> list[Held]:
        """Their rate lets them begin now: run them, unless they have expired meanwhile."""
        run: list[Held] = []
        for one in ones:
            if one.message.expires is not None:
                admission = admit(one.message, one.policy, self._accept, self._clock.time())
                if isinstance(admission, Drop):
                    self._drop(one.delivery, one.message, admission, settler)
                    continue
            self.line_up(one, run)
        return run

    def forget_policies(self) -> None:
        """Tasks have changed: ask for their policies anew."""
        self._policies.clear()

    def revoked(self, one: Held, settler: Settler) -> None:
        """It was taken on, has not begun, and is revoked: it ends here."""
        self._drop(one.delivery, one.message, Drop("revoked"), settler, acknowledged=one.acknowledged)

    def _hold(self, message: Message, delivery: Delivery, policy: TaskPolicy) -> Held:
        limits = limits_of(message, policy)
        held = Held(next(self._keys), message, delivery, policy, soft_limit=limits.soft, hard_limit=limits.hard)
        if policy.attended and self._attendant is not None:
            held.request = self._attendant.attend(held)
        return held

    def due(self, deliveries: Iterable[Delivery], settler: Settler, waiting: WaitingRoom) -> list[Held]:
        """Their time has come: run them, unless they have expired meanwhile (`[worker.29]`)."""
        run: list[Held] = []
        for delivery in deliveries:
            admission, message = self._admit(delivery, run)
            if isinstance(admission, Drop):
                self._drop(delivery, message, admission, settler)
            elif isinstance(admission, Refuse):
                self._refuse(delivery, admission, settler)
            elif isinstance(admission, Wait):  # the clock was set back
                waiting.add(delivery, admission.until)
        return run

    def revoked_scheduled(self, delivery: Delivery, message: Message, settler: Settler) -> None:
        """It waits for its time, and is revoked."""
        self._drop(delivery, message, Drop("revoked"), settler)

    def policy(self, name: str) -> TaskPolicy | None:
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

    def _refuse_or_wait(self, delivery: Delivery, refusal: Refuse, settler: Settler, waiting: WaitingRoom) -> None:
        """An unknown task may be known to another worker (`[worker.25]`, decision 0010)."""
        message = delivery.message
        if refusal.kind == "unknown" and message is not None and waiting.parks:
            pause = self._strangers.pause(message.id)
            if pause is not None:
                self._observer.unknown(message, pause)
                waiting.put_off(delivery, self._clock.time() + pause)
                return
        self._refuse(delivery, refusal, settler)

    def _refuse(self, delivery: Delivery, refusal: Refuse, settler: Settler) -> None:
        if refusal.kind == "died" and delivery.message is not None:
            self._suspects.park(delivery, delivery.message, settler)
            return
        delivery.error = f"unknown task {refusal.reason!r}" if refusal.kind == "unknown" else refusal.reason
        end = FAILURE, REFUSALS.get(refusal.kind, InvalidTaskError)(refusal.reason)
        try:
            self._observer.refused(delivery, refusal)
            if delivery.message is not None:  # somebody may wait for it
                self.end(delivery, delivery.message, REJECT, end, settler)
                return
        except Exception:
            logger.exception("A message was refused, and more cannot be said of it: %s", bounded(refusal.reason, 1024))
        settler.add(delivery, REJECT)

    def _drop(
        self, delivery: Delivery, message: Message, drop: Drop, settler: Settler, *, acknowledged: bool = False
    ) -> None:
        self._observer.dropped(message, drop.why)
        self.end(delivery, message, DONE if acknowledged else ACK, (REVOKED, TaskRevokedError(drop.why)), settler)

    def end(
        self,
        delivery: Delivery,
        message: Message,
        disposition: str,
        end: tuple[str, Exception],
        settler: Settler,
    ) -> None:
        """It ends here, in that state with that exception: so does what was to follow from it."""
        fallout = self._fallout(message, *end)
        record = self._verdict(message, *end)
        if fallout is None:
            settler.add(delivery, disposition, record)
        else:
            settler.add(delivery, disposition, record, fallout.follow, fallout.further)


def explain(delivery: Delivery, outcome: Outcome) -> None:
    """What a dead letter is to say, if this outcome makes one of the delivery."""
    if isinstance(outcome, Failure | Rejected):
        delivery.error, delivery.traceback = outcome.reason, outcome.traceback


def give_back(one: Held, settler: Settler) -> None:
    """Back to its queue: it has not begun, and does not here. What is acknowledged already is sent again."""
    if one.acknowledged:
        settler.add(one.delivery, DONE, follow=[("", one.delivery.queue, one.message.to_envelope())])
    else:
        settler.add(one.delivery, REQUEUE)


def publications(follow: Sequence[tuple[str, str, bytes]]) -> list[Publication]:
    """The messages that follow from a run, ready to be published.

    A callback is whatever a sender wrote: one that makes no message is left out, and told of.
    """
    ready = []
    for exchange, routing_key, envelope in follow:
        try:
            ready.append(Publication(Message.from_envelope(envelope), Route(exchange, routing_key)))
        except MalformedMessage as exc:
            logger.error("A message that follows from a run cannot be sent: %s", exc)
    return ready


class Settler:
    """Gathers what is to be settled and settles it in batches.

    Where the consumer can settle together with the store (`ports.Joining`), a batch is one step. Elsewhere it is
    three, in the only order in which a kill between two of them repeats but never loses: the record is there before
    the follow-ups go out, and both before the broker forgets the message. A step that failed is done again by the next
    `settle`; those before it are not.
    """

    def __init__(
        self,
        consumer: Consumer,
        broker: Broker,
        store: ResultBackend | None,
        closing: Callable[[Full], Firing] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`closing`: what becomes of chords whose members have all arrived; None where the store counts none."""
        self._consumer = consumer
        self._broker = broker
        self._store = store
        self._joined: Joining | None = None
        if store is not None and isinstance(consumer, Joining) and consumer.join(store):
            self._joined = consumer
        self._batch: list[Settled] = []
        self._firings: Firings | None = None
        if closing is not None:
            self._firings = Firings(self._joined, broker, cast("Any", store), closing, clock or SystemClock())
        self._records: list[Record] = []
        self._arrivals: list[Arrival] = []
        self._publications: list[Publication] = []
        self._settlements: dict[str, list[Delivery]] = {ACK: [], REJECT: [], REQUEUE: []}
        #: Whether there is anything in `_settlements`.
        self._others = False

    def add(
        self,
        delivery: Delivery,
        disposition: str,
        record: Record | None = None,
        follow: Sequence[tuple[str, str, bytes]] = (),
        further: Further | None = None,
    ) -> None:
        """Settle this one with the next `settle`."""
        if self._firings is None and further is not None:
            further = Further(further.records) if self._store is not None and further.records else None
        if (record is None and not follow and further is None) or self._joined is None:
            if record is not None:
                self._records.append(record)
            if further is not None:
                self._records += further.records
                self._arrivals += further.arrivals
            if follow:
                self._publications.extend(publications(follow))
            if disposition in self._settlements:
                self._others = True
                self._settlements[disposition].append(delivery)
        else:
            sent = publications(follow) if follow else ()
            self._batch.append(Settled(delivery, disposition, record, sent, further))

    @property
    def pending(self) -> int:
        """How many deliveries, records and publications wait to be settled."""
        return (
            len(self._batch)
            + len(self._records)
            + len(self._publications)
            + len(self._arrivals)
            + (len(self._firings.full) if self._firings is not None else 0)
            + sum(len(deliveries) for deliveries in self._settlements.values())
        )

    def settle(self) -> None:
        """Settle everything gathered. Raises `OperationalError`; then what is left is settled by the next call."""
        if self._batch:
            assert self._joined is not None
            full = self._joined.settle(self._batch)
            self._batch = []
            if full:
                assert self._firings is not None, "only members of chords can fill a barrier"
                self._firings.full += full
        if self._records:
            if self._store is not None:
                self._store.save(self._records)
            self._records = []
        if self._firings is not None and self._arrivals:
            self._firings.arrive(self._arrivals)
            self._arrivals = []
        if self._publications:
            self._broker.publish(self._publications)
            self._publications = []
        if self._others:
            self._settle_deliveries()
        if self._firings is not None and (self._firings.full or self._firings.looking):
            self._firings.tend()

    def look(self) -> None:
        """It is time to see whether there is something that another worker left undone; the next `settle` does."""
        if self._firings is not None:
            self._firings.look()

    def _settle_deliveries(self) -> None:
        settlements = self._settlements
        if settlements[ACK]:
            self._consumer.ack(settlements[ACK])
            settlements[ACK] = []
        if settlements[REJECT]:
            self._consumer.reject(settlements[REJECT], requeue=False)
            settlements[REJECT] = []
        if settlements[REQUEUE]:
            self._consumer.reject(settlements[REQUEUE], requeue=True)
            settlements[REQUEUE] = []
        self._others = False
