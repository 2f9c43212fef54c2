"""Workers as users start them, commanded from afar: what is revoked stays revoked over `kill -9`, in every pool."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from celery.exceptions import TaskRevokedError
from tests.process.project import Project, lines
from tests.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

PROJECT = """
import time
from celery import Celery

app = Celery("proj", broker=URL, backend=URL)

@app.task
def spin(note):
    with open(note, "a") as file:
        file.write("x\\n")
    while True:
        time.sleep(0.01)

@app.task
def note(path):
    with open(path, "a") as file:
        file.write("x\\n")
    return "noted"
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, PROJECT, PYTHONWARNINGS="ignore")
    yield project
    project.app.close()


def tell(project: Project, command: str, **arguments: Any) -> Any:
    """The reply of the only worker there is."""
    replies = project.app.control.broadcast(command, arguments, reply=True, timeout=30, limit=1)
    ((_, reply),) = (pair for answer in replies for pair in answer.items())
    return reply


def test_what_is_revoked_stays_revoked_over_a_kill(project: Project) -> None:
    """Parked until its time, and in nobody's memory but the state file's."""
    state = project.folder / "state"
    with project.ready(f"-c 1 --statedb {state}") as worker:
        doomed = [project.send("note", str(project.note("doomed")), countdown=6) for _ in range(20)]
        spared = project.send("note", str(project.note("spared")), countdown=6)
        assert "flagged as revoked" in tell(project, "revoke", task_id=[one.id for one in doomed])["ok"]
        wait_until(lambda: state.exists() and len(json.loads(state.read_bytes())["revoked"]) == 20, "they are written")
        worker.kill()
    with project.ready(f"-c 1 --statedb {state}"):
        assert sorted(tell(project, "revoked")) == sorted(one.id for one in doomed)
        assert spared.get(timeout=60) == "noted"
        for one in doomed:
            with pytest.raises(TaskRevokedError):
                one.get(timeout=30)
    assert (lines(project.note("doomed")), lines(project.note("spared"))) == (0, 1)


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "eventlet"])
def test_a_run_is_ended_in_every_pool_and_its_neighbour_is_not(project: Project, pool: str) -> None:
    with project.ready(f"-P {pool} -c 3") as worker:
        note = project.note("spun")
        doomed, spared = project.send("spin", str(note)), project.send("spin", str(note))
        wait_until(lambda: lines(note) == 2, "both run")
        wait_until(lambda: len(tell(project, "active")) == 2, "and are known to")
        assert tell(project, "revoke", task_id=doomed.id, terminate=True) == {"ok": f"terminate: {doomed.id}"}
        with pytest.raises(TaskRevokedError, match="terminated"):
            doomed.get(timeout=30)
        assert [info["id"] for info in tell(project, "active")] == [spared.id]
        assert project.send("note", str(project.note())).get(timeout=30) == "noted"
        assert tell(project, "pool_grow", n=2) == {"ok": "pool will grow"}
        assert tell(project, "pool_shrink", n=1) == {"ok": "pool will shrink"}
        assert tell(project, "stats")["pool"]["max-concurrency"] == 4
        worker.stop(signal.SIGQUIT)
        if pool != "threads":  # there a thread is given up, which is said
            assert "ERROR" not in worker.output


def test_autoscale_and_shutdown_from_the_command_line(project: Project) -> None:
    with project.ready("--autoscale 3,1") as worker:
        assert "concurrency: {min=1, max=3}" in worker.output
        assert tell(project, "stats")["autoscaler"] == {"max": 3, "min": 1, "current": 1, "qty": 0}
        note = project.note("spun")
        results = [project.send("spin", str(note)) for _ in range(3)]
        wait_until(lambda: lines(note) == 3, "all run at once")
        assert tell(project, "stats")["autoscaler"]["current"] == 3
        tell(project, "revoke", task_id=[one.id for one in results], terminate=True, signal="KILL")
        project.app.control.shutdown()
        assert worker.wait(60) == 0
    assert "Got shutdown from remote" in worker.output


def test_a_frozen_child_is_told_of(project: Project) -> None:
    with project.ready("-c 1 worker.stuck_after=1"):
        wait_until(lambda: tell(project, "stats")["pool"]["processes"], "it has a child")
        (pid,) = tell(project, "stats")["pool"]["processes"]
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: "error" in tell(project, "ping"), "it is seen")
            assert f"1 of 1 processes of the pool do not answer: pid {pid} for" in tell(project, "ping")["error"]
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: tell(project, "ping") == {"ok": "pong"}, "it answers again")
