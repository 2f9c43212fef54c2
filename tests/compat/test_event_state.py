"""The cluster's state: what the comparison with the real Celery (tests/wire/test_states.py) does not say."""

from __future__ import annotations

import logging
import pickle
import threading
from typing import Any

import pytest

from celery import Celery
from celery.events.state import State, Task, Worker, heartbeat_expires

NOW = 4_000_000_000.0


def task(kind: str, uuid: str, clock: int = 1, host: str = "w@h", **fields: Any) -> dict[str, Any]:
    return {"type": f"task-{kind}", "uuid": uuid, "hostname": host, "timestamp": NOW + clock, "clock": clock,
            "local_received": NOW + clock, "pid": 1, "utcoffset": 0, **fields}  # fmt: skip


def received(uuid: str, clock: int = 1, **fields: Any) -> dict[str, Any]:
    return task("received", uuid, clock, **{"name": "proj.add", "parent_id": None, "root_id": uuid, **fields})


def ids(pairs: Any) -> list[str]:
    return [uuid for uuid, _ in pairs]


def test_it_is_pickled_with_its_relations() -> None:
    state = State(max_tasks_in_memory=50)
    for event in (received("a", 1), received("b", 2, parent_id="a", root_id="a"), task("succeeded", "b", 3)):
        state.event(event)
    again = pickle.loads(pickle.dumps(state))
    assert ids(again.tasks_by_time()) == ["b", "a"]
    assert (again.max_tasks_in_memory, again.tasks.limit) == (50, 50)
    b = again.tasks["b"]
    assert (b.state, b.parent, b.root.uuid, b.cluster_state) == ("SUCCESS", again.tasks["a"], "a", again)
    assert set(again.tasks["a"].children) == {b}
    assert set(again.tasks_by_type["proj.add"]) == set(again.tasks_by_worker["w@h"]) == set(again.tasks.values())
    assert b.worker is again.workers["w@h"]
    again.event(task("failed", "b", 4))  # and lives on


def test_a_subclass_is_pickled_as_flower_does() -> None:
    assert type(pickle.loads(pickle.dumps(Sub()))) is Sub
    assert pickle.loads(pickle.dumps(Task("u", name="n"))).name == "n"
    assert pickle.loads(pickle.dumps(Worker("w", pid=3))).pid == 3


class Sub(State):
    """A monitor's own."""


def test_memory_is_bounded() -> None:
    state = State(max_tasks_in_memory=10, max_workers_in_memory=3)
    for n in range(5000):
        state.event(received(f"u{n}", n + 1, host=f"w{n}@h", parent_id=f"never seen {n}"))
    assert ids(state.itertasks()) == [f"u{n}" for n in range(4990, 5000)]
    assert sorted(state.workers) == ["w4997@h", "w4998@h", "w4999@h"]
    assert ids(state.tasks_by_time(limit=3)) == ["u4999", "u4998", "u4997"]
    assert len(state._taskheap) < 2000
    assert len(state._orphans) <= 10
    assert sum(map(len, state.tasks_by_worker.values())) == 10
    assert len(state.tasks_by_worker) <= 2 * 10 + 100


def test_the_order_can_be_made_anew() -> None:
    state = State()
    for uuid, clock in (("a", 5), ("b", 9), ("c", 7)):
        state.event(received(uuid, clock))
    state.tasks["a"].clock = 12
    state.rebuild_taskheap()
    assert ids(state.tasks_by_time()) == ["a", "b", "c"]


def test_tasks_that_go_on_stay_in_order_when_the_others_are_cleared() -> None:
    state = State()
    for event in (received("a", 1), received("b", 2), task("succeeded", "a", 3), received("c", 4)):
        state.event(event)
    state.clear_tasks()
    assert ids(state.itertasks()) == ["b", "c"]


@pytest.mark.slow
def test_threads_may_look_while_events_come() -> None:
    state, failures, over = State(max_tasks_in_memory=100), [], threading.Event()

    def look() -> None:
        try:
            while not over.is_set():
                list(state.tasks_by_time()), list(state.itertasks()), list(state.alive_workers()), state.task_types()
                list(state.tasks_by_worker("w@h")), pickle.dumps(state.freeze_while(list, state.tasks.data))
        except Exception as exc:  # noqa: BLE001 - whatever it is, it fails the test
            failures.append(exc)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    for n in range(3000):
        state.event(received(f"u{n}", n + 1, name=f"n{n % 7}"))
    over.set()
    for looker in lookers:
        looker.join()
    assert not failures


def test_callbacks_may_look_and_clear() -> None:
    """The state is held then, by the same thread."""
    seen: list[Any] = []
    state = State(callback=lambda state, event: seen.append((event["type"], ids(state.itertasks()))))
    state.event(received("a"))
    state.event(received("b"))
    assert seen == [("task-received", []), ("task-received", ["a"])]
    assert state.freeze_while(lambda: state.clear(ready=False) or state.event_count) == 0
    state.event(received("c"))
    assert state.freeze_while(lambda: state.event_count, clear_after=True) == 1
    assert (state.event_count, len(state.workers)) == (0, 0)


def test_other_groups_have_their_handlers() -> None:
    state = State()
    assert state.event({"type": "custom-thing-done", "hostname": "w"}) is None
    state.handlers["custom"] = lambda rest, event: (rest, event["hostname"])
    assert state.event({"type": "custom-thing-done", "hostname": "w"}) == (("thing-done", "w"), "thing-done")


def test_old_ways_in() -> None:
    state = State()
    found, created = state.task_event("received", received("a"))
    assert (found.uuid, created) == ("a", True)
    worker, created = state.worker_event("online", {"hostname": "w", "timestamp": NOW, "local_received": NOW})
    assert (worker.hostname, created, worker.alive) == ("w", True, True)


def test_a_clock_that_is_wrong_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker("w@h")
    with caplog.at_level(logging.WARNING, "celery.events.state"):
        for n in range(3):
            worker.event("heartbeat", NOW - 100 + n, NOW + n, {})
    assert [record.getMessage()[:42] for record in caplog.records] == ["The clock of w@h differs from ours by 100 "]


def test_when_a_worker_counts_as_gone() -> None:
    assert heartbeat_expires(100.0, 2.0) == 104.0
    assert heartbeat_expires(100.0, 10, 150) == 115.0
    worker = Worker("w", freq=2.0, heartbeats=[NOW])
    assert worker.heartbeat_expires == NOW + 4
    assert not Worker("w").alive


def test_an_exporter_s_ways() -> None:
    """As celery-exporter uses it: the state at the app, the worker or task of each event, a task by its id."""
    app = Celery("exported", broker="memory://exported", set_as_current=False)
    state = app.events.State()
    seen: dict[str, Any] = {}

    def on_task(event: dict[str, Any]) -> None:
        state.event(event)
        found = state.tasks.get(event["uuid"])
        seen[event["type"]] = (found.name, found.state, found.hostname, found.runtime)

    def on_worker(event: dict[str, Any]) -> None:
        worker = state.event(event)[0][0]
        seen["worker"] = (worker.hostname, worker.active, worker.alive)

    stop = StopAfter(3)
    handlers = {"task-received": stop(on_task), "task-succeeded": stop(on_task), "worker-heartbeat": stop(on_worker)}
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers=handlers)
        stop.receiver = receiver
        said = receiver.itercapture(timeout=30, wakeup=False)
        sender = threading.Thread(target=_send, args=[app, stop.ready])
        sender.start()
        receiver.on_consume_ready = lambda *_, **__: stop.ready.set()
        for _ in said:
            pass
        sender.join()
    assert seen == {
        "task-received": ("proj.add", "RECEIVED", "w1@h", None),
        "task-succeeded": ("proj.add", "SUCCESS", "w1@h", 0.5),
        "worker": ("w1@h", 1, True),
    }


class StopAfter:
    """Ends a capture after so many events."""

    def __init__(self, n: int) -> None:
        self.left, self.ready, self.receiver = n, threading.Event(), None

    def __call__(self, handler: Any) -> Any:
        def heard(event: dict[str, Any]) -> None:
            handler(event)
            self.left -= 1
            if not self.left:
                self.receiver.should_stop = True  # type: ignore[attr-defined]

        return heard


def _send(app: Celery, ready: threading.Event) -> None:
    assert ready.wait(30)
    with app.events.default_dispatcher(hostname="w1@h") as dispatcher:  # type: ignore[attr-defined]
        dispatcher.send("task-received", uuid="u", name="proj.add", args="()", kwargs="{}")
        dispatcher.send("task-succeeded", uuid="u", runtime=0.5, result="3")
        dispatcher.send("worker-heartbeat", active=1, freq=2.0, processed=1)
