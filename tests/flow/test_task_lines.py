"""What a worker writes of a run: the lines of `[task.74]`, and those that a task writes itself (`[task.69]`)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from celery.app import trace
from celery.app.log import TaskFormatter
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.log import get_task_logger
from tests.flow.bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def say(bench: Bench) -> Any:
    @bench.app.task(name="say", throws=(KeyError,))
    def say(what: str) -> str:
        if what == "value":
            return "v"
        raise {
            "error": ValueError("no"),
            "expected": KeyError("x"),
            "ignore": Ignore("i"),
            "reject": Reject("r", requeue=False),
            "retry": Retry("again", exc=ValueError("cause"), when=5),
        }[what]

    return say


LINES = [
    ("value", "INFO", r"Task say[i] succeeded in RUNTIMEs: 'v'", False),
    ("error", "ERROR", "Task say[i] raised unexpected: ValueError('no')", True),
    ("expected", "INFO", "Task say[i] raised expected: KeyError('x')", False),
    ("ignore", "INFO", "Task say[i] ignored", False),
    ("reject", "WARNING", "Task say[i] reject requeue=False: r", True),
    ("retry", "INFO", "Task say[i] retry: again", False),
]


@pytest.mark.parametrize(("what", "level", "line", "traceback"), LINES)
def test_lines(
    bench: Bench, say: Any, caplog: pytest.LogCaptureFixture, what: str, level: str, line: str, traceback: bool
) -> None:
    caplog.set_level(logging.INFO, "celery.app.trace")
    say.apply_async((what,), task_id="i")
    outcome = bench.run_message(bench.take())
    (record,) = [record for record in caplog.records if record.name == "celery.app.trace"]
    assert (record.levelname, bool(record.exc_info)) == (level, traceback)
    assert record.getMessage() == line.replace("RUNTIME", str(outcome.runtime))
    data = record.__dict__["data"]
    assert (data["id"], data["name"], data["args"], data["kwargs"]) == ("i", "say", f"({what!r},)", "{}")
    if what == "value":
        assert (data["runtime"], data["return_value"]) == (outcome.runtime, "'v'")
    else:
        assert (data["hostname"], data["internal"]) == ("w@here", False)
        assert ("Traceback" in (data["traceback"] or "")) == (what not in ("ignore",))


def test_users_replace_the_formats(
    bench: Bench, say: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "celery.app.trace")
    monkeypatch.setattr(trace, "LOG_SUCCESS", "did %(name)s")
    monkeypatch.setattr(trace, "LOG_FAILURE", "%(description)s %(name)s %(exc)s")
    bench.run(say, "value")
    bench.run(say, "error")
    assert [record.getMessage() for record in caplog.records if record.name == "celery.app.trace"] == [
        "did say", "raised unexpected say ValueError('no')",
    ]  # fmt: skip


def test_lines_show_the_shadow(bench: Bench, say: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "celery.app.trace")
    bench.run(say, "value", shadow="umbrella")
    assert "Task umbrella[" in caplog.text


def test_hidden_arguments_stay_hidden(
    bench: Bench, say: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "celery.app.trace")
    monkeypatch.setattr(trace, "LOG_SUCCESS", "%(args)s %(kwargs)s")
    bench.run(say, "value", argsrepr="(***)", kwargsrepr="{***}")
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["data"]["args"]) == ("(***) {***}", "(***)")


def test_a_task_s_own_lines_name_it(bench: Bench) -> None:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Kept()
    handler.setFormatter(TaskFormatter("%(task_name)s %(task_id)s %(message)s", use_color=False))
    logger = get_task_logger("linesproj.tasks")
    logger.addHandler(handler)
    assert logger.parent is logging.getLogger("celery.task")

    @bench.app.task(name="talk")
    def talk() -> None:
        logger.warning("inside")

    try:
        logger.warning("outside")
        talk.apply_async(task_id="i")
        bench.run_message(bench.take())
    finally:
        logger.removeHandler(handler)
    assert lines == ["??? ??? outside", "talk i inside"]


# -- what every app has ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "kwargs", "result"), [((1, 2), {}, [1, 2]), ((1, 2), {"index": 1}, 2), ((), {}, [])])
def test_accumulate(bench: Bench, args: Any, kwargs: Any, result: Any) -> None:
    bench.app.finalize()
    outcome_of = bench.app.send_task("celery.accumulate", args, kwargs)
    bench.app.assembly.store.save([bench.run_message(bench.take()).record])  # type: ignore[union-attr]
    assert outcome_of.get(timeout=1) == result


def test_backend_cleanup(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.app.finalize()
    cleaned = []
    monkeypatch.setattr(bench.app.backend, "cleanup", lambda: cleaned.append(1))
    bench.app.send_task("celery.backend_cleanup")
    assert bench.run_message(bench.take()).record.state == "SUCCESS"
    assert cleaned == [1]


def test_an_owner_s_token_is_the_same_all_through_a_run(bench: Bench) -> None:
    """The cookbook's lock is released by whoever took it: `app.oid` and the id of the request say who that is."""
    tokens = []

    @bench.app.task(name="lock", bind=True)
    def lock(self: Any) -> None:
        tokens.extend([(self.app.oid, self.request.id), (self.app.oid, self.request.id)])

    bench.run(lock)
    bench.run(lock)
    assert tokens[0] == tokens[1] != tokens[2] == tokens[3]
    assert {oid for oid, _ in tokens} == {bench.app.oid}
