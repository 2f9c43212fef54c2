"""Application. Queues of an app's broker: how they stand, what lies on them, and cancelling what waits for its time."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from celery.app import unlocking
from celery.exceptions import ImproperlyConfigured, TaskRevokedError
from celery.message import MalformedMessage, Message
from celery.ports import Burying, Inspectable
from celery.states import REVOKED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from celery.app.base import Celery
    from celery.ports import Inspection, Resting

__all__ = ["cancel", "described", "inspection_of", "known_queues", "message_of", "overview", "parked"]

#: Messages that are read, or cancelled, at once.
_PAGE = 200


def inspection_of(app: Celery) -> Inspection:
    """The queues of the broker that the app's workers take from. Raises `ImproperlyConfigured` if it shows none."""
    broker = app.assembly.broker_for_read
    if not isinstance(broker, Inspectable):
        raise ImproperlyConfigured("this broker lets nobody look at its queues: redis://, sqlite:// and memory:// do")
    return broker.inspection


def known_queues(app: Celery) -> list[str]:
    """The queues that the app's settings name, sorted."""
    return sorted(app.amqp.queues)


def overview(app: Celery, queues: Sequence[str]) -> list[dict[str, Any]]:
    """How each of the queues stands, then every other that has anything, as data that JSON can hold; of none given,
    those that the app knows first."""
    dead: dict[str, int] = {}
    broker = app.assembly.broker_for_read
    if isinstance(broker, Burying):
        dead = broker.dead_letters.counts()
    wanted = list(queues) or sorted({*known_queues(app), *dead})
    now = dt.datetime.now(dt.UTC).timestamp()
    found = inspection_of(app).stats(wanted)
    return [
        {
            "queue": one.name,
            "waiting": one.waiting,
            "oldest": None if one.oldest is None else round(max(now - one.oldest, 0.0), 3),
            "held": one.held,
            "parked": one.parked,
            "dead": dead.get(one.name, 0),
        }
        for one in found
        if not queues or one.name in queues
    ]


def message_of(resting: Resting) -> Message | None:
    """The task message; None if it is none."""
    try:
        return Message.from_envelope(resting.envelope)
    except MalformedMessage:
        return None


def described(resting: Resting, *, arguments: bool = False) -> dict[str, Any]:
    """A message that rests as data that JSON can hold; `arguments`: with what they look like."""
    message = message_of(resting)
    told: dict[str, Any] = {
        "queue": resting.queue,
        "task": None if message is None else message.task,
        "id": None if message is None else message.id,
        "priority": None if message is None else message.priority,
        "retries": None if message is None else message.retries,
        "eta": None if message is None else message.eta,
        "size": len(resting.envelope),
    }
    if resting.due is not None:
        told["due"] = dt.datetime.fromtimestamp(resting.due, dt.UTC).isoformat(timespec="milliseconds")
    if arguments and message is not None:
        told["args"], told["kwargs"] = message.headers.get("argsrepr"), message.headers.get("kwargsrepr")
    return told


def parked(app: Celery, queues: Sequence[str]) -> Iterator[Resting]:
    """All parked messages of these queues (none: of all), the first to be due first."""
    inspection, last = inspection_of(app), None
    while page := inspection.parked(queues, _PAGE, last):
        yield from page
        last = page[-1]


def cancel(app: Celery, messages: Iterable[Resting]) -> list[Resting]:
    """Drop parked messages: each of these tasks is revoked, for whoever waits and for the rest of its flow.

    Returns those that were still parked; the others are in some worker's hands by now. A kill in between leaves some
    of one step dropped without a word.
    """
    by_id = {one.id: one for one in messages}
    ids = list(by_id)
    dropped: list[Resting] = []
    fallout = app.assembly.fallout("")
    for first in range(0, len(ids), _PAGE):
        for id in inspection_of(app).cancel(ids[first : first + _PAGE]):
            dropped.append(by_id[id])
            _revoke(app, message_of(by_id[id]), fallout)
    return dropped


def _revoke(app: Celery, message: Message | None, fallout: Any) -> None:
    if message is None:
        return
    exc = TaskRevokedError("cancelled")
    store = app.assembly.store is not None and not message.ignore_result
    app.backend.mark_as_revoked(message.id, str(exc), store_result=store)
    ended = fallout(message, REVOKED, exc)
    if ended is not None and ended.further is not None:
        unlocking.settle(app, ended.further)
