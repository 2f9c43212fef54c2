"""Application. What a worker tells of its tasks (`[event.3]` to `[event.10]`): gathered by the engine, sent in batches.

The engine's thread notes what happened, a report at a time; a thread of its own makes events of that and sends them as
`task.multi`. If it falls behind, the engine waits for it. While the broker is away, the newest 20,000 wait; what had to
be left out is told in one line. Where the broker can say that nobody hears them, the first few of each round are sent
to ask it, and the others are not made; a busy worker does not even note them between two rounds, and its pool's
processes do not describe what they have done.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections import deque
from itertools import count, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from celery import codecs
from celery.lifecycle import Latch
from celery.outcome import Failure, Rejected, Retrying, Success
from celery.utils.time import utcoffset
from celery.worker.parts import left

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.events import EventDispatcher
    from celery.message import Message
    from celery.outcome import Outcome
    from celery.ports import Report
    from celery.worker.consumer.deliveries import Held
    from celery.worker.watched import Watched

__all__ = ["Course"]

logger = logging.getLogger("celery.worker.events")

#: Events that wait at most.
_LIMIT = 20_000
#: Seconds that the engine waits at a time for the thread to catch up.
_CATCH_UP = 1.0
#: Events that are told in one message at most.
_BATCH = 500
#: Tasks whose events ask whether somebody hears, after others that nobody has heard.
_FEW = 10
#: Seconds between two rounds of sending: the first event after a pause goes at once, those behind it together.
_LINGER = 0.05
#: Tasks a second from which a worker is busy: what nobody hears is not noted then, until it is asked again.
_BUSY = 1000
#: Seconds that this is measured over.
_PACE = 0.25
#: Seconds between two tries while the broker is away.
_AGAIN = 1.0
#: Seconds that a stop takes at most to send what is left.
_LAST_TRY = 2.0


class _Task(Struct, tag_field="type", gc=False):
    hostname: str
    utcoffset: float
    pid: int
    clock: int
    timestamp: float
    uuid: str


class _Received(_Task, tag="task-received"):
    name: str
    args: Any
    kwargs: Any
    root_id: Any
    parent_id: Any
    retries: int
    eta: Any
    expires: Any


class _Started(_Task, tag="task-started"):
    pass


class _Succeeded(_Task, tag="task-succeeded"):
    result: str | None
    runtime: float | None


class _Failed(_Task, tag="task-failed"):
    exception: str
    traceback: str | UnsetType = UNSET


class _Retried(_Task, tag="task-retried"):
    exception: str
    traceback: str


class _Rejected(_Task, tag="task-rejected"):
    requeue: bool


class _Revoked(_Task, tag="task-revoked"):
    terminated: bool
    signum: int | str | None
    expired: bool


class _Cancelled(_Task, tag="task-cancelled"):
    pass


class _Headers(Struct, gc=False):
    """Those that only monitors look at: JSON, handed on as it came."""

    argsrepr: Raw = Raw(b'""')
    kwargsrepr: Raw = Raw(b'""')
    root_id: Raw = Raw(b"null")
    parent_id: Raw = Raw(b"null")


class _Seen(Struct, gc=False):
    headers: _Headers


_read = msgspec.json.Decoder(_Seen).decode
_write = msgspec.json.Encoder().encode
#: What is noted: a function that makes events of it, the wall-clock time, and the subjects.
_Note = tuple[Any, float, list[Any]]


class _Common(NamedTuple):
    """What all events of a message have in common."""

    hostname: str
    utcoffset: float
    pid: int
    #: The logical clock, one further with each event.
    tick: Callable[[], int]


class _Wanted(dict[str, bool]):
    """Whether tasks of a name tell events: asked once for each."""

    def __init__(self, ask: Callable[[str], bool]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, name: str) -> bool:
        self[name] = wanted = self._ask(name)
        return wanted


class _Pace:
    """How many tasks a second are taken on."""

    def __init__(self, taken: Callable[[], int]) -> None:
        self._taken = taken
        self._seen = deque([(time.monotonic(), taken())])

    def now(self) -> float:
        """Since this was asked last; of answers in quick succession, since the first of them: many come at a time."""
        at, count = time.monotonic(), self._taken()
        seen = self._seen
        seen.append((at, count))
        while len(seen) > 2 and at - seen[0][0] > _PACE:
            seen.popleft()
        return (count - seen[0][1]) / max(at - seen[0][0], _LINGER)


class Course:
    """The course of each task's run, as events. Notes are taken in the engine's thread; nothing else is done there."""

    def __init__(
        self,
        dispatcher: EventDispatcher,
        watched: Watched,
        wanted: Callable[[str], bool],
        taken: Callable[[], int],
    ) -> None:
        """`watched` is opened for as long as task events are enabled (`[worker.14]`), but for the time in which it is
        known that nobody hears them; `wanted`: whether tasks of that name tell events; `taken`: how many tasks have
        been taken on so far."""
        self._dispatcher = dispatcher
        self.gate = watched
        #: Open for as long as task events are enabled, heard or not: for what happens rarely.
        self.enabled = Latch(False)
        #: Open while arrivals are noted.
        self.entry = Latch(False)
        self._wanted = _Wanted(wanted)
        self._pace = _Pace(taken)
        self._notes: deque[_Note] = deque()
        self._count = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        #: The last message could not be sent.
        self._away = False
        #: The last message was heard by nobody.
        self._unheard = False
        #: There was such a message in this round.
        self._answered = False
        #: Nothing is noted for now: nobody would hear it, and there is much of it.
        self._deaf = False
        #: Of all that, the next few arrivals are noted.
        self._asking = False
        for changed in (dispatcher.on_enabled, dispatcher.on_disabled, dispatcher.groups.on_change):
            changed.add(self.look)
        self.look()
        #: Events that were left out because the broker was away for too long; told once it is back.
        self.dropped = 0

    name = "Events"

    # -- what the engine's thread does -------------------------------------------------------------------------------

    def look(self) -> None:
        """Whether task events are enabled may have changed."""
        groups = self._dispatcher.groups
        with self._lock:  # two that look at once would leave it as the slower one has seen it
            self.enabled.receivers = self._dispatcher.enabled and (not groups or "task" in groups)
            self.gate.receivers = self.enabled.receivers and not self._deaf
            self.entry.receivers = self.enabled.receivers and (self._asking or not self._deaf)

    def received(self, messages: Sequence[Message]) -> None:
        """These were taken on."""
        if not self._deaf:
            self._note(self._make_received, list(messages))
            return
        wanted = self._wanted
        if few := list(islice((one for one in messages if wanted[one.task]), _FEW)):
            self._listen(deaf=len(messages) > _FEW)  # what is few is told in full: it may be all that comes
            self._note(self._make_received, few)

    def reported(self, report: Report, held: Mapping[int, Held]) -> None:
        """The pool tells of these; `held` still has them."""
        ends = [(one, outcome) for key, outcome in report.finished if (one := held.get(key)) is not None]
        if report.begun:
            over = {key for key, _ in report.finished}
            begun = [
                one.message
                for key in report.begun
                if key not in over and (one := held.get(key)) is not None and not one.begun
            ]
            if begun:
                self._note(self._make_started, begun)
        if ends:
            self._note(self._make_ended, [(one.message, outcome, one.begun) for one, outcome in ends])

    def failed(self, message: Message, exc: BaseException | str, traceback: str | None = None) -> None:
        """It failed where its own process could not tell."""
        text = exc if isinstance(exc, str) else repr(exc)
        self._note(self._make_one, [(message, _Failed, (text, UNSET if traceback is None else traceback))])

    def retried(self, message: Message, exc: BaseException) -> None:
        """It is tried again, because its process died."""
        self._note(self._make_one, [(message, _Retried, (repr(exc), ""))])

    def rejected(self, message: Message, *, requeue: bool) -> None:
        self._note(self._make_one, [(message, _Rejected, (requeue,))])

    def revoked(
        self, message: Message, *, terminated: bool = False, signum: int | str | None = None, expired: bool = False
    ) -> None:
        self._note(self._make_one, [(message, _Revoked, (terminated, signum, expired))])

    def cancelled(self, message: Message) -> None:
        """Its run was ended because the worker stops."""
        self._note(self._make_one, [(message, _Cancelled, ())])

    def _note(self, make: Callable[..., object], subjects: list[Any]) -> None:
        note = (make, time.time(), subjects)
        with self._lock:
            self._notes.append(note)
            self._count += len(subjects)
        if self._count > _LIMIT:
            self._make_room()
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None and not self._stopping:
                self.start()

    def _make_room(self) -> None:
        end = time.monotonic() + _CATCH_UP
        while self._count > _LIMIT and not (self._away or self._stopping) and time.monotonic() < end:
            self._wake.set()
            time.sleep(0.001)
        with self._lock:
            while self._count > _LIMIT and len(self._notes) > 1:
                dropped = len(self._notes.popleft()[2])
                self._count -= dropped
                self.dropped += dropped

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send: with the first note."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="celery-events", daemon=True)
            self._thread.start()

    def stop(self, deadline: float | None) -> None:
        """Send what is left, for two seconds at most."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(left(deadline, _LAST_TRY))
            self._thread = None

    def _run(self) -> None:
        rested = 0.0
        while True:
            self._wake.wait(_LINGER if self._asking else None)
            if not self._stopping:
                time.sleep(max(0.0, rested - time.monotonic()))
            rested = time.monotonic() + _LINGER
            self._wake.clear()
            while self._notes and self._try_to_send():
                pass
            if self._stopping:
                return
            self._look_around()

    def _look_around(self) -> None:
        """After a round. What nobody hears and is much is not noted for a while; then a few are, to ask again."""
        if not self._unheard or self._pace.now() < _BUSY:
            self._listen(deaf=False)
        elif self._answered or (self._deaf and not self._asking):  # else nothing has come yet to ask with
            self._listen(deaf=True)
            self._pause(_LINGER)
            self._listen(deaf=True, asking=True)
        self._answered = False

    def _listen(self, *, deaf: bool, asking: bool = False) -> None:
        if (deaf, asking) != (self._deaf, self._asking):
            self._deaf, self._asking = deaf, asking
            self.look()

    def _try_to_send(self) -> bool:
        """False: there is nothing more to be tried in this round."""
        try:
            self._send_some()
        except Exception as exc:  # noqa: BLE001 - whatever a broker raises
            self._away, self._unheard = True, False  # who will be there when it is back is not known
            self._listen(deaf=False)
            logger.debug("Events cannot be sent, and wait: %r", exc)
            if self._stopping:
                return False
            self._pause(_AGAIN)  # a stop that comes meanwhile has it tried once more
        else:
            self._away = False
        return not self._unheard

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _send_some(self) -> None:
        """A message of events. Raises what the broker raises; then they are noted as before."""
        taken: list[_Note] = []
        size = 0
        with self._lock:
            while self._notes and size < _BATCH and not (self._unheard and taken):
                make, when, subjects = self._notes.popleft()
                if self._unheard and len(subjects) > _FEW:
                    self._notes.appendleft((make, when, subjects[_FEW:]))
                    subjects = subjects[:_FEW]
                taken.append((make, when, subjects))
                size += len(subjects)
            self._count -= size
            behind = len(self._notes)
        events: list[Any] = []
        clock = self._dispatcher.clock
        with clock.mutex:  # so many at the most; what is left out does no harm
            ticks = count(clock.value + 1)
            clock.value += 3 * size
        common = _Common(self._dispatcher.hostname, utcoffset(), self._dispatcher.pid, ticks.__next__)
        for make, when, subjects in taken:
            make(events, common, when, subjects)
            time.sleep(0)  # or the engine waits for the interpreter, 5 ms each time
        if not events:
            return
        try:
            heard = self._dispatcher.tell_many("task", self._encode(events))
        except Exception:
            with self._lock:
                self._notes.extendleft(reversed(taken))
                self._count += size
            raise
        self._answered, self._unheard = True, heard == 0
        if self._unheard:
            self._forget(behind)
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            logger.warning("%s events were not sent: the broker was away for too long", dropped)

    def _forget(self, notes: int) -> None:
        """The oldest ones, which were there when it turned out that nobody hears."""
        with self._lock:
            gone = [self._notes.popleft() for _ in range(min(notes, len(self._notes)))]
            self._count -= sum(len(subjects) for _, _, subjects in gone)
        del gone  # not under the lock: a thousand messages go with them

    def _encode(self, events: list[Any]) -> tuple[str, str, bytes]:
        if self._dispatcher.serializer == "json":
            try:
                return codecs.JSON, "utf-8", _write(events)
            except UnicodeEncodeError:  # a lone surrogate: kombu escapes it
                pass
        return codecs.encode([_plain(event) for event in events], self._dispatcher.serializer)

    # -- notes become events -----------------------------------------------------------------------------------------

    def _make_received(self, events: list[Any], common: _Common, when: float, messages: list[Message]) -> None:
        host, offset, pid, tick = common
        wanted, add = self._wanted, events.append
        for message in messages:
            if wanted[message.task]:
                seen = _headers(message)
                expires = message.expires
                add(
                    _Received(
                        host, offset, pid, tick(), when, message.id, message.task, seen.argsrepr, seen.kwargsrepr,
                        seen.root_id, seen.parent_id, message.retries, message.eta, expires and _date(expires),
                    )
                )  # fmt: skip

    def _make_started(self, events: list[Any], common: _Common, when: float, messages: list[Message]) -> None:
        host, offset, pid, tick = common
        wanted = self._wanted
        events.extend(_Started(host, offset, pid, tick(), when, one.id) for one in messages if wanted[one.task])

    def _make_ended(
        self, events: list[Any], common: _Common, when: float, ends: list[tuple[Message, Outcome, bool]]
    ) -> None:
        host, offset, pid, tick = common
        wanted, add = self._wanted, events.append
        for message, outcome, begun in ends:
            if not wanted[message.task]:
                continue
            id, runtime = message.id, outcome.runtime
            if not begun:
                add(_Started(host, offset, pid, tick(), when - runtime, id))
            if type(outcome) is Success:
                told = outcome.told
                add(_Succeeded(host, offset, pid, tick(), when, id, told[0] if told else None, runtime))
            else:
                self._end_otherwise(events, common, (when, id), outcome)

    def _end_otherwise(self, events: list[Any], common: _Common, which: tuple[float, str], outcome: Outcome) -> None:
        """A rejection for good is a failure too."""
        if not isinstance(outcome, Failure | Rejected | Retrying):
            return
        told = outcome.told or (outcome.reason, getattr(outcome, "traceback", ""))
        ended: Callable[..., Any] = _Retried if isinstance(outcome, Retrying) else _Failed
        rejected: Callable[..., Any] = _Rejected
        if not isinstance(outcome, Rejected) or not outcome.requeue:
            events.append(ended(*common[:3], common.tick(), *which, *told))
        if isinstance(outcome, Rejected):
            events.append(rejected(*common[:3], common.tick(), *which, outcome.requeue))

    def _make_one(
        self,
        events: list[Any],
        common: _Common,
        when: float,
        subjects: list[tuple[Message, Any, tuple[Any, ...]]],
    ) -> None:
        for message, kind, fields in subjects:
            if self._wanted[message.task]:
                events.append(kind(*common[:3], common.tick(), when, message.id, *fields))


def _headers(message: Message) -> _Headers:
    """Whatever a sender wrote: what cannot be shown is left out."""
    try:
        return _read(message.to_envelope()).headers
    except Exception:  # noqa: BLE001 - a message of another form
        return _Headers()


def _date(expires: str | float | None) -> str | None:
    """As ISO text; senders in other languages write seconds."""
    if isinstance(expires, int | float):
        return dt.datetime.fromtimestamp(expires, dt.UTC).isoformat()
    return expires


def _plain(event: Any) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    plain = {name: msgspec.json.decode(value) if isinstance(value, Raw) else value for name, value in fields.items()}
    return {"type": event.__struct_config__.tag, **{name: value for name, value in plain.items() if value is not UNSET}}
