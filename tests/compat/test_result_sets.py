"""`ResultSet` and `GroupResult` ([result.19] to [result.24]); values observed of Celery 5.7.0."""

from __future__ import annotations

import copy
import pickle
import threading
from itertools import count
from typing import Any

import pytest

from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import EagerResult, GroupResult, ResultSet, result_from_tuple

_names = count()


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    url = f"memory://sets-{next(_names)}" if request.param == "memory" else f"sqlite:///{tmp_path}/r.db"
    app = Celery("sets", broker="memory://", backend=url)
    yield app
    app.close()


def group_of(app: Celery, *ids: str, id: str = "g") -> GroupResult:
    return app.GroupResult(id, [app.AsyncResult(one) for one in ids])


class TestSet:
    def test_members(self, app: Celery) -> None:
        results = app.ResultSet([app.AsyncResult("a"), app.AsyncResult("b")])
        assert (repr(results), len(results), str(results[1])) == ("<ResultSet: [a, b]>", 2, "b")
        results.add(app.AsyncResult("a"))
        results.discard("nobody")
        results.discard(app.AsyncResult("b"))
        assert list(results) == ["a"]
        with pytest.raises(KeyError):
            results.remove("nobody")
        results.update([app.AsyncResult("c"), app.AsyncResult("a")])
        assert list(results) == ["a", "c"]
        results.remove("c")
        results.clear()
        assert (len(results), results.get(), results.supports_native_join) == (0, [], False)
        assert (results.successful(), results.failed(), results.ready(), results.waiting()) == (
            True,
            False,
            True,
            False,
        )

    def test_equality_and_copies(self, app: Celery) -> None:
        group, same = group_of(app, "a", "b"), group_of(app, "a", "b")
        assert group == same
        assert group == "g"
        assert group != group_of(app, "a", "b", id="h")
        assert group != group_of(app, "a")
        assert hash(group) == hash("g")
        assert not group == 3  # noqa: SIM201
        assert app.ResultSet(group.results) == app.ResultSet(same.results)
        for copied in (copy.copy(group), pickle.loads(pickle.dumps(group))):
            assert (copied, repr(copied)) == (group, "<GroupResult: g [a, b]>")
        assert bool(app.GroupResult("x", []))
        assert not app.GroupResult(None, [])

    def test_states(self, app: Celery) -> None:
        group = group_of(app, "a", "b")
        app.backend.store_result("a", 5, "SUCCESS")
        assert (group.completed_count(), group.ready(), group.waiting()) == (1, False, True)
        assert (group.successful(), group.failed()) == (False, False)
        app.backend.store_result("b", KeyError("x"), "FAILURE")
        assert (group.completed_count(), group.ready(), group.waiting()) == (1, True, False)
        assert (group.successful(), group.failed()) == (False, True)
        with pytest.raises(KeyError, match="x"):
            group.maybe_throw()
        assert group.progress() == (2, {"SUCCESS": 1, "FAILURE": 1})
        assert group.progress().ready == 2


class TestWaiting:
    @pytest.fixture
    def group(self, app: Celery) -> GroupResult:
        app.backend.store_result("a", 5, "SUCCESS")
        app.backend.store_result("b", KeyError("x"), "FAILURE")
        return group_of(app, "a", "b")

    @pytest.mark.parametrize("how", ["get", "join", "join_native"])
    def test_values_and_failures(self, group: GroupResult, how: str) -> None:
        wait = getattr(group, how)
        found = wait(propagate=False)
        assert (found[0], repr(found[1])) == (5, "KeyError('x')")
        with pytest.raises(KeyError):
            wait()

    def test_callbacks(self, group: GroupResult) -> None:
        told: list[Any] = []
        assert group.join(callback=lambda id, value: told.append((id, repr(value))), propagate=False) == []
        assert told == [("a", "5"), ("b", "KeyError('x')")]
        assert group.join_native(callback=lambda id, value: told.append((id, repr(value))), propagate=False) is None
        assert sorted(told[2:]) == told[:2]

    def test_iter_native(self, group: GroupResult) -> None:
        heard: list[Any] = []
        found = dict(group.iter_native(on_message=heard.append))
        assert {id: meta["status"] for id, meta in found.items()} == {"a": "SUCCESS", "b": "FAILURE"}
        assert len(heard) == 2

    @pytest.mark.parametrize("how", ["get", "join", "join_native"])
    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_time_is_for_all_together(self, app: Celery, how: str, timeout: float) -> None:
        group = group_of(app, "a", "never")
        app.backend.store_result("a", 5, "SUCCESS")
        with pytest.raises(CeleryTimeoutError):
            getattr(group, how)(timeout=timeout)

    @pytest.mark.slow
    def test_on_interval(self, app: Celery) -> None:
        told: list[int] = []
        with pytest.raises(CeleryTimeoutError):
            group_of(app, "never").get(timeout=0.2, interval=0.02, on_interval=lambda: told.append(1))
        assert len(told) > 1

    def test_a_failure_ends_the_wait(self, app: Celery) -> None:
        app.backend.store_result("b", KeyError("x"), "FAILURE")
        with pytest.raises(KeyError):
            group_of(app, "never", "b").join_native(timeout=20)
        with pytest.raises(KeyError):
            group_of(app, "b", "never").join(timeout=20)

    def test_results_that_come_later(self, app: Celery) -> None:
        group = group_of(app, *(f"r{n}" for n in range(40)))

        def finish() -> None:
            for n in reversed(range(40)):
                app.backend.store_result(f"r{n}", n, "SUCCESS")

        thread = threading.Thread(target=finish)
        thread.start()
        assert group.get(timeout=20) == list(range(40))
        thread.join()

    def test_those_that_failed_are_told(self, group: GroupResult) -> None:
        """What django-celery-results asks for."""
        assert [one.state for one in group._failed_join_report()] == ["FAILURE"]

    def test_groups_in_groups(self, app: Celery) -> None:
        inner = group_of(app, "x", "y", id="inner")
        group = app.GroupResult("g", [app.AsyncResult("a"), inner, app.AsyncResult("a")])
        for id in "axy":
            app.backend.store_result(id, id.upper(), "SUCCESS")
        for wait in (group.get, group.join):
            assert wait(timeout=20) == ["A", ["X", "Y"], "A"]
        assert (group.ready(), group.successful(), group.completed_count()) == (True, True, 3)

    def test_eager_ones(self, app: Celery) -> None:
        group = app.GroupResult("e", [EagerResult("1", 3, "SUCCESS"), EagerResult("2", 4, "SUCCESS")])
        assert (group.get(), group.join(), group.ready(), group.completed_count()) == ([3, 4], [3, 4], True, 2)

    def test_promises(self, app: Celery) -> None:
        told: list[Any] = []
        done = threading.Event()
        group = group_of(app, "a", "b")
        group.then(lambda results: (told.append(results), done.set()))
        app.backend.store_result("a", 5, "SUCCESS")
        assert not told
        app.backend.store_result("b", 6, "SUCCESS")
        assert done.wait(20)
        assert told == [group]
        app.ResultSet([]).then(told.append)
        assert len(told) == 2


class TestKeeping:
    def test_saved_and_restored(self, app: Celery) -> None:
        group = group_of(app, "a", "b")
        assert app.GroupResult.restore("g") is None
        group.save()
        restored = app.GroupResult.restore("g")
        assert (restored, repr(restored)) == (group, "<GroupResult: g [a, b]>")
        assert GroupResult.restore("g", app=app) == group
        assert app.backend.get_group_meta("g")["result"] == group
        group.delete()
        assert app.GroupResult.restore("g") is None

    def test_tuples(self, app: Celery) -> None:
        parent = app.AsyncResult("p")
        inner = app.GroupResult("in", [app.AsyncResult("z")])
        group = app.GroupResult("gg", [app.AsyncResult("a"), inner], parent=parent)
        form = group.as_tuple()
        assert form == (("gg", (("p", None), None)), [(("a", None), None), (("in", None), [(("z", None), None)])])
        again = result_from_tuple(form, app)
        assert (again, again.parent, again.as_tuple()) == (group, parent, form)
        last = app.AsyncResult("q", parent=group)
        assert result_from_tuple(last.as_tuple(), app).parent == group
        assert last.as_list() == ["q", "p"]
        assert group.children == group.results

    def test_forgotten(self, app: Celery) -> None:
        group = group_of(app, "a", "b")
        app.backend.store_result("a", 1, "SUCCESS")
        group.forget()
        assert app.AsyncResult("a").state == "PENDING"
        app.backend.store_result("a", 1, "SUCCESS")
        app.AsyncResult("c", parent=group).forget()
        assert app.AsyncResult("a").state == "PENDING"

    def test_classes_are_the_apps(self, app: Celery) -> None:
        assert issubclass(app.GroupResult, GroupResult)
        assert issubclass(app.ResultSet, ResultSet)
        assert app.GroupResult("g", []).app is app
        assert GroupResult.__module__ == ResultSet.__module__ == "celery.result"


def test_a_chord_of_others_is_counted_here(app: Celery) -> None:
    """Whoever ends a member by hand, through the backend, is heard."""
    sent: list[Any] = []

    @app.task(name="body")
    def body(numbers: list[int]) -> None: ...

    barriers = app.assembly.barriers
    assert barriers is not None
    app.backend.set_chord_size("g", 2)
    app.backend.apply_chord(("g", []), body.s())
    chord = dict(body.s().set(task_id="body-id"))
    app.assembly.broker.publish = lambda publications: sent.extend(publications)  # type: ignore[method-assign]
    for n in range(2):
        request = app.Context(id=f"m{n}", task="x", group="g", group_index=n, chord=chord)
        app.backend.mark_as_done(f"m{n}", n, request)
    assert [one.message.id for one in sent] == ["body-id"]
    assert barriers.standing("g") == (None, 0)
    app.backend.add_to_chord("h", None)
    assert barriers.standing("h")[1] == 0
