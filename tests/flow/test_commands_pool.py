"""Queues and the pool's size change while a worker works; it stops when it is told to."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue

from celery.exceptions import ImproperlyConfigured, WorkerShutdown
from celery.worker import autoscale as autoscaling
from celery.worker.autoscale import Autoscaler
from celery.worker.consumer.commands import Commands, Late
from celery.worker.consumer.wakeup import WakeUp
from celery.worker.scaling import range_of
from tests.flow.commanding import Commanded, reset
from tests.flow.engine import DEADLINE, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def house() -> Iterator[Commanded]:
    house = Commanded()
    yield house
    reset()
    house.app.close()


# --------------------------------------------------------------------------------------------------------------- queues


def test_queues_are_added_and_cancelled_and_it_may_be_said_twice(house: Commanded) -> None:
    with house.running():
        for _ in range(2):
            assert house.tell("add_consumer", queue="more") == {"ok": "add consumer more"}
        assert house.quick.apply_async((1,), queue="more").get(timeout=DEADLINE) == 1
        assert [queue["name"] for queue in house.tell("active_queues")] == ["celery", "more"]
        for _ in range(2):
            assert house.tell("cancel_consumer", queue="more") == {"ok": "no longer consuming from more"}
        assert house.tell("cancel_consumer", queue="never") == {"ok": "no longer consuming from never"}
        assert [queue["name"] for queue in house.tell("active_queues")] == ["celery"]
        left = house.quick.apply_async((2,), queue="more")
        assert house.quick.delay(3).get(timeout=DEADLINE) == 3
        assert house.app.assembly.broker.depth("more") == 1  # type: ignore[attr-defined]
        house.tell("add_consumer", queue="more")
        assert left.get(timeout=DEADLINE) == 2


def test_a_queue_comes_with_its_options(house: Commanded) -> None:
    with house.running():
        reply = house.tell(
            "add_consumer", queue="q2", exchange="e2", exchange_type="topic", routing_key="a.#", durable=False,
            max_priority=5, bogus=1,
        )  # fmt: skip
        assert reply == {"ok": "add consumer q2"}
        queue = house.tell("active_queues")[-1]
        assert (queue["exchange"]["name"], queue["exchange"]["type"], queue["routing_key"]) == ("e2", "topic", "a.#")
        assert (queue["durable"], queue["max_priority"]) == (False, 5)
        result = house.quick.apply_async((1,), exchange="e2", exchange_type="topic", routing_key="a.b.c")
        assert result.get(timeout=DEADLINE) == 1
        with pytest.raises(TypeError, match="queue"):
            house.tell("add_consumer")


def test_a_queue_that_the_app_knows_is_taken_as_it_is_known(house: Commanded) -> None:
    house.app.conf.task_queues = [Queue("celery"), Queue("known", Exchange("x", "direct"), routing_key="k")]
    with house.running(queues="celery"):
        house.tell("add_consumer", queue="known")
        queue = house.tell("active_queues")[-1]
        assert (queue["name"], queue["exchange"]["name"], queue["routing_key"]) == ("known", "x", "k")


# ----------------------------------------------------------------------------------------------------------------- size


def test_threads_grow_and_shrink(house: Commanded) -> None:
    with house.running(concurrency=1) as worker:
        first = house.held("first")
        assert house.tell("pool_grow", n=2) == {"ok": "pool will grow"}
        others = [house.held(n) for n in range(2)]
        assert (worker.concurrency, house.tell("stats")["pool"]["max-concurrency"]) == (3, 3)
        assert house.tell("pool_shrink") == {"ok": "pool will shrink"}
        with pytest.raises(ValueError, match="keep at least 1"):
            house.tell("pool_shrink", n=2)
        for wrong in (0, -1, "x", True):
            with pytest.raises(ValueError, match="expected a positive number"):
                house.tell("pool_grow", n=wrong)
        house.gate.set()
        assert [one.get(timeout=DEADLINE) for one in (first, *others)] == ["first", 0, 1]
        until(lambda: house.tell("stats")["pool"]["threads"] == 2, "one has gone")
        assert [house.quick.delay(n).get(timeout=DEADLINE) for n in range(5)] == list(range(5))


def test_what_is_held_follows_the_size(house: Commanded) -> None:
    with house.running(prefetch_multiplier=2) as worker:
        assert worker.prefetch == 2
        house.tell("pool_grow", n=2)
        assert (worker.prefetch, house.tell("stats")["prefetch_count"]) == (6, 6)


def test_a_pool_of_one_size_says_so(house: Commanded) -> None:
    with house.running(pool="solo"):
        with pytest.raises(AttributeError, match="grow"):
            house.tell("pool_grow")
        with pytest.raises(ValueError, match="Autoscale not enabled"):
            house.tell("autoscale", max=3, min=1)
        with pytest.raises(ValueError, match="Pool restarts not enabled"):
            house.tell("pool_restart")
        house.app.conf.worker_pool_restarts = True
        with pytest.raises(NotImplementedError, match="SoloPool"):
            house.tell("pool_restart")
    with pytest.raises(ImproperlyConfigured, match="SoloPool has one size"), house.running(pool="solo"):
        type(house.worker)(app=house.app, pool="solo", autoscale="3,1")


def test_modules_are_reloaded_where_nothing_can_be_made_anew(
    house: Commanded, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "panel_probe.py"
    module.write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    house.app.conf.worker_pool_restarts = True
    reloaded: list[str] = []
    with house.running():
        for arguments in ({"modules": ["panel_probe"]}, {"modules": "panel_probe", "reload": True}):
            with pytest.raises(NotImplementedError, match="ThreadPool"):
                house.tell("pool_restart", **arguments)
            module.write_text("VALUE = 23456\n")
            importlib.invalidate_caches()
        assert sys.modules["panel_probe"].VALUE == 23456
        with pytest.raises(NotImplementedError):
            house.worker.reload(["panel_probe"], True, reloader=lambda module: reloaded.append(module.__name__))
        assert reloaded == ["panel_probe"]
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            house.tell("pool_restart", modules=["no_such_module"])
    del sys.modules["panel_probe"]


# ------------------------------------------------------------------------------------------------------------ autoscale


class Size:
    """The pool as an autoscaler sees it."""

    def __init__(self, size: int) -> None:
        self.num_processes = size

    def grow(self, n: int) -> None:
        self.num_processes += n

    def shrink(self, n: int) -> None:
        if n >= self.num_processes:
            raise ValueError("one must stay")
        self.num_processes -= n


class Work:
    """A worker as an autoscaler sees it."""

    def __init__(self) -> None:
        self.consumer = self
        self.load = 0


@given(st.integers(1, 9), st.integers(0, 9), st.lists(st.integers(0, 30), max_size=20))
def test_as_many_as_there_is_work_for_within_bounds(most: int, least: int, loads: list[int]) -> None:
    least = min(least, most)
    work, size = Work(), Size(max(1, least))
    autoscaler = Autoscaler(size, most, least, worker=work, keepalive=0.0)
    for load in loads:
        work.load = load
        autoscaler.body()
        until(lambda: not autoscaler.maybe_scale(), "it has settled")
        assert size.num_processes == max(1, least, min(load, most)) == autoscaler.processes


def test_it_shrinks_only_after_a_while() -> None:
    work, size = Work(), Size(1)
    autoscaler = Autoscaler(size, 4, 1, worker=work, keepalive=3600.0)
    work.load = 9
    autoscaler.body()
    work.load = 0
    autoscaler.body()
    assert size.num_processes == 4
    assert autoscaler.info() == {"max": 4, "min": 1, "current": 4, "qty": 0}


def test_bounds_change() -> None:
    work, size = Work(), Size(2)
    autoscaler = Autoscaler(size, 4, 1, worker=work)
    assert autoscaler.update(max=8, min=3) == (8, 3)
    assert size.num_processes == 3
    assert autoscaler.update(max=2, min=0) == (2, 0)
    assert size.num_processes == 2
    for most, least in ((0, 0), (1, 5), (-1, -2)):
        with pytest.raises(ValueError, match="0 <= min <= max"):
            autoscaler.update(max=most, min=least)


def test_a_pool_that_cannot_grow_keeps_its_size() -> None:
    class Full(Size):
        def grow(self, n: int) -> None:
            raise ValueError("full")

    work, size = Work(), Full(2)
    autoscaler = Autoscaler(size, 9, 1, worker=work)
    work.load = 9
    autoscaler.body()
    autoscaler.body()
    assert (autoscaler.max_concurrency, size.num_processes) == (2, 2)


def test_an_autoscaler_that_fails_does_not_take_the_worker_with_it(
    house: Commanded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any, req: Any = None) -> None:
        raise KeyError("mine")

    monkeypatch.setattr(Autoscaler, "_maybe_scale", fail)
    with house.running(autoscale="3,1"):
        until(lambda: "The autoscaler failed" in caplog.text, "it is told")
        assert house.quick.delay(1).get(timeout=DEADLINE) == 1
    assert caplog.text.count("The autoscaler failed") == 1


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("10,3", (10, 3)), ("10", (10, 0)), (10, (10, 0)), ((4, 4), (4, 4)), (None, None), ("", None), (0, None)],
)
def test_ranges(wanted: Any, found: Any) -> None:
    assert range_of(wanted) == found


@pytest.mark.parametrize("wrong", ["3,10", "x", "1,2,3", "0,0", "5,-1", {}.keys, "4,"])
def test_ranges_that_are_none(wrong: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="max,min"):
        range_of(wrong)


@pytest.mark.slow
def test_a_worker_grows_with_its_work(house: Commanded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Mine(Autoscaler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "keepalive": 0.0})

        def on_task_received(self, req: Any) -> None:
            seen.append(req.id)

    monkeypatch.setattr(autoscaling, "Mine", Mine, raising=False)
    house.app.conf.worker_autoscaler = "celery.worker.autoscale:Mine"
    with house.running(autoscale="4,1") as worker:
        assert worker.concurrency == 1
        results = [house.hold.delay(n) for n in range(6)]
        until(lambda: len(house.tell("active")) == 4, "four run")
        assert set(seen) <= {one.id for one in results}
        assert seen
        assert {"max": 4, "min": 1, "current": 4}.items() <= house.tell("stats")["autoscaler"].items()
        for word in ("grow", "shrink"):
            assert house.tell(f"pool_{word}") == {
                "error": f"pool_{word} is not supported with autoscale. Adjust autoscale range instead."
            }
        assert house.tell("autoscale", max=5, min=2) == {"ok": "autoscale now max=5 min=2"}
        until(lambda: len(house.tell("active")) == 5, "five run")
        house.gate.set()
        assert [one.get(timeout=DEADLINE) for one in results] == list(range(6))
        until(lambda: worker.concurrency == 2, "two are enough")
        with pytest.raises(ValueError, match="0 <= min <= max"):
            house.tell("autoscale", max=1, min=2)


@pytest.mark.process
def test_how_long_it_keeps_them_comes_from_the_environment() -> None:
    code = "from celery.worker.autoscale import AUTOSCALE_KEEPALIVE as k; print(k)"
    for value, expected in (("7.5", "7.5"), ("soon", "AUTOSCALE_KEEPALIVE: expected seconds")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"AUTOSCALE_KEEPALIVE": value, "PYTHONPATH": "src"}, text=True,
            capture_output=True, timeout=60,
        )  # fmt: skip
        assert expected in done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------------------- the seam


def test_it_stops_when_it_is_told_to(house: Commanded, caplog: pytest.LogCaptureFixture) -> None:
    other = Commanded()
    with other.running(), house.running() as worker:
        first = house.held("first")
        assert worker.pidbox is not None
        house.app.control.shutdown()
        until(lambda: worker.consumer.stopping, "it stops")
        assert "Got shutdown from remote" in caplog.text
        assert house.tell("ping") == {"ok": "pong"}, "it answers until the last task has ended"
        house.gate.set()
        assert first.get(timeout=DEADLINE) == "first"
        until(lambda: worker.exitcode is not None, "it has stopped")
        assert other.quick.delay(1).get(timeout=DEADLINE) == 1, "the other worker of this process goes on"
    assert worker.exitcode == 0
    with pytest.raises(WorkerShutdown):
        house.tell("shutdown")
    other.app.close()


@pytest.mark.slow
def test_who_is_too_busy_says_so_and_obeys_later(house: Commanded) -> None:
    with house.running(pool="solo") as worker:
        house.hold.delay("busy")
        until(lambda: house.ran, "it runs")
        with pytest.raises(Late, match=r"has not come round to it within 0\.7 s"):
            house.tell("add_consumer", queue="later")
        house.gate.set()
        until(lambda: len(worker.app.amqp.queues.consume_from) == 2, "it does it later")
        assert house.quick.apply_async((1,), queue="later").get(timeout=DEADLINE) == 1


def test_calls_are_made_by_the_owner_and_answered() -> None:
    wake = WakeUp()
    commands = Commands(wake)
    made: list[int] = []

    def own() -> None:
        commands.begin()
        assert commands.ask(lambda: 5, 0.0) == 5, "its own are made at once"
        while len(made) < 3:
            commands.make()
            tick.wait(0.001)
        commands.end()

    def fail() -> None:
        made.append(0)
        raise KeyError("no")

    tick = threading.Event()
    owner = threading.Thread(target=own)
    owner.start()
    assert commands.ask(lambda: made.append(1) or "answer", DEADLINE) == "answer"  # type: ignore[func-returns-value]
    with pytest.raises(KeyError, match="no"):
        commands.ask(fail, DEADLINE)
    commands.post(fail)
    owner.join(DEADLINE)
    assert len(made) == 3
    with pytest.raises(RuntimeError, match="stopped"):
        commands.ask(lambda: None, DEADLINE)
    commands.post(fail)
    assert len(made) == 3
    wake.close()
