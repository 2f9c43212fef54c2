"""Tasks run here and now: `Task.apply` and `task_always_eager`, as Celery 5.7 was seen to do them."""

from __future__ import annotations

import json
import logging
import socket

import pytest
from kombu.exceptions import EncodeError

from celery import Task, current_task, signals
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError
from celery.result import AsyncResult, EagerResult, allow_join_result
from tests.compat.apps import memory_app as app
from tests.compat.apps import state
from tests.compat.attempts import taken

__all__ = ["app", "state"]

TOLD = ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "task_internal_error")


@pytest.fixture
def log(request):
    """What is told of a run: hooks of `Hooked`, and signals."""
    heard = []
    receivers = {}
    for name in TOLD:
        receivers[name] = lambda name=name, **values: heard.append((name, values.get("state")))
        getattr(signals, name).connect(receivers[name])
    yield heard
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)


def hooked(heard, **raising):
    """A base class whose hooks write down that they were called, and raise what `raising` says."""

    def hook(name):
        def called(self, *args):
            heard.append((name, args[0]))
            if name in raising:
                raise raising[name]

        return called

    names = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
    return type("Hooked", (Task,), {"abstract": True, **{name: hook(name) for name in names}})


@pytest.fixture
def add(app):
    return app.task(name="add")(lambda x, y: x + y)


@pytest.fixture
def boom(app):
    @app.task(name="boom")
    def boom():
        raise ValueError("boom")

    return boom


# -- apply ----------------------------------------------------------------------------------------------------------


def test_success(app, add):
    result = add.apply((1,), {"y": 2}, task_id="mine")
    assert type(result) is EagerResult
    assert (result.id, result.state, result.result, result.traceback, result.name) == (
        "mine", "SUCCESS", 3, None, "add",
    )  # fmt: skip
    assert result.get() == 3
    assert add.s(1).apply((2,), task_id="zz").id == "zz"
    assert add.s(1).apply((2,)).get() == 3


def test_failure(app, boom):
    result = boom.apply()
    assert (result.state, repr(result.result)) == ("FAILURE", "ValueError('boom')")
    assert 'raise ValueError("boom")' in result.traceback
    with pytest.raises(ValueError, match="boom"):
        result.get()
    assert repr(result.get(propagate=False)) == "ValueError('boom')"


def test_arguments_are_the_very_objects(app):
    thing = object()
    assert app.task(lambda given: given, name="same").apply((thing,)).result is thing


def test_wrong_arguments_are_a_failure(app, add):
    assert type(add.apply((1,)).result) is TypeError


def test_the_order_of_tellings(app, log):
    add = app.task(base=hooked(log), name="add")(lambda x: x)
    add.apply((1,), task_id="i")
    assert log == [
        ("task_prerun", None), ("before_start", "i"), ("on_success", 1), ("task_success", None),
        ("after_return", "SUCCESS"), ("task_postrun", "SUCCESS"),
    ]  # fmt: skip


def test_the_order_of_tellings_of_a_failure(app, log):
    failure = ValueError("f")

    @app.task(base=hooked(log))
    def boom():
        raise failure

    boom.apply(task_id="i")
    assert log == [
        ("task_prerun", None), ("before_start", "i"), ("on_failure", failure), ("task_failure", None),
        ("after_return", "FAILURE"), ("task_postrun", "FAILURE"),
    ]  # fmt: skip


def test_throw_raises_at_once(app, log, boom):
    @app.task(base=hooked(log))
    def failing():
        raise ValueError("f")

    with pytest.raises(ValueError, match="f"):
        failing.apply(task_id="i", throw=True)
    assert log == [
        ("task_prerun", None), ("before_start", "i"), ("task_postrun", None), ("task_internal_error", None),
    ]  # fmt: skip
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="boom"):
        boom.apply()
    assert boom.apply(throw=False).state == "FAILURE"


@pytest.mark.parametrize("hook", ["on_success", "after_return", "on_failure", "on_retry", "before_start"])
def test_errors_of_hooks_are_the_callers(app, log, hook):
    error = RuntimeError(hook)

    @app.task(base=hooked(log, **{hook: error}), bind=True)
    def t(self):
        if hook == "on_failure":
            raise ValueError
        if hook == "on_retry":
            self.retry()

    if hook == "before_start":  # as if the body had raised it
        assert t.apply().result is error
        return
    with pytest.raises(RuntimeError, match=hook):
        t.apply()


@pytest.mark.parametrize(
    ("raised", "state"), [(Ignore(), "IGNORED"), (Reject("why"), "REJECTED"), (Reject("why", requeue=True), "REJECTED")]
)
@pytest.mark.parametrize("throw", [False, True])
def test_instructions(app, log, raised, state, throw):
    @app.task(store_eager_result=True)
    def t():
        raise raised

    result = t.apply(throw=throw)
    assert (result.state, result.result, result.get()) == (state, raised, None)
    assert log == [("task_prerun", None), ("task_postrun", state)]
    assert app.AsyncResult(result.id).state == "PENDING"


def test_leaving_the_process_is_not_held_up(app):
    for leaving in (SystemExit(3), KeyboardInterrupt()):

        @app.task(name=f"t{type(leaving).__name__}")
        def t(leaving=leaving):
            raise leaving

        with pytest.raises(type(leaving)):
            t.apply()
        assert current_task._get_current_object() is None


def test_the_request(app):
    seen = {}

    @app.task(bind=True, name="t")
    def t(self, *args, **kwargs):
        assert current_task._get_current_object() is self
        seen.update(self.request.__dict__, headers=self.request.headers, time_limit=self.request.time_limit)

    t.apply(
        (1,), {"a": 2}, task_id="i", headers={"h": 1}, priority=4, time_limit=5, logfile="f", loglevel=10, retries=2,
        root_id="R", parent_id="P", ignore_result=True, stamped_headers=["s"], s="v", exchange="E", routing_key="rk",
    )  # fmt: skip
    wanted = {
        "id": "i", "task": "t", "args": (1,), "kwargs": {"a": 2}, "root_id": "i", "parent_id": None, "retries": 2,
        "is_eager": True, "called_directly": False, "logfile": "f", "loglevel": 10, "hostname": socket.gethostname(),
        "headers": {"h": 1}, "ignore_result": True, "timelimit": None, "time_limit": None, "callbacks": None,
        "errbacks": None, "stamped_headers": ["s"], "stamps": {"s": ["v"]},
        "delivery_info": {"is_eager": True, "exchange": "E", "routing_key": "rk", "priority": 4},
    }  # fmt: skip
    assert {name: seen[name] for name in wanted} == wanted
    t.apply()
    assert (seen["headers"], seen["loglevel"], seen["retries"]) == (None, 0, 0)


def test_lineage_comes_from_the_task_around(app):
    @app.task(bind=True)
    def child(self):
        return self.request.parent_id, self.request.root_id

    @app.task(bind=True)
    def parent(self):
        result = child.apply()
        return result.result, self.request.children

    assert parent.apply(task_id="P").result == (("P", "P"), [])
    assert child.apply().result[0] is None


def test_a_line_is_logged(app, add, caplog):
    with caplog.at_level(logging.INFO, "celery.app.trace"):
        add.apply((1, 2), task_id="i")
    assert [record.getMessage().partition(" in ")[0] for record in caplog.records] == ["Task add[i] succeeded"]


def test_callbacks_are_sent(app, add, log):
    callback = app.task(lambda *args: args, name="callback")
    add.apply((1, 2), link=[callback.s(9), callback.si(8)], task_id="i")
    assert app.assembly.broker.depth("celery") == 2
    add.apply((1, 2), link=callback.s(7).set(queue="third"), task_id="i")
    message = taken(app, "third")
    assert json.loads(message.body)[0] == [3, 7]
    assert (message.headers["parent_id"], message.headers["root_id"]) == ("i", "i")


def test_waiting_is_allowed_and_tasks_that_wait_in_it_too(app, add):
    @app.task
    def waits():
        return add.apply((1, 2)).get()

    assert waits.apply().get() == 3


def test_a_task_that_is_not_registered_and_one_that_took_a_name(app):
    class Lonely(Task):
        name = "lonely"

        def run(self):
            return "ran"

    task = Lonely()
    task.bind(app)
    assert task.apply().result == "ran"
    assert "lonely" not in app.tasks


def test_hooks_may_be_replaced_by_mocks(app, add, monkeypatch):
    assert add.apply((1, 2)).result == 3
    monkeypatch.setattr(add, "run", lambda *args: "mocked")
    assert add.apply((1, 2)).result == "mocked"


# -- retries --------------------------------------------------------------------------------------------------------


def test_retries_are_run_at_once(app, log):
    seen = []

    @app.task(bind=True, base=hooked(log))
    def t(self, x):
        seen.append((self.request.retries, self.request.id, self.request.root_id, self.request.headers, x))
        if self.request.retries < 2:
            self.retry(args=(x + 1,), countdown=1000)
        return "done"

    result = t.apply((0,), task_id="i", headers={"h": 1})
    assert (result.id, result.state, result.result) == ("i", "SUCCESS", "done")
    assert seen == [(n, "i", "i", {"h": 1}, n) for n in range(3)]
    assert [name for name, _ in log].count("on_retry") == 2
    assert log[-1] == ("task_postrun", "SUCCESS")


def test_exhausted(app):
    @app.task(bind=True, max_retries=2)
    def t(self):
        self.retry(exc=KeyError(self.request.retries))

    result = t.apply()
    assert (result.state, result.result.args) == ("FAILURE", (2,))


def test_throw_raises_retry(app):
    @app.task(bind=True)
    def t(self):
        self.retry(countdown=3)

    with pytest.raises(Retry) as caught:
        t.apply(throw=True)
    assert (caught.value.is_eager, caught.value.when, caught.value.sig.task) == (True, 3, t.name)


def test_links_survive_retries(app):
    callback = app.task(lambda *args: args, name="callback")

    @app.task(bind=True)
    def t(self):
        if not self.request.retries:
            self.retry()

    t.apply(link=callback.s())
    assert taken(app).task == "callback"


def test_without_raising_nothing_is_run_again(app):
    runs = []

    @app.task(bind=True)
    def t(self):
        runs.append(1)
        return str(self.retry(throw=False, countdown=2))

    assert t.apply().result == "Retry in 2s"
    assert runs == [1]
    assert app.assembly.broker.depth("celery") == 0


# -- always eager ---------------------------------------------------------------------------------------------------


@pytest.fixture
def eager(app):
    app.conf.task_always_eager = True
    app.conf.broker_url = "nowhere://"  # none is needed
    return app


def test_calls_are_run_here(eager, add):
    result = add.delay(1, 2)
    assert (type(result), result.result) == (EagerResult, 3)
    assert add.apply_async((1, 2), task_id="mine", countdown=5, queue="q").id == "mine"
    assert add.s(1).delay(2).get() == 3


def test_the_setting_may_change(app, add):
    for always in (False, True, False):
        app.conf.task_always_eager = always
        assert (type(add.delay(1, 2)) is EagerResult) is always
    assert app.assembly.broker.depth("celery") == 2


def test_arguments_go_through_the_serializer(eager):
    @eager.task(name="echo", bind=True)
    def echo(self, *args, **kwargs):
        return self.request.args, args, kwargs

    assert echo.delay((1, 2), {3: 4}, k={5}.__len__()).result == ([[1, 2], {"3": 4}], ([1, 2], {"3": 4}), {"k": 1})
    with pytest.raises(EncodeError):
        echo.delay(object())
    assert echo.apply_async(((1, 2),), serializer="pickle").result[1] == ((1, 2),)


def test_arguments_are_checked(eager, add):
    with pytest.raises(TypeError):
        add.delay(1)


def test_waiting_inside_tasks_is_forbidden(eager, add):
    @eager.task
    def waits():
        return add.delay(1, 2).get()

    @eager.task
    def may_wait():
        with allow_join_result():
            return add.delay(1, 2).get()

    assert "Never call result.get() within a task" in str(waits.delay().result)
    assert waits.apply().result == 3
    assert may_wait.delay().result == 3


def test_failures_are_raised_if_they_propagate(eager, boom):
    assert boom.delay().state == "FAILURE"
    with pytest.raises(ValueError, match="boom"):
        boom.apply_async(throw=True)
    eager.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="boom"):
        boom.delay()


def test_callbacks_are_run_before_the_task_is_done(eager, log):
    Base = hooked(log)  # noqa: N806
    add = eager.task(base=Base, name="add")(lambda x, y: x + y)
    callback = eager.task(base=Base, name="callback")(lambda x, y: x * y)
    add.apply_async((1, 2), link=callback.s(10))
    assert [told for told in log if told[0] == "on_success"] == [("on_success", 30), ("on_success", 3)]


def test_a_callback_that_cannot_be_sent_fails_the_task(eager, add):
    result = add.apply_async((1, 2), link={"task": "add", "args": (object(),), "kwargs": {}, "options": {}})
    assert (result.state, type(result.result)) == ("FAILURE", EncodeError)


def test_nothing_is_stored_unless_asked(eager, add):
    assert eager.AsyncResult(add.delay(1, 2).id).state == "PENDING"


@pytest.mark.parametrize("by_setting", [False, True])
def test_results_are_stored_if_asked(eager, by_setting):
    states = []
    eager.conf.task_store_eager_result = by_setting

    @eager.task(bind=True, track_started=True, **({} if by_setting else {"store_eager_result": True}))
    def t(self, fail=False):
        states.append(eager.AsyncResult(self.request.id).state)
        if not self.request.retries:
            self.retry()
        if fail:
            raise KeyError("f")
        return 5

    stored = eager.AsyncResult(t.delay().id)
    assert (stored.state, stored.result) == ("SUCCESS", 5)
    stored = eager.AsyncResult(t.delay(fail=True).id)
    assert (stored.state, repr(stored.result)) == ("FAILURE", "KeyError('f')")
    assert "in t\n" in stored.traceback
    assert states == ["PENDING", "RETRY"] * 2  # never STARTED
    assert eager.AsyncResult(t.apply_async(ignore_result=True).id).state == "PENDING"


def test_what_cannot_be_stored_is_a_failure(eager):
    def make():
        return object()

    assert eager.task(make, name="kept", store_eager_result=True).delay().state == "FAILURE"
    assert eager.task(make, name="dropped").delay().state == "SUCCESS"


def test_a_result_ignored_is_a_result_all_the_same(eager):
    result = eager.task(lambda: 3, name="t", ignore_result=True).delay()
    assert (result.state, result.get()) == ("SUCCESS", 3)


def test_revoking_what_has_run(eager, boom):
    result = boom.delay()
    result.revoke()
    assert (result.state, type(result.result), result.traceback) == ("REVOKED", TaskRevokedError, None)


def test_an_overridden_apply_is_called(eager):
    class Mine(Task):
        def apply(self, *args, **kwargs):
            return "mine"

    assert eager.task(base=Mine)(lambda: None).delay() == "mine"


def test_a_worker_is_not_what_this_is(app, add):
    assert type(add.delay(1, 2)) is not EagerResult
    assert isinstance(add.delay(1, 2), AsyncResult)


@pytest.mark.parametrize("always", [False, True])
def test_errbacks_are_called_in_place(app, boom, always):
    app.conf.task_always_eager = always
    seen = []

    @app.task(name="errback")
    def errback(request, exc, traceback, more):
        seen.append((request.id, request.is_eager, repr(exc), "boom" in traceback, more))

    (boom.apply_async if always else boom.apply)(link_error=errback.s(9), task_id="i")
    assert seen == [("i", True, "ValueError('boom')", True, 9)]


def test_errbacks_by_id_are_run_too(eager, boom):
    seen = []

    @eager.task(name="by_id")
    def by_id(task_id):
        seen.append(task_id)

    boom.apply_async(link_error=by_id.s(), task_id="i")
    assert seen == ["i"]
