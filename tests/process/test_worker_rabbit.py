"""`celery worker` on RabbitMQ: to the result and back, killed, and while the server comes and goes."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from tests.process.project import Project, lines
from tests.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import RabbitServer

pytestmark = [pytest.mark.process, pytest.mark.server, pytest.mark.xdist_group("rabbit")]

SOURCE = """
import os, time
from celery import Celery

app = Celery("proj", broker=URL, backend="sqlite:///" + os.path.dirname(os.path.abspath(__file__)) + "/results.sqlite3")
app.conf.broker_transport_options = {"confirm_publish": True}


@app.task
def add(x, y):
    return x + y


@app.task(acks_late=True, reject_on_worker_lost=True)
def note(path, text, seconds=0.0):
    with open(path, "a") as file:
        file.write(text + "\\n")
    time.sleep(seconds)
    return text
"""


@pytest.fixture
def project(rabbit_url: str, tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, SOURCE, rabbit_url)
    project.app = Celery(
        "proj", broker=rabbit_url, backend=f"sqlite:///{tmp_path}/results.sqlite3", set_as_current=False
    )
    project.app.conf.broker_transport_options = {"confirm_publish": True}
    yield project
    project.app.close()


def test_from_the_call_to_the_result(project: Project) -> None:
    with project.ready("-c 2"):
        assert [project.send("add", i, 1) for i in range(50)][-1].get(timeout=30) == 50
        assert project.send("add", 1, 2, countdown=0.5).get(timeout=30) == 3
    assert project.depth() == 0


def test_what_a_killed_worker_held_is_run_by_another(project: Project) -> None:
    note = project.note()
    worker = project.ready("-c 2")
    results = [project.send("note", str(note), str(i), 1.0) for i in range(6)]
    wait_until(lambda: lines(note) >= 2, "two run")
    os.killpg(worker.pid, signal.SIGKILL)
    with project.ready("-c 2"):
        assert [result.get(timeout=60) for result in results] == [str(i) for i in range(6)]
    assert set(note.read_text().split()) == {str(i) for i in range(6)}


def test_nothing_that_was_confirmed_is_lost_with_the_server(project: Project, rabbit_session: RabbitServer) -> None:
    note = project.note()
    with project.ready("-c 1") as worker:
        results = [project.send("note", str(note), str(i), 0.2) for i in range(20)]
        wait_until(lambda: lines(note) >= 2, "the first run")
        rabbit_session.stop(keep_directory=True)
        worker.wait_for("Connection lost")
        rabbit_session.start()
        assert [result.get(timeout=120) for result in results] == [str(i) for i in range(20)]
        assert project.send("add", 1, 1).get(timeout=30) == 2
