"""Every stage of a stop: what is waited for, what is cut short, what goes back. As Celery 5.7 does it (observed)."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery.exceptions import Retry
from tests.process.project import Project, lines
from tests.running import wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.running import Background

pytestmark = pytest.mark.process

PROJECT = """
import os, time
from celery import Celery, signals

app = Celery("proj", broker=URL, backend=URL)
app.conf.worker_soft_shutdown_timeout = float(os.environ.get("SOFT", 0))
app.conf.worker_enable_soft_shutdown_on_idle = "IDLE" in os.environ
app.conf.worker_shutdown_grace = float(os.environ["GRACE"]) if "GRACE" in os.environ else None

def note(path, text):
    with open(path, "a") as file:
        file.write(text + "\\n")

def hold(path):
    '''Until somebody makes the file `path` + ".go".'''
    note(path, "begun")
    while not os.path.exists(path + ".go"):
        time.sleep(0.02)
    note(path, "ended")
    return "done"

@app.task
def early(path):
    return hold(path)

@app.task(acks_late=True)
def late(path):
    return hold(path)

@app.task(acks_late=True)
def unwinds(path):
    try:
        return hold(path)
    except SystemExit:
        note(path, "unwound")
        raise

@app.task(acks_late=True)
def nap(path, seconds):
    note(path, f"begun {os.getpid()}")
    time.sleep(seconds)
    note(path, "ended")
    return seconds

@app.task
def refuse_to_end(path):
    note(path, "begun")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

@signals.worker_shutting_down.connect
def shutting_down(sender=None, sig=None, how=None, exitcode=None, **kwargs):
    print(f"SHUTTING DOWN {sender.split('@')[0]} {sig} {how} {exitcode}", flush=True)

@signals.task_retry.connect
def retried(sender=None, request=None, reason=None, einfo=None, **kwargs):
    print(f"RETRIED {sender.name} {request.id} {reason}", flush=True)
"""
SECOND = "worker: Hitting Ctrl+C again will terminate all running tasks!"
WARM_HINT = "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!"
WAITING = "Waiting gracefully for cold shutdown to complete..."
POOLS = ["prefork", "threads", "solo", "gevent", "eventlet"]
LONG = "60"


class Stopping:
    """A worker with an early and a late task in it, whose stop the test watches."""

    def __init__(
        self, folder: Path, options: str = "prefork", *, tasks: tuple[str, ...] = ("early", "late"), **env: str
    ):
        self.project = Project(folder, PROJECT, **env)
        self.worker: Background = self.project.ready(f"-c 2 -P {options} -l INFO")
        self.results = {name: self.project.send(name, str(self.note(name))) for name in tasks}
        for name in tasks:
            wait_until(lambda name=name: lines(self.note(name)), f"{name} runs")
        if "early" in tasks:
            time.sleep(0.3)  # it has been acknowledged by then, which leaves no trace outside

    def note(self, name: str) -> Path:
        return self.project.note(f"note-{name}")

    def signal(self, number: int, says: str) -> None:
        os.kill(self.worker.pid, number)
        self.worker.wait_for(re.escape(says))

    def finish(self, name: str) -> None:
        self.project.note(f"note-{name}.go").touch()

    def end(self) -> int:
        """The exit code, once it has ended by itself."""
        code = self.worker.wait()
        self.worker.stop()
        return code


@pytest.fixture
def stopping(tmp_path: Path) -> Iterator[Any]:
    made: list[Stopping] = []

    def make(*args: Any, **options: Any) -> Stopping:
        made.append(Stopping(tmp_path, *args, **options))
        return made[-1]

    yield make
    for one in made:
        if one.worker.running:
            one.worker.kill()
        one.project.app.close()


def test_each_ctrl_c_goes_a_stage_further(stopping: Any) -> None:
    one = stopping(SOFT=LONG)
    one.signal(signal.SIGINT, "worker: Warm shutdown (MainProcess)")
    one.signal(signal.SIGINT, "Initiating Soft Shutdown, terminating in 60.0 seconds")
    assert WARM_HINT in one.worker.output
    assert SECOND in one.worker.output
    one.signal(signal.SIGINT, WAITING)
    assert one.end() == 1
    assert re.findall("SHUTTING DOWN .*", one.worker.output) == [
        "SHUTTING DOWN celery SIGINT Warm 1",
        "SHUTTING DOWN celery SIGINT Cold 1",
    ]
    assert "worker: Cold shutdown (MainProcess)" in one.worker.output


def test_what_is_cut_short_goes_back_or_says_so(stopping: Any) -> None:
    one = stopping()
    one.signal(signal.SIGQUIT, "worker: Cold shutdown (MainProcess)")
    assert one.end() == 1
    early, late = one.results["early"], one.results["late"]
    assert (late.state, one.project.depth()) == ("PENDING", 1)  # it is not marked, it runs again
    assert (early.state, type(early.result)) == ("RETRY", Retry)
    assert re.findall("RETRIED .*", one.worker.output) == [
        f"RETRIED proj.early {early.id} the worker was stopped while this ran"
    ]
    assert f"Task proj.late[{late.id}] cut short: this worker stops. It goes back to its queue." in one.worker.output
    assert f"Task proj.early[{early.id}] cut short: this worker stops. It was acknowledged" in one.worker.output
    assert [lines(one.note(name)) for name in ("early", "late")] == [1, 1]
    assert "SHUTTING DOWN celery SIGQUIT Cold 1" in one.worker.output


@pytest.mark.parametrize("pool", POOLS)
def test_a_soft_stop_waits_for_what_runs(stopping: Any, pool: str) -> None:
    one = stopping(pool, tasks=("late",), SOFT=LONG)
    one.signal(signal.SIGQUIT, "Initiating Soft Shutdown, terminating in 60.0 seconds")
    waits = one.project.send("late", str(one.note("second")))
    one.finish("late")
    assert one.end() == 0
    assert one.results["late"].get(timeout=5) == "done"
    assert (waits.state, one.project.depth(), lines(one.note("second"))) == ("PENDING", 1, 0)


@pytest.mark.parametrize("pool", POOLS)
def test_a_soft_stop_ends_what_takes_too_long(stopping: Any, pool: str) -> None:
    one = stopping(pool, tasks=("late",), SOFT="0.5")
    began = time.monotonic()
    one.signal(signal.SIGQUIT, "Initiating Soft Shutdown, terminating in 0.5 seconds")
    assert one.end() == 1
    assert time.monotonic() - began >= 0.5
    assert (one.results["late"].state, one.project.depth(), lines(one.note("late"))) == ("PENDING", 1, 1)


@pytest.mark.parametrize("pool", POOLS)
def test_quit_again_ends_the_wait(stopping: Any, pool: str) -> None:
    one = stopping(pool, tasks=("late",), SOFT=LONG)
    one.signal(signal.SIGQUIT, "Initiating Soft Shutdown")
    one.signal(signal.SIGQUIT, WAITING)
    assert one.end() == 1
    assert one.project.depth() == 1


def test_an_idle_worker_does_not_wait(stopping: Any) -> None:
    one = stopping(tasks=(), SOFT=LONG)
    one.signal(signal.SIGQUIT, SECOND)
    assert one.end() == 1
    assert "Soft Shutdown" not in one.worker.output


def test_an_idle_worker_waits_if_it_is_told_to(stopping: Any) -> None:
    one = stopping(tasks=(), SOFT="0.7", IDLE="1")
    began = time.monotonic()
    one.signal(signal.SIGQUIT, "Initiating Soft Shutdown, terminating in 0.7 seconds")
    assert one.end() == 0
    assert time.monotonic() - began >= 0.7


def test_term_may_stand_for_quit(stopping: Any) -> None:
    one = stopping(tasks=("late",), REMAP_SIGTERM="SIGQUIT")
    one.signal(signal.SIGTERM, "SHUTTING DOWN celery SIGTERM Cold 1")
    assert one.end() == 1
    assert one.project.depth() == 1


def test_term_again_changes_nothing(stopping: Any) -> None:
    one = stopping(tasks=("early",))
    one.signal(signal.SIGTERM, "SHUTTING DOWN celery SIGTERM Warm 0")
    os.kill(one.worker.pid, signal.SIGTERM)
    one.finish("early")
    assert one.end() == 0
    assert one.results["early"].get(timeout=5) == "done"
    assert one.worker.output.count("SHUTTING DOWN") == 1


def test_the_last_stage_is_at_once(stopping: Any, tmp_path: Path) -> None:
    """Whatever the worker waits for: here for a task in its main thread that will not end."""
    pid_file = tmp_path / "worker.pid"
    one = stopping(f"solo --pidfile {pid_file}", tasks=("refuse_to_end",))
    assert pid_file.exists()
    one.signal(signal.SIGQUIT, "worker: Cold shutdown")
    one.signal(signal.SIGQUIT, WAITING)
    os.kill(one.worker.pid, signal.SIGQUIT)
    assert one.end() == 1
    assert not pid_file.exists()


def test_a_child_unwinds_what_is_cut_short(stopping: Any) -> None:
    one = stopping(tasks=("unwinds",))
    one.signal(signal.SIGQUIT, "worker: Cold shutdown")
    assert one.end() == 1
    assert one.note("unwinds").read_text().split() == ["begun", "unwound"]
    assert one.project.depth() == 1


def test_threads_finish_what_runs_and_give_back_the_rest(stopping: Any) -> None:
    one = stopping("threads")
    waiting = [one.project.send("early", str(one.note("third"))) for _ in range(3)]
    one.signal(signal.SIGTERM, "Warm shutdown")
    for name in ("early", "late"):
        one.finish(name)
    assert one.end() == 0
    assert [one.results[name].get(timeout=5) for name in ("early", "late")] == ["done", "done"]
    assert [result.state for result in waiting] == ["PENDING"] * 3
    assert (one.project.depth(), lines(one.note("third"))) == (3, 0)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_stop_may_have_a_bound(stopping: Any, pool: str) -> None:
    one = stopping(pool, GRACE="0.5")
    one.signal(signal.SIGTERM, "SHUTTING DOWN celery SIGTERM Warm 0")
    assert one.end() == 0
    assert one.project.depth() == 1
    assert [one.results[name].state for name in ("early", "late")] == ["RETRY", "PENDING"]


def test_a_rolling_restart_loses_nothing(tmp_path: Path) -> None:
    """Workers are replaced one after the other while late tasks flow, some of which last longer than the grace."""
    project = Project(tmp_path, PROJECT, GRACE="0.5")
    workers = [project.ready("-c 2 -l INFO") for _ in range(2)]
    results, cut = [], 0
    try:
        for generation in range(3):
            names = [f"{generation}-{n}" for n in range(12)]
            for n, name in enumerate(names):
                results.append(project.send("nap", str(project.note(name)), 0.02 if n % 3 else 3.0))
            new = project.worker("-c 2 -l INFO")
            old = workers.pop(0)
            old.wait_for(r"nap\[.*\] received")
            new.wait_for(r"ready\.$")
            workers.append(new)
            os.kill(old.pid, signal.SIGTERM)
            assert old.wait() == 0
            old.stop()
            back = re.findall(r"Task proj\.nap\[(.*?)\] cut short.*goes back", old.output)
            cut += len(back)
            for task_id in back:
                _elsewhere(workers, task_id)
        values = [result.get(timeout=30) for result in results]
    finally:
        for worker in workers:
            worker.kill()
        project.app.close()
    assert values == [3.0, 0.02, 0.02] * 12
    assert cut, "nothing was cut short"
    assert project.depth() == 0


def _elsewhere(workers: list[Background], task_id: str) -> None:
    pattern = rf"\[{task_id}\] received"
    wait_until(lambda: any(re.search(pattern, each.output) for each in workers), f"{task_id} is taken on elsewhere", 15)


@pytest.mark.server
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGQUIT])
def test_a_silent_server_does_not_keep_it(tmp_path: Path, stop: int) -> None:
    with RedisServer() as server:
        project = Project(tmp_path, PROJECT, server.url(), GRACE="0.5")
        worker = project.ready("-c 2 -l INFO")
        project.send("late", str(project.note()))
        wait_until(lambda: lines(project.note()), "it runs")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            os.kill(worker.pid, stop)
            worker.wait_for("The broker does not answer; what this worker held comes back when its lease ends")
            worker.wait()
            assert "Cannot settle" not in worker.output  # nobody has waited for the driver to give up
        finally:
            os.kill(server.pid, signal.SIGCONT)
            worker.stop()
        with project.ready("-c 2 -l INFO"):
            wait_until(lambda: lines(project.note()) == 2, "it runs again")
            project.note("note.go").touch()
        project.app.close()


@pytest.mark.server
def test_a_cold_stop_gives_back_at_once_on_redis(tmp_path: Path) -> None:
    with RedisServer() as server:
        project = Project(tmp_path, PROJECT, server.url())
        worker = project.ready("-c 2 -l INFO")
        late = project.send("late", str(project.note()))
        wait_until(lambda: lines(project.note()), "it runs")
        assert worker.stop(signal.SIGQUIT) == 1
        assert (late.state, project.depth(), server.call("HLEN", "unacked")) == ("PENDING", 1, 0)
        project.app.close()
