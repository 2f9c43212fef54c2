"""Application. Dead letters of an app's broker: which there are, and what each says in full."""

from __future__ import annotations

import datetime as dt
import heapq
from base64 import b64encode
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured
from celery.message import MalformedMessage, Message
from celery.ports import Burying

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.app.base import Celery
    from celery.ports import DeadLetter, DeadLetters

__all__ = ["Wanted", "dead_letters_of", "described", "message_of", "select"]

#: Letters that are read at once.
_PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which letters: all that fit everything that is given."""

    #: Names of queues; none: all.
    queues: Sequence[str] = ()
    #: Name of the task, `*` and `?` standing for more.
    task: str = ""
    #: Part of the reason, in any case.
    reason: str = ""
    #: Of letters or of tasks.
    ids: Sequence[str] = ()
    #: Wall-clock seconds since the epoch: it died at this time or before, or after it.
    until: float | None = None
    since: float | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Whether a letter is one of these; its queue is not looked at."""
        if self.reason.casefold() not in letter.reason.casefold():
            return False
        if self.until is not None and letter.died_at > self.until:
            return False
        if self.since is not None and letter.died_at < self.since:
            return False
        if not self.task and not self.ids:
            return True
        message = message_of(letter)
        if self.ids and letter.id not in self.ids and (message is None or message.id not in self.ids):
            return False
        return not self.task or (message is not None and fnmatchcase(message.task, self.task))


def dead_letters_of(app: Celery) -> DeadLetters:
    """Those of the broker that the app's workers take from. Raises `ImproperlyConfigured` if it keeps none."""
    broker = app.assembly.broker_for_read
    if not isinstance(broker, Burying):
        raise ImproperlyConfigured("this broker keeps no dead letters: redis://, amqp://, sqlite:// and memory:// do")
    return broker.dead_letters


def select(dead: DeadLetters, wanted: Wanted) -> Iterator[DeadLetter]:
    """The letters that are wanted, the newest first. Those that come meanwhile are not among them."""
    queues = dict.fromkeys(wanted.queues or dead.queues())
    return heapq.merge(*(_of_queue(dead, queue, wanted) for queue in queues), key=lambda letter: -letter.died_at)


def _of_queue(dead: DeadLetters, queue: str, wanted: Wanted) -> Iterator[DeadLetter]:
    before = ""
    while page := dead.newest(queue, _PAGE, before):
        before = page[-1].id
        yield from filter(wanted.fits, page)


def message_of(letter: DeadLetter) -> Message | None:
    """The task message that was refused; None if it was none."""
    try:
        return Message.from_envelope(letter.envelope)
    except MalformedMessage:
        return None


def described(letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    """A letter as data that JSON can hold; `whole`: with headers and body."""
    message = message_of(letter)
    told: dict[str, Any] = {
        "id": letter.id,
        "queue": letter.queue,
        "task": None if message is None else message.task,
        "task_id": None if message is None else message.id,
        "died_at": dt.datetime.fromtimestamp(letter.died_at, dt.UTC).isoformat(timespec="milliseconds"),
        "deaths": letter.deaths,
        "reason": letter.reason,
        "size": len(letter.envelope),
    }
    if not whole:
        return told
    told["traceback"] = letter.traceback
    if message is None:
        return told | {"message": _text(letter.envelope)}
    return told | {
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "priority": message.priority,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "headers": message.headers,
        "body": _body(message),
    }


def _body(message: Message) -> Any:
    try:
        return _text(message.body)
    except MalformedMessage as exc:
        return str(exc)


def _text(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}
