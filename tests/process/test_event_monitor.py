"""`celery events` on a terminal: it shows what a worker does, and does what its keys say."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.process.project import Project
from tests.running import PATIENCE
from tests.servers import RedisServer
from tests.terminals import Terminal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.process, pytest.mark.server]

SOURCE = """
import time
from celery import Celery

app = Celery("proj", broker=URL, backend=URL)


@app.task
def wait(seconds):
    time.sleep(seconds)


@app.task
def fail():
    raise ValueError("on purpose")
"""


def test_it_shows_a_task_and_ends_it(tmp_path: Path) -> None:
    with RedisServer() as server:
        project = Project(tmp_path, SOURCE, server.url())
        with (
            project.ready("-E -c 1 -n w1@here") as worker,
            Terminal("celery -A proj events", project.folder, project.variables) as monitor,
        ):
            monitor.wait_for("1 of 1 workers")
            running = project.send("wait", 600)
            monitor.wait_for(r"STARTED.*proj\.wait")
            monitor.type("x")
            monitor.wait_for("yes/no")
            monitor.type("yes\n")
            monitor.wait_for("w1@here: terminate")
            monitor.wait_for("REVOKED")
            assert running.state == "REVOKED"
            project.send("fail")
            monitor.wait_for(r"FAILURE.*proj\.fail")
            monitor.type("gt")  # of the topmost
            monitor.wait_for("on purpose")
            monitor.type("q")
            monitor.type("W")
            monitor.wait_for("prefork 1")
            monitor.type("qq")
            assert monitor.process.wait(PATIENCE) == 0
            assert worker.running


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    project = Project(tmp_path, SOURCE)
    with Terminal("celery -A proj events", project.folder, project.variables) as monitor:
        monitor.wait_for("Waiting for events")
        os.killpg(monitor.process.pid, signal.SIGINT)
        assert monitor.process.wait(PATIENCE) == 0
