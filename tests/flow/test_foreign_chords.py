"""Chords whose results are not kept beside the messages: in another store, in backends of others ([canvas.53])."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, chain, chord, group
from celery.exceptions import ChordError
from tests.compat import third_party
from tests.embedded import working

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 20.0
_names = count()


class Counting(third_party.Shelf):
    """A key/value backend that counts."""

    implements_incr = True

    def incr(self, key: Any) -> int:
        self.shelf[key] = self.shelf.get(key, 0) + 1
        return int(self.shelf[key])

    def expire(self, key: Any, value: Any) -> None:
        self.calls.append("expire")


@pytest.fixture(params=["other store", "Counting", "Shelf", "Rows"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    backend = {
        "other store": f"sqlite:///{tmp_path}/other.db",
        "Counting": f"{__name__}:Counting",
    }.get(request.param, f"tests.compat.third_party:{request.param}")
    app = Celery("foreign", broker=f"memory://foreign-{next(_names)}", set_as_current=False)
    app.conf.update(result_backend=backend, result_chord_retry_interval=0.05)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="fail")
    def fail() -> None:
        raise KeyError("oops")

    with working(app):
        yield app
    for kept in (third_party.Shelf.shelf, third_party.Shelf.calls, third_party.Rows.rows, third_party.Rows.stored):
        kept.clear()


@pytest.mark.slow
def test_a_body_gets_the_members(app: Celery) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    assert chord([add.s(n, n) for n in range(5)], total.s())().get(timeout=PATIENCE, interval=0.02) == 20
    result = chain(add.s(1, 2), group(add.s(1), add.s(2)), total.s(), add.s(100))()
    assert result.get(timeout=PATIENCE, interval=0.02) == 109


@pytest.mark.slow
def test_a_member_that_fails(app: Celery) -> None:
    add, total, fail = app.tasks["add"], app.tasks["total"], app.tasks["fail"]
    result = chord([add.s(1, 1), fail.s()], total.s())()
    found = app.AsyncResult(result.id).get(timeout=PATIENCE, interval=0.02, propagate=False)
    assert isinstance(found, ChordError)
    assert str(found) == f"Dependency {result.parent[1].id} raised KeyError('oops')"


def test_what_follows_a_failure_fails(app: Celery) -> None:
    result = chain(app.tasks["fail"].s(), app.tasks["add"].s(1))()
    assert repr(app.AsyncResult(result.id).get(timeout=PATIENCE, interval=0.02, propagate=False)) == "KeyError('oops')"


def test_groups(app: Celery) -> None:
    result = group(app.tasks["add"].s(n, n) for n in range(3))()
    assert result.get(timeout=PATIENCE, interval=0.02) == [0, 2, 4]
    result.save()
    assert app.GroupResult.restore(result.id) == result


class Broken(Counting):
    """It fails to count."""

    def incr(self, key: Any) -> int:
        raise LookupError("no counter")


def test_a_chord_that_cannot_be_counted_fails() -> None:
    """No chord ends in silence, whatever a backend does."""
    app = Celery("broken", broker=f"memory://foreign-{next(_names)}", set_as_current=False)
    app.conf.result_backend = f"{__name__}:Broken"
    app.task(name="total")(sum)
    with working(app):
        result = chord([app.tasks["total"].s([n]) for n in range(2)], app.tasks["total"].s())()
        error = app.AsyncResult(result.id).get(timeout=PATIENCE, interval=0.02, propagate=False)
    assert isinstance(error, ChordError)
    assert "could not be counted: LookupError('no counter')" in str(error)
    third_party.Shelf.shelf.clear()
    third_party.Shelf.calls.clear()


def test_the_task_that_looks_goes_where_the_body_will_go() -> None:
    """[canvas.71], [task.72]"""
    app = Celery("looking", broker=f"memory://foreign-{next(_names)}", set_as_current=False)
    app.conf.update(result_backend="tests.compat.third_party:Rows", task_routes={"routed": {"queue": "far"}})

    @app.task(name="routed")
    def routed(numbers: list[int]) -> None: ...

    @app.task(name="member")
    def member() -> None: ...

    sent: list[Any] = []
    app.assembly.broker.publish = lambda publications: sent.extend(publications)  # type: ignore[method-assign]
    chord([member.s()], routed.s().set(priority=3))()
    chord([member.s()], routed.s().set(queue="near", headers={"own": 1}))()
    looking = [one for one in sent if one.message.task == "celery.chord_unlock"]
    assert [one.route.routing_key for one in looking] == ["far", "near"]
    assert looking[0].message.priority == 3
    assert looking[1].message.headers["own"] == 1
    assert b'"result"' in looking[0].message.body
    app.close()
    third_party.Rows.rows.clear()


def test_what_is_never_ready_fails_when_the_looks_are_used_up(app: Celery) -> None:
    """[task.72]"""
    unlock, total = app.tasks["celery.chord_unlock"], app.tasks["total"]
    body = total.s()
    result = body.freeze()
    unlock.delay("group", body, interval=0.01, max_retries=1, result=[(("nobody", None), None)])
    found = app.AsyncResult(result.id).get(timeout=PATIENCE, interval=0.02, propagate=False)
    assert isinstance(found, ChordError)
    assert "was not ready" in str(found)
