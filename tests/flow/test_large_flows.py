"""Wide flows with much behind them (PAINS 24): with `task_chord_embed_limit` each message stays small (decision 25)."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, chain, chord, group
from celery.exceptions import ChordError
from tests.embedded import working
from tests.flow import canvases
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery.ports import Publication

PATIENCE = 60.0
_names = count()


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.server)])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    """Every body that is not tiny is kept apart."""
    with ExitStack() as cleanup:
        if request.param == "redis":
            url = cleanup.enter_context(RedisServer()).url()
        else:
            url = f"memory://large-{next(_names)}" if request.param == "memory" else f"sqlite:///{tmp_path}/l.db"
        app = Celery("large", broker=url, backend=url, set_as_current=False)
        cleanup.callback(app.close)
        app.conf.update(task_chord_embed_limit=100, result_extended=True)
        declare(app)
        canvases.declare(app)
        yield app


def declare(app: Celery) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="fail")
    def fail(*args: Any) -> None:
        raise KeyError("oops")

    @app.task(name="bring", bind=True)
    def bring(self: Any, x: int) -> int:
        self.add_to_chord(add.s(x, 10))
        return x

    @app.task(name="hand_on", bind=True)
    def hand_on(self: Any, x: int) -> None:
        raise self.replace(chord([add.s(x, 1), add.s(x, 2)], total.s()))


class Sent:
    """The messages that go to the broker."""

    def __init__(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bodies: list[bytes] = []
        broker = app.assembly.broker
        publish = broker.publish

        def noted(publications: list[Publication]) -> None:
            self.bodies += [one.message.body for one in publications]
            publish(publications)

        monkeypatch.setattr(broker, "publish", noted)


def kept(app: Celery, barrier: str) -> bytes | None:
    store: Any = app.assembly.store
    found: bytes | None = store.groups.load_group(f"{barrier}.b")
    return found


def parents_of(result: Any) -> list[str]:
    """The results that it follows, nearest first."""
    found = []
    while (result := result.parent) is not None:
        found.append(str(result.id))
    return found


def test_members_carry_a_name_and_the_body_is_sent_in_the_end(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    sent = Sent(app, monkeypatch)
    result = chain(group(add.s(n, n) for n in range(5)), total.s(), *(add.s(1) for _ in range(50)))()
    assert max(map(len, sent.bodies)) < 1000
    barrier = parents_of(result)[-1]
    document = kept(app, barrier)
    assert document is not None
    assert len(document) > 5000
    with working(app):
        assert result.get(timeout=PATIENCE) == 20 + 50
    assert kept(app, barrier) is None, "once it is fired, nothing is left of it"


@pytest.mark.slow
def test_whatever_a_chord_does(app: Celery) -> None:
    tasks = app.tasks
    add, total, fail, bring, hand_on = (tasks[name] for name in ("add", "total", "fail", "bring", "hand_on"))
    with working(app):
        inner = chord([add.s(1, 1), add.s(2, 2)], total.s())
        assert chord([inner, add.s(3, 3)], total.s())().get(timeout=PATIENCE) == 12
        assert chord([bring.s(1), bring.s(2)], total.s())().get(timeout=PATIENCE) == 3 + 11 + 12
        assert chord([hand_on.s(1), add.s(1, 1)], total.s())().get(timeout=PATIENCE) == 5 + 2
        assert chord([add.s(1, 1), add.s(2, 2)], group(total.s(), total.s()))().get(timeout=PATIENCE) == [6, 6]
        lost = chain(chord([add.s(1, 1), fail.s()], total.s()), add.s(1), group(add.s(1), add.s(2)))()
        with pytest.raises(ChordError, match="KeyError"):
            lost.get(timeout=PATIENCE)
        seeds = [seed for seed in range(60) if canvases.holds(canvases.from_seed(seed), "chord")][:15]
        for tree in map(canvases.from_seed, seeds):
            assert canvases.build(app, tree).apply_async().get(timeout=PATIENCE) == canvases.evaluate(tree)


def test_a_body_that_is_gone_or_not_accepted(app: Celery) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    gone = chord([add.s(1, 1)], total.s())()
    strange = chord([add.s(1, 1)], total.s())()
    store: Any = app.assembly.store
    store.groups.delete_group(f"{gone.parent.id}.b")
    store.groups.save_group(f"{strange.parent.id}.b", b"application/x-python-serialize binary\ncos\nabort\n(tR.")
    with working(app):
        for result, reason in ((gone, "LookupError"), (strange, "ContentDisallowed")):
            error = app.AsyncResult(result.id).get(timeout=PATIENCE, propagate=False)
            assert isinstance(error, ChordError)
            assert str(error).startswith(f"Body error: {reason}")


def test_who_comes_second_leaves_it_alone(app: Celery) -> None:
    """A worker that was slow to fire a barrier finds that another has done so: the body has not failed."""
    result = chord([app.tasks["add"].s(1, 1)], app.tasks["total"].s())()
    closing, barriers = app.assembly.closing, app.assembly.barriers
    assert closing is not None
    assert barriers is not None
    barrier, seen = result.parent.id, []
    real = type(closing).__call__

    def noted(self: Any, full: Any) -> Any:
        seen.append(full)
        return real(self, full)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(closing), "__call__", noted)
        with working(app):
            assert result.get(timeout=PATIENCE) == 2
    assert [full.barrier for full in seen] == [barrier]
    again = closing(seen[0])
    assert (again.barrier, again.publications, again.records, again.kept) == (barrier, (), (), "")
    assert app.AsyncResult(result.id).state == "SUCCESS"


@pytest.fixture
def plain() -> Iterator[Celery]:
    url = f"memory://large-{next(_names)}"
    app = Celery("large", broker=url, backend=url, set_as_current=False)
    app.conf.task_chord_embed_limit = 512
    declare(app)
    yield app
    app.close()


def levels(app: Celery, depth: int, width: int) -> Any:
    """Groups one after the other: each waits for all of the one before."""
    add = app.tasks["add"]
    return chain(*(group(add.si(level, n) for n in range(width)) for level in range(depth)))


@pytest.mark.slow
def test_ten_thousand_nodes_fifty_levels_deep(plain: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """PAINS 24: no message with 1 KB beside its arguments, less than 20 MiB in the store."""
    sent = Sent(plain, monkeypatch)
    result = levels(plain, 50, 200).apply_async()
    assert len(sent.bodies) == 200
    assert max(map(len, sent.bodies)) < 1024
    document = kept(plain, parents_of(result)[-1])
    assert document is not None
    assert len(document) < 20 << 20


@pytest.mark.slow
def test_all_levels_run(plain: Celery) -> None:
    result = levels(plain, 50, 10).apply_async()
    barriers = plain.assembly.store.server.barriers  # type: ignore[union-attr]
    assert len(barriers._groups) == 1
    with working(plain):
        assert result.get(timeout=PATIENCE) == [49 + n for n in range(10)]
    assert barriers._groups == {}


def test_small_bodies_travel_as_ever(plain: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Sent(plain, monkeypatch)
    result = chord([plain.tasks["add"].s(1, 1)], plain.tasks["total"].s())()
    assert b'"task":"total"' in sent.bodies[0].replace(b" ", b"")
    assert kept(plain, result.parent.id) is None
