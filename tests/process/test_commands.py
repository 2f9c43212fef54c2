"""Commands and real processes: one run is ended and no other, pools are resized and made anew, the frozen are seen."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, group
from celery.concurrency import beats
from celery.exceptions import TaskRevokedError
from celery.worker import state
from celery.worker.autoscale import Autoscaler
from celery.worker.consumer.consumer import state_for
from celery.worker.control import Panel
from tests.flow.engine import until
from tests.flow.running import working

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery.worker import WorkController

pytestmark = pytest.mark.process

#: Seconds; far more than anything takes.
DEADLINE = 60.0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("commands", broker=name, backend=name, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True)
    ledger = tmp_path / "ledger"

    @app.task(name="nap", acks_late=True)
    def nap(seconds: float, mark: Any = None) -> Any:
        time.sleep(seconds)
        with ledger.open("a") as file:
            file.write(f"{mark}\n")
        return mark

    @app.task(name="pid")
    def pid() -> int:
        return os.getpid()

    @app.task(name="probe")
    def probe() -> Any:
        import commands_probe

        return commands_probe.VALUE

    yield app
    state.reset_state()
    app.close()


def tell(worker: WorkController, command: str, **arguments: Any) -> Any:
    return Panel.data[command](state_for(worker), **arguments)


def running(worker: WorkController) -> dict[str, int]:
    """Id → process of what runs."""
    return {info["id"]: info["worker_pid"] for info in tell(worker, "active")}


def ran(tmp_path: Path) -> list[str]:
    ledger = tmp_path / "ledger"
    return ledger.read_text().split() if ledger.exists() else []


def test_of_many_runs_only_one_is_ended(app: Celery, tmp_path: Path) -> None:
    with working(app, concurrency=3) as worker:
        results = [app.tasks["nap"].delay(2.0, n) for n in range(3)]
        until(lambda: len(running(worker)) == 3, "all run", DEADLINE)
        doomed = results[1]
        assert tell(worker, "revoke", task_id=doomed.id, terminate=True, signal="SIGKILL") == {
            "ok": f"terminate: {doomed.id}"
        }
        with pytest.raises(TaskRevokedError, match="terminated"):
            doomed.get(timeout=DEADLINE)
        assert [one.get(timeout=DEADLINE) for one in (results[0], results[2])] == [0, 2]
        assert app.tasks["pid"].delay().get(timeout=DEADLINE) in worker.pool.pids  # type: ignore[union-attr]
    assert sorted(ran(tmp_path)) == ["0", "2"], "acknowledged late, and not run again"


def test_ending_a_run_races_with_its_end(app: Celery, tmp_path: Path) -> None:
    """Whoever wins: each task has either run, once, or is revoked and has not; and no neighbour is hit."""
    chance = random.Random(5)
    with working(app, concurrency=2) as worker:
        warm = [app.tasks["nap"].delay(0.0, "warm") for _ in range(20)]
        [one.get(timeout=DEADLINE) for one in warm]
        pairs = [
            (app.tasks["nap"].apply_async((0.03, f"a{n}")), app.tasks["nap"].apply_async((0.03, f"b{n}")))
            for n in range(12)
        ]
        for doomed, _ in pairs:
            time.sleep(chance.random() * 0.05)
            reply = tell(worker, "revoke", task_id=doomed.id, terminate=True, signal=chance.choice(["TERM", "KILL"]))
            assert reply["ok"].startswith("terminate: ")
        spared = [result.get(timeout=DEADLINE) for _, result in pairs]
        assert spared == [f"b{n}" for n in range(12)]
        ends = {}
        for doomed, _ in pairs:
            with suppress(TaskRevokedError):
                ends[doomed.get(timeout=DEADLINE)] = True
    ledger = [mark for mark in ran(tmp_path) if mark != "warm"]
    assert len(ledger) == len(set(ledger))
    assert set(ends) <= {mark for mark in ledger if mark.startswith("a")}


def test_batches_in_the_window_of_a_child_are_revoked(app: Celery, tmp_path: Path) -> None:
    """Some hundred short tasks are with the child already when they are revoked."""
    with working(app, concurrency=1) as worker:
        [one.get(timeout=DEADLINE) for one in [app.tasks["nap"].delay(0.0, "warm") for _ in range(200)]]
        results = [app.tasks["nap"].delay(0.002, n) for n in range(300)]
        until(lambda: len(worker.consumer.held) > 10, "a batch is with the child", DEADLINE)
        tell(worker, "revoke", task_id=[one.id for one in results[1::2]])
        assert [one.get(timeout=DEADLINE) for one in results[::2]] == list(range(0, 300, 2))
        until(lambda: worker.consumer.load == 0, "all is settled", DEADLINE)
        known = [one.state for one in results[1::2]]
    assert set(known) <= {"SUCCESS", "REVOKED"}
    marks = {mark for mark in ran(tmp_path) if mark != "warm"}
    revoked = [n for n, status in zip(range(1, 300, 2), known, strict=True) if status == "REVOKED"]
    assert len(revoked) > 75, "most had not begun"
    assert not marks & {str(n) for n in revoked}


def test_the_pool_grows_and_shrinks_while_it_is_busy(app: Celery, tmp_path: Path) -> None:
    with working(app, concurrency=1) as worker:
        first = app.tasks["nap"].delay(1.0, "first")
        until(lambda: len(running(worker)) == 1, "it runs", DEADLINE)
        assert tell(worker, "pool_grow", n=2) == {"ok": "pool will grow"}
        others = [app.tasks["nap"].delay(1.0, n) for n in range(2)]
        until(lambda: len(running(worker)) == 3, "all run", DEADLINE)
        assert tell(worker, "pool_shrink", n=2) == {"ok": "pool will shrink"}
        assert [one.get(timeout=DEADLINE) for one in (first, *others)] == ["first", 0, 1]
        until(lambda: len(worker.pool.pids) == 1, "two have gone", DEADLINE)  # type: ignore[union-attr]
        assert tell(worker, "stats")["pool"]["max-concurrency"] == 1
        with pytest.raises(ValueError, match="keep at least 1"):
            tell(worker, "pool_shrink", n=1)
        with pytest.raises(ValueError, match="expected at most 64 children"):
            tell(worker, "pool_grow", n=64)
    assert sorted(ran(tmp_path)) == ["0", "1", "first"]


def test_children_made_anew_know_what_was_reloaded(
    app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "commands_probe.py"
    module.write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app.conf.worker_pool_restarts = True
    app.loader.import_from_cwd("commands_probe")
    with working(app, concurrency=2) as worker:
        pool: Any = worker.pool
        before = set(until(lambda: len(pool.pids) == 2 and pool.pids, "both are there", DEADLINE))
        assert app.tasks["probe"].delay().get(timeout=DEADLINE) == 1
        long = app.tasks["nap"].delay(1.5, "long")
        until(lambda: running(worker), "it runs", DEADLINE)
        busy = running(worker)[long.id]
        module.write_text("VALUE = 23456\n")
        assert tell(worker, "pool_restart", modules=["commands_probe"], reload=True) == {"ok": "reload started"}
        until(lambda: len(before & set(pool.pids)) == 1, "the idle one is replaced", DEADLINE)
        assert app.tasks["probe"].delay().get(timeout=DEADLINE) == 23456
        assert busy in pool.pids, "whoever runs something finishes it"
        assert long.get(timeout=DEADLINE) == "long"
        until(lambda: not before & set(pool.pids), "then it is replaced too", DEADLINE)
        tell(worker, "pool_restart")
        tell(worker, "pool_restart")
        assert [one.get(timeout=DEADLINE) for one in [app.tasks["probe"].delay() for _ in range(10)]] == [23456] * 10
        until(lambda: not pool._old, "the old zygotes have gone", DEADLINE)


def test_nothing_is_lost_while_it_scales_and_children_are_killed(
    app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Autoscaler.__init__, "__defaults__", (0, None, 0.2, None))
    app.conf.task_reject_on_worker_lost = True
    for task in app.tasks.values():
        task.reject_on_worker_lost = True
    app.conf.task_max_deaths = 0
    chance = random.Random(7)
    with working(app, autoscale="4,1", concurrency=None) as worker:
        calls = group(app.tasks["nap"].s(chance.random() * 0.08, n) for n in range(60))
        result = calls.apply_async()
        most = kills = 0
        while not result.ready() and kills < 10:
            time.sleep(0.1)
            pids = worker.pool.pids  # type: ignore[union-attr]
            most = max(most, len(pids))
            if pids:
                kills += 1
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
        assert sorted(result.get(timeout=DEADLINE)) == list(range(60))
        assert most > 1
        assert kills >= 1
        until(lambda: worker.concurrency == 1, "it shrinks when there is nothing to do", DEADLINE)
        until(lambda: len(worker.pool.pids) == 1, "the others have gone", DEADLINE)  # type: ignore[union-attr]
    assert {int(mark) for mark in ran(tmp_path)} == set(range(60))


def test_a_frozen_child_is_told_of_and_a_busy_one_is_not(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beats, "_EVERY", 0.1)
    app.conf.worker_stuck_after = 2.0
    with working(app, concurrency=2) as worker:
        pool: Any = worker.pool
        until(lambda: len(pool.pids) == 2, "both are there", DEADLINE)
        app.tasks["nap"].delay(3600)
        busy = until(lambda: list(running(worker).values()), "it runs", DEADLINE)[0]
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert tell(worker, "ping") == {"ok": "pong"}
            time.sleep(0.05)
        for frozen in pool.pids:
            os.kill(frozen, signal.SIGSTOP)
            try:
                until(lambda: "error" in tell(worker, "ping"), "it is seen", DEADLINE)
                told = tell(worker, "ping")["error"]
            finally:
                os.kill(frozen, signal.SIGCONT)
            assert f"1 of 2 processes of the pool do not answer: pid {frozen} for " in told
            until(lambda: tell(worker, "ping") == {"ok": "pong"}, "it answers again", DEADLINE)
        assert busy in pool.pids
        worker.terminate()
