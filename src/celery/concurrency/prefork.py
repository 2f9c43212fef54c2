"""Adapter. The prefork pool: runs tasks in forked processes, in batches where they are short."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import selectors
import signal
import threading
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.concurrency.beats import Beats
from celery.concurrency.deaths import describe, wait_for_death
from celery.concurrency.forks import abandon_in_forks
from celery.concurrency.frames import (
    BEGUN,
    HELLO,
    OUTCOMES,
    RECALL,
    RETIRING,
    RETURNED,
    STOP,
    WARNED,
    decode_key,
    decode_keys,
    frame,
)
from celery.concurrency.handout import Handout
from celery.concurrency.news import News
from celery.concurrency.seat import Seat
from celery.concurrency.sitting import log_death, told
from celery.concurrency.slots import Slots
from celery.concurrency.terms import Terms
from celery.concurrency.zygote import Born, Died, Ended, Looked, Zygote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.concurrency.spawned import Parcel
    from celery.outcome import Outcome
    from celery.ports import Job, Report, Runner

__all__ = ["PreforkPool"]

logger = logging.getLogger(__name__)

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: Seconds between TERM and KILL once the deadline of `stop` has passed.
_GRACE = 0.5
#: Seconds before a child is forked again whose predecessors died at start: doubled each time, up to the second.
_BACKOFF, _MOST_BACKOFF = 0.1, 10.0
#: Bytes read from a child at once.
_SCRATCH = 256 << 10


class PreforkPool:
    """A pool of processes (`[pool.4]`): `concurrency` children, each dead one replaced at once, forked by a zygote.

    What a death does to the jobs that a child held: those whose outcome it left in shared memory are finished; the
    one that it was running is lost; all others never began and are returned. So keys must not be used twice.

    A job that runs past its hard limit is ended together with its child and all that this has forked, and is told as
    timed out; every other job of the child comes back as after any death. Soft limits are the child's own affair.

    A short job is never left waiting behind a long one while another child is free: the child tells that a run takes
    long, and what waits behind it is recalled and handed to the other.
    """

    def __init__(
        self,
        runner: Runner,
        concurrency: int,
        *,
        most: int | None = None,
        max_tasks: int | None = None,
        max_memory: int | None = None,
        start_method: str = "fork",
        proc_alive_timeout: float | None = None,
    ) -> None:
        """`most`: how many children there may ever be (`grow`); by default four times as many, at least 64.

        A child is replaced in good order after `max_tasks` runs, or after a run that leaves it with more than
        `max_memory` KiB of resident memory (`[pool.6]`); one that is not ready `proc_alive_timeout` seconds after it
        was forked is killed and replaced. None and 0: never. With `start_method` "spawn" every child is a fresh
        interpreter, for which the runner must be picklable (`[pool.5]`). Raises `ValueError` for what makes no sense.
        """
        if concurrency < 1:
            raise ValueError(f"expected a concurrency of at least 1, got {concurrency}")
        self._runner = runner
        self._size = concurrency
        self._most = max(concurrency, most or max(4 * concurrency, 64))
        self._terms = Terms(max_tasks or None, max_memory or None, proc_alive_timeout or None, start_method)
        self._handout = Handout()
        self._beats = Beats()
        self._zygote: Zygote | None = None
        #: Zygotes that fork no more (`restart`), and whose children have not all ended.
        self._old: list[Zygote] = []
        self._reset()

    def _reset(self) -> None:
        self._seats: dict[int, Seat] = {}
        #: Indexes of children that are being forked, and by whom.
        self._unborn: dict[int, Zygote] = {}
        #: For each index, how many children in a row died before they were ready.
        self._stillborn: dict[int, int] = {}
        self._stopping = False
        self._news = News()
        #: `take_back` was called, and these children have not answered all recalls yet.
        self._giving_back: set[int] = set()

    # ------------------------------------------------------------------------------------------------------ lifetime

    def start(self) -> None:
        """Fork the zygote, and through it the children. Returns before they are ready; `free` follows.

        Best called in the main thread, before the process has other threads, sockets or database handles. Raises
        `OSError` if the machine refuses.
        """
        if self._zygote is not None:
            return
        self._reset()
        spawning = self._terms.start_method == "spawn"
        self._slots = Slots(self._most, shared=spawning)
        self._parcel: Parcel | None = None
        if spawning:
            from celery.concurrency.spawned import Parcel

            self._parcel = Parcel(self._runner, self._slots, self._terms)
        if threading.current_thread() is threading.main_thread():
            gc.freeze()  # collections would write to, and thereby copy, the pages that the children share
        self._hatch()
        self._scratch = bytearray(_SCRATCH)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._zygote_(), _READ)
        abandon_in_forks(self)
        for index in range(self._size):
            self._spawn(index)

    def stop(self, deadline: float) -> None:
        if self._zygote is None:
            return
        self._stopping = True
        self.take_back()
        for seat in self._seats.values():
            self._dismiss(seat)
        self._turn_until_empty(deadline)
        for signum, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, 5.0)):
            for seat in self._seats.values():
                self._signal(seat, signum)
            self._turn_until_empty(monotonic() + patience)
        for zygote in (self._zygote_(), *self._old):
            self._selector.unregister(zygote)
            zygote.close()
        self._old = []
        for seat in list(self._seats.values()):
            self._bury(seat, signal.SIGKILL)
        self._selector.close()
        if self._parcel is not None:
            self._parcel.close()
        self._slots.close()
        self._zygote = None
        gc.unfreeze()

    def abandon(self) -> None:
        """Called in a process forked off this one: the sockets are not its own."""
        if self._zygote is not None:
            for zygote in (self._zygote, *self._old):
                zygote.abandon()
            for seat in self._seats.values():
                seat.close()
            self._selector.close()
            self._zygote = None

    def _hatch(self) -> None:
        self._zygote = Zygote(self._runner, self._slots, self._terms, self._parcel)

    def _zygote_(self) -> Zygote:
        assert self._zygote is not None, "the pool is not started"
        return self._zygote

    # ------------------------------------------------------------------------------------------------------- the port

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand the jobs to children, as far as they suit; the rest waits here.

        It is also how the pool learns what the queues hold: give it what was fetched for `free`, even if it is
        nothing, and it asks for more or for less next time.
        """
        self._handout.take(jobs, self._seats.values())
        self._feed()

    def report(self) -> Report:
        """What happened since the last call. `begun` names every job once: when it has run for some milliseconds, or
        together with its end."""
        if self._zygote is not None:
            self._turn(0)
        news, self._news = self._news, News()
        return news.report()

    def descriptors(self) -> Sequence[int]:
        """One: it stays the same from `start` to `stop`, whatever children come and go."""
        return () if self._zygote is None else (self._selector.fileno(),)

    @property
    def free(self) -> int:
        return self._handout.free(self._seats.values())

    @property
    def idle(self) -> int:
        """See `ports.Seated`."""
        return sum(seat.idle for seat in self._seats.values()) - len(self._handout.waiting)

    def take_back(self) -> None:
        """Recall everything that has not begun. What waits here is told by the next `report`, whatever the descriptors
        say; what is in the children follows within some 10 ms."""
        waiting = self._handout.waiting
        self._news.returned.extend(job.key for job in waiting)
        waiting.clear()
        for seat in self._seats.values():
            if seat.window:
                self._giving_back.add(seat.index)
                self._recall(seat)

    def terminate(self, key: int, signal: int) -> None:
        """Send the signal to the child that runs this job, if one does at the moment it is looked for; the job is
        reported as lost once the child is dead (`[pool.12]`). A job that is not running is left alone."""
        for seat in self._seats.values():
            if key in seat.window:
                seat.doomed = key
                with contextlib.suppress(OSError):
                    seat.zygote.terminate(seat.index, key, signal)
                return

    def grow(self, n: int) -> None:
        """Add `n` children (`[pool.13]`). Raises `ValueError` beyond what the pool was made for (`most`)."""
        if self._size + n > self._most:
            raise ValueError(
                f"expected at most {self._most} children, got {self._size} + {n}: make the pool with `most`"
            )
        for index in range(self._size, self._size + n):
            # One that is still leaving this place is followed by its successor when it is gone.
            if index not in self._seats and index not in self._unborn and self._zygote is not None:
                self._spawn(index)
        self._size += n

    @property
    def size(self) -> int:
        """See `ports.Resizable`."""
        return self._size

    def shrink(self, n: int) -> None:
        """Remove the `n` children of the highest index, each when it has finished what it runs."""
        if n >= self._size:
            raise ValueError(f"expected to keep at least 1 of {self._size} children, got {n} to remove")
        self._size -= n
        for seat in self._seats.values():
            if seat.index >= self._size:
                self._dismiss(seat)

    def restart(self) -> None:
        """See `ports.Restartable`. The new zygote is forked as this process is now, with its threads and sockets."""
        if self._terms.start_method == "fork":
            self._old.append(self._zygote_())
            self._hatch()
            self._selector.register(self._zygote_(), _READ)
        for seat in self._seats.values():
            self._dismiss(seat)

    def ask_after(self) -> None:
        """See `ports.Answering`."""
        self._beats.ask(self._seats.values(), self._watch)

    def silent(self) -> list[tuple[int, float]]:
        """See `ports.Answering`."""
        return self._beats.silent(list(self._seats.values()))

    def info(self) -> dict[str, Any]:
        """What `stats()` shows of the pool (`[pool.14]`), save `timeouts`: only the worker knows the defaults."""
        return told(f"{type(self).__module__}:{type(self).__name__}", self._size, self._terms, dict(self._seats))

    @property
    def pids(self) -> list[int]:
        """Process ids of the children, by index. Any thread may ask."""
        return [seat.pid for _, seat in sorted(self._seats.items())]

    def pid_of(self, key: int) -> int | None:
        """The process that has this job, whether it runs it already or not; None: the job waits, or is over."""
        return next((seat.pid for seat in list(self._seats.values()) if key in seat.window), None)

    # ------------------------------------------------------------------------------------------------ what has happened

    def _turn(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for something to happen, and deal with all that has."""
        for key, mask in self._selector.select(timeout):
            seat: Seat | None = key.data
            if seat is None:
                self._hear_zygote(key.fileobj)
            elif self._seats.get(seat.index) is seat:  # else buried in this very turn
                if mask & _WRITE:
                    seat.send_rest()
                    self._watch(seat)
                if mask & _READ and not self._hear(seat) and seat.closed:
                    self._cut_off(seat)
        if self._old:
            self._let_go()
        if not self._stopping:
            for seat in self._handout.overtaken(self._seats.values()):
                self._recall(seat)
            self._feed()

    def _turn_until_empty(self, deadline: float) -> None:
        while self._seats and (left := deadline - monotonic()) > 0:
            self._turn(left)

    def _hear(self, seat: Seat) -> bool:
        """Read once from a child. False: there was nothing (and if it `closed` its end, there will be nothing)."""
        frames = seat.receive(self._scratch)
        if frames is None:
            return False
        seat.asked = 0.0
        for kind, body in frames:
            if kind == OUTCOMES:
                self._settle(seat, seat.understand(body))
            elif kind == RETURNED:
                self._take_in(seat, decode_keys(body))
            elif kind == BEGUN:
                self._note_slow(seat, decode_key(body))
            else:
                self._hear_of_itself(seat, kind, body)
        return not seat.closed

    def _hear_of_itself(self, seat: Seat, kind: int, body: memoryview) -> None:
        if kind == HELLO:
            seat.ready = True
            self._stillborn.pop(seat.index, None)
        elif kind == RETIRING:
            self._dismiss(seat)
        elif kind == WARNED:
            job = seat.window.get(decode_key(body))
            if job is not None and job.soft_limit is not None:
                self._news.warned.append((job.key, job.soft_limit))

    def _settle(self, seat: Seat, pairs: list[tuple[int, Outcome]]) -> None:
        keys = [key for key, _ in pairs]
        jobs = seat.take(keys)
        if len(jobs) < len(pairs):  # told twice: by a child before its death, and by what it left in shared memory
            known = {job.key for job in jobs}
            pairs = [pair for pair in pairs if pair[0] in known]
            keys = [key for key, _ in pairs]
        observe = self._handout.pacing.observe
        for job, (_, outcome) in zip(jobs, pairs, strict=True):
            observe(job.message.task, outcome.runtime)
        self._news.begun.extend(keys if seat.told is None else [key for key in keys if key != seat.told])
        self._news.finished.extend(pairs)

    def _take_in(self, seat: Seat, keys: list[int]) -> None:
        """Jobs that a child gives back: for another child, or for the caller if he wants them."""
        jobs = seat.take(keys)
        seat.rest += len(jobs)
        seat.recalls -= 1
        if seat.index in self._giving_back or self._stopping:
            self._news.returned.extend(job.key for job in jobs)
            if not seat.recalls:
                self._giving_back.discard(seat.index)
        else:
            self._handout.waiting.extendleft(reversed(jobs))

    def _note_slow(self, seat: Seat, key: int) -> None:
        if key in seat.window:
            seat.told = seat.slow = key
            self._news.begun.append(key)

    def _hear_zygote(self, zygote: Any) -> None:
        for event in zygote.events():
            if event is None:
                self._lose_zygote(zygote)
                return
            if isinstance(event, Born):
                self._welcome(event, zygote)
                continue
            seat = self._seats.get(event.index)
            if seat is not None and seat.pid != event.pid:
                seat = None
            if isinstance(event, Died):
                self._note_death(event, seat)
            elif seat is not None and isinstance(event, Looked):
                seat.watched, seat.limit = 0.0, seat.smallest_limit()
                self._keep_time(seat)
            elif seat is not None and isinstance(event, Ended):
                seat.ended = -1 if event.key is None else event.key

    def _welcome(self, born: Born, zygote: Zygote) -> None:
        self._unborn.pop(born.index, None)
        seat = self._seats[born.index] = Seat(born.index, born.pid, born.sock, self._terms.max_tasks, zygote)
        self._selector.register(seat, _READ, seat)
        if self._stopping or born.index >= self._size or zygote is not self._zygote:
            self._dismiss(seat)

    # ---------------------------------------------------------------------------------------------------------- deaths

    def _note_death(self, death: Died, seat: Seat | None) -> None:
        self._unborn.pop(death.index, None)
        if seat is not None:
            self._bury(seat, death.status)
        else:
            self._replace(death.index, ready=False)

    def _let_go(self) -> None:
        """Close the old zygotes that have no children any more."""
        needed = {seat.zygote for seat in self._seats.values()} | set(self._unborn.values())
        for zygote in [each for each in self._old if each not in needed]:
            self._old.remove(zygote)
            self._selector.unregister(zygote)
            zygote.close()

    def _bury(self, seat: Seat, status: int) -> None:
        """A child is dead: hear what it still said, and tell what became of every job that it had."""
        while self._hear(seat):
            pass
        slot = self._slots.slot(seat.index)
        self._settle(seat, seat.understand(slot.recover()))
        run = slot.read()
        how = describe(status)
        begun = list(seat.window)
        begun = begun[: begun.index(run.key) + 1] if run is not None and run.key in seat.window else []
        self._news.begun.extend(key for key in begun if key != seat.told)
        for job in seat.take(begun):
            if job.key == seat.ended and job.hard_limit is not None:
                self._news.timed_out.append((job.key, job.hard_limit))
            else:
                self._news.lost.append((job.key, how))
        self._news.returned.extend(seat.window)
        with contextlib.suppress(KeyError):
            self._selector.unregister(seat)
        seat.close()
        del self._seats[seat.index]
        self._giving_back.discard(seat.index)
        log_death(seat, how, self._terms, begun)
        self._replace(seat.index, ready=seat.ready)

    def _replace(self, index: int, *, ready: bool) -> None:
        if self._stopping or index >= self._size or index in self._unborn or index in self._seats:
            return
        deaths = self._stillborn[index] = 0 if ready else self._stillborn.get(index, 0) + 1
        self._spawn(index, min(_BACKOFF * 2.0 ** (deaths - 1), _MOST_BACKOFF) if deaths > 1 else 0.0)

    def _lose_zygote(self, zygote: Zygote) -> None:
        """The zygote was killed, and the kernel kills its children: tell what became of their jobs, and hatch another.

        By now this process may hold sockets and locks; the next children are forked with them.
        """
        logger.error("The pool's zygote (pid %d) died; its children are replaced", zygote.pid)
        self._selector.unregister(zygote)
        seats = [seat for seat in self._seats.values() if seat.zygote is zygote]
        for seat in seats:
            with contextlib.suppress(ProcessLookupError):
                os.kill(seat.pid, signal.SIGKILL)
        zygote.close()
        unborn = [index for index, mother in self._unborn.items() if mother is zygote]
        for index in unborn:
            del self._unborn[index]
        if zygote in self._old:
            self._old.remove(zygote)
        elif not self._stopping:
            self._hatch()
            self._selector.register(self._zygote_(), _READ)
        for index in unborn:
            self._replace(index, ready=True)
        for seat in seats:
            wait_for_death(seat)
            self._bury(seat, signal.SIGKILL)

    def _cut_off(self, seat: Seat) -> None:
        """A child has closed its socket: it is ending, and its death will be told; if it is not, it must not stay."""
        self._selector.unregister(seat)
        self._signal(seat, signal.SIGKILL)

    # ----------------------------------------------------------------------------------------------- to the children

    def _feed(self) -> None:
        for seat in self._handout.feed(self._seats.values()):
            self._watch(seat)
            if seat.limit != inf:
                self._keep_time(seat)

    def _keep_time(self, seat: Seat) -> None:
        """Have the zygote look after the smallest of the hard limits handed over, unless it looks by then anyway.

        What it finds when it looks may be due later than what is handed over after that, so a look that has passed
        counts for nothing.
        """
        limit, seat.limit = seat.limit, inf
        now = monotonic()
        if limit < inf and not now < seat.watched <= now + limit:
            seat.watched = now + limit
            with contextlib.suppress(OSError):
                seat.zygote.watch(seat.index, limit)

    def _watch(self, seat: Seat) -> None:
        """Ask to be told when the child's socket is writable, if and only if something is left to send."""
        events = _READ | _WRITE if seat.unsent else _READ
        if not seat.closed and self._selector.get_key(seat).events != events:
            self._selector.modify(seat, events, seat)

    def _recall(self, seat: Seat) -> None:
        seat.recalls += 1
        seat.send(frame(RECALL))
        self._watch(seat)

    def _dismiss(self, seat: Seat) -> None:
        """Tell a child to end after what it runs."""
        if not seat.leaving:
            seat.leaving = True
            seat.recalls += 1
            seat.send(frame(STOP))
            self._watch(seat)

    def _spawn(self, index: int, delay: float = 0.0) -> None:
        self._unborn[index] = self._zygote_()
        self._slots.slot(index).clear()
        with contextlib.suppress(OSError):  # the zygote is gone: its end is told by the socket, and handled there
            self._zygote_().spawn(index, delay)

    def _signal(self, seat: Seat, signum: int) -> None:
        with contextlib.suppress(OSError):
            seat.zygote.signal(seat.pid, signum)


def __getattr__(name: str) -> Any:
    """What Celery has here and monitoring packages wrap; what they put in its place is called by each child."""
    if name not in ("process_destructor", "process_initializer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from celery.app import runner

    return getattr(runner, name)
