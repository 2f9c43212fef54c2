"""What a call gives back ([result.1] to [result.28], [call.33])."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
import threading
from typing import Any

import pytest

from celery import _state, current_app, states
from celery.exceptions import IncompleteStream, TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import (
    AsyncResult,
    EagerResult,
    ResultBase,
    allow_join_result,
    assert_will_not_block,
    denied_join_result,
    result_from_tuple,
    task_join_will_block,
)
from tests.compat.memory_apps import make_app


@pytest.fixture
def app() -> Any:
    return make_app()


@pytest.fixture
def backend(app: Any) -> Any:
    return app.backend


class TestUnknown:
    def test_is_pending(self, app: Any) -> None:
        result = app.AsyncResult("nobody-knows")
        assert (result.state, result.status, result.result, result.info) == ("PENDING", "PENDING", None, None)
        assert (result.traceback, result.children, result.date_done, result.parent) == (None, None, None, None)
        assert (result.ready(), result.successful(), result.failed(), result.exists()) == (False, False, False, False)
        assert (result.name, result.args, result.kwargs, result.worker, result.retries, result.queue) == (None,) * 6

    @pytest.mark.parametrize("timeout", [0, 0.01])
    def test_get_times_out(self, app: Any, timeout: float) -> None:
        with pytest.raises(CeleryTimeoutError, match="The operation timed out"):
            app.AsyncResult("nobody-knows").get(timeout=timeout)

    def test_needs_an_id(self, app: Any) -> None:
        with pytest.raises(ValueError, match="AsyncResult requires valid id, not <class 'NoneType'>"):
            app.AsyncResult(None)


class TestSuccess:
    def test_everything_it_says(self, app: Any, backend: Any) -> None:
        before = dt.datetime.now(dt.UTC)
        backend.store_result("id", {"a": [1]}, states.SUCCESS)
        result = app.AsyncResult("id")
        assert result.get(timeout=1) == result.wait() == result.result == result.info == {"a": [1]}
        assert (result.state, result.ready(), result.successful(), result.failed()) == ("SUCCESS", True, True, False)
        assert before <= result.date_done <= dt.datetime.now(dt.UTC)
        assert result.exists()
        assert result.maybe_throw() == {"a": [1]}

    def test_callback(self, app: Any, backend: Any) -> None:
        backend.mark_as_done("id", 42)
        heard: list[Any] = []
        assert app.AsyncResult("id").get(callback=lambda id, value: heard.append((id, value))) == 42
        assert heard == [("id", 42)]

    def test_is_read_once(self, app: Any, backend: Any) -> None:
        backend.mark_as_done("id", 42)
        result = app.AsyncResult("id")
        assert result.get() == 42
        backend.store.forget(["id"])
        assert result.get() == 42
        assert app.AsyncResult("id").state == "PENDING"

    def test_get_wakes_when_the_result_arrives(self, app: Any, backend: Any) -> None:
        result, got = app.AsyncResult("id"), []
        waiting = threading.Thread(target=lambda: got.append(result.get(timeout=10)))
        waiting.start()
        backend.mark_as_started("id", pid=1)
        backend.mark_as_done("id", 42)
        waiting.join(10)
        assert got == [42]

    def test_states_on_the_way_are_read_again(self, app: Any, backend: Any) -> None:
        result = app.AsyncResult("id")
        backend.mark_as_started("id", pid=1, hostname="h")
        assert (result.state, result.info, result.ready()) == ("STARTED", {"pid": 1, "hostname": "h"}, False)
        backend.store_result("id", {"done": 3}, "PROGRESS")
        assert (result.state, result.info) == ("PROGRESS", {"done": 3})
        assert result.date_done is None


class TestFailure:
    def test_everything_it_says(self, app: Any, backend: Any) -> None:
        backend.mark_as_failure("id", KeyError("foo", 3), traceback="Traceback …")
        result = app.AsyncResult("id")
        assert (result.state, result.failed(), result.successful(), result.ready()) == ("FAILURE", True, False, True)
        assert repr(result.result) == "KeyError('foo', 3)"
        assert result.traceback == "Traceback …"
        assert isinstance(result.get(propagate=False), KeyError)
        assert isinstance(result.maybe_throw(propagate=False), KeyError)

    def test_is_raised(self, app: Any, backend: Any) -> None:
        backend.mark_as_failure("id", KeyError("foo"))
        result, heard = app.AsyncResult("id"), []
        for _ in range(3):
            with pytest.raises(KeyError, match="foo") as raised:
                result.get(callback=lambda *said: heard.append(said))
            assert len(raised.traceback) < 6, "the traceback of one get is in that of the next"
        with pytest.raises(KeyError):
            result.maybe_throw()
        assert heard == []
        result.get(propagate=False, callback=lambda *said: heard.append(said))
        assert [id for id, _ in heard] == ["id"]

    def test_of_a_class_that_is_not_here(self, app: Any, backend: Any) -> None:
        meta = b'{"status": "FAILURE", "result": {"exc_type": "Odd", "exc_message": ["x"], "exc_module": "gone.away"}}'
        from celery.outcome import Record

        backend.store.save([Record("id", "FAILURE", meta)])
        with pytest.raises(Exception, match="x") as raised:
            app.AsyncResult("id").get()
        assert (type(raised.value).__name__, type(raised.value).__module__) == ("Odd", "celery.exceptions")

    def test_of_a_revoked_task(self, app: Any, backend: Any) -> None:
        backend.mark_as_revoked("id", "because")
        result = app.AsyncResult("id")
        assert (result.state, result.ready(), result.failed()) == ("REVOKED", True, False)
        with pytest.raises(TaskRevokedError, match="because"):
            result.get()

    def test_a_retry_is_no_end(self, app: Any, backend: Any) -> None:
        backend.mark_as_retry("id", ValueError("x"), traceback="…")
        result = app.AsyncResult("id")
        assert (result.state, result.ready()) == ("RETRY", False)
        assert isinstance(result.result, ValueError)
        assert isinstance(result.maybe_throw(), ValueError)
        with pytest.raises(CeleryTimeoutError):
            result.get(timeout=0)

    def test_throw(self, app: Any) -> None:
        with pytest.raises(KeyError):
            app.AsyncResult("id").throw(KeyError("x"))


class TestWaiting:
    def test_on_interval(self, app: Any, backend: Any) -> None:
        result, rounds = app.AsyncResult("id"), []

        def on_interval() -> None:
            rounds.append(1)
            if len(rounds) == 3:
                backend.mark_as_done("id", 42)

        assert result.get(interval=0.001, on_interval=on_interval) == 42
        assert len(rounds) == 3
        with pytest.raises(CeleryTimeoutError):
            app.AsyncResult("other").get(timeout=0.01, interval=0.001, on_interval=lambda: None)

    def test_a_failed_parent_ends_it(self, app: Any, backend: Any) -> None:
        grandparent = AsyncResult("grandparent", app=app)
        parent = AsyncResult("parent", app=app, parent=grandparent)
        result = AsyncResult("id", app=app, parent=parent)
        backend.mark_as_done("parent", 1)
        backend.mark_as_failure("grandparent", KeyError("early"))
        with pytest.raises(KeyError, match="early"):
            result.get(timeout=10)
        for waiting in ({"follow_parents": False}, {"propagate": False}):
            with pytest.raises(CeleryTimeoutError):
                result.get(timeout=0, **waiting)
        backend.mark_as_done("id", 2)
        assert AsyncResult("id", app=app, parent=AsyncResult("p", app=app)).get(timeout=1) == 2

    def test_messages_on_the_way_are_told(self, app: Any, backend: Any) -> None:
        """[call.10]: each state, the final one included; of what is final already, that."""
        heard: list[Any] = []

        def hear(meta: Any) -> None:
            heard.append((meta["status"], meta["result"]))
            if meta["result"] == "last":
                backend.mark_as_failure("id", KeyError("x"))

        threading.Timer(0.01, lambda: [backend.store_result("id", n, "PROGRESS") for n in (1, 2, "last")]).start()
        with pytest.raises(KeyError):
            app.AsyncResult("id").get(timeout=10, on_message=hear)
        states_heard, (failed, error) = heard[:-1], heard[-1]
        assert states_heard == [("PROGRESS", 1), ("PROGRESS", 2), ("PROGRESS", "last")]
        assert (failed, type(error)) == ("FAILURE", KeyError)
        app.AsyncResult("id").get(propagate=False, on_message=hear)
        assert [state for state, _ in heard[4:]] == ["FAILURE"]
        with pytest.raises(CeleryTimeoutError):
            app.AsyncResult("other").get(timeout=0.01, on_message=hear)
        assert len(heard) == 5

    def test_ignored_results_are_none_at_once(self, app: Any) -> None:
        result = app.AsyncResult("id")
        result.ignored = True
        assert result.get() is None
        assert app.tasks["tasks.add"].apply_async((1, 2), ignore_result=True).get(timeout=0) is None


class TestChildren:
    """[result.9]"""

    def test_children(self, app: Any, backend: Any) -> None:
        def request(task_id: str, *children: str) -> Any:
            made = app.Context(id=task_id)
            made.children.extend(app.AsyncResult(child) for child in children)
            return made

        for name, children in {"a": "bc", "b": "", "c": "d"}.items():
            backend.store_result(name, f"value {name}", "SUCCESS", request=request(name, *children))
        top = app.AsyncResult("a")
        with pytest.raises(IncompleteStream):
            list(top.iterdeps())
        assert [(p and p.id, n.id) for p, n in top.iterdeps(intermediate=True)] == [
            (None, "a"), ("a", "b"), ("a", "c"), ("c", "d"),
        ]  # fmt: skip
        with pytest.raises(IncompleteStream):
            _ = top.graph
        assert repr(top.build_graph(intermediate=True)).splitlines()[:4] == [
            "a(3)", "     b(0)", "     c(1)", "          d(0)",
        ]  # fmt: skip
        backend.store_result("d", "leaf", "SUCCESS")
        assert [(n.id, value) for n, value in top.collect()][-1] == ("d", "leaf")
        assert top.get_leaf() == "leaf"
        assert [str(node) for node in top.graph.topsort()] == ["b", "d", "c", "a"]
        assert app.AsyncResult("nobody").build_graph(intermediate=True).topsort() == ["nobody"]


class TestThen:
    """[result.12]"""

    def test_is_called_by_whoever_learns_of_it(self, app: Any, backend: Any) -> None:
        told: list[Any] = []
        result = app.AsyncResult("id")
        result.then(told.append)
        backend.mark_as_done("id", 1)
        assert result.get(timeout=1) == 1
        assert told == [result]

    def test_of_a_failure(self, app: Any, backend: Any) -> None:
        told: list[Any] = []
        backend.mark_as_failure("id", KeyError())
        result = app.AsyncResult("id")
        assert result.failed()
        result.then(told.append)
        result.then(told.append)
        assert told == [result, result]

    def test_of_an_eager_result(self) -> None:
        told: list[Any] = []
        result = EagerResult("id", KeyError(1), "FAILURE")
        result.then(told.append)
        assert told == [result]


class TestGuard:
    """A task that waits for another one may wait for ever."""

    @pytest.fixture(autouse=True)
    def _done(self, backend: Any) -> None:
        backend.mark_as_done("id", 42)

    def in_a_task(self, app: Any, function: Any) -> Any:
        task = app.tasks["tasks.add"]
        _state.push_current_task(task)
        task.push_request(id="outer", called_directly=False)
        try:
            return function()
        finally:
            task.pop_request()
            _state.pop_current_task()

    def test_within_a_task(self, app: Any) -> None:
        get = app.AsyncResult("id").get
        with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task!"):
            self.in_a_task(app, get)
        with pytest.raises(RuntimeError):
            self.in_a_task(app, EagerResult("id", 1, "SUCCESS").get)
        assert self.in_a_task(app, lambda: get(disable_sync_subtasks=False)) == 42
        assert get() == 42

    def test_may_be_lifted_and_set(self, app: Any) -> None:
        get = app.AsyncResult("id").get

        def allowed() -> Any:
            with allow_join_result():
                return get()

        assert self.in_a_task(app, allowed) == 42
        with denied_join_result(), pytest.raises(RuntimeError):
            assert_will_not_block()
        assert_will_not_block()

    def test_for_a_whole_process(self) -> None:
        _state._set_task_join_will_block(True)
        try:
            assert task_join_will_block()
        finally:
            _state._set_task_join_will_block(False)
        assert not task_join_will_block()

    def test_is_nobody_elses(self, app: Any) -> None:
        got: list[Any] = []

        def elsewhere() -> None:
            thread = threading.Thread(target=lambda: got.append(app.AsyncResult("id").get(timeout=10)))
            thread.start()
            thread.join()

        self.in_a_task(app, elsewhere)
        assert got == [42]


class TestForget:
    def test_with_parents(self, app: Any, backend: Any) -> None:
        backend.mark_as_done("id", 1)
        backend.mark_as_done("parent", 2)
        result = AsyncResult("id", app=app, parent=AsyncResult("parent", app=app))
        assert result.get() == 1
        result.forget()
        assert (result.state, app.AsyncResult("parent").state) == ("PENDING", "PENDING")


class TestRelatives:
    @pytest.fixture
    def tree(self, app: Any, backend: Any) -> Any:
        """root → (left, right), right → leaf, which is not done."""
        for id, children in (("root", ["left", "right"]), ("left", []), ("right", ["leaf"])):
            request = app.Context(id=id)
            request.children.extend(app.AsyncResult(child) for child in children)
            backend.store_result(id, f"value of {id}", "SUCCESS", request=request)
        return app.AsyncResult("root")

    def test_children(self, app: Any, tree: Any) -> None:
        assert tree.children == ["left", "right"]
        assert all(isinstance(child, app.AsyncResult) for child in tree.children)
        assert app.AsyncResult("left").children == []

    def test_iterdeps(self, tree: Any) -> None:
        found = [(parent, str(node)) for parent, node in tree.iterdeps(intermediate=True)]
        assert found == [(None, "root"), ("root", "left"), ("root", "right"), ("right", "leaf")]
        with pytest.raises(IncompleteStream):
            list(tree.iterdeps())

    def test_collect(self, tree: Any, backend: Any) -> None:
        backend.mark_as_done("leaf", "last")
        assert [(str(node), value) for node, value in tree.collect()][-2:] == [
            ("right", "value of right"),
            ("leaf", "last"),
        ]
        assert tree.get_leaf() == "last"


class TestExtended:
    def test_fields(self) -> None:
        app = make_app(result_extended=True)
        request = app.Context(
            id="id",
            task="tasks.add",
            args=[1],
            kwargs={"y": 2},
            hostname="w",
            retries=1,
            delivery_info={"routing_key": "q"},
        )
        app.backend.store_result("id", 3, "SUCCESS", request=request)
        result = app.AsyncResult("id")
        assert (result.name, result.args, result.kwargs) == ("tasks.add", [1], {"y": 2})
        assert (result.worker, result.retries, result.queue) == ("w", 1, "q")


class TestIdentity:
    def test_equal_by_id(self, app: Any) -> None:
        result = app.AsyncResult("id")
        assert result == AsyncResult("id", app=make_app()) == "id"
        assert result != "other"
        assert result != 3
        assert {result, app.AsyncResult("id")} == {"id"}
        assert (str(result), repr(result), result.task_id) == ("id", "<AsyncResult: id>", "id")
        assert isinstance(result, ResultBase)
        assert AsyncResult[int] is not None

    def test_tuples(self, app: Any) -> None:
        result = AsyncResult("c", app=app, parent=AsyncResult("p", app=app))
        assert result.as_tuple() == (("c", (("p", None), None)), None)
        assert result.as_list() == ["c", "p"]
        for form in (result.as_tuple(), [["c", [["p", None], None]], None], [["c", ["p", None]], None]):
            restored = result_from_tuple(form, app)
            assert (restored, restored.parent, restored.app) == ("c", "p", app)
        assert result_from_tuple(result) is result
        for wrong in ("x", 3):
            with pytest.raises(ValueError, match="expected a result"):
                result_from_tuple(wrong, app)

    def test_copies(self, app: Any) -> None:
        app.set_current()
        result = AsyncResult("c", app=app, parent=AsyncResult("p", app=app))
        for copied in (copy.copy(result), pickle.loads(pickle.dumps(result))):
            assert (copied, copied.parent) == (result, result.parent)
            assert type(copied) is AsyncResult
        bound = pickle.loads(pickle.dumps(app.AsyncResult("id")))
        assert (bound, bound.app) == ("id", app)
        with_backend = AsyncResult("id", backend=app.backend, app=app)
        assert pickle.loads(pickle.dumps(with_backend)).backend.url == app.backend.url

    def test_backends(self, app: Any) -> None:
        other = make_app().backend
        result = app.AsyncResult("id")
        assert result.backend is app.backend
        assert app.AsyncResult("id", backend=other).backend is other
        result.backend = other
        assert result.backend is other
        assert result.supports_native_join is True
        assert app.tasks["tasks.add"].AsyncResult("id").backend is app.backend

    def test_without_an_app_it_is_the_current_ones(self, app: Any) -> None:
        app.set_current()
        assert AsyncResult("id").app is current_app._get_current_object() is app


class TestEager:
    def test_success(self) -> None:
        result: EagerResult[int] = EagerResult("id", 3, "SUCCESS", traceback="tb", name="n")
        assert (result.get(), result.wait(), result.result, result.state, result.status) == (
            3,
            3,
            3,
            "SUCCESS",
            "SUCCESS",
        )
        assert (result.ready(), result.successful(), result.failed(), result.traceback) == (True, True, False, "tb")
        assert (result.name, result.children, result.supports_native_join, result.ignored) == ("n", None, False, False)
        assert result.as_tuple() == (("id", None), None)
        assert repr(result) == "<EagerResult: id>"
        result.forget()
        assert pickle.loads(pickle.dumps(result)).get() == copy.copy(result).get() == 3

    @pytest.mark.parametrize("state", ["FAILURE", "REVOKED"])
    def test_failure(self, state: str) -> None:
        result: EagerResult[Any] = EagerResult("id", KeyError("x"), state)
        with pytest.raises(KeyError):
            result.get()
        assert isinstance(result.get(propagate=False), KeyError)
        with pytest.raises(Exception, match="hi"):
            EagerResult("id", "hi", state).get()

    def test_any_other_state(self) -> None:
        assert EagerResult("id", "hi", "RETRY").get() is None

    def test_revoke(self) -> None:
        result: EagerResult[int] = EagerResult("id", 3, "SUCCESS")
        result.revoke()
        assert result.state == "REVOKED"
        with pytest.raises(TaskRevokedError, match="revoked"):
            result.get()


def test_remote_tracebacks() -> None:
    app = make_app(task_remote_tracebacks=True)
    text = 'Traceback (most recent call last):\n  File "far.py", line 7, in distant\n    boom()\nKeyError: 1\n'
    app.backend.mark_as_failure("id", KeyError(1), text)
    with pytest.raises(KeyError) as raised:
        app.AsyncResult("id").get()
    assert "distant" in [entry.name for entry in raised.traceback]


@pytest.mark.parametrize("text", ["no traceback at all", "Traceback (most recent call last):\n… cut …\nKeyError", ""])
def test_a_remote_traceback_that_is_none(text: str) -> None:
    """[result.11]: the failure is raised all the same."""
    app = make_app(task_remote_tracebacks=True)
    app.backend.mark_as_failure("id", KeyError("x"), traceback=text)
    with pytest.raises(KeyError, match="x"):
        app.AsyncResult("id").get(timeout=1)
