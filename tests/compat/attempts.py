"""Runs a task as a worker does, attempt after attempt, without waiting for the time between them."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.message import Message
from celery.outcome import Outcome, Retrying
from celery.routing import QueueSpec

if TYPE_CHECKING:
    from celery import Celery


def taken(app: Celery, queue: str = "celery") -> Message:
    """The one message of a queue."""
    consumer = app.assembly.broker.consume([QueueSpec(queue)])
    (delivery,) = consumer.fetch(1, 0)
    consumer.ack([delivery])
    consumer.close()
    assert delivery.message is not None
    return delivery.message


def run(app: Celery, message: Message) -> Outcome:
    """One run of a message; its record is saved as a worker would."""
    # Its own bytes, as they cross into a child.
    outcome = app.assembly.runner("worker@here").run(Message.whole(message.to_envelope("tag")))
    if outcome.record is not None:
        app.assembly.store.save([outcome.record])
    return outcome


@dataclass
class Attempts:
    """What came of a call."""

    #: Seconds between the end of each run and the time at which the next one is due, as the messages say.
    delays: list[float] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


def attempts(app: Celery, message: Message, most: int = 30) -> Attempts:
    """Run a message and what follows from it until it is not tried again."""
    seen = Attempts()
    while True:
        assert len(seen.messages) < most
        seen.messages.append(message)
        outcome = run(app, message)
        seen.outcomes.append(outcome)
        if not isinstance(outcome, Retrying):
            return seen
        ((_, _, envelope),) = outcome.follow
        message = Message.from_envelope(envelope)
        due = dt.datetime.fromisoformat(message.eta).timestamp() if message.eta else time.time()
        seen.delays.append(due - time.time())


class Reasons(list[Any]):
    """The `Retry` of each `task_retry` sent while this is entered."""

    def __enter__(self) -> Reasons:
        signals.task_retry.connect(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signals.task_retry.disconnect(self._note)

    def _note(self, reason: Any = None, **_: Any) -> None:
        self.append(reason)

    @property
    def delays(self) -> list[Any]:
        return [reason.when for reason in self]
