"""Flow. The engine of a worker: one loop in one thread, which owns the broker's consumer and the pool.

Each turn: ask the pool what happened, settle it, hand over what has become due, fetch as much as the pool has room
for. The wait for messages is a wait for the pool's descriptors too, so outcomes are settled as they come, and the
pool works while the engine fetches.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from celery.exceptions import ImproperlyConfigured
from celery.outcome import Failure, Success
from celery.ports import Accompanied, Tracked
from celery.states import FAILURE
from celery.waits import wait_readable
from celery.worker.consumer.commands import Commands
from celery.worker.consumer.delays import startup_delays
from celery.worker.consumer.deliveries import Receiver, Settler, explain, give_back
from celery.worker.consumer.endings import Endings
from celery.worker.consumer.engine_parts import EngineParts
from celery.worker.consumer.fence import Fence
from celery.worker.consumer.leaving import Leave, close
from celery.worker.consumer.orders import Orders
from celery.worker.consumer.rates import Rates
from celery.worker.consumer.revocations import Revocations
from celery.worker.consumer.strangers import Strangers
from celery.worker.consumer.suspects import Suspects
from celery.worker.consumer.waiting import WaitingRoom
from celery.worker.consumer.wakeup import WakeUp
from celery.worker.settlement import ACK, DONE, REQUEUE, run_disposition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.message import Message
    from celery.outcome import Outcome
    from celery.ports import Consumer, Delivery, Report
    from celery.worker.consumer.deliveries import Held

__all__ = ["Engine", "EngineParts"]

logger = logging.getLogger("celery.worker.consumer")

#: Seconds that an idle engine waits at most, to look at `check` again.
_LONGEST_WAIT = 1.0
#: Seconds between two looks at `check` while there is work.
_CHECK_EVERY = 0.25
#: Seconds that the engine tries to settle what is left when it stops while the broker is away.
_LAST_TRIES = 5.0


class Engine:
    """Takes messages, has them run, settles them. `run` in one thread; `stop` and `terminate` from anywhere."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts
        self._pool = parts.pool
        self._clock = parts.clock
        self._observer = parts.observer
        self._strangers = Strangers(parts.unknown_grace, parts.clock)
        self._attendant = parts.attendant
        self._endings = Endings(
            aftermath=parts.aftermath or self._failure,
            again=parts.again,
            cancelled=parts.cancelled,
            observer=parts.observer,
            attendant=parts.attendant,
            end=lambda *what: self._receiver.end(*what),
            max_deaths=parts.max_deaths,
        )
        #: How many messages to hold at most; None: as many as the pool has a use for.
        self.prefetch = parts.prefetch
        self.rates = Rates(parts.clock)
        self.revocations = Revocations(parts.revoked, parts.revoked_stamps)
        self._suspects = Suspects(parts.pool, parts.max_deaths, self._endings.park)
        self._receiver = Receiver(
            policies=parts.policies,
            accept=parts.accept,
            read_other=parts.read_other,
            verdict=parts.verdict,
            fallout=parts.fallout,
            observer=parts.observer,
            clock=parts.clock,
            totals=parts.totals,
            strangers=self._strangers,
            suspects=self._suspects,
            rates=self.rates,
            revocations=self.revocations,
            attendant=parts.attendant,
        )
        #: What the pool holds, by job key.
        self.held: dict[int, Held] = {}
        self._ready: list[Held] = []
        self._waiting: WaitingRoom | None = None
        self._fence: Fence | None = None
        self._wake = WakeUp()
        self.commands = Commands(self._wake)
        self.orders = Orders(self)
        self.exit = Leave(parts.clock, parts.grace)
        #: The loop has ended: the pool is stopped, what is left is settled.
        self.leaving = False
        #: When the loop came round last (monotonic); None: it does not run.
        self.alive_at: float | None = None
        self._check_at = 0.0
        self._retry_at = 0.0
        self._delays: Iterator[float] | None = None

    # -- from other threads and from signal handlers -----------------------------------------------------------------

    def stop(self, deadline: float | None = None, *, linger: bool = False) -> None:
        """Take nothing more, finish what runs (`[shutdown.1]`).

        At `deadline` (monotonic seconds; None: when the parts' `grace` is over) what still runs is cut short as by
        `terminate` (`[shutdown.3]`); `linger`: not to end before that, even if nothing runs.
        """
        self.exit.ask(deadline, linger=linger)
        self._wake.set()

    def terminate(self) -> None:
        """Stop what runs, give back what is held, and be gone (`[shutdown.2]`)."""
        self.exit.terminate()
        self._wake.set()

    def reserved(self) -> list[Held]:
        """What is taken on and not finished."""
        return [*list(self.held.values()), *list(self._suspects.waiting), *self._ready, *self.rates.waiting]

    @property
    def load(self) -> int:
        """How many messages are taken on and not finished, but for those that a rate holds back."""
        return len(self.held) + len(self._suspects.waiting) + len(self._ready)

    def scheduled(self) -> list[Delivery]:
        """What waits in memory for its time."""
        return [] if self._waiting is None else [delivery for _, _, delivery in list(self._waiting.heap)]

    @property
    def cut_short(self) -> int:
        """How many runs were cut short because this stopped."""
        return self._endings.cut_short

    @property
    def stopping(self) -> bool:
        """True once `stop` or `terminate` was asked for."""
        return self.exit.asked

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until stopped; then everything is settled or given back, and the pool is stopped.

        Raises `OperationalError` if the broker was never reached, `ImproperlyConfigured` if it will never be, and the
        `SystemExit` (`WorkerShutdown`, `WorkerTerminate`) or `KeyboardInterrupt` that stopped it.
        """
        self.commands.begin()
        try:
            consumer = self._connect()
            if consumer is None:
                self._pool.stop(self.exit.pool_deadline)
            else:
                self._run(consumer)
        finally:
            self.commands.end()
            self._pool.stop(self._clock.monotonic())
            self._observer.flush()
            self._wake.close()

    def _connect(self) -> Consumer | None:
        """Open the consumer; None if the engine is stopped meanwhile."""
        limit = self._parts.connect_retries
        for attempt, seconds in enumerate(startup_delays(), 1):
            if self.exit.asked:
                return None
            try:
                consumer = self._parts.broker.consume(self.orders.queues)
            except OperationalError as exc:
                if limit is not None and attempt > limit:
                    raise
                self._observer.connecting_failed(exc, attempt, limit, seconds)
                self._observer.flush()
                self._pause(seconds)
            else:
                self._observer.connected()
                return consumer
        raise AssertionError("unreachable")

    def _pause(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        while not self.exit.asked and (left := end - self._clock.monotonic()) > 0:
            self._parts.check()
            self.commands.make()
            wait_readable([self._wake.descriptor], min(left, _LONGEST_WAIT))
            self._wake.clear()

    def _run(self, consumer: Consumer) -> None:
        parts = self._parts
        settler = Settler(consumer, parts.publisher or parts.broker, parts.store, parts.closing, parts.clock)
        waiting = self._waiting = WaitingRoom(consumer)
        self.rates.attach(waiting)
        self.orders.attach(consumer, settler)
        self._strangers.others = consumer.others if isinstance(consumer, Accompanied) else None
        self._suspects.attach(consumer)
        self._fence = Fence.of(consumer, self._pool)
        leaving: BaseException | None = None
        try:
            self._observer.ready()
            while not self.exit.asked:
                if (now := self._clock.monotonic()) >= self._check_at:
                    self.alive_at, self._check_at = now, now + _CHECK_EVERY
                    self._parts.check()
                    self._strangers.look()
                    settler.look()
                if self.commands.waiting:
                    self.commands.make()
                self._turn(consumer, settler, waiting)
        except (SystemExit, KeyboardInterrupt) as exc:
            leaving = exc
            self.exit.heed(exc)
        try:
            self._drain(consumer, settler, waiting)
        except (SystemExit, KeyboardInterrupt) as exc:
            leaving = exc
            self.terminate()
        self._leave(consumer, settler)
        if leaving is not None:
            raise leaving

    def _turn(self, consumer: Consumer, settler: Settler, waiting: WaitingRoom) -> None:
        """One turn. Nothing but a configuration that will never work, or a request to stop, ends the loop."""
        self._take(self._pool.report(), settler)
        if self._clock.monotonic() < self._retry_at:
            self._rest()
            return
        try:
            if waiting.heap:
                self._ready += self._receiver.due(waiting.due(self._clock.time()), settler, waiting)
            if self.rates.busy:
                self._ready += self._receiver.released(self.rates.due(), settler)
            settler.settle()
            if self._ready or self._suspects.busy:
                self._submit(waiting)
            room = self._room()
            limit = waiting.pace if waiting.pace > room > 0 else room
            deliveries = consumer.fetch(limit, self._patience(waiting), self._descriptors())
            if self._wake.written:
                self._wake.clear()
            if deliveries:
                if limit > room:
                    deliveries = waiting.within(deliveries, room, self._clock.time())
                self.orders.taken.update([one.queue for one in deliveries])
                self._ready += self._receiver.receive(deliveries, settler, waiting)
                if waiting.to_park:
                    waiting.park(limit)
            if self._ready or self._suspects.busy or self._fence is not None:
                self._submit(waiting)
        except ImproperlyConfigured:
            raise
        except Exception as exc:  # noqa: BLE001 - a worker that falls over one bad reply helps nobody; it is logged
            self._trouble(exc)
        else:
            if self._delays is not None:
                self._recovered()

    def _submit(self, waiting: WaitingRoom) -> None:
        """Hand over as much as the pool has room for of what is still ours; what was redelivered goes first. Nothing
        once a stop is asked for, which may be at any moment: what is ready then goes back."""
        if self.exit.asked:
            return
        if self._fence is not None:
            self._fence.look(self.held, self._ready, self._suspects, waiting)
        suspects = self._suspects
        if suspects.busy and suspects.blocks(self.held):
            self._hand_over(suspects.next(self.held))
            if suspects.blocks(self.held):
                return
        ready, room = self._ready, self._pool.free
        batch = ready if room >= len(ready) else ready[: max(0, room)]
        if not batch:
            return
        self._ready = ready[len(batch) :]
        self._hand_over(batch)

    def _hand_over(self, batch: Sequence[Held]) -> None:
        held = self.held
        for one in batch:
            held[one.key] = one
        if batch:
            self._pool.submit(batch)

    def _room(self) -> int:
        """How many messages to take now (`[worker.8]`, `[worker.9]`, `[settings.185]`)."""
        if self._suspects.busy and self._suspects.blocks(self.held):
            return 0
        room, most = self._pool.free, self.prefetch
        if self._parts.ahead is not None:
            room = max(room, self._parts.ahead() - self.load)
        if most is not None:
            everything = self._parts.prefetch_counts_running
            held = sum(1 for one in self.held.values() if everything or not one.acknowledged)
            room = min(room, most - held - len(self._ready))
        if self._parts.waiting_limit is not None and self._waiting is not None:
            room = min(room, self._parts.waiting_limit - len(self._waiting.heap))
        return max(0, room)

    def _patience(self, waiting: WaitingRoom) -> float:
        """Seconds to wait for something to happen.

        None after trouble, to learn whether it is over, and where the pool runs jobs only when asked for its report.
        """
        if self._delays is not None or (self.held and not self._pool.descriptors()):
            return 0.0
        longest = min(_LONGEST_WAIT, self.rates.patience) if self.rates.busy else _LONGEST_WAIT
        if not waiting.heap:
            return longest
        return min(longest, max(0.0, waiting.heap[0][0] - self._clock.time()))

    def _descriptors(self) -> list[int]:
        return [*self._pool.descriptors(), self._wake.descriptor]

    # -- what the pool tells -----------------------------------------------------------------------------------------

    def _take(self, report: Report, settler: Settler) -> None:
        """Gather the settlements of what happened in the pool.

        Ends come before beginnings: what began and ended within one report is acknowledged together with its record.
        """
        held = self.held
        if self._parts.watching.gate.receivers:
            self._parts.watching.reported(report, held)
        for key, limit in report.warned:  # before its end, which may have come with it
            if (one := held.get(key)) is not None:
                self._endings.warned(one, limit)
        for key, outcome in report.finished:
            one = held.pop(key, None)
            if one is None:
                continue
            if one.request is not None:
                self._take_attended(one, outcome, settler)
                continue
            if type(outcome) is Success:  # what `run_disposition` says of it, without asking
                disposition = DONE if one.acknowledged else ACK
            else:
                disposition = run_disposition(outcome, one.policy, acknowledged=one.acknowledged)
                explain(one.delivery, outcome)
            settler.add(one.delivery, disposition, outcome.record, outcome.follow, outcome.further)
        if report.timed_out or report.lost:
            self._take_endings(report, settler)
        for key in report.begun:
            one = held.get(key)
            if one is not None and not one.begun:
                self._begin(one, settler)
        if self.orders.sentenced:
            self.orders.carry_out(report.begun)
        for key in report.returned:
            one = held.pop(key, None)
            if one is None or one.delivery.lost:
                continue
            if self.revocations.concern(one.message):
                self._receiver.revoked(one, settler)
            elif self.exit.asked:
                give_back(one, settler)
            elif one.message.redelivered or one.policy.acks_first:
                self._suspects.add(one)
            else:
                self._ready.append(one)

    def _begin(self, one: Held, settler: Settler) -> None:
        """It runs: its message is given up, unless it asks for late acknowledgement (`[task.35]`)."""
        one.begun = True
        one.began_at = self._clock.time()
        asked = None
        if one.request is not None and self._attendant is not None:
            pid = self._pool.pid_of(one.key) if isinstance(self._pool, Tracked) else None
            asked = self._attendant.begun(one, pid)
        if not one.acknowledged and (asked or not one.policy.acks_late):
            one.acknowledged = True
            settler.add(one.delivery, asked or ACK)

    def _take_attended(self, one: Held, outcome: Outcome, settler: Settler) -> None:
        assert self._attendant is not None
        if not one.begun:
            self._begin(one, settler)
        asked = self._attendant.ended(one, outcome)
        if one.acknowledged or asked is None:
            asked = run_disposition(outcome, one.policy, acknowledged=one.acknowledged)
        explain(one.delivery, outcome)
        settler.add(one.delivery, asked, outcome.record, outcome.follow, outcome.further)

    def _take_endings(self, report: Report, settler: Settler) -> None:
        held, endings = self.held, self._endings
        for key, limit in report.timed_out:
            if (one := held.pop(key, None)) is not None:
                self._end_early(one, settler)
                endings.timed_out(one, limit, settler)
        for key, why in report.lost:
            if (one := held.pop(key, None)) is not None:
                self._end_early(one, settler)
                if (signum := self.orders.sentenced.get(key)) is not None:
                    endings.terminated(one, signum, settler)
                else:
                    endings.lost(one, why, settler, terminating=self.exit.terminating)

    def _failure(self, message: Message, exc: BaseException, *, hooks: bool = True) -> Outcome:
        return Failure(self._parts.verdict(message, FAILURE, exc), reason=repr(exc))

    def _end_early(self, one: Held, settler: Settler) -> None:
        """A request hears of the beginning before it hears of the end, also where one report tells of both."""
        if one.request is not None and not one.begun:
            self._begin(one, settler)

    # -- trouble -----------------------------------------------------------------------------------------------------

    def _trouble(self, exc: Exception) -> None:
        """Broker or store are away: nothing is taken for a while, outcomes wait in memory, what runs keeps running."""
        if self._delays is None:
            self._delays = self._parts.delays()
        seconds = next(self._delays)
        self._retry_at = self._clock.monotonic() + seconds
        if not isinstance(exc, OperationalError):
            logger.error("Unexpected error in the worker's loop, carrying on: %r", exc, exc_info=exc)
        self._observer.trouble(exc, seconds)

    def _recovered(self) -> None:
        self._delays = None
        self._observer.recovered()

    def _rest(self, longest: float = _LONGEST_WAIT) -> None:
        self._observer.flush()
        left = self._retry_at - self._clock.monotonic()
        wait_readable(self._descriptors(), min(left, longest))
        self._wake.clear()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _drain(self, consumer: Consumer, settler: Settler, waiting: WaitingRoom) -> None:
        """Give back what has not begun, then wait for what runs."""
        for one in (*self._suspects.waiting, *self._ready):
            give_back(one, settler)
        self._suspects.waiting.clear()
        self._ready = []
        self.orders.give_back(waiting)
        for delivery in waiting.clear():
            settler.add(delivery, REQUEUE)
        self._pool.take_back()
        while not self.exit.terminating:
            self._take(self._pool.report(), settler)
            self._try_settling(settler)
            left = self.exit.left
            if left <= 0 and (self.held or self.exit.linger):
                self.exit.terminate()
            if left <= 0 or not (self.held or self.exit.linger):
                return
            self.alive_at = self._clock.monotonic()
            self._parts.check()
            self.commands.make()
            self._wait_draining(consumer, min(left, _LONGEST_WAIT))

    def _wait_draining(self, consumer: Consumer, seconds: float) -> None:
        """Wait for the pool, through the consumer while it answers: it keeps its connection and its leases alive."""
        if self._clock.monotonic() < self._retry_at:
            self._rest(seconds)
            return
        try:
            consumer.fetch(0, seconds if self._pool.descriptors() or not self.held else 0.0, self._descriptors())
        except Exception as exc:  # noqa: BLE001 - as in `_turn`
            self._trouble(exc)
        self._wake.clear()

    def _try_settling(self, settler: Settler) -> None:
        if self._clock.monotonic() < self._retry_at:
            return
        try:
            settler.settle()
        except Exception as exc:  # noqa: BLE001 - as in `_turn`
            self._trouble(exc)
        else:
            if self._delays is not None:
                self._recovered()

    def _leave(self, consumer: Consumer, settler: Settler) -> None:
        """Stop the pool before anything is given back, so that nothing given back still runs here."""
        self.leaving = True
        self._pool.stop(self.exit.pool_deadline)
        self._take(self._pool.report(), settler)
        end = self._clock.monotonic() + (0.0 if self.exit.terminating else _LAST_TRIES)
        while True:
            try:
                settler.settle()
                consumer.flush()
                break
            except Exception as exc:  # noqa: BLE001 - the last thing we do
                self._observer.trouble(exc, 0.0)
                if self._clock.monotonic() >= end:
                    break
                wait_readable([], 0.5)
        close(consumer)
