"""A mixed fleet on RabbitMQ, results on Redis: each Celery runs what the other sends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.running import Background, wait_until
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire.pair import Pair

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
from kombu import Exchange, Queue
from kombu.common import Broadcast

app = Celery("mixed", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
app.conf.task_queues = [
    Queue("ours", routing_key="ours", max_priority=9),
    Queue("theirs", routing_key="theirs", max_priority=9),
    Broadcast("all"),
]
for side in ("ours", "theirs"):
    app.conf.task_queues += [
        Queue(
            side + "-delayed", Exchange("delays", type="topic"), routing_key=side + ".delayed",
            queue_arguments={"x-queue-type": "quorum"},
        ),
        Queue(side + "-forms", Exchange("forms", type="headers"), binding_arguments={"for": side}),
    ]
app.conf.worker_enable_remote_control = "ALL" in os.environ


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


@app.task(bind=True, ignore_result=True)
def told(self, what):
    with open("told", "a") as file:
        file.write(f"{self.request.hostname} {what}\\n")


@app.task
def fail():
    raise KeyError("no")
"""
#: What one side sends to the worker of the other, and what comes of it.
CLIENT = """
import json, sys
import patience
from mixed import add, again, chain, fail, group, seen, told
told.apply_async((sys.argv[2],), queue="all")
to, forms = dict(queue=sys.argv[1]), dict(exchange="forms", exchange_type="headers")
found = {
    "plain": add.apply_async((2, 3), **to).get(timeout=60),
    "eta": add.apply_async((1, 1), countdown=1.2, **to).get(timeout=60),
    "retry": again.apply_async(**to).get(timeout=60),
    "seen": seen.apply_async(priority=5, headers={"own": [1, None, {"a": 1.5}]}, **to).get(timeout=60)[:3],
    "zlib": add.apply_async((["x" * 9000], ["y"]), compression="zlib", **to).get(timeout=60)[1],
    "failed": type(fail.apply_async(**to).get(timeout=60, propagate=False)).__name__,
    "delayed": add.apply_async((3, 4), countdown=2.5, queue=sys.argv[1] + "-delayed").get(timeout=60),
    "form": add.apply_async((5, 6), headers={"for": sys.argv[1]}, **forms).get(timeout=60),
    "chain": chain(add.s(1, 1).set(**to), add.s(5).set(**to)).apply_async().get(timeout=60),
    "group": group(add.s(i, i).set(**to) for i in range(5)).apply_async().get(timeout=60),
    "chord": (group(add.s(i, i).set(**to) for i in range(3)) | seen.si().set(**to)).apply_async().get(timeout=60)[0],
}
print(json.dumps(found))
"""


class Fleet(Pair):
    """With a task that everybody runs."""

    def start(self, side: str, *, talking: bool = False) -> Background:
        return self.worker(side, f"{side},{side}-delayed,{side}-forms,all", talking=talking)

    def pinged(self, side: str) -> list[str]:
        """Who answers a client of that side."""
        program = "from mixed import app; print(*sorted(name for one in app.control.ping(timeout=2) for name in one))"
        return self.run(side, "-c", program).split()

    def call(self, side: str, to: str) -> dict[str, Any]:
        return self.send(side, to, f"{side} to {to}")

    def told(self, n: int) -> set[str]:
        """What the workers have heard: so many lines, each another."""
        path = self.folder / "told"
        wait_until(lambda: path.exists() and len(path.read_text().splitlines()) >= n, f"{n} copies have run")
        lines = path.read_text().splitlines()
        assert len(lines) == n
        return set(lines)


@pytest.fixture
def fleet(rabbit_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with RedisServer() as results:
        yield Fleet(tmp_path, SOURCE, CLIENT, BROKER=rabbit_url, RESULTS=results.url())


def test_each_runs_what_the_other_sends(fleet: Fleet) -> None:
    with fleet.start("ours") as ours, fleet.start("theirs") as theirs:
        for worker in (ours, theirs):
            worker.wait_for(r"ready\.")
        found = {(side, to): fleet.call(side, to) for side in ("ours", "theirs") for to in ("ours", "theirs")}
        heard = fleet.told(8)
    assert heard == {
        f"{worker}@rabbit {side} to {to}" for worker in ("ours", "theirs") for side, to in found
    }  # each copy of a broadcast, once
    for (_, to), results in found.items():
        assert results == {
            "plain": 5,
            "eta": 2,
            "retry": 2,
            "seen": [to, 5, False],
            "zlib": "y",
            "failed": "KeyError",
            "delayed": 7,
            "form": 11,
            "chain": 7,
            "group": [0, 2, 4, 6, 8],
            "chord": to,
        }


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_they_talk_whoever_came_first(fleet: Fleet, first: str) -> None:
    """Exchanges and queues of control and events are declared alike: whoever finds others there ends."""
    second = "theirs" if first == "ours" else "ours"
    with fleet.start(first, talking=True) as one:
        one.wait_for(r"ready\.")
        with fleet.start(second, talking=True) as other:
            other.wait_for(r"ready\.")
            for side in (first, second):
                wait_until(lambda side=side: fleet.pinged(side) == ["ours@rabbit", "theirs@rabbit"], f"pings of {side}")
            assert fleet.call(first, second)["plain"] == 5
            assert fleet.call(second, first)["plain"] == 5
