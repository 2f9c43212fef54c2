"""Adapter. The thread that owns a consumer's connection to a broker of kombu's.

Some transports wait for seconds inside a look at their queues (SQS asks for ten), and what ends meanwhile must not wait
for them. So a thread looks, and the consumer talks to it by jobs, an inbox and a pipe.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu import Consumer, Queue
from kombu.exceptions import OperationalError
from kombu.transport import virtual

from celery.brokers.kombu_messages import declare_queue
from celery.drivers.kombu import is_local, open_line
from celery.waits import drain, poke

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.drivers.kombu import Line
    from celery.ports import BrokerConfig
    from celery.routing import QueueSpec

__all__ = ["Courier"]

logger = logging.getLogger("celery.brokers.kombu")

#: Seconds that a transport may spend in one look: those that have no wait of their own look once.
_ONE_LOOK = 0.001
#: The same for those that have one.
_OWN_WAIT = 1.0
#: Of the transport's polling interval, the pause after something came; it doubles up to the whole.
_HASTE = 1 / 64
#: Seconds between two looks at a broker on this machine, which costs next to nothing to look at.
_LOCAL_PAUSE = 0.2
#: Messages that cannot be read, one after another, after which it seems to be the connection.
_UNREAD_MOST = 100
#: Seconds that whoever stops waits for a look that is under way.
_PATIENCE = 15.0


class Courier:
    """Looks for as many messages as are wanted, and does what it is told over its connection, in order.

    Everything but the attributes with an underscore may be used by the consumer's thread.
    """

    def __init__(self, config: BrokerConfig, queues: Sequence[QueueSpec]) -> None:
        self._config = config
        self._queues = {queue.name: queue for queue in queues}
        self._line: Line | None = None
        self._consumers: dict[str, Consumer] = {}
        self._turn: deque[str] = deque()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any] | None]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        #: Whether nobody waits for the thread's end, and whether it has come: the second of the two closes the pipe.
        self._alone = self._done = False
        #: Of the request that stands: its number, how many are to have come by then, and whether it ends with the next
        #: look.
        self._asked, self._goal, self._last = 0, 0, False
        #: How many have come so far, and how many of them were fetched.
        self._received = self.fetched = 0
        #: How many messages came over this connection and are not settled.
        self._unsettled = 0
        self._pause = 0.0
        #: How many errors in a row were no errors of the connection.
        self._unread = 0
        #: How many connections there were: the same tags are used on each.
        self.generation = 0
        #: What came and was not fetched: (generation, queue, kombu's message).
        self.inbox: deque[tuple[int, str, Any]] = deque()
        #: The number of the newest request for which all queues were looked at.
        self.looked = 0
        #: What ended the connection; None while there is one.
        self.trouble: BaseException | None = None
        self.readable, self._writable = os.pipe()
        for descriptor in (self.readable, self._writable):
            os.set_blocking(descriptor, False)
        self._thread = threading.Thread(target=self._run, name="celery-kombu", daemon=True)
        self._thread.start()

    # -------------------------------------------------------------------------------------- from the consumer's thread

    def connect(self) -> None:
        """Open a connection, unless there is one. Raises `OperationalError`, `ImproperlyConfigured`."""
        self.do(self._connect)

    def do(self, job: Callable[[], Any], *, timeout: float | None = None) -> Any:
        """Have something done, and wait for it: until a look that is under way has ended. Raises what it raises."""
        future: Future[Any] = Future()
        self._add(job, future)
        return future.result(timeout)

    def post(self, job: Callable[[], Any]) -> None:
        """Have something done soon. What fails ends the connection, and `trouble` says why."""
        self._add(job, None)

    def want(self, n: int) -> int:
        """Look for n messages from now on; returns the number of this request."""
        with self._changed:
            self._asked += 1
            self._goal, self._last = self.fetched + n, False
            self._changed.notify()
        return self._asked

    def enough(self) -> None:
        """Look no more, once all queues were looked at for the request that stands."""
        with self._changed:
            self._last = True
            if self.looked >= self._asked:
                self._goal = 0

    def settle(self, messages: Sequence[Any], how: str) -> None:
        """Have messages acknowledged ("ack"), dropped ("reject") or given back ("requeue")."""
        self.post(partial(self._settle, self.generation, messages, how))

    def add(self, queue: QueueSpec) -> None:
        """Declare a queue and take from it too. Raises `OperationalError`."""
        self.do(partial(self._add_queue, queue))

    def cancel(self, name: str) -> None:
        """Take from a queue no more."""
        self.post(partial(self._cancel_queue, name))

    def end(self, held: Sequence[Any]) -> None:
        """Give back what is held and what nobody fetched; close the connection, and end the thread. If a look takes too
        long for that, the thread does it alone, later."""
        if self._ended:
            return
        self._add(partial(self._close, held), None)
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(_PATIENCE)
        with self._changed:
            self._alone = True
            if self._done:
                self._close_pipe()

    def abandon(self) -> None:
        """Nobody is there any more to be told: the thread ends as soon as it can."""
        with self._changed:
            if not self._ended:
                self._ended = self._alone = True
                self._changed.notify()

    def _close_pipe(self) -> None:
        os.close(self.readable)
        os.close(self._writable)

    def _add(self, job: Callable[[], Any], future: Future[Any] | None) -> None:
        with self._changed:
            self._jobs.append((job, future))
            self._changed.notify()

    # ------------------------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        while not self._ended:
            self._do_jobs()
            wanted = self._goal - self._received
            if self._line is None or wanted <= 0 or not self._queues:
                self._rest(None)
                continue
            asked, before = self._asked, self._received
            try:
                self._look(self._line, wanted)
            except Exception as exc:  # noqa: BLE001 - whatever a transport raises: the thread must not end with it
                if not self._passes_over(self._line, exc):
                    self._fail(exc)
                    continue
            came = self._received > before
            self._unread = 0 if came else self._unread
            with self._changed:
                self.looked = asked
                if self._last and asked == self._asked:
                    self._goal = 0
            poke(self._writable)
            self._slow_down(came)
            if not came:
                self._rest(self._pause)
        self._do_jobs()
        if self._line is not None:
            self._line.close()
        with self._changed:
            self._done = True
            if self._alone:
                self._close_pipe()

    def _passes_over(self, line: Line, exc: Exception) -> bool:
        """kombu takes what it cannot read and raises: the connection is as good as before, unless it goes on so."""
        self._unread += 1
        if isinstance(exc, (*line.errors, OperationalError)) or self._unread > _UNREAD_MOST:
            return False
        logger.error("%s: kombu cannot read a message, which is lost: %r", line.shown, exc)
        return True

    def _do_jobs(self) -> None:
        while self._jobs:
            job, future = self._jobs.popleft()
            try:
                result = job()
            except Exception as exc:  # noqa: BLE001 - raised by whoever waits
                if future is None:
                    self._fail(exc)
                else:
                    future.set_exception(exc)
            else:
                if future is not None:
                    future.set_result(result)

    def _rest(self, seconds: float | None) -> None:
        """Until there is a job, or more is wanted, or the time is over."""
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            asked = self._asked
            while not (self._jobs or self._ended or (seconds is None and self._asked != asked)):
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return
                self._changed.wait(remaining)

    def _slow_down(self, came: bool) -> None:
        assert self._line is not None
        most = self._interval
        self._pause = 0.0 if came else min(most, max(2 * self._pause, most * _HASTE))

    def _look(self, line: Line, wanted: int) -> None:
        """Take what is there, up to so many; at least one look at every queue."""
        if not self._consumers:
            self._get(line, wanted)
            return
        try:
            while wanted > 0:
                for consumer in self._consumers.values():
                    consumer.qos(prefetch_count=self._unsettled + wanted)
                    break  # it counts for the channel
                before = self._received
                line.connection.drain_events(timeout=self._patience)
                wanted -= self._received - before
                if not self._local and self._received > before:
                    return  # another look might wait
        except TimeoutError:
            pass

    def _get(self, line: Line, wanted: int) -> None:
        """As `_look` where a subscription might bring more than is wanted: a message at a time, from queue to queue."""
        empty = 0
        while wanted > 0 and empty < len(self._turn):
            name = self._turn[0]
            self._turn.rotate(-1)
            message = line.channel.basic_get(name, no_ack=False)
            if message is None:
                empty += 1
            else:
                empty = 0
                wanted -= 1
                made = getattr(line.channel, "message_to_python", None)  # as it comes it has no `requeue`
                self._came(name, message if made is None else made(message))

    def _came(self, queue: str, message: Any) -> None:
        self._unsettled += 1
        self._received += 1
        self.inbox.append((self.generation, queue, message))

    def _settle(self, generation: int, messages: Sequence[Any], how: str) -> None:
        if generation != self.generation or self._line is None:
            return
        for message in messages:
            getattr(message, how)()
            self._unsettled -= 1

    # --------------------------------------------------------------------------------------------------- connection

    def _connect(self) -> None:
        if self._line is not None:
            return
        line = open_line(self._config)
        try:
            with line.translated():
                for queue in self._queues.values():
                    declare_queue(line, queue)
                self._prepare(line)
                self._line = line
                self._turn = deque(self._queues)
                for name in self._queues:
                    self._subscribe(line, name)
        except BaseException:
            self._line = None
            line.close()
            raise
        self.generation += 1
        self.inbox.clear()
        self._received = self.fetched
        self._goal = self._unsettled = 0
        self.trouble = None

    def _prepare(self, line: Line) -> None:
        transport = line.connection.transport
        self._virtual = isinstance(line.channel, virtual.Channel)
        self._local = is_local(line)
        own = getattr(type(transport), "drain_events", None) is not virtual.Transport.drain_events
        self._patience = _OWN_WAIT if own else _ONE_LOOK
        interval = getattr(transport, "polling_interval", None) or 1.0
        if self._local and self._config.options.get("polling_interval") is None:
            interval = min(interval, _LOCAL_PAUSE)
        self._interval = float(interval)
        if self._virtual and not own:
            transport.polling_interval = None  # we rest ourselves, and wake up when there is something to do
        self._consumers = {}

    def _subscribe(self, line: Line, name: str) -> None:
        if not self._virtual:
            return
        came = partial(self._came, name)
        consumer = Consumer(
            line.channel,
            [Queue(name)],
            on_message=came,
            on_decode_error=lambda message, exc: came(message),  # it is refused as any other that cannot be read
            auto_declare=False,
        )
        consumer.consume()
        self._consumers[name] = consumer

    def _add_queue(self, queue: QueueSpec) -> None:
        if self._line is not None:
            with self._line.translated():
                declare_queue(self._line, queue)
                if queue.name not in self._turn:
                    self._subscribe(self._line, queue.name)
                    self._turn.append(queue.name)
        self._queues[queue.name] = queue

    def _cancel_queue(self, name: str) -> None:
        self._queues.pop(name, None)
        if name in self._turn:
            self._turn.remove(name)
        consumer = self._consumers.pop(name, None)
        if consumer is not None:
            consumer.cancel()

    def _fail(self, exc: Exception) -> None:
        """The connection is of no use any more: the consumer is told, and opens another when it fetches again."""
        line, self._line = self._line, None
        if line is None:
            return
        self.generation += 1
        self.inbox.clear()
        error = exc if isinstance(exc, OperationalError) else OperationalError(line.told(exc))
        error.__cause__ = None if error is exc else exc
        self.trouble = error
        line.close()
        poke(self._writable)

    def _close(self, held: Sequence[Any]) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        waiting = [message for _, _, message in self.inbox]
        self.inbox.clear()
        try:
            for consumer in self._consumers.values():
                consumer.cancel()
            for message in [*held, *waiting]:
                message.requeue()
        finally:
            line.close()

    def drain(self) -> None:
        """Read the pipe empty."""
        drain(self.readable)
