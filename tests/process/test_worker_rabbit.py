"""`celery worker` on RabbitMQ: to the result and back, killed, and while the server comes and goes."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from celery import Celery
from tests.chaos.proxy import FaultProxy
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
app.conf.broker_transport_options = {"confirm_publish": True, "lease_timeout": 3, "heartbeat": 2}
app.conf.task_default_queue_type = os.environ.get("KIND", "classic")


@app.task
def add(x, y):
    return x + y


@app.task(acks_late=True, reject_on_worker_lost=True)
def note(path, text, seconds=0.0):
    with open(path, "a") as file:
        file.write(text + "\\n")
    time.sleep(seconds)
    return text


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def try_twice(self, path, text):
    with open(path, "a") as file:
        file.write(f"{text}.{self.request.retries}\\n")
    if not self.request.retries:
        raise self.retry(countdown=0.2)
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
    """PAINS 22: on a quorum queue, with tasks that are delayed and that try again, the server is killed."""
    project.variables["KIND"] = "quorum"
    project.app.conf.task_default_queue_type = "quorum"
    note = project.note()
    with project.ready("-c 1") as worker:
        results = [project.send("note", str(note), str(i), 0.2) for i in range(12)]
        results += [project.send("note", str(note), str(i), countdown=2) for i in range(12, 16)]
        results += [project.send("try_twice", str(note), str(i)) for i in range(16, 20)]
        wait_until(lambda: lines(note) >= 2, "the first run")
        rabbit_session.stop(keep_directory=True)
        worker.wait_for("Connection lost")
        rabbit_session.start()
        assert [result.get(timeout=120) for result in results] == [str(i) for i in range(20)]
        assert project.send("add", 1, 1).get(timeout=30) == 2
        assert project.depth() == 0


def test_pains_11_long_tasks_run_once(project: Project, rabbit_session: RabbitServer) -> None:
    """Longer than the server's consumer timeout, as are the delays of others, and all connections are lost twice."""
    note = project.note()
    port = urlsplit(project.url).port or 0
    with rabbit_session.consumer_timeout(3000), FaultProxy(port) as proxy:
        (project.folder / "proj.py").write_text(
            (project.folder / "proj.py").read_text().replace(f":{port}/", f":{proxy.port}/")
        )
        with project.ready("-P threads -c 6") as worker:
            results = [project.send("note", str(note), f"long{i}", 9.0) for i in range(4)]
            results += [project.send("note", str(note), f"late{i}", countdown=11) for i in range(4)]
            wait_until(lambda: lines(note) == 4, "the long ones run")
            wait_until(lambda: kept(rabbit_session, project.url) == 4, "their messages are moved")
            time.sleep(0.5)  # the copies are there, and what they are copies of is about to be acknowledged
            for _ in range(2):
                proxy.reset()
                lost = worker.output.count("Connected to")
                wait_until(lambda lost=lost: worker.output.count("Connected to") > lost, "it comes back")
            assert [result.get(timeout=60) for result in results] == [
                f"{k}{i}" for k in ("long", "late") for i in range(4)
            ]
            assert sorted(note.read_text().split()) == sorted(f"{k}{i}" for k in ("long", "late") for i in range(4))
            assert "PRECONDITION_FAILED" not in worker.output
    assert project.depth() == 0
    assert kept(rabbit_session, project.url) == 0


def kept(server: RabbitServer, url: str) -> int:
    """Queues in which long runs are kept."""
    found = server.call("GET", f"queues/{url.rpartition('/')[2]}?columns=name")
    return sum(one["name"].startswith("celery.held.") for one in found)


def test_heartbeats_go_on_in_a_warm_stop(project: Project, rabbit_session: RabbitServer) -> None:
    """What runs for longer than two heartbeats is finished and settled over the connection that it came over."""
    note = project.note()
    with project.ready("-c 1") as worker:
        result = project.send("note", str(note), "last", 6.0)
        wait_until(lambda: lines(note) == 1, "it runs")
        os.kill(worker.pid, signal.SIGTERM)
        assert result.get(timeout=30) == "last"
        assert worker.wait() == 0
        assert "Connection lost" not in worker.output
    assert project.depth() == 0
    assert note.read_text().split() == ["last"]
