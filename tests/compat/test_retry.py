"""`Task.retry`, what it sends, and tasks that retry by themselves; all as Celery 5.7 was seen to do."""

from __future__ import annotations

import datetime as dt
import functools
import json

import pytest
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from celery import Task, signals
from celery.app.autoretry import add_autoretry_behaviour
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry
from celery.outcome import Failure, Rejected, Retrying, Success
from tests.compat.apps import memory_app as app
from tests.compat.apps import state
from tests.compat.attempts import Reasons, attempts, run, taken

__all__ = ["app", "state"]


@pytest.fixture
def again(app):
    """A task that retries as its keyword arguments say, unless called directly or tried before."""

    @app.task(bind=True, name="again", typing=False)
    def again(self, *args, **options):
        if self.request.retries == 0:
            self.retry(**options)
        return "done"

    return again


def followed(app, result_or_message):
    """The message of the second attempt."""
    seen = attempts(app, result_or_message)
    assert len(seen.messages) == 2
    return seen.messages[1]


def body(message):
    return json.loads(message.body)


# -- what is sent ---------------------------------------------------------------------------------------------------


def test_the_same_call_goes_to_the_same_queue_with_the_same_options(app, again):
    app.conf.task_queues = [Queue("lopri", Exchange("ex"), "key"), Queue("celery")]
    options = {
        "headers": {"tenant": "t1"}, "priority": 4, "expires": 1000, "time_limit": 100, "soft_time_limit": 50,
        "shadow": "other", "link": again.s(), "link_error": again.s(1), "group_id": "G", "group_index": 2,
        "reply_to": "somewhere", "origin": "me", "ignore_result": True, "queue": "lopri", "countdown": 5,
        "stamped_headers": ["stamp"], "stamp": ["v"],
    }  # fmt: skip
    again.apply_async((1,), {"countdown": 7}, **options)
    first = taken(app, "lopri")
    second = followed(app, first)
    same = [name for name in first.headers if name not in ("eta", "retries", "parent_id")]
    assert {name: second.headers[name] for name in same} == {name: first.headers[name] for name in same}
    assert second.headers["tenant"] == "t1"
    assert (first.retries, second.retries) == (0, 1)
    assert body(second) == body(first)
    assert (second.exchange, second.routing_key) == (first.exchange, first.routing_key) == ("", "lopri")
    for name in ("priority", "reply_to", "correlation_id", "delivery_mode"):
        assert second.properties[name] == first.properties[name], name


def test_exchange_and_key_are_kept_where_there_is_an_exchange(app, again):
    app.conf.task_queues = [Queue("topics", Exchange("ex", type="topic"), "a.*")]
    app.conf.task_default_queue = "topics"
    again.apply_async(exchange="ex", routing_key="a.b", kwargs={"countdown": 0})
    second = followed(app, taken(app, "topics"))
    assert (second.exchange, second.routing_key) == ("ex", "a.b")


def test_lineage(app, again):
    again.delay()
    first = taken(app)
    assert first.headers["parent_id"] is None
    second = followed(app, first)
    assert (second.id, second.headers["root_id"]) == (first.id, first.id)
    assert second.headers["parent_id"] == first.id  # the attempt that runs sends it
    again.apply_async(root_id="R", parent_id="P")
    second = followed(app, taken(app))
    assert (second.headers["root_id"], second.headers["parent_id"]) == ("R", "P")


def test_what_rabbitmq_noted_is_not_sent_back(app, again):
    noted = {"x-death": [{"count": 1}], "X-First-Death-Queue": "q", "x-last-death-reason": "expired", "x-mine": 1}
    again.apply_async(headers=noted)
    sent = {name for name in followed(app, taken(app)).headers if name.lower().startswith("x-")}
    assert sent == {"x-mine"}


@pytest.mark.parametrize(
    ("args", "kwargs", "given", "expected"),
    [
        ((1,), {"y": 2}, {"args": (5, 6)}, ((5, 6), {})),
        ((1, 2), {}, {"kwargs": {"x": 7}}, ((7, 2), {})),
        ((1, 2), {"a": 5}, {"kwargs": {"y": 7}}, ((1, 7), {})),
        ((), {"x": 1, "y": 2}, {"args": (9,)}, ((9,), {"y": 2})),
        ((1, 2), {"a": 5}, {"kwargs": {}}, ((1, 2), {})),
        ((1, 2), {"a": 5}, {"args": ()}, ((), {"a": 5})),
        ((1, 2), {"a": 5}, {"args": (3,), "kwargs": {"z": 4}}, ((3,), {"z": 4})),
        ((1, 2), {"a": 5}, {}, ((1, 2), {"a": 5})),
    ],
)
def test_arguments_given_and_those_of_the_call(app, args, kwargs, given, expected):
    @app.task(bind=True, typing=False)
    def positional(self, x, y=2, *, a=1, z=None):
        self.retry(**given)

    signature = in_a_run(positional, lambda: positional.retry(**given), args=args, kwargs=kwargs).sig
    assert (signature.args, signature.kwargs) == expected


def test_arguments_are_not_bound_through_the_wrapper_of_autoretry(app):
    @app.task(bind=True, autoretry_for=(KeyError,))
    def positional(self, x, y): ...

    signature = in_a_run(positional, lambda: positional.retry(kwargs={"y": 3}), args=(1, 2), kwargs={}).sig
    assert (signature.args, signature.kwargs) == ((1, 3), {})


def in_a_run(task, function, **request):
    """The `Retry` that a function raises while an eager run of the task is going on."""
    fields = {"id": "ID", "args": (), "kwargs": {}, "called_directly": False, "is_eager": True, "retries": 0}
    task.push_request(**{**fields, **request})
    try:
        with pytest.raises(Retry) as caught:
            function()
    finally:
        task.pop_request()
    return caught.value


# -- when -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "seconds"), [({}, 180), ({"countdown": 0}, 0), ({"countdown": 2.5}, 2.5), ({"countdown": 30}, 30)]
)
def test_the_delay(app, again, options, seconds):
    again.delay(**options)
    with Reasons() as reasons:
        seen = attempts(app, taken(app))
    assert reasons.delays == [seconds]
    assert seen.delays == [pytest.approx(seconds, abs=0.2)]


def test_an_eta(app, again):
    at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)

    @app.task(bind=True)
    def later(self):
        self.retry(eta=at)

    later.delay()
    outcome = run(app, taken(app))
    assert at.isoformat() in outcome.follow[0][2].decode()
    assert isinstance(outcome, Retrying)


def test_the_tasks_own_delay(app):
    @app.task(bind=True, default_retry_delay=3)
    def later(self):
        if not self.request.retries:
            self.retry()

    later.delay()
    assert attempts(app, taken(app)).delays == [pytest.approx(3, abs=0.2)]


# -- how often ------------------------------------------------------------------------------------------------------


def tried(app, task, *args, **kwargs):
    task.apply_async(args, kwargs)
    return len(attempts(app, taken(app)).messages)


def test_limits(app):
    @app.task(bind=True, max_retries=2)
    def limited(self, **options):
        self.retry(**options)

    @app.task(bind=True, max_retries=None)
    def forever(self):
        if self.request.retries < 20:
            self.retry()

    assert tried(app, limited) == 3
    assert tried(app, limited, max_retries=5) == 6
    assert tried(app, limited, max_retries=0) == 1
    assert tried(app, limited) == 3, "what one call says of itself is nothing to the next"
    assert tried(app, forever) == 21


def test_exhaustion_is_told_with_the_call(app):
    @app.task(bind=True, name="t", max_retries=0)
    def t(self, a, b=0):
        self.retry(kwargs={"b": 5})

    result = t.delay(1)
    assert isinstance(run(app, taken(app)), Failure)
    with pytest.raises(MaxRetriesExceededError) as caught:
        result.get()
    assert str(caught.value) == f"Can't retry t[{result.id}] args:(1,) kwargs:{{'b': 5}}"
    eager = t.apply((1,)).result
    assert (eager.task_args, eager.task_kwargs) == ((1,), {"b": 5})


def test_exhaustion_raises_what_was_given(app):
    @app.task(bind=True, max_retries=0)
    def t(self):
        self.retry(exc=KeyError("mine"))

    result = t.delay()
    run(app, taken(app))
    assert (result.state, result.result.args) == ("FAILURE", ("mine",))


def test_another_exception_class_may_say_so(app):
    class Enough(Exception):
        def __init__(self, *args, task_args, task_kwargs):
            super().__init__(*args)

    @app.task(bind=True, max_retries=0)
    def t(self):
        self.retry()

    t.MaxRetriesExceededError = Enough
    assert type(t.apply().result) is Enough


# -- in the run -----------------------------------------------------------------------------------------------------


def test_the_state_while_it_waits(app, again):
    result = again.delay(countdown=3)
    outcome = run(app, taken(app))
    assert isinstance(outcome, Retrying)
    assert (result.state, str(result.result)) == ("RETRY", "Retry in 3s")
    assert "celery.exceptions.Retry: Retry in 3s" in result.traceback
    assert not result.ready()
    assert result.children == []


def test_the_cause_is_what_the_state_shows(app):
    @app.task(bind=True)
    def t(self):
        try:
            raise KeyError("cause")
        except KeyError as exc:
            raise self.retry(exc=exc) from exc

    result = t.delay()
    run(app, taken(app))
    assert (result.state, repr(result.result)) == ("RETRY", "KeyError('cause')")


def test_the_next_attempt_goes_out_when_the_run_is_settled(app, again):
    again.delay()
    outcome = run(app, taken(app))
    assert app.assembly.broker.depth("celery") == 0
    assert len(outcome.follow) == 1


def test_it_goes_out_even_if_the_task_swallows_retry_or_a_hook_fails(app):
    class Hooked(Task):
        def on_retry(self, *args):
            raise RuntimeError("hook")

    @app.task(bind=True, base=Hooked)
    def hooked(self):
        self.retry()

    @app.task(bind=True)
    def swallows(self):
        try:
            self.retry()
        except Retry:
            return "swallowed"

    swallows.delay()
    outcome = run(app, taken(app))
    assert (type(outcome), len(outcome.follow)) == (Success, 1)
    hooked.delay()
    outcome = run(app, taken(app))
    assert (type(outcome), len(outcome.follow)) == (Failure, 1)


def test_without_raising_it_is_sent_at_once(app):
    waiting = []

    @app.task(bind=True)
    def t(self):
        answer = self.retry(throw=False, countdown=1)
        waiting.append(app.assembly.broker.depth("celery"))
        return repr(answer)

    result = t.delay()
    assert isinstance(run(app, taken(app)), Success)
    assert waiting == [1]
    assert result.get(timeout=0).startswith("Retry(")
    assert taken(app).retries == 1


def test_what_cannot_be_sent_is_rejected(app, monkeypatch):
    @app.task(bind=True)
    def unserialisable(self, n):
        self.retry(args=(object(),))

    @app.task(bind=True)
    def misfit(self):
        self.retry(args=(1, 2, 3))

    @app.task(bind=True)
    def unreachable(self):
        self.retry(throw=False)

    unserialisable.delay(1)
    outcome = run(app, taken(app))
    assert isinstance(outcome, Rejected)
    assert not outcome.requeue
    assert "not JSON serializable" in outcome.reason

    misfit.delay()
    assert isinstance(run(app, taken(app)), Rejected)

    def refuse(*args, **kwargs):
        raise OperationalError("away")

    unreachable.delay()
    message = taken(app)
    monkeypatch.setattr(Task, "apply_async", refuse)
    outcome = run(app, message)
    assert isinstance(outcome, Rejected)
    assert "away" in outcome.reason


def test_publishing_is_told(app, again):
    heard = []

    def before(headers=None, **_):
        heard.append(("before", headers["retries"]))
        headers["traced"] = "yes"

    def after(headers=None, **_):
        heard.append(("after", headers["retries"]))

    again.delay()
    message = taken(app)
    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        second = followed(app, message)
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert heard == [("before", 1), ("after", 1)]
    assert second.headers["traced"] == "yes"


def test_a_replaced_apply_async_is_called(app):
    calls = []

    class Mine(Task):
        def apply_async(self, args=None, kwargs=None, **options):
            calls.append(options.get("retries", 0))
            return super().apply_async(args, kwargs, **options)

    @app.task(bind=True, base=Mine)
    def t(self):
        if not self.request.retries:
            self.retry()

    t.delay()
    followed(app, taken(app))
    assert calls == [0, 1]


# -- called directly ------------------------------------------------------------------------------------------------


def test_called_directly_nothing_is_sent(app):
    @app.task(bind=True)
    def t(self, **options):
        self.retry(**options)

    @app.task(bind=True)
    def handling(self, choose):
        try:
            raise KeyError("handled")
        except KeyError as exc:
            self.retry(exc=choose(exc))

    with pytest.raises(ValueError, match="given") as caught:
        t(exc=ValueError("given"))
    assert caught.value.__cause__ is None
    for options in ({}, {"throw": False}, {"max_retries": 0}):
        with pytest.raises(Retry, match="Task can be retried"):
            t(**options)
    with pytest.raises(KeyError, match="handled") as caught:
        handling(lambda exc: exc)
    assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match="other") as caught:
        handling(lambda exc: ValueError("other"))
    assert repr(caught.value.__cause__) == "KeyError('handled')"
    with pytest.raises(Retry) as caught:
        handling(lambda exc: None)
    assert repr(caught.value.__cause__) == "KeyError('handled')"
    assert app.assembly.broker.depth("celery") == 0


# -- signatures -----------------------------------------------------------------------------------------------------


def test_the_signature_of_a_request(app, again):
    again.push_request(
        id="ID", args=(1, 2), kwargs={"a": 1}, called_directly=False, root_id="R", parent_id="P", group="G",
        group_index=3, timelimit=[5, 4], headers={"h": 1}, callbacks=[{"task": "cb"}], retries=4, ignore_result=True,
        stamped_headers=["s"], stamps={"s": [1]}, delivery_info={"exchange": "", "routing_key": "rk", "priority": 3},
    )  # fmt: skip
    try:
        signature = again.signature_from_request()
        changed = again.subtask_from_request(args=(9,), kwargs={"b": 1}, queue="Q", countdown=3, retries=5)
    finally:
        again.pop_request()
    assert (signature.task, signature.args, signature.kwargs) == ("again", (1, 2), {"a": 1})
    assert {name: value for name, value in signature.options.items() if value is not None} == {
        "task_id": "ID", "root_id": "R", "parent_id": "P", "group_id": "G", "group_index": 3, "time_limit": 5,
        "soft_time_limit": 4, "headers": {"h": 1}, "link": [{"task": "cb"}], "retries": 4, "ignore_result": True,
        "replaced_task_nesting": 0, "stamped_headers": ["s"], "s": [1], "priority": 3, "queue": "rk",
    }  # fmt: skip
    assert (changed.args, changed.kwargs) == ((9,), {"b": 1})
    wanted = {"queue": "Q", "countdown": 3, "retries": 5}
    assert {name: changed.options[name] for name in wanted} == wanted
    assert "priority" not in changed.options


def test_aliases(app):
    assert Task.subtask_from_request is Task.signature_from_request


# -- by itself ------------------------------------------------------------------------------------------------------


def test_ignore_and_retry_pass_and_reject_is_an_exception_like_others(app):
    raising = {}

    @app.task(bind=True, autoretry_for=(Exception,), max_retries=1)
    def t(self):
        raise raising["exc"]

    def states(exc):
        raising["exc"] = exc
        with Reasons() as reasons:
            result = t.apply()
        return result.state, len(reasons)

    assert states(Ignore()) == ("IGNORED", 0)
    assert states(Retry("mine")) == ("RETRY", 1)
    assert states(Reject("no")) == ("REJECTED", 1)


def test_wrapping_happens_once(app):
    class Base(Task):
        autoretry_for = (ValueError,)
        max_retries = 2
        runs = 0

        def run(self):
            type(self).runs += 1
            raise ValueError

    class Derived(Base):
        name = "derived"

    task = app.register_task(Derived())
    wrapped = task.run
    assert task._orig_run == Derived.run.__get__(task)
    add_autoretry_behaviour(task)
    app.register_task(task)
    task.bind(app)
    app.finalize()
    assert task.run is wrapped
    with Reasons() as reasons:
        task.apply()
    assert (Derived.runs, len(reasons)) == (3, 2)
    assert Derived.run is Base.run


def test_a_base_class_may_hold_the_policy(app):
    class Patient(Task):
        autoretry_for = (ValueError,)
        retry_backoff = 2
        retry_jitter = False
        max_retries = 2

    @app.task(base=Patient)
    def t():
        raise ValueError

    with Reasons() as reasons:
        t.apply()
    assert reasons.delays == [2, 4]


def test_options_come_before_attributes(app):
    @app.task(name="t")
    def t():
        raise KeyError

    add_autoretry_behaviour(t, autoretry_for=(KeyError,), retry_kwargs={"max_retries": 1, "countdown": 9})
    with Reasons() as reasons:
        t.apply()
    assert reasons.delays == [9]


def test_the_arguments_of_one_attempt_are_nothing_to_the_next(app):
    arguments = {"countdown": 5, "headers": {"a": 1}}

    @app.task(autoretry_for=(KeyError,), retry_kwargs=arguments, retry_backoff=1, retry_jitter=False)
    def t():
        raise KeyError

    with Reasons() as reasons:
        t.apply()
    assert reasons.delays == [1, 2, 4]
    assert arguments == {"countdown": 5, "headers": {"a": 1}}


def test_called_directly_the_error_is_the_callers(app):
    @app.task(autoretry_for=(ValueError,))
    def t():
        raise ValueError("direct")

    with pytest.raises(ValueError, match="direct"):
        t()


def test_back_off_holds_for_an_explicit_retry_that_names_no_time(app):
    @app.task(bind=True, retry_backoff=5, retry_jitter=False)
    def t(self, **options):
        self.retry(**options)

    def delays(**options):
        with Reasons() as reasons:
            t.apply(kwargs=options)
        return reasons.delays

    at = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    assert delays() == [5, 10, 20]
    assert delays(countdown=1) == [1, 1, 1]
    assert delays(eta=at) == [at, at, at]


def test_what_is_no_exception_is_refused_at_the_declaration(app):
    with pytest.raises(TypeError, match="autoretry_for: expected exception classes"):
        app.task(autoretry_for=("ValueError",), lazy=False)(lambda: None)


# -- declared otherwise ---------------------------------------------------------------------------------------------


def test_one_instance_of_a_custom_base_serves_all_requests(app):
    class Caching(Task):
        abstract = True

        def __init__(self):
            self.made = getattr(self, "made", 0) + 1
            self.seen = []

    @app.task(base=Caching, bind=True)
    def t(self, n):
        self.seen.append(n)
        return self.made, list(self.seen)

    assert t.apply((1,)).result == (1, [1])
    t.delay(2)
    run(app, taken(app))
    assert t(3) == (1, [1, 2, 3])


def test_other_decorators_go_below(app):
    def doubled(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return 2 * function(*args, **kwargs)

        return wrapper

    @app.task(name="t", autoretry_for=(KeyError,))
    @doubled
    def t(x):
        return x

    assert (t(1), t.apply((2,)).result) == (2, 4)
    result = t.delay(3)
    run(app, taken(app))
    assert result.get(timeout=0) == 6


def test_calls_go_through_instances(app):
    class Mine(Task):
        name = "mine"

        def run(self): ...

    with pytest.raises(TypeError):
        Mine.delay()


def test_retry_can_be_mocked(app, monkeypatch):
    @app.task(bind=True)
    def t(self, x):
        try:
            return 1 / x
        except ZeroDivisionError as exc:
            raise self.retry(exc=exc)  # noqa: B904 - as users write it

    calls = []
    monkeypatch.setattr(t, "retry", lambda **options: calls.append(options) or Retry())
    with pytest.raises(Retry):
        t(0)
    assert [list(options) for options in calls] == [["exc"]]
    monkeypatch.setattr(t, "run", lambda x: "mocked")
    assert t(0) == "mocked"


def test_names_of_old_that_a_request_does_not_have(app):
    seen = []

    @app.task(bind=True)
    def t(self):
        seen.append((hasattr(self.request, "task_id"), hasattr(self.request, "task_name"), self.request.taskset))

    t.apply_async(group_id="G")
    run(app, taken(app))
    assert seen == [(False, False, None)]  # as in 5.7, where the group is `request.group` alone
