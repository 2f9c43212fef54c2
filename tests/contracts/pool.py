"""The contract of the Pool port. An adapter's test module subclasses `PoolContract` and says how its pool is made."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from celery.message import Message
from celery.outcome import Failure, Ignored, Outcome, Record, Rejected, Retrying, Success
from celery.ports import Job, Pool
from tests.running import Traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE = 20.0

OUTCOMES: dict[str, Outcome] = {
    "success": Success(record=Record("id", "SUCCESS", b'{"status": "SUCCESS"}', "reply"), runtime=0.25),
    "success-bare": Success(),
    "failure": Failure(
        reason="ValueError('\u00e9\ud7ff')", acknowledge=False, record=Record("id", "FAILURE", b"\0\xff")
    ),
    "retrying": Retrying(reason="later", follow=[("", "celery", b"{}"), ("topic", "a.b", b"\x80")]),
    "ignored": Ignored(runtime=1e-9),
    "rejected": Rejected(reason="no", requeue=True),
}


class Scripted:
    """A runner whose messages say what to do; it writes what is called into a file, one line a call."""

    def __init__(self, diary: Path) -> None:
        self._diary = os.open(diary, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def _note(self, text: str) -> None:
        os.write(self._diary, f"{os.getpid()} {text}\n".encode())

    def start(self, index: int) -> None:
        self._note(f"start {index}")

    def flush(self) -> None: ...

    def stop(self) -> None:
        self._note("stop")

    def run(self, message: Message) -> Outcome:
        args = json.loads(message.body)
        outcome = self._call(getattr(self, f"do_{message.task}"), message, args)
        return outcome if outcome is not None else Success(runtime=1e-5)

    def _call(self, function: Callable[..., Outcome | None], message: Message, args: list[Any]) -> Outcome | None:
        return function(message, *args)

    #: Time limits are for what happens inside this.
    interruptible: ClassVar = {_call.__code__: True}

    def do_noop(self, message: Message) -> None: ...

    def do_note(self, message: Message, text: str, padding: str = "") -> None:
        self._note(f"run {text}")

    def do_give(self, message: Message, name: str) -> Outcome:
        return OUTCOMES[name] if name in OUTCOMES else Success(record=Record(None, "SUCCESS", b"{}"))  # type: ignore[arg-type]

    def do_big(self, message: Message, size: int) -> Outcome:
        return Success(record=Record(message.id, "SUCCESS", b"r" * size))

    def do_echo(self, message: Message, text: str) -> Outcome:
        return Success(record=Record(message.id, "SUCCESS", text.encode()))

    def do_length(self, message: Message, padding: str) -> Outcome:
        return Failure(reason=str(len(padding)))

    def do_redelivered(self, message: Message) -> Outcome:
        return Failure(reason=str(message.redelivered))

    def do_gate(self, message: Message, path: str) -> None:
        """Note that it runs, then wait until somebody opens the pipe for writing."""
        self._note(f"gate {path}")
        with open(path, "rb") as gate:
            gate.read()

    def do_kill(self, message: Message, signum: int) -> None:
        os.kill(os.getpid(), signum)
        signal.pause()

    def do_perhaps(self, message: Message, signum: int) -> None:
        """Known to be short, until it is asked to kill."""
        if signum:
            self.do_kill(message, signum)

    def do_exit(self, message: Message, status: int) -> None:
        raise SystemExit(status)

    def do_fork(self, message: Message) -> Outcome:
        """A task that forks, and whose child leaves in the ordinary way."""
        pid = os.fork()
        if not pid:
            raise SystemExit(7)
        return Failure(reason=str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


@dataclass
class Told:
    """All that a pool has reported so far."""

    begun: list[int] = field(default_factory=list)
    finished: dict[int, Outcome] = field(default_factory=dict)
    returned: list[int] = field(default_factory=list)
    lost: dict[int, str] = field(default_factory=dict)
    timed_out: dict[int, float] = field(default_factory=dict)
    warned: dict[int, float] = field(default_factory=dict)

    def accounted(self) -> set[int]:
        return {*self.finished, *self.returned, *self.lost, *self.timed_out}


class Bench:
    """A pool under test: makes jobs, keeps what is reported, and checks what must hold at every report."""

    def __init__(
        self, make: Callable[[Scripted], Pool], folder: Path, runner: Callable[[Path], Any] = Scripted
    ) -> None:
        self.folder = folder
        self.diary = folder / "diary"
        self.runner = runner(self.diary)
        self.pool = make(self.runner)
        self.told = Told()
        self._keys = count(1)
        self._gates = count()

    def job(self, task: str, *args: Any, **options: Any) -> Job:
        key = next(self._keys)
        headers = {"task": task, "id": f"id-{key}", **options.pop("headers", {})}
        limits = {name: options.pop(name, None) for name in ("soft_limit", "hard_limit")}
        return Job(key, Message(headers, json.dumps(args).encode(), **options), **limits)

    def gate(self) -> Path:
        path = self.folder / f"gate{next(self._gates)}"
        os.mkfifo(path)
        return path

    def submit(self, *jobs: Job) -> list[int]:
        self.pool.submit(jobs)
        return [job.key for job in jobs]

    def look(self) -> None:
        """Ask for one report."""
        report = self.pool.report()
        told = self.told
        told.begun += report.begun
        for key, outcome in report.finished:
            assert key not in told.accounted(), f"job {key} was reported twice"
            assert key in told.begun, f"job {key} ended but never began"
            told.finished[key] = outcome
        for key in report.returned:
            assert key not in told.accounted(), f"job {key} was reported twice"
            assert key not in told.begun, f"job {key} was returned though it had begun"
            told.returned.append(key)
        for key, how in report.lost:
            assert key not in told.accounted(), f"job {key} was reported twice"
            assert key in told.begun, f"job {key} was lost but never began"
            told.lost[key] = how
        for key, limit in report.timed_out:
            assert key not in told.accounted(), f"job {key} was reported twice"
            assert key in told.begun, f"job {key} timed out but never began"
            told.timed_out[key] = limit
        for key, limit in report.warned:
            assert key not in told.warned, f"job {key} was warned twice"
            told.warned[key] = limit
        assert max(Counter(told.begun).values(), default=1) == 1, "a job was told as begun twice"

    def until(self, condition: Callable[[], Any], seconds: float = DEADLINE) -> None:
        """Turn the pool until the condition holds, waiting on its descriptors as a worker does."""
        deadline = time.monotonic() + seconds
        while True:
            self.look()
            if condition():
                return
            left = deadline - time.monotonic()
            assert left > 0, f"not so after {seconds} s: {self.told}"
            if descriptors := self.pool.descriptors():
                # Bounded, since some conditions come true outside the pool.
                select.select(descriptors, (), (), min(left, 0.05))

    def settle(self, *keys: int) -> None:
        self.until(lambda: self.told.accounted() >= set(keys))

    def ready(self, free: int = 1) -> None:
        self.until(lambda: self.pool.free >= free)

    def stop(self, seconds: float = DEADLINE) -> None:
        self.pool.stop(time.monotonic() + seconds)
        self.look()

    def notes(self) -> list[tuple[int, str]]:
        lines = self.diary.read_text().splitlines()
        return [(int(pid), text) for pid, _, text in (line.partition(" ") for line in lines)]

    def close(self) -> None:
        self.pool.stop(time.monotonic())
        os.close(self.runner._diary)


def open_gate(path: Path) -> None:
    """Let the job that waits there go on; waits until one is there."""
    with open(path, "wb"):
        pass


class PoolContract:
    """What every pool does."""

    concurrency = 1
    #: How often the runner is started: once in each child, once in a pool that runs jobs in its own process.
    starts = property(lambda self: self.concurrency)

    def make(self, runner: Scripted) -> Pool:
        raise NotImplementedError

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        bench = Bench(self.make, tmp_path)
        bench.pool.start()
        yield bench
        bench.close()

    @pytest.mark.parametrize("name", OUTCOMES)
    def test_an_outcome_comes_back_as_the_runner_gave_it(self, bench: Bench, name: str) -> None:
        (key,) = bench.submit(bench.job("give", name))
        bench.settle(key)
        assert bench.told.finished == {key: OUTCOMES[name]}

    def test_every_job_ends_once_with_its_own_outcome(self, bench: Bench) -> None:
        jobs = [bench.job("length", "x" * n) for n in range(500)]
        keys = bench.submit(*jobs)
        bench.settle(*keys)
        assert [bench.told.finished[key].reason for key in keys] == [str(n) for n in range(500)]
        assert sorted(bench.told.begun) == keys

    def test_large_messages_and_large_outcomes_pass(self, bench: Bench) -> None:
        ways = [bench.job("length", "x" * 5_000_000), bench.job("big", 5_000_000), bench.job("big", 100_000)]
        keys = bench.submit(*ways)
        bench.settle(*keys)
        assert bench.told.finished[keys[0]].reason == "5000000"
        assert [len(bench.told.finished[key].record.meta) for key in keys[1:]] == [5_000_000, 100_000]

    def test_a_redelivered_message_is_seen_as_such_by_the_runner(self, bench: Bench) -> None:
        jobs = [bench.job("redelivered", redelivered=redelivered) for redelivered in (True, False)]
        envelopes = [Message.from_envelope(job.message.to_envelope()) for job in jobs]
        envelopes[1].redelivered = True  # known to the broker only
        keys = bench.submit(*jobs, *(Job(1000 + n, message) for n, message in enumerate(envelopes)))
        bench.settle(*keys)
        assert [bench.told.finished[key].reason for key in keys] == ["True", "False", "True", "True"]

    def test_an_idle_pool_has_room_and_a_full_one_has_none(self, bench: Bench) -> None:
        bench.ready(self.concurrency)
        assert bench.pool.free == self.concurrency
        bench.submit(*(bench.job("noop") for _ in range(self.concurrency)))
        assert bench.pool.free <= 0
        bench.ready(self.concurrency)

    def test_the_runner_is_started_before_the_first_run_and_stopped_after_the_last(self, bench: Bench) -> None:
        bench.settle(*bench.submit(bench.job("note", "a"), bench.job("note", "b")))
        bench.stop()
        notes = bench.notes()
        assert sorted(text for _, text in notes if text.startswith("start")) == [
            f"start {index}" for index in range(self.starts)
        ]
        for pid in {pid for pid, _ in notes}:
            mine = [text for other, text in notes if other == pid]
            assert mine[0].startswith("start")
            assert mine[-1] == "stop"
            assert mine.count("stop") == 1

    def test_what_is_taken_back_is_returned_and_never_run(self, bench: Bench) -> None:
        bench.ready()
        keys = bench.submit(*(bench.job("note", str(n)) for n in range(50)))
        bench.pool.take_back()
        bench.settle(*keys)
        ran = {text for _, text in bench.notes() if text.startswith("run")}
        assert len(ran) == len(bench.told.finished)
        assert len(bench.told.returned) >= 50 - self.concurrency
        # It goes on afterwards.
        bench.settle(*bench.submit(bench.job("noop")))

    def test_stop_gives_back_what_has_not_begun(self, bench: Bench) -> None:
        bench.ready()
        keys = bench.submit(*(bench.job("note", str(n)) for n in range(50)))
        bench.stop()
        assert bench.told.accounted() == set(keys)
        assert not bench.told.lost
        assert len(bench.told.returned) >= 50 - self.concurrency
        assert len([text for _, text in bench.notes() if text.startswith("run")]) == len(bench.told.finished)

    def test_stop_may_be_called_twice_and_without_start(self, bench: Bench) -> None:
        bench.stop()
        bench.stop()
        other = Bench(self.make, bench.folder)
        other.stop()
        other.close()

    @pytest.mark.slow
    def test_it_can_be_started_and_stopped_again_and_leaves_nothing(self, bench: Bench) -> None:
        bench.stop()
        traces = Traces()
        for _ in range(3):
            bench.pool.start()
            bench.settle(*bench.submit(bench.job("noop")))
            bench.stop()
        assert not traces.new
