"""Random canvases, run by a worker on each broker: the value of plain evaluation, or the error at the same place.

Marked `process` where it is not for a process but for its time. `FUZZ=1` runs 20,000 on `memory://`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.exceptions import ChordError
from celery.result import GroupResult
from tests.embedded import working
from tests.flow import canvases
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FUZZ = bool(os.environ.get("FUZZ"))
#: How many on each server, and how many of those that fail.
VALUES, FAILURES = (1200, 800) if FUZZ else (60, 40)
#: Canvases that are under way at once.
BATCH = 25
PATIENCE = 60.0


def outcome_of(tree: canvases.Tree) -> Any:
    try:
        return canvases.evaluate(tree, (1,))
    except canvases.Boom as exc:
        return f"Boom({exc.args[0]})"


def seen(result: Any) -> Any:
    """The value; or which task's exception reached the end, whatever chords it has passed.

    Of several members that fail the first in order counts, as in plain evaluation; not the first in time.
    """
    wait = result.join if isinstance(result, GroupResult) else result.get
    try:
        return wait(timeout=PATIENCE)
    except canvases.Boom as exc:
        return f"Boom({exc.args[0]})"
    except ChordError as exc:
        text = str(exc)
        return text[text.rindex("Boom(") :].partition(")")[0] + ")"


def check(app: Celery, seeds: range, *, failing: bool) -> None:
    """Run the canvas of each seed and compare."""
    numbers = list(seeds)
    for first in range(0, len(numbers), BATCH):
        sent = []
        for seed in numbers[first : first + BATCH]:
            tree = canvases.from_seed(seed, failing=failing)
            sent.append((seed, tree, canvases.build(app, tree).apply_async((1,))))
        for seed, tree, result in sent:
            assert seen(result) == outcome_of(tree), f"seed {seed}, failing={failing}: {tree!r}"


def app_on(url: str) -> Celery:
    app = Celery("canvases", broker=url, backend=url, set_as_current=False)
    app.conf.worker_redirect_stdouts = False
    canvases.declare(app)
    return app


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")


#: The end of a chain, a group that never begins, keeps the places that it has in the chord's header: the failure of
#: the member before it is the first one ([canvas.54]). Found as seeds 2345 and 245 of `make fuzz`.
GROUP_THAT_NEVER_BEGINS = (
    "chord",
    [
        (
            "group",
            [
                (
                    "chain",
                    [
                        ("chain", [("group", [("task", 1), ("task", 2)]), ("chord", [("task", 4)], ("boom", 5))]),
                        ("group", [("task", 12), ("task", 16)]),
                    ],
                ),
                ("boom", 23),
                ("task", 30),
            ],
        )
    ],
    ("task", 33),
)


@pytest.mark.usefixtures("quiet")
class TestMemory:
    @pytest.fixture
    def app(self, request: pytest.FixtureRequest) -> Iterator[Celery]:
        app = app_on(f"memory://{request.node.name}")
        with working(app):
            yield app

    def test_a_group_that_never_begins_keeps_its_places(self, app: Celery) -> None:
        result = canvases.build(app, GROUP_THAT_NEVER_BEGINS).apply_async((1,))
        assert seen(result) == outcome_of(GROUP_THAT_NEVER_BEGINS) == "Boom(23)"

    def test_a_few(self, app: Celery) -> None:
        check(app, range(8), failing=False)
        check(app, range(6), failing=True)

    @pytest.mark.slow
    def test_some(self, app: Celery) -> None:
        check(app, range(60), failing=False)
        check(app, range(40), failing=True)

    @pytest.mark.process
    def test_values(self, app: Celery) -> None:
        check(app, range(60, 12_000 if FUZZ else 360), failing=False)

    @pytest.mark.process
    def test_failures(self, app: Celery) -> None:
        check(app, range(40, 8_000 if FUZZ else 240), failing=True)


@pytest.mark.process
@pytest.mark.usefixtures("quiet")
def test_sqlite(tmp_path: Path) -> None:
    app = app_on(f"sqlite:///{tmp_path}/flow.db")
    with working(app):
        check(app, range(VALUES), failing=False)
        check(app, range(FAILURES), failing=True)


@pytest.mark.server
@pytest.mark.usefixtures("quiet")
def test_redis() -> None:
    with RedisServer() as server:
        app = app_on(server.url())
        with working(app):
            check(app, range(VALUES), failing=False)
            check(app, range(FAILURES), failing=True)
