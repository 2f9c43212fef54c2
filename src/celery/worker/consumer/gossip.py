"""Application. Gossip: workers hear each other's heartbeats: they know who is there, and can elect one (`[worker.16]`).

Only `worker.#` is listened to, in a thread of its own; what tasks do is nobody's business here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

from celery.ports import Broadcasting
from celery.worker.consumer.mingle import transport_of
from celery.worker.consumer.wakeup import WakeUp
from celery.worker.parts import left

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.ports import Listener, Notice

__all__ = ["Gossip"]

logger = logging.getLogger("celery.worker.consumer.gossip")

#: The version of the way in which is elected; elections of another version are none of ours.
_ELECTION_VERSION = 1
#: Seconds after which an election is forgotten that came to nothing.
_ELECTION_LASTS = 60.0
#: Seconds that a start waits until others are heard.
_READY_WITHIN = 2.0
#: Seconds between two tries to listen.
_AGAIN = 1.0


class Callbacks:
    """Functions of a worker's record (`celery.events.state.Worker`)."""

    def __init__(self) -> None:
        self.node_join: set[Callable[[Any], object]] = set()
        self.node_leave: set[Callable[[Any], object]] = set()
        self.node_lost: set[Callable[[Any], object]] = set()


class Gossip:
    """What a worker knows of the others.

    Functions in `on.node_join`, `on.node_leave` and `on.node_lost` are called with a worker's record
    (`celery.events.state.Worker`) when it comes, when it says goodbye and when it has not been heard of for too long.
    """

    label = "Gossip"
    name = "Gossip"
    requires: ClassVar[tuple[Any, ...]] = ()
    compatible_transports: ClassVar[set[str]] = {"amqp", "redis"}

    def __init__(
        self,
        c: Any,
        without_gossip: bool = False,
        interval: float = 5.0,
        heartbeat_interval: float = 2.0,
        **kwargs: Any,
    ) -> None:
        """`c`: the worker, with `app`, `hostname`, `pid`, `timer` and `event_dispatcher`. `interval`: seconds between
        two looks for workers that are lost."""
        self.app = c.app
        self.hostname: str = c.hostname
        self.full_hostname = f"{c.hostname}.{c.pid}"
        self.enabled = not without_gossip and self.compatible_transport(c.app)
        c.gossip = self
        self.on = Callbacks()
        self.timer = c.timer
        self.dispatcher = c.event_dispatcher
        self.clock = c.app.clock
        self.interval = interval
        self.heartbeat_interval = heartbeat_interval
        self.state: Any = None
        #: Name of the topic → function that is called with the action, on the worker that is elected.
        self.election_handlers: dict[str, Callable[[Any], object]] = {"task": self.call_task}
        self.event_handlers = {"worker-elect": self.on_elect, "worker-elect-ack": self.on_elect_ack}
        #: Id of the election → who stands: (clock, full name, topic, action).
        self.consensus_requests: dict[str, list[tuple[int, str, str, Any]]] = defaultdict(list)
        #: Id of the election → names of those who have seen it. Only of those that were begun here.
        self.consensus_replies: dict[str, list[str]] = {}
        self._begun: dict[str, float] = {}
        self._receiver: Any = None
        self._tref: Any = None
        self._thread: threading.Thread | None = None
        self._wake: WakeUp | None = None
        self._stopping = False
        #: It was tried to listen.
        self._tried = threading.Event()

    def compatible_transport(self, app: Any) -> bool:
        """Whether workers of this app's broker may be on other machines, and hear each other."""
        return transport_of(app) in self.compatible_transports

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self, c: Any = None) -> None:
        """Listen from now on, in a thread; returns when others are heard, or cannot be for now."""
        carrier = self.app.assembly.broker_for_read
        if not self.enabled or self._thread is not None or not isinstance(carrier, Broadcasting):
            return
        events = self.app.events
        self.state = events.State(
            on_node_join=self.on_node_join, on_node_leave=self.on_node_leave, max_tasks_in_memory=1
        )
        self._receiver = events.Receiver(None, {"*": self._hear}, "worker.#", queue_ttl=self.heartbeat_interval)
        self._stopping = False
        self._tried.clear()
        self._wake = WakeUp()
        self.register_timer()
        self._thread = threading.Thread(target=self._run, args=(carrier,), name="celery-gossip", daemon=True)
        self._thread.start()
        self._tried.wait(_READY_WITHIN)

    def stop(self, c: Any = None, deadline: float | None = None) -> None:
        """Listen no more. Idempotent. `deadline`: see `Part.stop`."""
        self._stopping = True
        if self._tref is not None:
            self._tref.cancel()
            self._tref = None
        thread, self._thread = self._thread, None
        if thread is not None and self._wake is not None:
            self._wake.set()
            thread.join(left(deadline, _AGAIN * 2))
            self._wake.close()

    shutdown = stop

    def register_timer(self) -> None:
        """Look for lost workers, every `interval` seconds."""
        if self._tref is not None:
            self._tref.cancel()
        self._tref = self.timer.call_repeatedly(self.interval, self.periodic)

    def _run(self, carrier: Broadcasting) -> None:
        told = False
        while not self._stopping:
            try:
                with closing(carrier.listen([self._receiver.mailbox])) as listener:
                    told = False
                    self._tried.set()
                    self._listen(listener)
            except Exception as exc:  # noqa: BLE001 - whatever a broker raises: it is listened to anew
                logger.log(logging.DEBUG if told else logging.WARNING, "Other workers cannot be heard: %r", exc)
                told = True
                self._tried.set()
                self._pause(_AGAIN)

    def _listen(self, listener: Listener) -> None:
        assert self._wake is not None
        while not self._stopping:
            for notice in listener.hear(_AGAIN, [self._wake.descriptor]):
                self._take(notice)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    # -- what is heard -----------------------------------------------------------------------------------------------

    def _take(self, notice: Notice) -> None:
        """One's own heartbeats only tick the clock."""
        beat = notice.routing_key.startswith(("worker.heartbeat", "worker.online", "worker.offline"))
        if beat and notice.headers.get("hostname") == self.hostname:
            self.clock.forward()
            return
        self._receiver.read(notice)

    def on_message(self, prepare: Callable[[Any], tuple[str, Any]], message: Any) -> None:
        """A kombu message; `prepare` makes type and event of its payload."""
        _, event = prepare(message.payload)
        self._hear(event)

    def _hear(self, event: Any) -> None:
        handler = self.event_handlers.get(event["type"])
        if handler is not None:
            handler(event)
        elif event.get("hostname") != self.hostname and event["type"].startswith("worker-"):
            self.state.event(event)

    def periodic(self) -> None:
        """Look for workers that have not been heard of for too long."""
        workers = self.state.workers
        lost = [worker for worker in list(workers.values()) if not worker.alive]
        for worker in lost:
            workers.pop(worker.hostname, None)
            self.on_node_lost(worker)
        for id in list(self.consensus_replies) if lost else ():
            self._count(id)
        old = time.monotonic() - _ELECTION_LASTS
        for id in [id for id, begun in self._begun.items() if begun < old]:
            logger.warning("Nobody was elected for %r within %s seconds: not all workers have answered", id, 60)
            self._forget(id)

    def on_node_join(self, worker: Any) -> None:
        """A worker is there."""
        logger.debug("%s joined the party", worker.hostname)
        self._call(self.on.node_join, worker)

    def on_node_leave(self, worker: Any) -> None:
        """A worker has said goodbye."""
        logger.debug("%s left", worker.hostname)
        self._call(self.on.node_leave, worker)

    def on_node_lost(self, worker: Any) -> None:
        """A worker is silent."""
        logger.info("missed heartbeat from %s", worker.hostname)
        self._call(self.on.node_lost, worker)

    def _call(self, handlers: set[Callable[[Any], object]], worker: Any) -> None:
        for handler in list(handlers):
            try:
                handler(worker)
            except Exception:
                logger.exception("Ignored error from handler %r", handler)

    def get_consumers(self, channel: Any) -> list[Any]:
        """kombu's consumers for `worker.#`; for those who listen by kombu."""
        receiver = self.app.events.Receiver(channel, {"*": self._hear}, "worker.#", queue_ttl=self.heartbeat_interval)
        return list(receiver.get_consumers(channel.Consumer, channel))

    # -- elections ---------------------------------------------------------------------------------------------------

    def election(self, id: str, topic: str, action: Any = None) -> None:
        """Stand for an election, which every worker was asked to do: the one that stood first does the `action`
        (`[canvas.18]`)."""
        self.consensus_replies[id] = []
        self._begun[id] = time.monotonic()
        self.dispatcher.send("worker-elect", id=id, topic=topic, action=action, cver=_ELECTION_VERSION)

    def on_elect(self, event: Any) -> None:
        """A worker stands: it is told that this one has seen it."""
        if event.get("cver", _ELECTION_VERSION) > _ELECTION_VERSION:
            logger.error("An election is of version %r, expected %r: it is left out", event["cver"], _ELECTION_VERSION)
            return
        name = f"{event['hostname']}.{event['pid']}"
        self._begun.setdefault(event["id"], time.monotonic())
        self.consensus_requests[event["id"]].append((event["clock"], name, event["topic"], event["action"]))
        self.dispatcher.send("worker-elect-ack", id=event["id"])

    def on_elect_ack(self, event: Any) -> None:
        """A worker has seen the election; once all have, it is decided."""
        replies = self.consensus_replies.get(event["id"])
        if replies is not None:
            replies.append(event["hostname"])
            self._count(event["id"])

    def _count(self, id: str) -> None:
        """All have answered when each worker that stands has been seen by each that lives; those are all by then."""
        alive = {worker.hostname for worker in self.state.alive_workers()} | {self.hostname}
        standing = self.consensus_requests.get(id, [])
        replies = self.consensus_replies[id]
        if not standing or len(standing) < len(alive) or len(replies) < len(alive):
            return
        _, leader, topic, action = min(standing, key=lambda one: one[:2])
        self._forget(id)
        if leader != self.full_hostname:
            logger.info("node %s elected for %r", leader, id)
            return
        logger.info("I won the election %r", id)
        handler = self.election_handlers.get(topic)
        if handler is None:
            logger.error("An election is about %r: expected one of %s", topic, sorted(self.election_handlers))
            return
        handler(action)

    def _forget(self, id: str) -> None:
        self._begun.pop(id, None)
        self.consensus_requests.pop(id, None)
        self.consensus_replies.pop(id, None)

    def call_task(self, task: Any) -> None:
        """Send the task that this worker was elected for."""
        try:
            self.app.signature(task).apply_async()
        except Exception:
            logger.exception("Could not call task: %r", task)
