"""A record travels with its outcome; whoever looks for it from inside the process finds it (decision 9)."""

from __future__ import annotations

from typing import Any

import pytest
from kombu.exceptions import OperationalError

from celery import Task, signals
from celery.exceptions import Reject
from celery.outcome import Record, Rejected, Success
from celery.pending import Pending
from tests.flow.bench import Bench

#: How user code may look: each gives what it saw.
LOOKS: dict[str, Any] = {
    "state": lambda app, task_id: app.AsyncResult(task_id).state,
    "get": lambda app, task_id: app.AsyncResult(task_id).get(timeout=1, propagate=False, disable_sync_subtasks=False),
    "exists": lambda app, task_id: app.AsyncResult(task_id).exists(),
    "backend": lambda app, task_id: app.backend.get_task_meta(task_id)["status"],
}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def hooked(bench: Bench, name: str, hook: Any, fails: bool = False) -> Any:
    base = type("Hooked", (Task,), {"abstract": True, name: hook})

    @bench.app.task(name="t", base=base)
    def t() -> str:
        if fails:
            raise ValueError("no")
        return "done"

    return t


@pytest.mark.parametrize(
    ("how", "sees"), [("state", "SUCCESS"), ("get", "done"), ("exists", True), ("backend", "SUCCESS")]
)
@pytest.mark.parametrize("hook", ["on_success", "after_return"])
def test_hooks_see_the_success(bench: Bench, hook: str, how: str, sees: Any) -> None:
    seen = []

    def look(self: Any, *args: Any) -> None:
        seen.append(LOOKS[how](self.app, self.request.id))

    outcome = bench.run(hooked(bench, hook, look))
    assert seen == [sees]
    assert isinstance(outcome, Success)
    assert outcome.record is None, "it is saved already"


@pytest.mark.parametrize("hook", ["on_failure", "after_return"])
def test_hooks_see_the_failure(bench: Bench, hook: str) -> None:
    seen = []

    def look(self: Any, *args: Any) -> None:
        seen.append(self.AsyncResult(self.request.id).state)

    outcome = bench.run(hooked(bench, hook, look, fails=True))
    assert (seen, outcome.record) == (["FAILURE"], None)


@pytest.mark.parametrize("name", ["task_success", "task_postrun"])
def test_receivers_see_it(bench: Bench, name: str) -> None:
    seen = []

    @bench.app.task(name="t", bind=True)
    def t(self: Any) -> int:
        seen.append(self.AsyncResult(self.request.id).state)
        return 1

    def receiver(sender: Any, **kwargs: Any) -> None:
        seen.append(sender.AsyncResult(sender.request.id).state)

    getattr(signals, name).connect(receiver)
    try:
        outcome = bench.run(t)
    finally:
        getattr(signals, name).disconnect(receiver)
    assert (seen, outcome.record) == (["PENDING", "SUCCESS"], None)


def test_success_is_final_for_hooks_too(bench: Bench) -> None:
    def write(self: Any, *args: Any) -> None:
        self.update_state(state="PROGRESS", meta={"n": 1})

    result = hooked(bench, "on_success", write).delay()
    assert bench.run_message(bench.take()).record is None
    assert (result.state, result.get()) == ("SUCCESS", "done")


def test_what_a_hook_sends_finds_the_result(bench: Bench) -> None:
    """Another worker may take that message and look before this run is settled."""

    def send(self: Any, *args: Any) -> None:
        self.app.send_task("notify", (self.request.id,))

    outcome = bench.run(hooked(bench, "on_success", send))
    assert outcome.record is None
    (message,) = bench.waiting()
    assert bench.app.AsyncResult(message.headers["parent_id"]).state == "SUCCESS"


def test_who_looks_elsewhere_changes_nothing(bench: Bench) -> None:
    def look(self: Any, *args: Any) -> None:
        assert self.AsyncResult("another").state == "PENDING"

    assert bench.run(hooked(bench, "on_success", look)).record.state == "SUCCESS"


def test_nothing_is_held_after_a_run(bench: Bench) -> None:
    def nothing(self: Any, *args: Any) -> None: ...

    bench.run(hooked(bench, "on_success", nothing))
    assert bench.app.assembly.pending.records == {}


@pytest.mark.parametrize("hook", ["on_success", "after_return"])
@pytest.mark.parametrize("requeue", [False, True])
def test_a_hook_may_reject_the_message_the_state_stays(bench: Bench, hook: str, requeue: bool) -> None:
    def reject(self: Any, *args: Any) -> None:
        raise Reject("late", requeue=requeue)

    ends = []

    def receiver(state: str, retval: Any, **kwargs: Any) -> None:
        ends.append((state, retval))

    signals.task_postrun.connect(receiver)
    try:
        outcome = bench.run(hooked(bench, hook, reject))
    finally:
        signals.task_postrun.disconnect(receiver)
    assert isinstance(outcome, Rejected)
    assert (outcome.requeue, outcome.record.state, ends) == (requeue, "SUCCESS", [("SUCCESS", "done")])  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_a_process_that_is_left_by_a_hook_has_saved_the_state(bench: Bench, error: type[BaseException]) -> None:
    def leave(self: Any, *args: Any) -> None:
        raise error

    task = hooked(bench, "on_success", leave)
    result = task.delay()
    with pytest.raises(error):
        bench.run_message(bench.take())
    assert (result.state, bench.app.assembly.pending.records) == ("SUCCESS", {})


def test_a_store_that_is_away_loses_nothing() -> None:
    saved: list[Record] = []
    away = True

    def save(records: list[Record]) -> None:
        if away:
            raise OperationalError("away")
        saved.extend(records)

    pending = Pending(save)
    record = pending.records["a"] = Record("a", "SUCCESS", b"{}")
    with pytest.raises(OperationalError):
        pending.reveal(["a", "b"])
    assert pending.records == {"a": record}
    away = False
    pending.reveal_all()
    assert (saved, pending.records) == ([record], {})
