"""Time limits of tasks under `-P threads|gevent|eventlet`, and what a worker does about threads that it cannot end."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celery.exceptions import TimeLimitExceeded
from tests.process.project import Project
from tests.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

PROJECT = """
import subprocess, sys, time
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

app = Celery("proj", broker="sqlite:///", backend="sqlite:///")

@app.task
def add(x, y):
    return x + y

@app.task
def spin():
    while True:
        pass

@app.task
def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

@app.task
def nap(seconds):
    time.sleep(seconds)

@app.task
def process(note):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as child:
        open(note, "w").write(f"{child.pid}\\n")
        child.wait()

@app.task
def tidy():
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "tidied"
"""


class Limited(Project):
    def times_out(self, name: str, *args: object) -> None:
        """Run a task with a hard limit of half a second, of which it is told that it failed."""
        result = self.send(name, *args, time_limit=0.5)
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=30)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Limited]:
    project = Limited(tmp_path, PROJECT, PYTHONWARNINGS="ignore")
    yield project
    project.app.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
def test_limits_of_tasks_that_wait(project: Limited, pool: str) -> None:
    with project.ready(f"-P {pool} -c 3") as worker:
        project.times_out("nap", 1000)
        assert project.send("tidy", soft_time_limit=0.2).get(timeout=30) == "tidied"
        assert project.send("add", 1, 2).get(timeout=30) == 3
        worker.wait_for(r"Hard time limit \(0\.5s\) exceeded for proj\.nap")
        worker.wait_for(r"Soft time limit \(0\.2s\) exceeded for proj\.tidy")


def test_a_thread_that_computes_is_ended(project: Limited) -> None:
    """Four of them on two threads: none is left, or the fifth would find no place and the worker no rest."""
    with project.ready("-P threads -c 2") as worker:
        for _ in range(4):
            project.times_out("spin")
        assert project.send("add", 1, 2).get(timeout=30) == 3
        began = cpu_seconds(worker._process.pid)
        time.sleep(1.0)
        assert cpu_seconds(worker._process.pid) - began < 0.5
        assert "start it anew" not in worker.output


#: What a hard limit ends in each pool (pain 25). A greenlet that computes lets no other run, nor the clock.
ENDS = [
    *(("prefork", task) for task in ("spin", "nap", "process")),
    *(("threads", task) for task in ("spin", "process")),
    *((pool, task) for pool in ("gevent", "eventlet") for task in ("nap", "process")),
]


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "eventlet"])
def test_a_hard_limit_ends_whatever_the_pool_can_end(project: Limited, pool: str) -> None:
    """It is told, the place is free again, and no process is left behind."""
    note = project.note()
    with project.ready(f"-P {pool} -c 1") as worker:
        for task in [task for other, task in ENDS if other == pool]:
            project.times_out(task, *{"nap": [1e6], "process": [str(note)]}.get(task, []))
            assert project.send("add", 1, 2).get(timeout=30) == 3
            worker.wait_for(rf"Hard time limit \(0\.5s\) exceeded for proj\.{task}\[")
        started = int(note.read_text())
        if pool in ("gevent", "eventlet"):  # where nobody can tell whose process it is
            os.kill(started, signal.SIGKILL)
        else:
            wait_until(lambda: not is_alive(started), "the process is gone")
        assert worker.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_greenlet_that_computes_is_beyond_help(project: Limited, pool: str) -> None:
    """Nothing else in the process runs until it ends by itself, as docs/operate/workers.md says; then all goes on."""
    with project.ready(f"-P {pool} -c 1"):
        assert project.send("compute", 1.0, time_limit=0.3).get(timeout=30, propagate=False) is None
        project.times_out("nap", 1e6)


def test_a_worker_whose_threads_are_stuck_starts_anew(project: Limited) -> None:
    with project.ready("-P threads -c 2") as worker:
        for _ in range(2):
            project.times_out("nap", 1000)
        worker.wait_for("(?s)start it anew.*then this worker starts anew.*ready\\.$")
        assert project.send("add", 1, 2).get(timeout=30) == 3
        assert worker.stop(signal.SIGTERM) == 0
    assert len(re.findall(r"ready\.$", worker.output, re.M)) == 2


def test_a_cold_stop_ends_a_worker_whatever_its_threads_do(project: Limited) -> None:
    worker = project.ready("-P threads -c 2")
    results = [project.send("nap", 1000), project.send("spin")]
    worker.wait_for("(?s)received.*received")
    wait_until(lambda: all(result.state == "PENDING" for result in results), "they run")
    assert worker.stop(signal.SIGQUIT, timeout=10) == 1


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_what_a_pool_cannot_do_is_said_at_start(project: Limited, pool: str) -> None:
    with project.ready(f"-P {pool} -c 1 --max-tasks-per-child 5") as worker:
        worker.wait_for(rf"WARNING/MainProcess\] --max-tasks-per-child has no effect with -P {pool}")
        if pool == "solo":
            project.send("add", 1, 1, time_limit=9).get(timeout=30)
            worker.wait_for("Time limits have no effect with -P solo")


REPLACED = """
import time
from celery import Celery
from celery.app import trace
from celery.exceptions import SoftTimeLimitExceeded

app = Celery("proj", broker=URL, backend=URL)


def build_tracer(name, task, *args, **kwargs):
    "All of it by itself: nothing of the worker's own tracer is called."

    def traced(uuid, args, kwargs, request=None):
        try:
            value = task.run(*args, **kwargs)
        except SoftTimeLimitExceeded as exc:
            value = f"theirs: {exc!r}"
        task.backend.store_result(uuid, value, "SUCCESS")
        return trace.trace_ok_t(value, None, 0.0, repr(value))

    return traced


trace.build_tracer = build_tracer


@app.task
def nap(seconds):
    time.sleep(seconds)
    return "rested"
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_soft_limits_reach_tasks_under_a_wholly_replaced_tracer(tmp_path: Path, pool: str) -> None:
    project = Project(tmp_path, REPLACED, PYTHONWARNINGS="ignore")
    with project.ready(f"-P {pool} -c 1"):
        assert project.send("nap", 0).get(timeout=30) == "rested"
        seconds = 60 if pool == "prefork" else 1.0  # a thread hears of it when it next runs Python code
        result = project.send("nap", seconds, soft_time_limit=0.2)
        assert result.get(timeout=30) == "theirs: SoftTimeLimitExceeded()"
    project.app.close()
