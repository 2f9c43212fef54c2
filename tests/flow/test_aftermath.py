"""What a failure leaves behind that the main process saw: a hard time limit, the death of a child."""

from __future__ import annotations

from typing import Any

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from celery import Task
from celery.message import Message
from celery.outcome import Failure
from tests.flow.bench import Bench, Heard, document


class Hooked(Task[..., Any]):
    abstract = True
    calls: Any = None

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        state = self.AsyncResult(task_id).state
        self.calls.append(("on_failure", repr(exc), args, kwargs, type(einfo.exception).__name__, state))

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("after_return", status, repr(retval), self.request.id == task_id))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def task(bench: Bench) -> Any:
    calls: list[Any] = []

    @bench.app.task(name="t", base=Hooked, calls=calls)
    def t(*args: Any, **kwargs: Any) -> None: ...

    @bench.app.task(name="at_once")
    def at_once(request: Any, exc: Any, tb: Any) -> None:
        calls.append(("errback", request.id, repr(exc), tb))

    @bench.app.task(name="by_id")
    def by_id(task_id: str) -> None: ...

    return t


def message_of(bench: Bench, task: Any, *args: Any, **options: Any) -> Message:
    task.apply_async(args, {"k": 2}, **options)
    return bench.take()


def test_hard_limit(bench: Bench, task: Any) -> None:
    tasks = bench.app.tasks
    message = message_of(bench, task, 1, link_error=[tasks["at_once"].s(), tasks["by_id"].s()])
    exc = TimeLimitExceeded(3)
    with Heard("task_failure", "task_postrun") as heard:
        outcome = bench.app.assembly.aftermath("w@here")(message, exc)
    assert isinstance(outcome, Failure)
    assert task.calls == [
        ("errback", message.id, repr(exc), None),
        ("on_failure", repr(exc), [1], {"k": 2}, "ExceptionWithTraceback", "FAILURE"),
        ("after_return", "FAILURE", repr(exc), True),
    ]
    assert [Message.from_envelope(envelope).task for _, _, envelope in outcome.follow] == ["by_id"]
    said = heard.of("task_failure")
    assert (said["sender"], said["task_id"], said["exception"], said["args"]) == (task, message.id, exc, [1])
    assert said["einfo"].traceback
    assert task.request.id is None


def test_the_record(bench: Bench, task: Any) -> None:
    aftermath = bench.app.assembly.aftermath("w@here")
    bench.app.tasks["by_id"].delay("x")
    read = document(aftermath(bench.take(), WorkerLostError("x")))
    assert (read["status"], read["result"]["exc_type"], read["traceback"]) == ("FAILURE", "WorkerLostError", None)
    message = message_of(bench, task, 1)
    looked_at = aftermath(message, WorkerLostError("x"))
    assert looked_at.record is None, "on_failure has looked: it is saved"
    assert bench.app.AsyncResult(message.id).state == "FAILURE"


def test_lost_without_hooks(bench: Bench, task: Any) -> None:
    message = message_of(bench, task, 1, link_error=bench.app.tasks["at_once"].s())
    with Heard("task_failure") as heard:
        outcome = bench.app.assembly.aftermath("w@here")(message, WorkerLostError("gone"), hooks=False)
    assert [name for name, *_ in task.calls] == ["errback"]
    assert outcome.record is not None
    assert (heard.order, outcome.record.state) == (["task_failure"], "FAILURE")


def test_nothing_is_kept_of_ignored_results(bench: Bench, task: Any) -> None:
    message = message_of(bench, task, ignore_result=True)
    assert bench.app.assembly.aftermath("w@here")(message, WorkerLostError("x")).record is None


@pytest.mark.parametrize("hook", ["on_failure", "after_return"])
def test_hooks_that_raise_change_nothing(bench: Bench, hook: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken(self: Any, *args: Any) -> None:
        raise ValueError("hook")

    base = type("Broken", (Task,), {"abstract": True, hook: broken})

    @bench.app.task(name="broken", base=base)
    def body() -> None: ...

    body.apply_async()
    outcome: Any = bench.app.assembly.aftermath("w@here")(bench.take(), WorkerLostError("x"))
    assert outcome.record.state == "FAILURE"
    assert f"{hook} handler raised" in caplog.text


@pytest.mark.parametrize("name", ["nosuch", "t"])
def test_what_cannot_be_read_has_failed_all_the_same(bench: Bench, task: Any, name: str) -> None:
    bench.app.finalize()
    outcome = bench.app.assembly.aftermath("w@here")(Message({"task": name, "id": "i"}, b"{"), WorkerLostError("x"))
    assert (
        bench.app.AsyncResult("i").state == "FAILURE" if outcome.record is None else outcome.record.state == "FAILURE"
    )
