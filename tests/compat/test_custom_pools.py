"""Custom pools: `BasePool` as in Celery 5.7, and the bridge on which its subclasses run."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from billiard.einfo import ExceptionInfo

from celery import Celery, concurrency
from celery.app.pools import make_pool
from celery.concurrency.base import BasePool, BridgedPool, apply_target
from celery.concurrency.solo import SoloPool, TaskPool
from celery.concurrency.thread import TaskPool as ThreadTaskPool
from celery.exceptions import ImproperlyConfigured, WorkerLostError
from tests.contracts.pool import Bench, PoolContract, Scripted

if TYPE_CHECKING:
    from collections.abc import Iterator


class Recorded(BasePool):
    """Runs each job in a thread of its own, and notes what is called."""

    signal_safe = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[str] = []
        self.given: list[dict[str, Any]] = []
        self.terminated: list[Any] = []

    def on_start(self) -> None:
        self.calls.append(f"start {self._state}")

    def on_close(self) -> None:
        self.calls.append(f"close {self._state}")

    def on_stop(self) -> None:
        self.calls.append(f"stop {self._state}")

    def on_terminate(self) -> None:
        self.calls.append(f"terminate {self._state}")

    def terminate_job(self, pid: Any, signal: Any = None) -> None:
        self.terminated.append((pid, signal))

    def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        self.given.append({"args": args, "kwargs": kwargs, **options})
        self.run(target, args, kwargs, options["callback"], options["accept_callback"], options["error_callback"])

    def run(self, target: Any, args: Any, kwargs: Any, callback: Any, accepted: Any, failed: Any) -> None:
        threading.Thread(target=apply_target, args=(target, args, kwargs, callback, accepted), daemon=True).start()


class TestContract(PoolContract):
    concurrency = 2
    starts = 1

    def make(self, runner: Scripted) -> BridgedPool:
        return BridgedPool(Recorded(self.concurrency), runner, self.concurrency)


class TestSoloTaskPool(PoolContract):
    """A pool that runs each job while it is handed over."""

    def make(self, runner: Scripted) -> BridgedPool:
        return BridgedPool(type("Own", (TaskPool,), {})(1), runner)


class TestThreadTaskPool(PoolContract):
    concurrency = 2
    starts = 1

    def make(self, runner: Scripted) -> BridgedPool:
        return BridgedPool(_AgainThreads(self.concurrency), runner, self.concurrency)


class _AgainThreads(ThreadTaskPool):  # type: ignore[misc, valid-type]
    """An executor cannot be started again, so it is made at start."""

    def on_start(self) -> None:
        self.__init__(self.limit)  # type: ignore[misc]


@pytest.fixture
def bench(tmp_path: Any) -> Iterator[Bench]:
    bench = Bench(lambda runner: BridgedPool(Recorded(2), runner, 2), tmp_path)
    bench.pool.start()
    yield bench
    bench.close()


def test_the_pool_is_called_as_celerys_own_request_calls_it(bench: Bench) -> None:
    job = bench.job("echo", "hello", soft_limit=3, hard_limit=5)
    bench.settle(*bench.submit(job))
    (given,) = bench.pool.pool.given
    message = job.message
    assert given["args"] == ("echo", message.id, message.headers, message.body, "application/json", "utf-8")
    assert given["kwargs"] == {}
    assert (given["soft_timeout"], given["timeout"], given["correlation_id"]) == (3, 5, message.id)
    assert (given["waitforslot"], given["callbacks_propagate"]) == (True, ())
    assert callable(given["timeout_callback"])
    bench.stop()
    assert bench.pool.pool.calls == ["start None", "close 2", "stop 2"]


def test_what_the_pool_tells_by_its_callbacks(tmp_path: Any) -> None:
    class Telling(Recorded):
        def run(self, target: Any, args: Any, kwargs: Any, callback: Any, accepted: Any, failed: Any) -> None:
            accepted(4711, 0.0)
            how = args[0]
            if how == "slow":
                self.given[-1]["timeout_callback"](True, 1.0)
                self.given[-1]["timeout_callback"](False, 2.0)
                callback(target(*args, **kwargs))  # too late
            elif how == "broken":
                raise ValueError("no")
            elif how == "dead":
                try:
                    raise WorkerLostError("gone")
                except WorkerLostError:
                    failed(ExceptionInfo())

    bench = Bench(lambda runner: BridgedPool(Telling(1), runner), tmp_path)
    bench.runner.do_slow = lambda message: None
    bench.pool.start()
    slow, dead, broken = bench.submit(
        bench.job("slow", soft_limit=1.0, hard_limit=2.0), bench.job("dead"), bench.job("broken")
    )
    bench.settle(slow, dead, broken)
    assert (bench.told.warned, bench.told.timed_out) == ({slow: 1.0}, {slow: 2.0})
    assert "gone" in bench.told.lost[dead]
    assert bench.told.lost[broken] == "ValueError in the pool"
    assert not bench.told.finished
    bench.close()


def test_a_job_is_terminated_by_the_pid_that_it_was_accepted_with(bench: Bench) -> None:
    gate = bench.gate()
    (key,) = bench.submit(bench.job("gate", str(gate)))
    bench.until(lambda: key in bench.told.begun)
    bench.pool.terminate(key, 15)
    assert bench.pool.pool.terminated == [(os.getpid(), 15)]
    with open(gate, "wb"):
        pass
    bench.settle(key)


def test_what_still_runs_at_the_deadline_is_terminated(bench: Bench) -> None:
    gate = bench.gate()
    (key,) = bench.submit(bench.job("gate", str(gate)))
    bench.until(lambda: key in bench.told.begun)
    bench.stop(0.05)
    assert bench.told.lost == {key: "still running when the pool stopped."}
    assert bench.pool.pool.calls == ["start None", "terminate 3"]
    with open(gate, "wb"):
        pass


class TestBasePool:
    def test_states_and_defaults(self) -> None:
        pool = BasePool(3, foo=1)
        assert (pool.RUN, pool.CLOSE, pool.TERMINATE) == (1, 2, 3)
        assert (pool.limit, pool.putlocks, pool.forking_enable, pool.options) == (3, True, True, {"foo": 1})
        assert (pool.active, pool.num_processes) == (False, 3)
        pool.start()
        assert pool.active
        assert pool.did_start_ok()
        pool.close()
        assert pool._state == pool.CLOSE
        assert pool.info == {"implementation": "celery.concurrency.base:BasePool", "max-concurrency": 3}
        with pytest.raises(NotImplementedError, match="does not implement kill_job"):
            pool.terminate_job(1)
        with pytest.raises(NotImplementedError, match="does not implement restart"):
            pool.restart()

    def test_names_and_info(self) -> None:
        assert f"{TaskPool.__module__}:{TaskPool.__name__}" == "celery.concurrency.solo:TaskPool"
        assert TaskPool(7).info == {
            "implementation": "celery.concurrency.solo:TaskPool",
            "max-concurrency": 1,
            "processes": [os.getpid()],
            "max-tasks-per-child": None,
            "put-guarded-by-semaphore": True,
            "timeouts": (),
        }
        assert ThreadTaskPool(2).info == {
            "implementation": "celery.concurrency.thread:TaskPool",
            "max-concurrency": 2,
            "threads": 0,
        }

    def test_apply_target(self) -> None:
        told: list[Any] = []
        pid_and_time = (os.getpid(), 1.5)
        apply_target(
            lambda x: x + 1, (1,), {}, told.append, lambda *accepted: told.append(accepted), monotonic=lambda: 1.5
        )
        assert told == [pid_and_time, 2]
        with pytest.raises(KeyError):
            apply_target({}.__getitem__, (1,), {}, told.append)
        assert len(told) == 2

        def leave() -> None:
            raise SystemExit(3)

        apply_target(leave, callback=told.append)
        assert told[-1].type is WorkerLostError
        assert "SystemExit(3)" in str(told[-1].exception)
        with pytest.raises(SystemExit):
            apply_target(leave, callback=told.append, propagate=(SystemExit,))


class TestChoice:
    @pytest.fixture
    def app(self) -> Celery:
        return Celery("choice", broker="memory://", set_as_current=False)

    def pool(self, app: Celery, name: Any) -> Any:
        return make_pool(app, name, app.assembly.runner("w@h"), 2, {})  # type: ignore[attr-defined]

    def test_a_class_a_path_and_the_environment(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        path = f"{__name__}:Recorded"
        monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", path)
        assert "custom" in concurrency.get_available_pool_names()
        for name in (Recorded, path, "custom"):
            bridged = self.pool(app, name)
            assert type(bridged.pool).__name__ == "Recorded"
            assert (bridged.pool.limit, bridged.pool.app) == (2, app)

    def test_celerys_own_classes_stand_for_ours_and_derived_ones_for_themselves(self, app: Celery) -> None:
        assert type(self.pool(app, "celery.concurrency.solo:TaskPool")) is SoloPool
        assert type(self.pool(app, TaskPool)) is SoloPool
        assert type(self.pool(app, type("Own", (TaskPool,), {}))) is BridgedPool

    def test_an_unknown_one_is_told(self, app: Celery) -> None:
        with pytest.raises(ImproperlyConfigured, match="worker_pool: expected the name of a pool"):
            self.pool(app, "nonsense")
