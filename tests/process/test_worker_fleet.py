"""Workers of two releases on one queue, and a worker's flags: real programs on Redis."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from tests.running import Background, environment, wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.process, pytest.mark.server]

OLD = """
import os, time
from celery import Celery

app = Celery("proj")

@app.task
def add(x, y):
    return x + y

@app.task
def nap(seconds):
    time.sleep(seconds)
    return "rested"

@app.task
def pid():
    return os.getpid()
"""
NEW = (
    OLD
    + """
@app.task
def fresh(n):
    return -n
"""
)


class Fleet:
    """One broker, a folder for each release."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.app = Celery("proj", broker=server.url(), backend=server.url(), set_as_current=False)

    def worker(self, name: str, source: str, options: str = "", **variables: str) -> Background:
        folder = self.folder / name
        folder.mkdir()
        (folder / "proj.py").write_text(source)
        url = self.server.url()
        variables = environment(folder, CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url, **variables)
        return Background(f"celery -A proj worker -n {name}@here -l INFO -c 1 {options}", folder, variables)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with RedisServer() as server:
        fleet = Fleet(server, tmp_path)
        yield fleet
        fleet.app.close()


def test_an_old_worker_leaves_new_tasks_to_a_new_one(fleet: Fleet) -> None:
    """PAINS 28: 1,000 tasks that only one of two workers knows: none is discarded; without it they wait."""
    with fleet.worker("old", OLD) as old, fleet.worker("new", NEW) as new:
        old.wait_for(r"ready\.$")
        new.wait_for(r"ready\.$")
        results = [fleet.app.send_task("proj.fresh", (n,)) for n in range(1000)]
        assert [result.get(timeout=60) for result in results] == [-n for n in range(1000)]
        old.wait_for(r"WARNING/MainProcess\] There is no task 'proj\.fresh' here\. Its messages stay on the queue")
        assert new.stop(signal.SIGTERM) == 0
        waiting = [fleet.app.send_task("proj.fresh", (n,)) for n in range(50)]
        assert fleet.app.send_task("proj.add", (1, 2)).get(timeout=30) == 3
        assert all(result.state == "PENDING" for result in waiting)
        with fleet.worker("newer", NEW) as newer:
            newer.wait_for(r"ready\.$")
            assert [result.get(timeout=60) for result in waiting] == [-n for n in range(50)]
        assert "Received unregistered task" not in old.output
        assert len(re.findall("There is no task", old.output)) == 1
    wait_until(lambda: fleet.server.call("HLEN", "unacked") == 0, "all are settled")


def test_a_worker_alone_refuses_at_once(fleet: Fleet) -> None:
    with fleet.worker("old", OLD) as old:
        old.wait_for(r"ready\.$")
        result = fleet.app.send_task("proj.fresh", (1,))
        with pytest.raises(Exception, match=r"proj\.fresh"):
            result.get(timeout=30)
        old.wait_for(r"ERROR/MainProcess\] Received unregistered task of type 'proj\.fresh'")


def test_flags_of_limits_and_recycling(fleet: Fleet) -> None:
    flags = "--time-limit 1 --soft-time-limit 0.3 --max-tasks-per-child 2 --prefetch-multiplier 1 -O fair"
    with fleet.worker("old", OLD, flags) as worker:
        worker.wait_for(r"ready\.$")
        pids = [fleet.app.send_task("proj.pid").get(timeout=30) for _ in range(4)]
        assert len(set(pids)) == 2
        nap = fleet.app.send_task("proj.nap", (30,))
        with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
            nap.get(timeout=30)
        worker.wait_for(rf"WARNING/MainProcess\] Soft time limit \(0\.3s\) exceeded for proj\.nap\[{nap.id}\]")
        nap = fleet.app.send_task("proj.nap", (30,), soft_time_limit=100, time_limit=0.5)
        with pytest.raises(Exception, match=r"TimeLimitExceeded\(0\.5"):
            nap.get(timeout=30)
        worker.wait_for(rf"ERROR/MainProcess\] Hard time limit \(0\.5s\) exceeded for proj\.nap\[{nap.id}\]")
        assert fleet.app.send_task("proj.add", (1, 2)).get(timeout=30) == 3
