"""What follows from a run: callbacks after success, errbacks after failure. The cases are those of Celery 5.7."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celery import signature
from celery.app.task import Context, Task
from celery.message import Message
from celery.outcome import Failure, Success
from tests.flow.bench import Bench, Heard, document

#: Errback, and whether it is called at once with the failure; otherwise it gets a message with the failed id.
STYLES = [
    ("request_exc_tb", True),
    ("everything", True),
    ("one_and_everything", True),
    ("untyped", True),
    ("one", False),
    ("one_keyword_only", False),
    ("one_and_keywords", False),
    ("bound", False),
    ("class_based", False),
]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def heard(bench: Bench) -> list[tuple[str, Any]]:
    """Errbacks of every shape, and what they were called with."""
    calls: list[tuple[str, Any]] = []
    app = bench.app

    @app.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    @app.task(name="request_exc_tb")
    def request_exc_tb(request: Any, exc: Any, tb: Any) -> None:
        calls.append(("request_exc_tb", (request, exc, tb)))

    @app.task(name="everything")
    def everything(*args: Any) -> None:
        calls.append(("everything", args))

    @app.task(name="one_and_everything")
    def one_and_everything(one: Any, *args: Any) -> None:
        calls.append(("one_and_everything", (one, *args)))

    @app.task(name="untyped", typing=False)
    def untyped(request: Any, exc: Any, tb: Any) -> None:
        calls.append(("untyped", (request, exc, tb)))

    @app.task(name="two")
    def two(a: Any, b: Any) -> None:
        calls.append(("two", (a, b)))

    @app.task(name="one")
    def one(task_id: str) -> None: ...

    @app.task(name="one_keyword_only")
    def one_keyword_only(task_id: str, *, k: int = 1) -> None: ...

    @app.task(name="one_and_keywords")
    def one_and_keywords(task_id: str, **k: Any) -> None: ...

    @app.task(name="bound", bind=True)
    def bound(self: Any, task_id: str) -> None: ...

    @app.task(name="raises")
    def raises(request: Any, exc: Any, tb: Any) -> None:
        raise RuntimeError("errback")

    class ClassBased(Task[..., Any]):
        name = "class_based"

        def run(self, request: Any, exc: Any = None, tb: Any = None) -> None: ...

    app.register_task(ClassBased())
    return calls


def names(outcome: Any) -> list[tuple[str, Any]]:
    """Task and arguments of what follows."""
    messages = [Message.from_envelope(envelope) for _, _, envelope in outcome.follow]
    return [(message.task, json.loads(message.body)[0]) for message in messages]


@pytest.mark.parametrize(("name", "at_once"), STYLES)
def test_styles(bench: Bench, heard: list[tuple[str, Any]], name: str, at_once: bool) -> None:
    app = bench.app
    outcome = bench.run(app.tasks["fail"], link_error=app.signature(name))
    assert type(outcome) is Failure
    assert outcome.record is not None
    if not at_once:
        assert (heard, names(outcome)) == ([], [(name, [outcome.record.id])])
        return
    ((called, (request, exc, traceback)),) = heard
    assert (called, names(outcome)) == (name, [])
    assert isinstance(request, Context)
    assert (request.id, request.__dict__["task"], repr(exc)) == (outcome.record.id, "fail", "ValueError('no')")
    assert traceback.startswith("Traceback")
    assert traceback.rstrip().endswith("ValueError: no")


@pytest.mark.parametrize(
    ("errback", "called", "sent"),
    [
        (("two", (1,), {}), [], [("two", [..., 1])]),
        (("two", (), {"b": 1}), [], [("two", [...])]),
        (("one_and_everything", ("p",), {}), ["one_and_everything"], []),
    ],
)
def test_only_missing_arguments_decide(
    bench: Bench, heard: list[tuple[str, Any]], errback: Any, called: list[str], sent: list[Any]
) -> None:
    name, args, kwargs = errback
    outcome = bench.run(bench.app.tasks["fail"], link_error=bench.app.signature(name, args, kwargs))
    assert [name for name, _ in heard] == called
    filled = [(name, [outcome.record.id if arg is ... else arg for arg in arguments]) for name, arguments in sent]
    assert names(outcome) == filled


def test_stored_arguments_come_last(bench: Bench, heard: list[tuple[str, Any]]) -> None:
    bench.run(bench.app.tasks["fail"], link_error=bench.app.signature("everything", ("mine",)))
    ((_, args),) = heard
    assert (args[3], len(args)) == ("mine", 4)


def test_unknown_tasks_get_messages_and_immutable_ones_their_own_arguments(bench: Bench, heard: Any) -> None:
    app = bench.app
    errbacks = [signature("elsewhere", app=app), app.signature("one", (7,), immutable=True)]
    outcome = bench.run(app.tasks["fail"], link_error=errbacks)
    assert names(outcome) == [("elsewhere", [outcome.record.id]), ("one", [7])]


def test_messages_of_errbacks_are_a_group_below_the_failed_task(bench: Bench, heard: Any) -> None:
    app = bench.app
    outcome = bench.run(app.tasks["fail"], link_error=[app.signature("one"), app.signature("bound")], root_id="root")
    first, second = (Message.from_envelope(envelope).headers for _, _, envelope in outcome.follow)
    assert first["parent_id"] == second["parent_id"] == outcome.record.id
    assert first["root_id"] == second["root_id"] == "root"
    assert first["group"] is not None
    assert (first["group"], first["group_index"], second["group_index"]) == (second["group"], 0, 1)
    assert document(outcome)["children"] == []


@pytest.mark.parametrize("name", ["raises", "two"])
def test_what_an_errback_raises_is_logged_and_the_others_run(
    bench: Bench, heard: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    app = bench.app
    errbacks = [app.signature(name), app.signature("request_exc_tb"), app.signature("one")]
    outcome = bench.run(app.tasks["fail"], link_error=errbacks)
    assert [name for name, _ in heard] == ["request_exc_tb"]
    assert names(outcome) == [("one", [outcome.record.id])]
    assert f"Errback '{name}' raised an exception" in caplog.text
    assert document(outcome)["result"]["exc_type"] == "ValueError"


def test_an_errback_that_cannot_be_sent_is_logged_and_the_others_are(
    bench: Bench, heard: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = bench.app
    wrong = app.signature("bound", kwargs={"nosuch": 1})
    outcome = bench.run(app.tasks["fail"], link_error=[wrong, app.signature("one")])
    assert [name for name, _ in names(outcome)] == ["one"]
    assert "Errback 'bound' cannot be sent" in caplog.text


def test_errbacks_see_the_failure_stored(bench: Bench) -> None:
    states = []

    @bench.app.task(name="errback")
    def errback(request: Any, exc: Any, tb: Any) -> None:
        states.append(bench.app.AsyncResult(request.id).state)

    @bench.app.task(name="fail")
    def fail() -> None:
        raise ValueError

    outcome = bench.run(fail, link_error=errback.s())
    assert (states, outcome.record) == (["FAILURE"], None)


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_callbacks_are_children(bench: Bench) -> None:
    @bench.app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    outcome = bench.run(add, 1, 2, link=[add.s(10), add.si(5, 6)])
    sent = [Message.from_envelope(envelope) for _, _, envelope in outcome.follow]
    members = [[[message.id, None], None] for message in sent]
    assert document(outcome)["children"] == [[[sent[0].headers["group"], None], members]]
    assert sent[0].headers["group"] == sent[1].headers["group"] is not None
    single = bench.run(add, 1, 2, link=add.s(10))
    assert Message.from_envelope(single.follow[0][2]).headers["group"] is None


def test_a_callback_that_does_not_fit_fails_the_task(bench: Bench) -> None:
    @bench.app.task(name="nothing")
    def nothing() -> None: ...

    @bench.app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    outcome = bench.run(add, 1, 2, link=[add.s(1), nothing.s()])
    assert isinstance(outcome, Failure)
    read = document(outcome)
    assert (read["status"], read["result"]["exc_type"], read["children"]) == ("FAILURE", "TypeError", [])
    assert outcome.follow == []


def test_no_callback_follows_a_value_that_cannot_be_kept(bench: Bench) -> None:
    @bench.app.task(name="add")
    def add(x: Any) -> set[int]:
        return {1}

    outcome = bench.run(add, 1, link=add.si(2))
    assert (type(outcome), outcome.follow, document(outcome)["children"]) == (Failure, [], [])


def test_callbacks_carry_the_options_of_their_task_and_pass_its_apply_async(bench: Bench) -> None:
    passed = []

    class Counted(Task[..., Any]):
        abstract = True

        def apply_async(self, *args: Any, **options: Any) -> Any:
            passed.append(self.name)
            return super().apply_async(*args, **options)

    @bench.app.task(name="after", base=Counted, expires=60)
    def after(value: Any) -> None: ...

    @bench.app.task(name="add")
    def add(x: int) -> int:
        return x

    outcome = bench.run(add, 1, link=after.s())
    assert isinstance(outcome, Success)
    (message,) = [Message.from_envelope(envelope) for _, _, envelope in outcome.follow]
    assert (passed, message.expires is not None) == (["after"], True)
    assert bench.waiting() == [], "callbacks travel with the outcome"


def test_publish_signals_hear_of_callbacks(bench: Bench) -> None:
    @bench.app.task(name="add")
    def add(x: int) -> int:
        return x

    add.apply_async((1,), link=add.si(2))
    message = bench.take()
    with Heard("before_task_publish", "after_task_publish") as heard:
        bench.run_message(message)
    assert heard.order == ["before_task_publish", "after_task_publish"]
