"""A chord of chains whose worker is killed half way, or whose Redis is started anew: its body runs, once.

Scaled down; `CHAOS=1` runs it with 200 chains.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, chain, chord
from tests.running import Background, environment, wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.process, pytest.mark.server]

CHAINS = 200 if os.environ.get("CHAOS") else 40
PATIENCE = 120.0
SOURCE = """
import time
from celery import Celery

app = Celery("proj")
app.conf.task_acks_late = True
app.conf.task_reject_on_worker_lost = True

@app.task
def step(x, y):
    time.sleep(0.01)
    return x + y

@app.task
def last(numbers):
    with open("bodies", "a") as bodies:
        bodies.write(f"{sum(numbers)}\\n")
    return sum(numbers)
"""


class Place:
    """A project in a folder, on one broker."""

    def __init__(self, folder: Path, url: str, results: str = "") -> None:
        self.folder, self.url, self.results = folder, url, results or url
        self._again = 0
        (folder / "proj.py").write_text(SOURCE)
        self.app = Celery("proj", broker=url, backend=self.results, set_as_current=False)

    def worker(self, name: str) -> Background:
        variables = environment(self.folder, CELERY_BROKER_URL=self.url, CELERY_RESULT_BACKEND=self.results)
        return Background(f"celery -A proj worker -n {name}@here -l INFO -c 2", self.folder, variables)

    def apart(self) -> None:
        """The body, and the steps behind it, are kept once and not in every member's message (decision 25)."""
        with (self.folder / "proj.py").open("a") as source:
            source.write("\napp.conf.task_chord_embed_limit = 100\n")
        self.app.conf.task_chord_embed_limit = 100

    def kept(self, result: Any) -> bool:
        """Whether the chord's body is kept apart still."""
        store: Any = self.app.assembly.store
        return store.groups.load_group(f"{result.parent.id}.b") is not None

    def send(self) -> Any:
        step = self.app.signature("proj.step")
        chains = [chain(step.clone((n, 1)), step.clone((10,)), step.clone((100,)), app=self.app) for n in range(CHAINS)]
        return chord(chains, self.app.signature("proj.last"), app=self.app)()

    def bodies(self) -> list[str]:
        """What each run of the body has come to."""
        path = self.folder / "bodies"
        return path.read_text().splitlines() if path.exists() else []

    def kill(self, worker: Background) -> None:
        """What it has run and not acknowledged runs again: on a busy machine that may be the body."""
        worker.kill()
        self._again = len(self.bodies())

    def done(self, result: Any) -> int:
        return int(result.parent.completed_count())

    def check(self, result: Any) -> None:
        total = sum(n + 111 for n in range(CHAINS))
        assert result.get(timeout=PATIENCE) == total
        wait_until(self.bodies, "the body has run")
        assert self.bodies() in [[str(total)] * runs for runs in range(1, 2 + self._again)]


@pytest.fixture(params=["redis", "sqlite", pytest.param("rabbit", marks=pytest.mark.xdist_group("rabbit"))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "rabbit":
        place = Place(tmp_path, request.getfixturevalue("rabbit_url"), "rpc://")
        yield place
        place.app.close()
        return
    if request.param == "sqlite":
        place = Place(tmp_path, f"sqlite:///{tmp_path}/flow.db")
        yield place
        place.app.close()
        return
    with RedisServer() as server:
        place = Place(tmp_path, server.url())
        yield place
        place.app.close()


def test_workers_are_killed_half_way(place: Place) -> None:
    """Two in turn: one while chains run, one when the last members come in."""
    first = place.worker("first")
    first.wait_for(r"ready\.$")
    result = place.send()
    wait_until(lambda: place.done(result) >= CHAINS // 2, "half of the chains have ended", PATIENCE)
    place.kill(first)
    second = place.worker("second")
    wait_until(lambda: place.done(result) >= CHAINS - 3, "nearly all of the chains have ended", PATIENCE)
    place.kill(second)
    with place.worker("third"):
        place.check(result)


@pytest.mark.parametrize("place", ["redis", "sqlite"], indirect=True)
def test_workers_are_killed_half_way_and_the_body_is_kept_apart(place: Place) -> None:
    """As above, where the members carry but a name of the body; it goes when the chord is fired."""
    place.apart()
    result = place.send()
    assert place.kept(result)
    with place.worker("first") as first:
        wait_until(lambda: place.done(result) >= CHAINS // 2, "half of the chains have ended", PATIENCE)
        place.kill(first)
    with place.worker("second") as second:
        wait_until(lambda: place.done(result) >= CHAINS - 3, "nearly all of the chains have ended", PATIENCE)
        place.kill(second)
    with place.worker("third"):
        place.check(result)
        wait_until(lambda: not place.kept(result), "the body that was kept is deleted")


def test_redis_is_started_anew(tmp_path: Path) -> None:
    """With its append-only file, which is written before each answer."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always").start()
    place = Place(tmp_path, server.url())
    try:
        with place.worker("only") as worker:
            worker.wait_for(r"ready\.$")
            result = place.send()
            wait_until(lambda: place.done(result) >= CHAINS // 2, "half of the chains have ended", PATIENCE)
            server.stop(keep_directory=True)
            server.start()
            place.check(result)
    finally:
        place.app.close()
        server.stop()
