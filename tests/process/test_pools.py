"""`celery worker -P threads|gevent|eventlet`: the engine under each, stopped, killed and patched."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.process.project import Project, lines
from tests.running import wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

POOLS = ["threads", "gevent", "eventlet"]
PROJECT = """
import socket, threading, time
from celery import Celery, current_task, signals
from celery.signals import worker_process_init
from celery.utils.threads import LocalStack

app = Celery("proj")
app.conf.update(broker_url=URL, result_backend=URL)
mine = LocalStack()

@app.task
def add(x, y):
    return x + y

@app.task
def nap(seconds, note=None):
    if note:
        open(note, "a").write("begun\\n")
    time.sleep(seconds)
    return "rested"

@app.task(acks_late=True)
def late_nap(seconds, note):
    return nap(seconds, note)

@app.task(bind=True)
def whose(self, seconds):
    "What belongs to one run stays with it while others run."
    seen = set()
    for _ in range(5):
        time.sleep(seconds / 5)
        seen.add((current_task.name, current_task.request.id, self.request.id))
    return sorted(map(list, seen))

@app.task
def patched():
    return socket.socket.__module__.split(".")[0]

@app.task
def child():
    return add.delay(2, 2).id

@app.task(bind=True)
def leave(self):
    raise SystemExit(3)

@worker_process_init.connect
def told(**_):
    print("process init", flush=True)

@signals.eventlet_pool_started.connect
def pool_started(sender, **_):
    print(f"eventlet started {type(sender).__name__}", flush=True)

@signals.eventlet_pool_apply.connect
def pool_apply(sender, target, args, kwargs, **_):
    print(f"eventlet apply {len(args)} {kwargs}", flush=True)

@signals.eventlet_pool_preshutdown.connect
def pool_preshutdown(sender, **_):
    print("eventlet preshutdown", flush=True)

@signals.eventlet_pool_postshutdown.connect
def pool_postshutdown(sender, **_):
    print("eventlet postshutdown", flush=True)
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.server)])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/celery.sqlite3"
    else:
        server: RedisServer = request.getfixturevalue("redis")
        server.call("FLUSHALL")
        url = server.url()
    project = Project(tmp_path, PROJECT, url, PYTHONWARNINGS="ignore")
    yield project
    project.app.close()


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, PROJECT, PYTHONWARNINGS="ignore")
    yield project
    project.app.close()


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_run_at_the_same_time_each_in_its_own_context(project: Project, pool: str) -> None:
    with project.ready(f"-P {pool} -c 20") as worker:
        assert project.send("add", 2, 3).get(timeout=30) == 5
        began = time.monotonic()
        results = [project.send("whose", 1.0) for _ in range(20)]
        for result in results:
            assert result.get(timeout=30) == [["proj.whose", result.id, result.id]]
        assert time.monotonic() - began < 19  # one after the other it would be 20
        later = project.send("add", 1, 1, countdown=1)
        assert later.get(timeout=30) == 2
        inner = project.send("child").get(timeout=30)
        assert project.app.AsyncResult(inner).get(timeout=30) == 4
        worker.wait_for(r"INFO/MainProcess\] Task proj\.add\[.*\] succeeded in [0-9.e-]+s: 5$")
        assert worker.stop(signal.SIGTERM) == 0
    assert worker.output.count("process init") == 1
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("pool", POOLS)
def test_a_warm_stop_finishes_what_runs(project: Project, pool: str) -> None:
    worker = project.ready(f"-P {pool} -c 2")
    running = [project.send("nap", 1.0, str(project.note(str(n)))) for n in range(2)]
    wait_until(lambda: all(lines(project.note(str(n))) for n in range(2)), "the tasks run")
    waiting = project.send("add", 1, 1)
    assert worker.stop(signal.SIGTERM) == 0
    assert [result.get(timeout=5) for result in running] == ["rested"] * 2
    assert waiting.state == "PENDING"


@pytest.mark.parametrize("pool", POOLS)
def test_a_cold_stop_gives_back_what_was_not_acknowledged(project: Project, pool: str) -> None:
    worker = project.ready(f"-P {pool} -c 2")
    late = project.send("late_nap", 60, str(project.note()))
    wait_until(lambda: lines(project.note()), "the task runs")
    assert worker.stop(signal.SIGQUIT) == 1
    assert late.state == "PENDING"
    assert project.app.assembly.broker.depth("celery") == 1


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_that_is_killed_loses_nothing(project: Project, pool: str) -> None:
    worker = project.ready(f"-P {pool} -c 2")
    notes = [project.note(f"note{n}") for n in range(2)]
    results = [project.send("late_nap", 1.0, str(note)) for note in notes]
    wait_until(lambda: all(map(lines, notes)), "both tasks run")
    worker.stop(signal.SIGKILL)
    with project.ready(f"-P {pool} -c 2"):
        assert [result.get(timeout=30) for result in results] == ["rested"] * 2
    assert list(map(lines, notes)) == [2, 2]


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_the_library_is_patched_before_the_app_is_imported(on_sqlite: Project, pool: str) -> None:
    with on_sqlite.ready(f"-P {pool} -c 2") as worker:
        assert on_sqlite.send("patched").get(timeout=30) == pool
    assert "is not patched" not in worker.output


def test_a_green_pool_that_comes_from_the_settings_says_that_it_is_late(on_sqlite: Project) -> None:
    with on_sqlite.ready("-c 2 worker_pool=gevent") as worker:
        assert on_sqlite.send("add", 2, 2).get(timeout=30) == 4
    assert "The standard library is not patched for gevent" in worker.output


def test_eventlets_signals(on_sqlite: Project) -> None:
    with on_sqlite.ready("-P eventlet -c 2") as worker:
        assert on_sqlite.send("add", 2, 2).get(timeout=30) == 4
    said = re.findall(r"eventlet (started EventletPool|apply 1 \{\}|preshutdown|postshutdown)$", worker.output, re.M)
    assert said == ["started EventletPool", "apply 1 {}", "preshutdown", "postshutdown"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_exits_is_lost_and_the_worker_goes_on(on_sqlite: Project, pool: str) -> None:
    with on_sqlite.ready(f"-P {pool} -c 2"):
        result = on_sqlite.send("leave")
        assert "SystemExit" in str(result.get(timeout=30, propagate=False))
        assert on_sqlite.send("add", 2, 2).get(timeout=30) == 4
