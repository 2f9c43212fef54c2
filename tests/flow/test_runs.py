"""The edges of a run: its request, its signals, and the ways out of it. The cases are those of Celery 5.7."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pytest

from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry
from celery.loaders.base import BaseLoader
from celery.outcome import Failure, Ignored, Rejected, Success
from tests.flow.bench import Bench, Heard, document

#: `[task.14]`, with what a message sent with nothing but its arguments says of each.
FIELDS: dict[str, Any] = {
    "args": [1], "kwargs": {"y": 2}, "callbacks": None, "errbacks": None, "chain": None, "chord": None, "group": None,
    "group_index": None, "taskset": None, "parent_id": None, "eta": None, "expires": None, "headers": None,
    "hostname": "w@here", "ignore_result": False, "is_eager": False, "called_directly": False, "logfile": None,
    "loglevel": None, "retries": 0, "replaced_task_nesting": 0, "shadow": None, "timelimit": [None, None],
    "time_limit": None, "soft_time_limit": None, "utc": None, "stamped_headers": None, "stamps": {}, "children": [],
    "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False},
}  # fmt: skip


@pytest.fixture
def bench() -> Bench:
    return Bench()


def seen_by(bench: Bench, names: list[str], **options: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    @bench.app.task(name="look", bind=True)
    def look(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.update({name: getattr(self.request, name) for name in names})
        seen["options"] = self.request.as_execution_options()

    look.apply_async((1,), {"y": 2}, **options)
    bench.run_message(bench.take())
    return seen


def test_every_field_of_a_plain_request(bench: Bench) -> None:
    names = [*FIELDS, "id", "root_id", "correlation_id", "reply_to", "origin", "properties"]
    seen = seen_by(bench, names)
    assert {name: seen[name] for name in FIELDS} == FIELDS
    assert seen["id"] == seen["root_id"] == seen["correlation_id"] == seen["properties"]["correlation_id"]
    assert seen["reply_to"] == seen["properties"]["reply_to"] == bench.app.thread_oid
    assert seen["origin"].startswith("gen")


def test_what_a_call_says_is_in_the_request(bench: Bench) -> None:
    given = {
        "headers": {"foo": "bar"}, "shadow": "sh", "priority": 3, "time_limit": 9, "soft_time_limit": 5,
        "link": bench.app.signature("cb"), "link_error": bench.app.signature("eb"), "retries": 2, "group_id": "g",
        "group_index": 4, "parent_id": "p", "root_id": "r", "ignore_result": True, "expires": 60, "reply_to": "me",
    }  # fmt: skip
    names = (
        "headers foo shadow timelimit time_limit soft_time_limit retries group group_index parent_id root_id".split()
    )
    seen = seen_by(
        bench, [*names, "ignore_result", "callbacks", "errbacks", "delivery_info", "expires", "reply_to"], **given
    )
    assert [seen[name] for name in names] == [{"foo": "bar"}, "bar", "sh", [9, 5], 9, 5, 2, "g", 4, "p", "r"]
    assert (seen["ignore_result"], seen["reply_to"], seen["delivery_info"]["priority"]) == (True, "me", 3)
    assert [[one["task"] for one in seen[name]] for name in ("callbacks", "errbacks")] == [["cb"], ["eb"]]
    options = seen["options"]
    assert (options["time_limit"], options["soft_time_limit"], options["headers"]) == (9, 5, {"foo": "bar"})
    assert (options["expires"], options["link"]) == (seen["expires"], seen["callbacks"])


# -- signals -----------------------------------------------------------------------------------------------------------

ALL = ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "task_internal_error")


def test_signals_of_a_success(bench: Bench) -> None:
    @bench.app.task(name="t")
    def t(*args: Any, **kwargs: Any) -> str:
        return "v"

    with Heard(*ALL) as heard:
        t.apply_async((1,), {"k": 2}, task_id="i")
        bench.run_message(bench.take())
    assert heard.order == ["task_prerun", "task_success", "task_postrun"]
    who = {"sender": t, "task": t, "task_id": "i", "args": [1], "kwargs": {"k": 2}}
    assert heard.of("task_prerun") == who
    assert heard.of("task_postrun") == {**who, "retval": "v", "state": "SUCCESS"}
    success = heard.of("task_success")
    assert (success["sender"], success["result"]) == (t, "v")
    assert success["runtime"] > 0


def test_signals_of_a_failure(bench: Bench) -> None:
    @bench.app.task(name="t")
    def t(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no")

    with Heard(*ALL) as heard:
        t.apply_async((1,), {"k": 2}, task_id="i")
        bench.run_message(bench.take())
    assert heard.order == ["task_prerun", "task_failure", "task_postrun"]
    failure, end = heard.of("task_failure"), heard.of("task_postrun")
    assert sorted(failure) == ["args", "einfo", "exception", "kwargs", "sender", "task_id", "traceback"]
    assert (failure["sender"], failure["task_id"], failure["args"], failure["kwargs"]) == (t, "i", [1], {"k": 2})
    exc, einfo = failure["exception"], failure["einfo"]
    assert isinstance(failure["traceback"], TracebackType)
    assert (einfo.type, einfo.exception.exc, einfo.exception.exc is exc) == (ValueError, exc, True)
    assert (end["state"], end["retval"]) == ("FAILURE", exc)


@pytest.mark.parametrize(("requeue", "told"), [(False, ["task_failure"]), (True, [])])
def test_signals_of_a_rejection(bench: Bench, requeue: bool, told: list[str]) -> None:
    @bench.app.task(name="t")
    def t() -> None:
        raise Reject("r", requeue=requeue)

    with Heard(*ALL) as heard:
        bench.run(t)
    assert heard.order == ["task_prerun", *told, "task_postrun"]
    assert heard.of("task_postrun")["state"] == "REJECTED"


def test_signals_of_what_is_ignored(bench: Bench) -> None:
    calls = []

    class Hooked(Task[..., Any]):
        abstract = True

        def after_return(self, *args: Any) -> None:
            calls.append(args)

    @bench.app.task(name="t", base=Hooked, bind=True)
    def t(self: Any) -> None:
        self.update_state(state="CUSTOM", meta={"n": 1})
        raise Ignore

    with Heard(*ALL) as heard:
        result = t.delay()
        outcome = bench.run_message(bench.take())
    assert (type(outcome), outcome.record, result.state, result.info) == (Ignored, None, "CUSTOM", {"n": 1})
    assert (heard.order, calls) == (["task_prerun", "task_postrun"], [])


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_the_end_is_told_though_the_process_is_left(bench: Bench, error: type[BaseException]) -> None:
    @bench.app.task(name="t")
    def t() -> None:
        raise error

    t.delay()
    with Heard(*ALL) as heard, pytest.raises(error):
        bench.run_message(bench.take())
    end = heard.of("task_postrun")
    assert (heard.order, end["state"], end["retval"]) == (["task_prerun", "task_postrun"], None, None)


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
@pytest.mark.parametrize("error", [ValueError("hook"), Ignore("hook")])
def test_an_error_of_on_failure_is_an_internal_one(bench: Bench, error: Exception) -> None:
    class Hooked(Task[..., Any]):
        abstract = True

        def on_failure(self, *args: Any) -> None:
            raise error

    @bench.app.task(name="errback")
    def errback(task_id: str) -> None: ...

    @bench.app.task(name="t", base=Hooked)
    def t(x: int) -> None:
        raise KeyError("body")

    with Heard(*ALL) as heard:
        outcome = bench.run(t, 1, link_error=errback.s())
    assert type(outcome) is Failure
    assert (document(outcome)["result"]["exc_message"], len(outcome.follow)) == (["hook"], 1)
    assert heard.order == ["task_prerun", "task_postrun", "task_internal_error"]
    said = heard.of("task_internal_error")
    assert (said["sender"], said["args"], said["kwargs"], said["exception"]) == (t, [1], {}, error)
    assert (said["task_id"], said["request"]["id"]) == (outcome.record.id, outcome.record.id)  # type: ignore[union-attr]
    assert isinstance(said["traceback"], TracebackType)
    assert said["einfo"].exception.exc is error


def test_internal_errors_are_warned_of(bench: Bench) -> None:
    class Hooked(Task[..., Any]):
        abstract = True

        def on_failure(self, *args: Any) -> None:
            raise ValueError("hook")

    @bench.app.task(name="t", base=Hooked)
    def t() -> None:
        raise KeyError("body")

    with pytest.warns(RuntimeWarning, match="Exception raised outside body: ValueError"):
        bench.run(t)


def test_an_error_of_before_start_is_the_body_s(bench: Bench) -> None:
    class Hooked(Task[..., Any]):
        abstract = True

        def before_start(self, *args: Any) -> None:
            raise ValueError("early")

    @bench.app.task(name="t", base=Hooked)
    def t() -> None:
        raise AssertionError("must not run")

    with Heard(*ALL) as heard:
        outcome = bench.run(t)
    assert document(outcome)["result"]["exc_message"] == ["early"]
    assert heard.order == ["task_prerun", "task_failure", "task_postrun"]


# -- what becomes of the message ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "acknowledged"), [(None, True), (True, True), (False, False)])
@pytest.mark.parametrize("name", ["acks_on_failure", "acks_on_failure_or_timeout"])
def test_failures_may_be_left_unacknowledged(bench: Bench, name: str, flag: Any, acknowledged: bool) -> None:
    @bench.app.task(name="t", acks_late=True, **{name: flag})
    def t() -> None:
        raise ValueError

    assert bench.run(t).acknowledge is acknowledged


def redelivered(bench: Bench) -> Any:
    message = bench.take()
    message.redelivered = True
    return message


@pytest.mark.parametrize(("late", "configured", "runs"), [(True, True, 1), (False, True, 2), (True, False, 2)])
def test_what_has_succeeded_is_not_run_again(late: bool, configured: bool, runs: int) -> None:
    bench = Bench(worker_deduplicate_successful_tasks=configured)
    ran = []

    @bench.app.task(name="t", acks_late=late)
    def t() -> str:
        ran.append(1)
        return "v"

    t.delay()
    message = bench.take()
    first = bench.run_message(message)
    bench.app.assembly.store.save([first.record])  # type: ignore[union-attr]
    message.redelivered = True
    assert type(bench.run_message(message)) is Success
    assert len(ran) == runs


@pytest.mark.parametrize(("children", "follow"), [(False, 1), (True, 0)])
def test_what_has_succeeded_is_followed_up_once(children: bool, follow: int) -> None:
    bench = Bench(worker_deduplicate_successful_tasks=True)

    @bench.app.task(name="t", acks_late=True)
    def t(x: Any) -> Any:
        raise AssertionError("must not run")

    request = Context({"id": "i", "_children": [bench.app.AsyncResult("c")] if children else None})
    bench.app.backend.store_result("i", "kept", "SUCCESS", request=request)
    t.apply_async((1,), task_id="i", link=t.s())
    outcome = bench.run_message(redelivered(bench))
    assert (type(outcome), outcome.record, len(outcome.follow)) == (Success, None, follow)


def test_what_has_failed_is_run_again() -> None:
    bench = Bench(worker_deduplicate_successful_tasks=True)

    @bench.app.task(name="t", acks_late=True)
    def t() -> str:
        return "v"

    bench.app.backend.store_result("i", ValueError("no"), "FAILURE")
    t.apply_async(task_id="i")
    assert bench.run_message(redelivered(bench)).record.state == "SUCCESS"


def test_rejections_of_tasks_keep_a_failure(bench: Bench) -> None:
    @bench.app.task(name="t", acks_late=True)
    def t() -> None:
        raise Reject("why")

    outcome = bench.run(t)
    assert type(outcome) is Rejected
    read = document(outcome)
    assert (read["status"], read["result"]["exc_type"], read["traceback"]) == ("FAILURE", "Reject", None)


# -- loaders and backends ----------------------------------------------------------------------------------------------


def test_hooks_of_the_loader_surround_a_run(bench: Bench) -> None:
    told: list[Any] = []

    class Loader(BaseLoader):
        def on_task_init(self, task_id: str, task: Any) -> None:
            told.append(("init", task_id, task.name, task.request.id))

        def on_process_cleanup(self) -> None:
            told.append("cleanup")

    bench.app.loader = Loader(app=bench.app)

    @bench.app.task(name="t")
    def t() -> None:
        told.append("body")

    t.apply_async(task_id="i")
    bench.run_message(bench.take())
    assert told == [("init", "i", "t", "i"), "body", "cleanup"]


def test_a_cleanup_that_fails_changes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Loader(BaseLoader):
        def on_process_cleanup(self) -> None:
            raise ValueError("cleanup")

    bench.app.loader = Loader(app=bench.app)

    @bench.app.task(name="t")
    def t() -> None: ...

    assert type(bench.run(t)) is Success
    assert "Process cleanup failed" in caplog.text


def test_signals_of_a_retry(bench: Bench) -> None:
    told: list[Any] = []

    class Hooked(Task[..., Any]):
        abstract = True

        def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append((repr(exc), task_id, args, kwargs, type(einfo.exception.exc).__name__))

        def after_return(self, *args: Any) -> None:
            raise AssertionError("must not be called")

    @bench.app.task(name="t", base=Hooked)
    def t(x: int) -> None:
        raise Retry("again", exc=ValueError("cause"))

    with Heard(*ALL) as heard:
        t.apply_async((1,), task_id="i")
        outcome = bench.run_message(bench.take())
    assert told == [("ValueError('cause')", "i", [1], {}, "Retry")]
    assert heard.order == ["task_prerun", "task_retry", "task_postrun"]
    said, end = heard.of("task_retry"), heard.of("task_postrun")
    assert sorted(said) == ["einfo", "reason", "request", "sender"]
    assert isinstance(said["request"], Context)
    assert (said["sender"], said["request"].id, said["reason"].exc.args) == (t, "i", ("cause",))
    assert (said["einfo"].exception.exc, end["retval"], end["state"]) == (said["reason"], said["reason"], "RETRY")
    assert outcome.record.state == "RETRY"


class Unpicklable(LookupError):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = open(__file__, "rb")  # noqa: SIM115 - files cannot be pickled

    def __reduce__(self) -> Any:
        self.lock.close()
        raise TypeError("not me")


def test_exceptions_that_cannot_be_pickled(bench: Bench) -> None:
    bench = Bench(result_serializer="pickle", accept_content=["json", "pickle"])

    @bench.app.task(name="t")
    def t() -> None:
        raise Unpicklable("why")

    result = t.delay()
    outcome = bench.run_message(bench.take())
    assert type(outcome) is Failure
    bench.app.assembly.store.save([outcome.record])  # type: ignore[union-attr,list-item]
    with pytest.raises(LookupError, match="why") as raised:
        result.get(timeout=1)
    assert raised.type is LookupError, "its first ancestor that can be pickled"
