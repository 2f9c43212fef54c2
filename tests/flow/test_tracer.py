"""A message is run and comes to an outcome: real tasks and a real runner, no broker's queue between."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kombu.exceptions import EncodeError

from celery import Task, signals
from celery.exceptions import Ignore, Reject, Retry
from celery.message import Message
from celery.outcome import Failure, Ignored, Rejected, Retrying, Success
from tests.flow.bench import Bench, document


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_success(bench: Bench) -> None:
    @bench.app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    outcome = bench.run(add, 2, 3)
    assert isinstance(outcome, Success)
    assert (outcome.record.state, outcome.follow) == ("SUCCESS", [])
    read = document(outcome)
    assert list(read) == ["status", "result", "traceback", "children", "date_done", "task_id"]
    assert (read["status"], read["result"], read["traceback"], read["children"]) == ("SUCCESS", 5, None, [])
    assert (read["task_id"], outcome.record.id) == (outcome.record.id, read["task_id"])
    assert read["date_done"].endswith("+00:00")
    assert outcome.runtime > 0


def test_failure_keeps_type_arguments_and_traceback(bench: Bench) -> None:
    @bench.app.task(name="fail")
    def fail() -> None:
        raise KeyError("a", 2)

    outcome = bench.run(fail)
    assert isinstance(outcome, Failure)
    read = document(outcome)
    assert read["status"] == "FAILURE"
    assert read["result"] == {"exc_type": "KeyError", "exc_message": ["a", 2], "exc_module": "builtins"}
    assert "in fail" in read["traceback"]
    assert outcome.reason == "KeyError('a', 2)"


class Hostile(Exception):
    def __init__(self) -> None:
        super().__init__(object(), {1})

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_hostile_exceptions_are_told_all_the_same(bench: Bench) -> None:
    @bench.app.task(name="fail")
    def fail() -> None:
        raise Hostile

    outcome = bench.run(fail)
    assert isinstance(outcome, Failure)
    assert document(outcome)["result"]["exc_type"] == "Hostile"
    assert "Hostile" in outcome.reason


def test_base_exceptions_are_failures(bench: Bench) -> None:
    class Odd(BaseException):
        pass

    @bench.app.task(name="fail")
    def fail() -> None:
        raise Odd("x")

    assert isinstance(bench.run(fail), Failure)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_leaving_the_process_is_no_outcome(bench: Bench, error: type[BaseException]) -> None:
    @bench.app.task(name="leave")
    def leave() -> None:
        raise error

    with pytest.raises(error):
        bench.run(leave)
    assert leave.request.id is None, "the request must not stay on the stack"


def test_what_cannot_be_encoded_is_a_failure(bench: Bench) -> None:
    @bench.app.task(name="odd")
    def odd() -> set[int]:
        return {1}

    outcome = bench.run(odd)
    assert isinstance(outcome, Failure)
    assert document(outcome)["result"]["exc_type"] == EncodeError.__name__


def test_words_of_the_task(bench: Bench) -> None:
    @bench.app.task(name="say")
    def say(what: str) -> None:
        raise {
            "ignore": Ignore("i"),
            "reject": Reject("r", requeue=False),
            "requeue": Reject("r", requeue=True),
            "retry": Retry("again", exc=ValueError("cause")),
        }[what]

    assert isinstance(bench.run(say, "ignore"), Ignored)
    rejected = bench.run(say, "reject")
    assert isinstance(rejected, Rejected)
    assert (rejected.requeue, document(rejected)["status"]) == (False, "FAILURE")
    requeued = bench.run(say, "requeue")
    assert (requeued.requeue, requeued.record) == (True, None)
    retrying = bench.run(say, "retry")
    assert isinstance(retrying, Retrying)
    read = document(retrying)
    assert (read["status"], read["result"]["exc_type"], read["date_done"]) == ("RETRY", "ValueError", None)


def test_results_are_ignored_by_task_or_by_call(bench: Bench) -> None:
    @bench.app.task(name="quiet", ignore_result=True)
    def quiet() -> int:
        return 1

    @bench.app.task(name="loud")
    def loud() -> int:
        return 1

    assert bench.run(quiet).record is None
    assert bench.run(quiet, ignore_result=False).record is not None
    assert bench.run(loud).record is not None
    assert bench.run(loud, ignore_result=True).record is None


def test_ignored_failures_are_kept_if_asked(bench: Bench) -> None:
    @bench.app.task(name="a", ignore_result=True, store_errors_even_if_ignored=True)
    def kept() -> None:
        raise ValueError

    @bench.app.task(name="b", ignore_result=True)
    def dropped() -> None:
        raise ValueError

    assert bench.run(kept).record.state == "FAILURE"
    assert bench.run(dropped).record is None


def test_started_is_stored_before_the_body(bench: Bench) -> None:
    states = []

    @bench.app.task(name="slow", track_started=True, bind=True)
    def slow(self: Any) -> None:
        result = self.AsyncResult(self.request.id)
        states.append((result.state, set(result.info)))

    bench.run(slow)
    assert states == [("STARTED", {"pid", "hostname"})]


def test_links_follow_with_the_value_first(bench: Bench) -> None:
    @bench.app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    outcome = bench.run(add, 1, 2, link=[add.s(10), add.si(5, 6)])
    first, second = (Message.from_envelope(envelope) for _, _, envelope in outcome.follow)
    assert json.loads(first.body)[0] == [3, 10]
    assert json.loads(second.body)[0] == [5, 6]
    assert first.headers["parent_id"] == outcome.record.id
    assert first.headers["root_id"] == outcome.record.id
    assert first.id != second.id


def test_the_request_says_what_the_message_said(bench: Bench) -> None:
    seen: dict[str, Any] = {}

    @bench.app.task(name="look", bind=True)
    def look(self: Any, x: int) -> None:
        request = self.request
        seen.update({name: getattr(request, name) for name in ("id", "args", "kwargs", "hostname", "headers", "cust")})
        seen.update(info=request.delivery_info, limits=(request.time_limit, request.soft_time_limit))
        seen.update(direct=request.called_directly, eager=request.is_eager)

    outcome = bench.run(look, 1, headers={"cust": 7}, time_limit=9, soft_time_limit=5)
    assert seen == {
        "id": outcome.record.id, "args": [1], "kwargs": {}, "hostname": "w@here", "headers": {"cust": 7}, "cust": 7,
        "info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False},
        "limits": (9, 5), "direct": False, "eager": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"{", "application/json", "DecodeError"),
        (b"[1, 2]", "application/json", "MalformedMessage"),
        (b"x", "application/x-python-serialize", "ContentDisallowed"),
    ],
)
def test_what_cannot_be_read_is_rejected(bench: Bench, body: bytes, kind: str, says: str) -> None:
    @bench.app.task(name="t")
    def t() -> None: ...

    bench.app.finalize()
    outcome = bench.run_message(Message({"task": "t", "id": "i"}, body, content_type=kind))
    assert isinstance(outcome, Rejected)
    assert says in outcome.reason
    assert document(outcome)["status"] == "FAILURE"


def test_unknown_tasks_are_rejected(bench: Bench) -> None:
    outcome = bench.run_message(Message({"task": "nosuch", "id": "i"}, b"[[], {}, {}]"))
    assert isinstance(outcome, Rejected)
    assert document(outcome)["result"]["exc_type"] == "NotRegistered"


def test_order_of_tellings(bench: Bench) -> None:
    told: list[str] = []

    class Hooked(Task[..., Any]):
        abstract = True

        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            told.append("before_start")

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            told.append("on_success")

        def after_return(self, *args: Any) -> None:
            told.append("after_return")

    @bench.app.task(name="t", base=Hooked)
    def body() -> None:
        told.append("body")

    def hear(name: str) -> Any:
        def receiver(**kwargs: Any) -> None:
            told.append(name)

        getattr(signals, name).connect(receiver, weak=False, dispatch_uid=name)
        return receiver

    names = ("task_prerun", "task_success", "task_postrun")
    for name in names:
        hear(name)
    try:
        bench.run(body)
    finally:
        for name in names:
            getattr(signals, name).disconnect(dispatch_uid=name)
    assert told == [
        "task_prerun", "before_start", "body", "on_success", "task_success", "after_return", "task_postrun",
    ]  # fmt: skip


def test_a_failing_hook_changes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Task[..., Any]):
        abstract = True

        def on_success(self, *args: Any) -> None:
            raise ValueError("hook")

    @bench.app.task(name="t", base=Broken)
    def body() -> int:
        return 1

    assert isinstance(bench.run(body), Success)
    assert "on_success handler raised" in caplog.text


def test_compressed_arguments_are_read(bench: Bench) -> None:
    @bench.app.task(name="size")
    def size(text: str) -> int:
        return len(text)

    assert document(bench.run(size, "x" * 5000, compression="zlib"))["result"] == 5000


def test_extended_results(bench: Bench) -> None:
    extended = Bench(result_extended=True)

    @extended.app.task(name="add")
    def add(x: int) -> int:
        return x

    read = document(extended.run(add, 4))
    assert (read["name"], read["args"], read["kwargs"], read["worker"]) == ("add", [4], {}, "w@here")
    assert (read["retries"], read["queue"]) == (0, "celery")
