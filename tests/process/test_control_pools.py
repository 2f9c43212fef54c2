"""Remote control of workers in processes of their own, with every pool (`[control.40]`)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.process.project import Project
from tests.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

PROJECT = """
import time
from celery import Celery

app = Celery("proj")
app.conf.update(broker_url=URL, result_backend=URL)

@app.task
def nap(seconds, note):
    open(note, "a").write("begun\\n")
    time.sleep(seconds)
"""
#: Seconds; far more than anything takes.
PATIENCE = 30.0


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, PROJECT, PYTHONWARNINGS="ignore")
    yield project
    project.app.close()


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads", "gevent", "eventlet"])
def test_it_answers_while_tasks_run(project: Project, pool: str) -> None:
    with project.ready(f"-P {pool} -c 2 -n w1@here") as worker:
        project.send("nap", 2.0, str(project.note("begun")))
        wait_until(project.note("begun").exists, "the task runs")
        inspect = project.app.control.inspect(["w1@here"], timeout=PATIENCE)
        assert inspect.ping() == {"w1@here": {"ok": "pong"}}
        assert inspect.stats()["w1@here"]["total"] == {"proj.nap": 1}
        assert worker.stop(signal.SIGTERM) == 0
    assert "Traceback" not in worker.output
    assert project.app.control.ping(timeout=0.1) == []
