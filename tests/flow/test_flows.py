"""What becomes of a flow when one of its tasks does not succeed: it ends in an error that says why."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, chain, chord, group
from celery.exceptions import ChordError, Ignore, Reject, TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.worker.state import revoked
from tests.embedded import working

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 15.0
_names = count()


@pytest.fixture
def app() -> Celery:
    url = f"memory://flows-{next(_names)}"
    app = Celery("flows", broker=url, backend=url, set_as_current=False)
    app.conf.worker_unknown_task_grace = 0

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="fail")
    def fail(*args: Any) -> None:
        raise KeyError("oops")

    @app.task(name="leave")
    def leave(how: str) -> None:
        raise {"ignore": Ignore(), "reject": Reject("no", requeue=False)}[how]

    @app.task(name="unreadable")
    def unreadable(*args: Any) -> object:
        return object()

    return app


@pytest.fixture
def tasks(app: Celery) -> Iterator[Any]:
    with working(app):
        yield app.tasks


def error_of(result: Any) -> str:
    found = result.get(timeout=PATIENCE, propagate=False)
    assert isinstance(found, BaseException), found
    return repr(found)


def member_error(result: Any) -> str:
    """The reason that a chord names, and that it names the member."""
    found = result.get(timeout=PATIENCE, propagate=False)
    assert isinstance(found, ChordError), found
    words = str(found).split(" ", 3)
    assert words[0] == "Dependency"
    assert words[1] in [leaf.id for leaf in result.parent._leaves()]
    return words[3]


class TestChains:
    def test_what_would_have_followed_fails_too(self, tasks: Any) -> None:
        """[canvas.34]"""
        result = chain(tasks["add"].s(1, 2), tasks["fail"].s(), tasks["add"].s(1), tasks["add"].s(2))()
        assert error_of(result) == "KeyError('oops')"
        assert [result.state, result.parent.state, result.parent.parent.state] == ["FAILURE"] * 3
        assert result.parent.parent.parent.get(timeout=PATIENCE) == 3
        with pytest.raises(KeyError, match="oops"):
            result.get(timeout=PATIENCE)

    def test_a_group_and_a_chord_at_the_end_of_it(self, tasks: Any) -> None:
        add = tasks["add"]
        result = chain(tasks["fail"].s(), group(add.s(1), add.s(2)))()
        with pytest.raises(KeyError):
            result.get(timeout=PATIENCE)
        assert [one.state for one in result] == ["FAILURE", "FAILURE"]
        result = chain(tasks["fail"].s(), group(add.s(1), add.s(2)), tasks["total"].s(), add.s(1))()
        assert error_of(result) == "KeyError('oops')"

    def test_each_record_knows_its_place(self, app: Celery, tasks: Any) -> None:
        result = chain(tasks["add"].s(1, 2), tasks["add"].s(3))()
        assert result.get(timeout=PATIENCE) == 6
        first = result.parent
        assert first.children == [result]
        assert app.backend.get_task_meta(result.id)["parent_id"] == first.id

    def test_rejected(self, tasks: Any) -> None:
        result = chain(tasks["leave"].s("reject"), tasks["add"].s(1))()
        assert "Reject" in error_of(result) or "no" in error_of(result)

    def test_ignored_is_no_loss(self, tasks: Any) -> None:
        """[canvas.35]: the task itself wants nothing to follow."""
        result = chain(tasks["leave"].s("ignore"), tasks["add"].s(1))()
        assert tasks["add"].delay(1, 1).get(timeout=PATIENCE) == 2
        assert result.state == "PENDING"

    def test_expired(self, tasks: Any) -> None:
        result = chain(tasks["add"].s(1, 2), tasks["add"].s(1).set(expires=-1), tasks["add"].s(2))()
        found = result.get(timeout=PATIENCE, propagate=False)
        assert isinstance(found, TaskRevokedError)
        assert result.parent.state == "REVOKED"

    def test_unknown_here(self, app: Celery, tasks: Any) -> None:
        result = chain(tasks["add"].s(1, 2), app.signature("nowhere"), tasks["add"].s(1))()
        assert "nowhere" in error_of(result)

    def test_a_value_that_cannot_be_sent_on(self, tasks: Any) -> None:
        """A continuation that cannot be published fails the task, and so all that would have followed."""
        result = chain(tasks["unreadable"].s(), tasks["add"].s(1), tasks["add"].s(2))()
        assert "EncodeError" in error_of(result) or "Encode" in error_of(result)

    def test_links_of_request_may_be_dropped(self, app: Celery, tasks: Any) -> None:
        """A task that empties its own chain ends it."""

        @app.task(name="last", bind=True)
        def last(self: Any) -> str:
            self.request.chain = None
            return "the end"

        result = chain(last.s(), tasks["add"].s(1))()
        assert result.parent.get(timeout=PATIENCE) == "the end"
        assert tasks["add"].delay(1, 1).get(timeout=PATIENCE) == 2
        assert result.state == "PENDING"


class TestChords:
    @pytest.mark.parametrize(
        ("member", "reason"),
        [
            ("fail", "KeyError('oops')"),
            ("expired", "TaskRevokedError('expired')"),
            ("rejected", "reject requeue=False: no"),
        ],
    )
    def test_a_member_that_does_not_succeed(self, tasks: Any, member: str, reason: str) -> None:
        """[canvas.54], for every loss that a worker sees."""
        add = tasks["add"]
        lost = {
            "fail": tasks["fail"].s(),
            "expired": add.s(5, 5).set(expires=-1),
            "rejected": tasks["leave"].s("reject"),
        }[member]
        result = chord([add.s(1, 1), lost, add.s(2, 2)], tasks["total"].s())()
        assert member_error(result) == reason

    def test_revoked(self, tasks: Any) -> None:
        member = tasks["add"].s(1, 1).set(task_id="revoked-member")
        revoked.add("revoked-member")
        try:
            result = chord([tasks["add"].s(2, 2), member], tasks["total"].s())()
            assert "TaskRevokedError" in member_error(result)
        finally:
            revoked.discard("revoked-member")

    def test_unknown_here(self, app: Celery, tasks: Any) -> None:
        result = chord([tasks["add"].s(1, 1), app.signature("nowhere")], tasks["total"].s())()
        assert "'nowhere' never registered" in member_error(result)

    def test_everything_behind_it_fails(self, tasks: Any) -> None:
        add, total, fail = tasks["add"], tasks["total"], tasks["fail"]
        result = chain(chord([add.s(1, 1), fail.s()], total.s()), add.s(1), group(add.s(1), add.s(2)))()
        with pytest.raises(ChordError):
            result.get(timeout=PATIENCE)
        outer = chord([chord([fail.s()], total.s()), add.s(1, 1)], total.s())()
        assert "ChordError" in member_error(outer)

    def test_the_tasks_of_a_group_fail_with_the_reason_itself(self, app: Celery, tasks: Any) -> None:
        """[canvas.55]"""
        result = chord([tasks["fail"].s()], group(tasks["total"].s(), tasks["total"].s()))()
        with pytest.raises(KeyError):
            result.get(timeout=PATIENCE)
        assert [one.state for one in result] == ["FAILURE"] * 2
        group_itself = app.backend.get_task_meta(result.id)
        assert (group_itself["status"], repr(group_itself["result"])) == ("FAILURE", "KeyError('oops')")

    def test_errbacks_of_the_body_are_called_once(self, app: Celery, tasks: Any) -> None:
        called = []

        @app.task(name="errback")
        def errback(request: Any, exc: BaseException, traceback: str | None) -> None:
            called.append((request.id, type(exc).__name__))

        body = tasks["total"].s().on_error(errback.s())
        result = chord([tasks["fail"].s(), tasks["fail"].s()], body)()
        error_of(result)
        assert called == [(result.id, "ChordError")]

    def test_what_was_left_full_is_fired_by_another_worker(self, app: Celery) -> None:
        """As a kill between the last arrival and the firing leaves it."""
        add, total = app.tasks["add"], app.tasks["total"]
        result = chord([add.s(1, 1), add.s(2, 2)], total.s())()
        full = []
        engine = __import__("celery.worker.consumer.firings", fromlist=["Firings"]).Firings
        original = engine._fire
        engine._fire = lambda self, firing: full.append(firing) or []
        try:
            with working(app):
                deadline_of(lambda: full)
        finally:
            engine._fire = original
        assert result.state == "PENDING"
        server = app.assembly.store.server  # type: ignore[union-attr]
        for barrier in server.barriers._barriers.values():
            barrier.claimed = 0.0
        with working(app):
            assert result.get(timeout=PATIENCE) == 6

    def test_a_body_that_cannot_be_sent(self, app: Celery, tasks: Any) -> None:
        """[canvas.56]"""
        body = tasks["total"].s().set(serializer="nothing")
        result = app.AsyncResult(chord([tasks["add"].s(1, 1)], body)().id)
        found = result.get(timeout=PATIENCE, propagate=False)
        assert isinstance(found, ChordError)
        assert str(found).startswith("Callback error: ")

    def test_members_whose_results_are_ignored_count(self, tasks: Any) -> None:
        """[canvas.58]: here they are counted by what they say, not by what is kept of them."""
        header = [tasks["add"].s(1, 1).set(ignore_result=True), tasks["add"].s(2, 2)]
        assert chord(header, tasks["total"].s())().get(timeout=PATIENCE) == 6

    def test_empty_and_single(self, tasks: Any) -> None:
        """[canvas.47]"""
        assert chord([], tasks["total"].s())().get(timeout=PATIENCE) == 0
        assert chord([tasks["add"].s(1, 1)], tasks["total"].s())().get(timeout=PATIENCE) == 2

    def test_a_chain_within_a_group_within_a_header(self, tasks: Any) -> None:
        """Found by random canvases: its last task told the inner group, where nobody waited."""
        add, total = tasks["add"], tasks["total"]
        header = [chain(add.s(1, 1), group(add.s(1), chain(add.s(2), add.s(3))))]
        assert chord(header, total.s())().get(timeout=PATIENCE) == 10
        header = [chord([add.s(1, 1)], group(chain(total.s(), add.s(1))))]
        assert chord(header, total.s())().get(timeout=PATIENCE) == 3


class TestReplacements:
    def test_in_a_chain_a_chord_and_by_a_group(self, app: Celery, tasks: Any) -> None:
        """[canvas.64] to [canvas.66]"""
        add, total = tasks["add"], tasks["total"]

        @app.task(name="by_task", bind=True)
        def by_task(self: Any, x: int) -> None:
            raise self.replace(add.s(x, 10))

        @app.task(name="by_group", bind=True)
        def by_group(self: Any, x: int) -> None:
            raise self.replace(group(add.s(x, n) for n in range(3)))

        @app.task(name="by_chord", bind=True)
        def by_chord(self: Any, x: int) -> None:
            raise self.replace(chord([add.s(x, n) for n in range(3)], total.s()))

        assert chain(by_task.s(1), add.s(100))().get(timeout=PATIENCE) == 111
        assert by_group.delay(1).get(timeout=PATIENCE) == [1, 2, 3]
        assert chain(by_chord.s(1), add.s(100))().get(timeout=PATIENCE) == 106
        assert chord([by_task.s(1), add.s(1, 1), by_chord.s(1)], total.s())().get(timeout=PATIENCE) == 19

    def test_members_are_added(self, app: Celery, tasks: Any) -> None:
        """[canvas.68]: also by a run that is tried again."""
        add, total = tasks["add"], tasks["total"]

        @app.task(name="bring", bind=True)
        def bring(self: Any, x: int) -> int:
            self.add_to_chord(add.s(x, 10))
            self.add_to_chord(chain(add.s(x, 20), add.s(100)))
            return x

        assert chord([bring.s(1), bring.s(2)], total.s())().get(timeout=PATIENCE) == 3 + 11 + 12 + 121 + 122


class TestStanding:
    def test_members_that_nobody_takes_are_shown(self, tasks: Any) -> None:
        add = tasks["add"]
        result = chord([add.s(1, 1), add.s(2, 2).set(queue="nobody")], tasks["total"].s())()
        assert result.parent[0].get(timeout=PATIENCE) == 2
        flow = result.flow()
        assert [node.id for node in flow.waiting] == [result.parent[1].id, result.id]
        assert "1 of 2 ready" in str(flow)
        assert result.parent.progress().states == {"SUCCESS": 1, "PENDING": 1}

    def test_the_whole_of_it_is_found_from_the_first_task(self, app: Celery, tasks: Any) -> None:
        add = tasks["add"]
        result = chain(add.s(1, 2), group(add.s(1), tasks["fail"].s()), tasks["total"].s(), add.s(5))()
        error_of(result)
        first = result.parent.parent.parent
        flow = app.AsyncResult(first.id).flow()
        assert [node.detail for node in flow.failed] == ["KeyError('oops')"]
        assert [node.depth for node in flow.nodes] == [0, 1, 2, 2]
        assert "ChordError" in str(result.flow())


class TestAwaiting:
    def test_results_are_awaited(self, app: Celery, tasks: Any) -> None:
        add = tasks["add"]

        async def main() -> list[Any]:
            found = [await add.delay(1, 2), await group(add.s(1, 1), add.s(2, 2))()]
            found.append(await asyncio.gather(*(add.delay(n, n) for n in range(50))))
            with pytest.raises(KeyError):
                await tasks["fail"].delay()
            with pytest.raises(CeleryTimeoutError):
                await app.AsyncResult("nobody").aget(timeout=0.05)
            found.append(await tasks["fail"].delay().aget(propagate=False))
            return found

        three, two, many, error = asyncio.run(main())
        assert (three, two, many) == (3, [2, 4], [2 * n for n in range(50)])
        assert isinstance(error, KeyError)

    @pytest.mark.slow
    def test_the_loop_goes_on(self, app: Celery) -> None:
        result = app.AsyncResult("nobody")

        async def main() -> int:
            waiting = asyncio.ensure_future(result.aget(timeout=0.3))
            turns = 0
            while not waiting.done():
                await asyncio.sleep(0)
                turns += 1
            with pytest.raises(CeleryTimeoutError):
                await waiting
            return turns

        assert asyncio.run(main()) > 50
        app.close()


def deadline_of(condition: Any) -> None:
    from tests.running import wait_until

    wait_until(condition, "the condition")
