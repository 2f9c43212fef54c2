"""A monitor that comes to a worker which is busy, and which nobody has heard so far."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.hearing import Ear
from tests.process.project import Project
from tests.running import wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.process, pytest.mark.server]

SOURCE = """
import time
from celery import Celery

app = Celery("proj", broker=URL, task_ignore_result=True)


@app.task
def add(x, y):
    time.sleep(0.0005)  # it is busy for about two seconds
    return x + y
"""
#: Tasks that a message at most asks with whether somebody listens.
FEW = 10


@pytest.mark.parametrize("enabled", ["at its start", "later"])
def test_it_hears_everything_from_then_on(tmp_path: Path, enabled: str) -> None:
    with RedisServer() as server:
        project = Project(tmp_path, SOURCE, server.url())
        for _ in range(6_000):
            project.send("add", 1, 2, ignore_result=True)
        flag = "-E" if enabled == "at its start" else ""
        with project.worker(f"{flag} -c 2 -n w@h -l WARNING") as worker:
            wait_until(lambda: project.depth() < 5_500, "the worker is busy")
            if enabled == "later":
                assert project.app.control.enable_events(reply=True) == [{"w@h": {"ok": "task events enabled"}}]
                wait_until(lambda: project.depth() < 4_500, "it has told some to nobody")
            with Ear(project.app) as ear:
                ear.wait_for("task-received")
                last = project.send("add", 20, 3, ignore_result=True)
                wait_until(lambda: "task-succeeded" in ear.types(last.id), f"all of {last.id}: {ear.types(last.id)}")
                # The other process of the pool may have some before it still.
                wait_until(lambda: len(unended(ear)) <= FEW, f"the ends of what it heard begin: {unended(ear)}")
            assert worker.stop(signal.SIGTERM) == 0
        assert ear.types(last.id) == ["task-received", "task-started", "task-succeeded"]
        assert next(e for e in ear.of("task-succeeded") if e["uuid"] == last.id)["result"] == "23"
        project.app.close()


def unended(ear: Ear) -> set[str]:
    """Tasks of which it heard that they were received, and not yet that they succeeded."""
    received, ended = ({event["uuid"] for event in ear.of(f"task-{what}")} for what in ("received", "succeeded"))
    return received - ended
