"""`celery.backends.asynchronous`: what a third party builds on it works here ([backend.35])."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, group
from celery.backends import asynchronous
from celery.backends.asynchronous import BaseResultConsumer, Drainer, register_drainer
from celery.exceptions import TimeoutError as CeleryTimeoutError
from tests.compat.told import Told
from tests.flow.engine import DEADLINE
from tests.flow.test_worker_embedded import Running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("told", broker=f"memory://{uuid.uuid4()}", backend="tests.compat.told:Told", set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="fail")
    def fail() -> None:
        raise KeyError("no")

    @app.task(name="halfway", bind=True)
    def halfway(self: Any) -> int:
        self.update_state(state="PROGRESS", meta={"n": 1})
        return 2

    yield app
    app.close()
    Told.forget_all()


def done(task_id: str, value: Any = 1) -> dict[str, Any]:
    return {"task_id": task_id, "status": "SUCCESS", "result": value, "traceback": None, "children": []}


def test_a_worker_tells_and_a_client_hears(app: Celery) -> None:
    assert app.backend.is_async
    with Running(app):
        assert app.tasks["add"].delay(2, 3).get(timeout=DEADLINE) == 5
        with pytest.raises(KeyError, match="no"):
            app.tasks["fail"].delay().get(timeout=DEADLINE)
        together = group([app.signature("add", (n, n)) for n in range(20)], app=app).apply_async()
        assert together.get(timeout=DEADLINE) == [2 * n for n in range(20)]
        told = dict(together.iter_native(timeout=DEADLINE))
        assert {task_id: meta["result"] for task_id, meta in told.items()} == {
            one.id: 2 * n for n, one in enumerate(together.results)
        }


def test_states_on_the_way_are_heard(app: Celery) -> None:
    heard: list[str] = []
    backend: Told = app.backend
    result = app.AsyncResult("t")
    backend.add_pending_result(result)
    for state in ("STARTED", "PROGRESS"):
        backend.store_result("t", None, state)
    backend.store_result("t", 7, "SUCCESS")
    assert result.get(timeout=DEADLINE, on_message=lambda meta: heard.append(meta["status"]), no_ack=False) == 7
    assert heard == ["STARTED", "PROGRESS", "SUCCESS"]
    assert backend.result_consumer.on_message is None
    assert backend.result_consumer.waits == [{"timeout": DEADLINE, "interval": 0.5, "no_ack": False}]


def test_time_passes(app: Celery) -> None:
    turns: list[int] = []
    with pytest.raises(CeleryTimeoutError):
        app.AsyncResult("nobody").get(timeout=0.02, on_interval=lambda: turns.append(1))
    assert turns
    backend: Told = app.backend
    backend.store_result("t", 7, "SUCCESS")
    assert app.AsyncResult("t").get(timeout=0) == 7, "0 looks once"
    with pytest.raises(CeleryTimeoutError):
        app.AsyncResult("nobody").get(timeout=0)


def test_what_comes_before_it_is_asked_for_is_kept(app: Celery) -> None:
    """Up to 8,192 of them; the oldest go first."""
    backend: Told = app.backend
    consumer = backend.result_consumer
    for number in range(8192 + 1):
        consumer.on_state_change(done(f"t{number}", number), None)
    consumer.on_state_change({**done("t2"), "status": "STARTED"}, None)
    assert app.AsyncResult("t8192").get(timeout=0) == 8192
    assert app.AsyncResult("t1").get(timeout=0) == 1
    with pytest.raises(CeleryTimeoutError):
        app.AsyncResult("t0").get(timeout=0)

    class Message:
        payload = done("late", "x")

    consumer.on_out_of_band_result(Message)
    assert app.AsyncResult("late").get(timeout=0) == "x"


def test_callbacks_are_called_when_somebody_looks(app: Celery) -> None:
    called: list[Any] = []
    backend: Told = app.backend
    one, other = app.AsyncResult("t"), app.AsyncResult("t")
    one.then(lambda result: called.append(("one", result.result)))
    other.then(lambda result: called.append(("other", result.result)))
    backend.store_result("t", 3, "SUCCESS")
    assert app.AsyncResult("t").get(timeout=DEADLINE) == 3
    assert sorted(called) == [("one", 3), ("other", 3)]
    assert one.get() == other.get() == 3


@pytest.mark.slow
def test_who_waits_no_more(app: Celery) -> None:
    backend: Told = app.backend
    weak, kept, gone = (app.AsyncResult(name) for name in ("weak", "kept", "gone"))
    assert backend.add_pending_results([weak], weak=True) == [weak]
    assert backend.add_pending_results([kept, gone]) == [kept, gone]
    assert backend.remove_pending_result(gone) is gone
    assert backend.result_consumer.wanted == {"weak", "kept"}
    del weak
    gc.collect()
    assert dict(backend._pending_results.weak) == {}
    assert dict(backend._pending_results.concrete) == {"kept": kept}
    backend.result_consumer.on_message = print
    backend.result_consumer._after_fork()
    assert backend.result_consumer.on_message is None


def test_a_lost_connection(app: Celery) -> None:
    """[backend.35]: made anew; if that fails, the program is told to start anew."""
    tried: list[int] = []

    class Consumer(BaseResultConsumer):
        _connection_errors = (ConnectionError,)

        def _reconnect(self) -> None:
            tried.append(1)
            if len(tried) > 1:
                raise ConnectionRefusedError("still away")

    backend: Told = app.backend
    consumer = Consumer(backend, app, backend.accept, backend._pending_results, backend._pending_messages)
    with consumer.reconnect_on_error():
        raise ConnectionResetError("lost")
    assert tried == [1]
    with pytest.raises(RuntimeError, match="start this program anew"), consumer.reconnect_on_error():
        raise ConnectionResetError("lost")
    with pytest.raises(ValueError, match="other"), consumer.reconnect_on_error():
        raise ValueError("other")
    for method in (consumer.start, consumer.consume_from, consumer.cancel_for, consumer.drain_events):
        with pytest.raises(NotImplementedError):
            method("t")  # type: ignore[arg-type]
    assert (consumer.stop(), consumer.on_after_fork()) == (None, None)


def test_drainers_of_one_s_own(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of what the program runs in; each consumer has one."""
    monkeypatch.setattr(asynchronous, "drainers", dict(asynchronous.drainers))
    begun: list[Any] = []

    @register_drainer("default")
    class Mine(Drainer):
        def start(self) -> None:
            begun.append(self)

    backend: Told = Told(app)
    backend.store_result("t", 1, "SUCCESS")
    result = app.AsyncResult("t", backend=backend)
    assert result.get(timeout=DEADLINE) == 1
    assert isinstance(backend.result_consumer.drainer, Mine)
    assert set(begun) == {backend.result_consumer.drainer}
    assert {"default", "gevent", "eventlet"} <= set(asynchronous.drainers)


_ROOT = Path(__file__).resolve().parents[2]
GREEN = """
import {name}
{patch}
import uuid
from celery import Celery
from celery.backends.asynchronous import {name}Drainer
from celery.exceptions import TimeoutError
from tests.compat.told import Told

app = Celery("green", broker=f"memory://{{uuid.uuid4()}}", backend="tests.compat.told:Told")
backend = app.backend
drainer = backend.result_consumer.drainer
assert type(drainer) is {name}Drainer, drainer
got, ticks = [], []

def wait(number):
    got.append(app.AsyncResult(f"t{{number}}", backend=backend).get(timeout=20))

def tick():
    while len(got) < 10:
        ticks.append(1)
        {name}.sleep(0.001)

green = [{name}.spawn(wait, number) for number in range(10)] + [{name}.spawn(tick)]
{name}.sleep(0.05)
assert len(ticks) > 5, "who waits holds up the loop"
for number in range(10):
    backend.store_result(f"t{{number}}", number, "SUCCESS")
for one in green:
    {join}
assert sorted(got) == list(range(10))
try:
    app.AsyncResult("nobody", backend=backend).get(timeout=0.05)
except TimeoutError:
    pass
else:
    raise AssertionError("nobody has told")

def broken(timeout=None):
    raise OSError("lost the line")

backend.result_consumer.drain_events = broken
try:
    app.AsyncResult("nobody", backend=backend).get(timeout=20)
except OSError as exc:
    assert "lost the line" in str(exc)
drainer.stop()
print("fine")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "patch", "join"),
    [
        ("gevent", "import gevent.monkey; gevent.monkey.patch_all()", "one.join(20)"),
        ("eventlet", "eventlet.monkey_patch()", "one.wait()"),
    ],
)
def test_green_threads_wait_together(name: str, patch: str, join: str) -> None:
    """One greenlet looks for all; the loop goes on; its error reaches whoever waits."""
    script = GREEN.format(name=name, patch=patch, join=join)
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, cwd=_ROOT
    )
    assert ended.stdout.strip().endswith("fine"), ended.stderr


def test_threads_have_backends_of_their_own(app: Celery) -> None:
    """So each drains a connection of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(app.backend.result_consumer))
    thread.start()
    thread.join()
    assert found[0] is not app.backend.result_consumer
