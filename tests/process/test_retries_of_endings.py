"""What a policy of retries makes of runs that cannot end by themselves: a crash, a hard limit (pain 49), and of a
broker that is away when a retry is settled. The sixty cases that end by themselves: tests/compat/test_retry_table.py.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from tests.process.project import Project, lines
from tests.running import wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

PROJECT = """
import os, signal, time
from celery import Celery

app = Celery("proj", broker=URL, backend=URL)
FAST = {"default_retry_delay": 0.05, "retry_kwargs": {"countdown": 0.05}}
POLICIES = {
    "none": {},
    "auto": {"autoretry_for": (Exception,), "max_retries": 2, **FAST},
    "lost": {"retry_on_worker_lost": True, "max_retries": 2, **FAST},
    "late": {"acks_late": True, "max_retries": 2, **FAST},
    "late_lost": {"acks_late": True, "retry_on_worker_lost": True, "max_retries": 2, **FAST},
    "late_reject": {"acks_late": True, "reject_on_worker_lost": True, "max_retries": 2, **FAST},
    "late_timeout": {"acks_late": True, "acks_on_timeout": False, "max_retries": 2, **FAST},
}


def misbehave(self, how, note, recovers):
    with open(note, "a") as file:
        file.write(f"{self.request.retries} {int(bool(self.request.delivery_info.get('redelivered')))}\\n")
    if recovers and len(open(note).readlines()) > 2:
        return "recovered"
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


for name, policy in POLICIES.items():
    app.task(bind=True, name=f"proj.{name}", **policy)(misbehave)


@app.task(bind=True, name="proj.again", acks_late=True)
def again(self, note, go):
    with open(note, "a") as file:
        file.write("ran\\n")
    if self.request.retries:
        return "done"
    while not os.path.exists(go):
        time.sleep(0.02)
    raise self.retry(countdown=0.05)
"""

CRASH, LIMIT = "crash", "limit"
LOST, LATE = "WorkerLostError", "TimeLimitExceeded"
#: (policy, what happens, whether the third run recovers) → retries of each run, and how it ends.
#: A crash is repeated where the task says so; a hard limit is the end, unless the task wants its message back.
TABLE: dict[tuple[str, str, bool], tuple[list[int], str]] = {
    ("none", CRASH, False): ([0], LOST),
    ("none", LIMIT, False): ([0], LATE),
    ("auto", CRASH, False): ([0], LOST),
    ("auto", LIMIT, False): ([0], LATE),
    ("lost", CRASH, False): ([0, 1, 2], LOST),
    ("lost", CRASH, True): ([0, 1, 2], "recovered"),
    ("lost", LIMIT, False): ([0], LATE),
    ("late", CRASH, False): ([0], LOST),
    ("late", LIMIT, False): ([0], LATE),
    ("late_lost", CRASH, False): ([0, 1, 2], LOST),
    ("late_lost", CRASH, True): ([0, 1, 2], "recovered"),
    ("late_reject", CRASH, True): ([0, 0, 0], "recovered"),
    ("late_timeout", LIMIT, True): ([0, 0, 0], "recovered"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One worker for the whole table; it has a process for each case, since some sleep until their limit."""
    project = Project(tmp_path_factory.mktemp("table"), PROJECT, PYTHONWARNINGS="ignore")
    with project.ready("-c 2") as worker:
        yield project
        assert worker.stop(signal.SIGTERM) == 0
    project.app.close()


@pytest.mark.parametrize(("policy", "how", "recovers"), TABLE)
def test_endings_that_nobody_catches(project: Project, policy: str, how: str, recovers: bool) -> None:
    runs, end = TABLE[policy, how, recovers]
    note = project.note(f"{policy}-{how}-{recovers}")
    options = {"time_limit": 0.3} if how == LIMIT else {}
    result = project.send(policy, how, str(note), recovers, **options)
    wait_until(lambda: lines(note) >= len(runs), "as many runs as there should be")
    if runs == [0, 0, 0]:  # between them the record says how the last one ended
        wait_until(lambda: project.app.AsyncResult(result.id).state == "SUCCESS", "the last run")
    value: Any = result.get(timeout=60, propagate=False)
    assert [int(line.split()[0]) for line in note.read_text().splitlines()] == runs
    # A message that came back says so; a retry is a message of its own.
    came_back = [line.split()[1] == "1" for line in note.read_text().splitlines()]
    assert came_back == [n > 0 and runs == [0, 0, 0] for n in range(len(runs))]
    if end == "recovered":
        assert (result.state, value) == ("SUCCESS", "recovered")
    else:
        assert result.state == "FAILURE"
        assert type(value) is {LOST: WorkerLostError, LATE: TimeLimitExceeded}[end]
        assert ("signal 9" in str(value)) if end == LOST else (value.args == (0.3,))
    wait_until(lambda: project.depth() == 0, "nothing is left on the queue")


@pytest.mark.server
def test_a_retry_is_settled_when_the_broker_is_back(tmp_path: Path) -> None:
    """The run ends while the broker is away: the next attempt goes out when it is back, and nothing runs twice."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        project = Project(tmp_path, PROJECT, server.url(), PYTHONWARNINGS="ignore")
        note, go = project.note(), project.note("go")
        with project.ready("-c 1") as worker:
            result = project.send("again", str(note), str(go))
            wait_until(lambda: lines(note), "it runs")
            server.stop(keep_directory=True)
            go.write_text("")
            worker.wait_for(r"Connection lost|Cannot settle")
            server.start()
            assert result.get(timeout=60) == "done"
            assert lines(note) == 2
            assert worker.stop(signal.SIGTERM) == 0
        assert project.depth() == 0
        project.app.close()
