"""A mixed fleet on RabbitMQ, results on Redis: each Celery runs what the other sends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.running import ROOT, Background, environment
from tests.servers import RedisServer
from tests.wire import golden

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.xdist_group("rabbit"),
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]

SOURCE = """
import os
from celery import Celery, chain, group
from kombu import Queue

app = Celery("mixed", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
app.conf.task_queues = [
    Queue("ours", routing_key="ours", max_priority=9),
    Queue("theirs", routing_key="theirs", max_priority=9),
]
app.conf.worker_enable_remote_control = False


@app.task
def add(x, y):
    return x + y


@app.task(bind=True)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return self.request.retries


@app.task(bind=True)
def seen(self):
    info = self.request.delivery_info
    return [info["routing_key"], info["priority"], info["redelivered"], self.request.headers]


@app.task
def fail():
    raise KeyError("no")
"""
#: What one side sends to the worker of the other, and what comes of it.
CLIENT = """
import json, sys
from mixed import add, again, chain, fail, group, seen
to = dict(queue=sys.argv[1])
found = {
    "plain": add.apply_async((2, 3), **to).get(timeout=60),
    "eta": add.apply_async((1, 1), countdown=1.2, **to).get(timeout=60),
    "retry": again.apply_async(**to).get(timeout=60),
    "seen": seen.apply_async(priority=5, headers={"own": [1, None, {"a": 1.5}]}, **to).get(timeout=60)[:3],
    "zlib": add.apply_async((["x" * 9000], ["y"]), compression="zlib", **to).get(timeout=60)[1],
    "failed": type(fail.apply_async(**to).get(timeout=60, propagate=False)).__name__,
    "chain": chain(add.s(1, 1).set(**to), add.s(5).set(**to)).apply_async().get(timeout=60),
    "group": group(add.s(i, i).set(**to) for i in range(5)).apply_async().get(timeout=60),
    "chord": (group(add.s(i, i).set(**to) for i in range(3)) | seen.si().set(**to)).apply_async().get(timeout=60)[0],
}
print(json.dumps(found))
"""


class Fleet:
    """The project in a folder, and a worker of each side."""

    def __init__(self, folder: Path, broker: str, results: str) -> None:
        (folder / "mixed.py").write_text(SOURCE)
        (folder / "client.py").write_text(CLIENT)
        addresses = {"BROKER": broker, "RESULTS": results}
        self._folder = folder
        self._sides = {
            "ours": (sys.executable, environment(folder, PYTHONPATH=f"{ROOT / 'src'}:{folder}", **addresses)),
            "theirs": (golden.REFERENCE, golden.reference_environment(folder, PYTHONPATH=str(folder), **addresses)),
        }

    def worker(self, side: str) -> Background:
        python, variables = self._sides[side]
        quiet = " --without-mingle --without-gossip --without-heartbeat" if side == "theirs" else ""
        command = f"{python} -m celery -A mixed worker -l INFO -c 1 -P solo -Q {side} -n {side}@rabbit{quiet}"
        return Background(command, self._folder, {**variables, "C_FORCE_ROOT": "1"})

    def send(self, side: str, to: str) -> dict[str, Any]:
        python, variables = self._sides[side]
        ran = subprocess.run(
            [python, "client.py", to], cwd=self._folder, env=variables, capture_output=True, text=True, timeout=180,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
        return found


@pytest.fixture
def fleet(rabbit_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with RedisServer() as results:
        yield Fleet(tmp_path, rabbit_url, results.url())


def test_each_runs_what_the_other_sends(fleet: Fleet) -> None:
    with fleet.worker("ours") as ours, fleet.worker("theirs") as theirs:
        for worker in (ours, theirs):
            worker.wait_for(r"ready\.")
        found = {(side, to): fleet.send(side, to) for side in ("ours", "theirs") for to in ("ours", "theirs")}
    for (_, to), results in found.items():
        assert results == {
            "plain": 5,
            "eta": 2,
            "retry": 2,
            "seen": [to, 5, False],
            "zlib": "y",
            "failed": "KeyError",
            "chain": 7,
            "group": [0, 2, 4, 6, 8],
            "chord": to,
        }
