"""Workers that hear each other, on Redis: who is there, who is lost, elections, and what a new one is told."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.events.event import Event
from celery.ports import Notice
from celery.worker import state
from tests.flow.engine import DEADLINE, until
from tests.flow.running import working

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

pytestmark = pytest.mark.server


@pytest.fixture
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    state.reset_state()
    with ExitStack() as stack:
        yield Fleet(redis_server.url(), stack)
    state.reset_state()


class Fleet:
    """Workers, each with an app of its own."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url, self.runs, self._stack = url, [], stack
        self.app = self.make_app()

    runs: list[str]

    def make_app(self) -> Celery:
        app = Celery("fleet", broker=self.url, backend=self.url, set_as_current=False)
        self._stack.callback(app.close)

        @app.task(name="note", bind=True)
        def note(task: Any, text: str) -> str:
            self.runs.append(text)
            return text

        return app

    def worker(self, name: str, stack: ExitStack | None = None, **options: Any) -> Any:
        given = {"pool": "solo", "without_mingle": True, "heartbeat_interval": 0.2, **options}
        return (stack or self._stack).enter_context(working(self.make_app(), hostname=name, **given))


def others(worker: Any) -> set[str]:
    return set(worker.gossip.state.workers) if worker.gossip.state is not None else set()


def test_they_know_who_is_there(fleet: Fleet) -> None:
    first = fleet.worker("a@h")
    came, left = [], []
    first.gossip.on.node_join.add(lambda worker: came.append(worker.hostname))
    first.gossip.on.node_leave.add(lambda worker: left.append(worker.hostname))
    first.gossip.on.node_leave.add(lambda worker: 1 / 0)  # disturbs nobody
    with ExitStack() as stack:
        second = fleet.worker("b@h", stack)
        until(lambda: "b@h" in others(first) and "a@h" in others(second), "they hear each other")
        assert next(iter(first.gossip.state.workers.values())).alive
    until(lambda: left == ["b@h"], f"it says goodbye: {came} {left}")
    assert "b@h" in came
    assert "a@h" not in others(first)


def test_one_that_is_silent_is_lost(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    worker = fleet.worker("a@h")
    lost: list[str] = []
    worker.gossip.on.node_lost.add(lambda worker: lost.append(worker.hostname))
    beat = Event("worker-heartbeat", hostname="gone@h", clock=1, freq=0.05, utcoffset=0, pid=1, active=0, processed=0)
    carrier: Any = fleet.app.assembly.broker
    carrier.tell([Notice("celeryev", "topic", "worker.heartbeat", json.dumps(beat).encode())])
    until(lambda: "gone@h" in others(worker), "it is heard")

    def found_lost() -> bool:
        worker.gossip.periodic()
        return lost == ["gone@h"]

    until(found_lost, "it is lost")
    assert "gone@h" not in others(worker)
    assert "missed heartbeat from gone@h" in caplog.text


def test_task_events_are_not_its_business(fleet: Fleet) -> None:
    worker = fleet.worker("a@h", task_events=True)
    heard: list[str] = []
    worker.gossip._hear, hear = (lambda event: heard.append(event["type"])), worker.gossip._hear
    worker.gossip._receiver.handlers["*"] = worker.gossip._hear
    with ExitStack() as stack:
        fleet.worker("b@h", stack, task_events=True)
        assert fleet.app.send_task("note", ("x",)).get(timeout=DEADLINE) == "x"
        until(lambda: "worker-heartbeat" in heard, "heartbeats are heard")
    assert {type.partition("-")[0] for type in heard} == {"worker"}
    worker.gossip._receiver.handlers["*"] = hear


@pytest.mark.parametrize("names", [["a@h"], ["a@h", "b@h", "c@h"]])
def test_one_of_them_is_elected(fleet: Fleet, names: list[str]) -> None:
    """Real Celery's worker falls over where it is the only one (IndexError)."""
    workers = [fleet.worker(name, concurrency=1) for name in names]
    until(lambda: all(others(one) >= set(names) - {one.hostname} for one in workers), "they know each other")
    sig = fleet.app.signature("note", ("elected",))
    assert sig.election().get(timeout=DEADLINE) == "elected"
    until(lambda: not any(one.gossip.consensus_requests or one.gossip.consensus_replies for one in workers), "is over")
    assert fleet.runs == ["elected"]


def test_an_election_that_comes_to_nothing_is_forgotten(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = fleet.worker("a@h")
    gossip = worker.gossip
    mute = fleet.app.events.Dispatcher(hostname="mute@h")

    def heard() -> bool:
        mute.send("worker-heartbeat", freq=60)
        return "mute@h" in others(worker)

    until(heard, "it listens")
    gossip.election("e", "task", {"task": "note"})
    until(lambda: gossip.consensus_requests, "it stands")
    monkeypatch.setattr("celery.worker.consumer.gossip._ELECTION_LASTS", -1.0)
    gossip.periodic()
    assert not gossip.consensus_requests
    assert not gossip.consensus_replies
    assert fleet.runs == []
    assert "Nobody was elected" in caplog.text


def test_of_two_at_the_same_time_the_name_decides(fleet: Fleet) -> None:
    gossip = fleet.worker("a@h").gossip
    won: list[Any] = []
    gossip.election_handlers["own"] = won.append
    for other, expected in [("b@h", ["a"]), ("A@h", [])]:
        won.clear()
        gossip.state.event(Event("worker-heartbeat", hostname=other, clock=1, freq=60, utcoffset=0, pid=1,
                                 local_received=1e12, timestamp=1e12))  # fmt: skip
        gossip.consensus_replies["e"] = []
        pid = int(gossip.full_hostname.rpartition(".")[2])
        for hostname, process, action in (("a@h", pid, "a"), (other, 7, "other")):
            gossip.on_elect({"id": "e", "clock": 5, "hostname": hostname, "pid": process, "topic": "own",
                             "action": action, "cver": 1})  # fmt: skip
        for hostname in ("a@h", other):
            gossip.on_elect_ack({"id": "e", "hostname": hostname})
        assert won == expected
        gossip.state.workers.clear()


def test_a_new_one_learns_what_was_revoked(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = fleet.worker("a@h", without_gossip=True)
    first.app.clock.adjust(500)
    state.revoked.add("unwanted")
    second = fleet.worker("b@h", without_mingle=False)
    assert "mingle: sync with 1 nodes" in caplog.text
    assert second.app.clock.value > 500


def test_nothing_is_left_behind(fleet: Fleet) -> None:
    import threading

    before = set(threading.enumerate())
    for _ in range(3):
        with ExitStack() as stack:
            fleet.worker("a@h", stack, task_events=True)
            fleet.app.send_task("note", ("x",)).get(timeout=DEADLINE)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert [thread.name for thread in left if thread.name.startswith(("celery-e", "celery-g", "Timer"))] == []
