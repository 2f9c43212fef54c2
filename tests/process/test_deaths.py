"""Tasks that kill their process, or the whole worker, among others that do not (PAINS 8)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from billiard.exceptions import WorkerLostError

from celery import Celery
from tests.running import Background, environment, shell, wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process

#: Good tasks among which a bad one is; ten times as many in `make chaos`.
GOOD = 1000 if os.environ.get("CHAOS") else 100
PATIENCE = 60.0

PROJECT = """
import os, pathlib, signal, time
from celery import Celery

HERE = pathlib.Path(__file__).parent
app = Celery("proj", broker=os.environ["URL"], backend=os.environ["RESULTS"])
app.conf.update(
    task_acks_late=True, task_reject_on_worker_lost=True, worker_unknown_task_grace=0,
    broker_transport_options={"lease_timeout": 1.5} if os.environ["URL"].startswith("redis") else {},
)

def note(name):
    with open(HERE / "runs", "a") as file:
        file.write(name + "\\n")

@app.task
def good(n):
    note(f"good {n}")
    return n

@app.task
def bad():
    note("bad")
    if not (HERE / "fixed").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "fixed"

@app.task
def worst():
    note("worst")
    kill_worker()

def kill_worker():
    os.kill(int((HERE / "pid").read_text()), signal.SIGKILL)
    time.sleep(60)

@app.task
def worst_beside_another():
    note("worst")
    for _ in range(20):
        runs = (HERE / "runs").read_text().split()
        if runs.count("neighbour") >= runs.count("worst"):
            break
        time.sleep(0.1)
    kill_worker()

@app.task
def neighbour():
    note("neighbour")
    time.sleep(1.5)
    return "done"
"""


RABBIT = pytest.param("amqp", marks=[pytest.mark.server, pytest.mark.xdist_group("rabbit")])


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.server), RABBIT])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/broker.sqlite3"
    elif request.param == "amqp":
        yield request.getfixturevalue("rabbit_url")
    else:
        with RedisServer() as server:
            yield server.url()


class Site:
    """A project, its app as a client sees it, and what its tasks have noted."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        (folder / "proj.py").write_text(PROJECT)
        results = f"sqlite:///{folder}/results.sqlite3" if url.startswith("amqp") else url
        self.variables = environment(folder, URL=url, RESULTS=results)
        self.app = Celery("proj", broker=url, backend=results, set_as_current=False)

    def runs(self) -> Counter[str]:
        noted = self.folder / "runs"
        return Counter(noted.read_text().splitlines()) if noted.exists() else Counter()

    def dlq(self, command: str) -> Any:
        return json.loads(shell(f"celery -A proj dlq {command} --json", self.folder, self.variables))

    def worker(self, concurrency: int = 2) -> Background:
        return Background(f"celery -A proj worker -c {concurrency}", self.folder, self.variables)

    def workers_until(self, enough: Any) -> int:
        """Start a worker again and again, as a supervisor does, until enough is done; returns how many it took."""
        command = [sys.executable, "-m", "celery", "-A", "proj", "worker", "-c", "2"]
        started = 0
        while not enough():
            started += 1
            assert started < 10, f"{started} workers did not do it"
            with (self.folder / "log").open("a") as log:
                process = subprocess.Popen(
                    command, cwd=self.folder, env=self.variables, stdout=log, stderr=log, start_new_session=True
                )
            (self.folder / "pid").write_text(str(process.pid))
            wait_until(lambda p=process: p.poll() is not None or enough(), "the worker dies, or all is done", PATIENCE)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
        return started


@pytest.fixture
def site(tmp_path: Path, url: str) -> Iterator[Site]:
    site = Site(tmp_path, url)
    yield site
    site.app.close()


def check_that_it_is_dead(site: Site, id: str, task: str) -> None:
    (letter,) = site.dlq("list")
    assert (letter["task"], letter["task_id"], letter["queue"], letter["deaths"]) == (task, id, "celery", 3)
    assert "3 processes died" in letter["reason"]
    (whole,) = site.dlq(f"show {id}")
    assert whole["headers"]["id"] == id
    result = site.app.AsyncResult(id)
    assert result.state == "FAILURE"
    assert isinstance(result.result, WorkerLostError)


def test_a_task_that_kills_its_process_runs_three_times(site: Site) -> None:
    """The others are all done; it ends as a dead letter, fails for whoever waits, and runs again once it is mended."""
    good = [site.app.send_task("proj.good", (n,)) for n in range(GOOD // 2)]
    bad = site.app.send_task("proj.bad")
    good += [site.app.send_task("proj.good", (n,)) for n in range(GOOD // 2, GOOD)]
    with site.worker() as worker:
        assert [result.get(timeout=PATIENCE) for result in good] == list(range(GOOD))
        with pytest.raises(WorkerLostError, match="3 processes died"):
            bad.get(timeout=PATIENCE)
        runs = site.runs()
        assert runs.pop("bad") == 3
        assert set(runs.values()) == {1}
        wait_until(lambda: site.dlq("list"), "it is a dead letter")
        check_that_it_is_dead(site, bad.id, "proj.bad")
        (site.folder / "fixed").touch()
        assert site.dlq(f"requeue {bad.id}") == {"requeued": 1}
        wait_until(lambda: site.app.AsyncResult(bad.id).state == "SUCCESS", "it runs again", PATIENCE)
        assert site.runs()["bad"] == 4
        assert site.dlq("list") == []
        assert worker.stop(signal.SIGTERM) == 0


def test_a_task_that_kills_the_worker_runs_three_times(site: Site) -> None:
    """The others, which the dead workers held, are done and blamed for nothing."""
    good = [site.app.send_task("proj.good", (n,)) for n in range(GOOD // 2)]
    worst = site.app.send_task("proj.worst")
    good += [site.app.send_task("proj.good", (n,)) for n in range(GOOD // 2, GOOD)]
    started = site.workers_until(lambda: worst.state == "FAILURE" and all(result.ready() for result in good))
    assert started == 4
    assert [result.get(timeout=PATIENCE) for result in good] == list(range(GOOD))
    runs = site.runs()
    assert runs.pop("worst") == 3
    check_that_it_is_dead(site, worst.id, "proj.worst")


def test_a_neighbour_of_a_task_that_kills_workers_survives(site: Site) -> None:
    """It runs when the worker is killed, each time, and is not taken for the killer: the last run is a run alone."""
    neighbour = site.app.send_task("proj.neighbour")
    worst = site.app.send_task("proj.worst_beside_another")
    site.workers_until(lambda: worst.state == "FAILURE" and neighbour.ready())
    assert neighbour.get(timeout=PATIENCE) == "done"
    assert site.runs() == {"worst": 3, "neighbour": 3}
    check_that_it_is_dead(site, worst.id, "proj.worst_beside_another")
