"""`celery.contrib.migrate`: moving messages through kombu ([contrib.2])."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection, Exchange, Queue

from celery import Celery
from celery.contrib import migrate
from celery.contrib.migrate import (
    State,
    StopFiltering,
    expand_dest,
    filter_callback,
    filter_status,
    migrate_tasks,
    move,
    move_by_idmap,
    move_by_taskmap,
    move_direct,
    move_direct_by_id,
    move_task_by_id,
    prepare_queues,
    start_filter,
    task_id_eq,
    task_id_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("move", broker=f"memory://move-{next(_numbers)}", set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="mul", compression="zlib")
    def mul(x: int, y: int) -> int:
        return x * y

    for i in range(4):
        app.tasks["add"].apply_async((i, 1), task_id=f"a{i}", headers={"own": i}, expires=1000)
    app.tasks["mul"].apply_async((2, 3), task_id="m", priority=3)
    yield app
    app.close()


def lying(app: Celery, queue: str = "celery") -> list[str]:
    found: Any = app.assembly.broker
    return [json.loads(one.envelope)["headers"]["id"] for one in found.inspection.peek(queue, 100)]


def whole(app: Celery, queue: str) -> list[dict[str, Any]]:
    found: Any = app.assembly.broker
    return [json.loads(one.envelope) for one in found.inspection.peek(queue, 100)]


EVERYTHING = ["a0", "a1", "a2", "a3", "m"]
QUICK: dict[str, Any] = {"timeout": 0.05}


class TestMove:
    def test_what_the_predicate_picks(self, app: Celery) -> None:
        seen: list[tuple[str, str]] = []
        before = {one["headers"]["id"]: one for one in whole(app, "celery")}
        state = move(
            lambda body, message: message.headers["id"] in ("a1", "m"), exchange="", routing_key="other", app=app,
            callback=lambda state, body, message: seen.append((repr(state), message.headers["id"])), **QUICK,
        )  # fmt: skip
        assert (state.count, state.filtered) == (5, 2)
        assert seen == [("^1", "a1"), ("^2", "m")]
        assert lying(app) == ["a0", "a2", "a3"]
        assert lying(app, "other") == ["a1", "m"]
        for after in whole(app, "other"):
            was = before[after["headers"]["id"]]
            for part in ("body", "content-type", "content-encoding"):
                assert after[part] == was[part] or after["headers"].get("compression")
            assert after["headers"] == was["headers"]
            kept = ("correlation_id", "reply_to", "priority", "delivery_mode")
            assert {k: after["properties"].get(k) for k in kept} == {k: was["properties"].get(k) for k in kept}

    def test_a_compressed_message_still_runs(self, app: Celery) -> None:
        move_task_by_id("m", ("", "celery2"), app=app, **QUICK)
        (sent,) = whole(app, "celery2")
        assert sent["headers"]["compression"] == "application/x-gzip"
        with app.connection() as connection:
            message = connection.default_channel.basic_get("celery2")
            assert message.payload[0] == [2, 3]

    def test_to_a_pair_or_a_queue_that_is_declared(self, app: Celery) -> None:
        target = Queue("images", Exchange("media", type="topic"), routing_key="images.#")
        move(lambda body, message: target if message.headers["id"] == "a0" else ("", "plain"), app=app, **QUICK)
        assert lying(app, "images") == ["a0"]
        assert lying(app, "plain") == EVERYTHING[1:]
        assert lying(app) == []

    def test_at_most_so_many(self, app: Celery) -> None:
        state = move(lambda body, message: True, exchange="", routing_key="other", app=app, limit=2, **QUICK)
        assert state.filtered == 2
        assert sorted(lying(app, "other") + lying(app)) == EVERYTHING

    def test_from_other_queues(self, app: Celery) -> None:
        app.tasks["add"].apply_async((1, 1), task_id="far", queue="far")
        move(lambda body, message: True, exchange="", routing_key="near", source=["far"], app=app, **QUICK)
        assert lying(app, "near") == ["far"]
        assert lying(app) == EVERYTHING

    def test_by_ids_and_names(self, app: Celery) -> None:
        move_by_idmap({"a0": ("", "x"), "a1": ("", "y")}, app=app, **QUICK)
        move_by_taskmap({"mul": ("", "z")}, app=app, **QUICK)
        assert [lying(app, queue) for queue in ("x", "y", "z")] == [["a0"], ["a1"], ["m"]]
        assert lying(app) == ["a2", "a3"]

    def test_to_a_worker_by_its_name(self, app: Celery) -> None:
        move_direct_by_id("a0", "w1@h", app=app, **QUICK)
        assert lying(app, "w1@h.dq2") == ["a0"]
        move_direct(lambda body, message: "w2@h", app=app, **QUICK)
        assert lying(app, "w2@h.dq2") == EVERYTHING[1:]


class TestFilters:
    def test_what_is_not_acknowledged_stays(self, app: Celery) -> None:
        seen: list[str] = []
        state = start_filter(
            app, app.connection(), lambda body, message: seen.append(message.headers["id"]), tasks="add", **QUICK
        )
        assert sorted(seen) == EVERYTHING[:4]
        assert (state.count, state.total_apx, repr(state)) == (5, 5, "5/5")
        assert lying(app) == EVERYTHING

    def test_acknowledged(self, app: Celery) -> None:
        start_filter(app, app.connection(), lambda body, message: None, ack_messages=True, limit=3, **QUICK)
        assert len(lying(app)) == 2

    def test_stopped_by_the_filter(self, app: Celery) -> None:
        def stop(body: Any, message: Any) -> None:
            raise StopFiltering

        assert start_filter(app, app.connection(), stop, forever=True, **QUICK).count == 1
        assert lying(app) == EVERYTHING

    def test_predicates(self, app: Celery) -> None:
        with app.connection() as connection:
            message = connection.default_channel.basic_get("celery")
            assert task_id_eq("a0", message.payload, message)
            assert not task_id_eq("a1", message.payload, message)
            assert task_id_in({"a0", "a1"}, message.payload, message)
            assert not task_id_in({"a1"}, message.payload, message)
            called: list[Any] = []
            filter_callback(lambda *given: called.append(given), ["mul"])(message.payload, message)
            assert called == []
            filter_callback(lambda *given: called.append(given), ["add"])(message.payload, message)
            filter_callback(lambda *given: called.append(given), [])(message.payload, message)
            assert len(called) == 2

    def test_protocol_1(self) -> None:
        message = type("Old", (), {"headers": {}})()
        assert task_id_eq("x", {"id": "x", "task": "add"}, message)
        assert not task_id_in(["y"], {"id": "x", "task": "add"}, message)

    def test_status_is_printed(self, app: Celery, capsys: pytest.CaptureFixture[str]) -> None:
        move_task_by_id("a0", ("", "x"), app=app, callback=filter_status, **QUICK)
        assert "Moving task 1/5: add[a0]" in capsys.readouterr().out


class TestMigrate:
    @pytest.fixture
    def other(self) -> Iterator[Celery]:
        app = Celery("other", broker=f"memory://move-{next(_numbers)}", set_as_current=False)
        yield app
        app.close()

    def test_to_another_broker(self, app: Celery, other: Celery) -> None:
        told: list[str] = []
        state = migrate_tasks(
            app.connection(), other.connection(), app=app,
            callback=lambda state, body, message: told.append(repr(state)), **QUICK,
        )  # fmt: skip
        assert told == ["1/5", "2/5", "3/5", "4/5", "5/5"]
        assert state.count == 5
        assert lying(app) == lying(other) == EVERYTHING

    def test_taken_from_there_and_put_on_another_queue(self, app: Celery, other: Celery) -> None:
        migrate_tasks(
            app.connection(),
            other.connection(),
            app=app,
            queues="celery:new",
            ack_messages=True,
            tasks=["mul"],
            **QUICK,
        )
        assert lying(app) == EVERYTHING[:4]
        assert lying(other, "new") == ["m"]

    def test_through_kombus_own_transports(self, app: Celery) -> None:
        """To a broker that is none of ours: kombu's memory."""
        with Connection("memory://") as target:
            migrate_tasks(app.connection(), target, app=app, ack_messages=True, **QUICK)
            ids = [target.default_channel.basic_get("celery").headers["id"] for _ in range(5)]
            assert sorted(ids) == EVERYTHING
        assert lying(app) == []


def test_words() -> None:
    assert prepare_queues("a:b,c") == prepare_queues(["a:b", "c"]) == {"a": "b", "c": "c"}
    assert prepare_queues(None) == {}
    assert prepare_queues({"a": "b"}) == {"a": "b"}
    assert expand_dest(True, "e", "r") == expand_dest(None, "e", "r") == ("e", "r")
    assert expand_dest(("x", "y"), "e", "r") == ("x", "y")
    state = State()
    assert (state.strtotal, repr(state)) == ("?", "0/?")
    for name in (
        "StopFiltering", "State", "republish", "migrate_task", "migrate_tasks", "move", "task_id_eq", "task_id_in",
        "start_filter", "move_task_by_id", "move_by_idmap", "move_by_taskmap", "move_direct", "move_direct_by_id",
    ):  # fmt: skip
        assert name in migrate.__all__
