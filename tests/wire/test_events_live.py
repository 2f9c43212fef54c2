"""Events of our workers and of the real Celery's, each heard by receivers of both."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.running import PATIENCE, Background, wait_until
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire.mixed import OURS, SIDES, THEIRS, Side

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]
WORKER = ["-E", "-c", "1", "-l", "DEBUG"]
#: What is told of each task, in this order.
COURSES = {
    "add": ["sent", "received", "started", "succeeded"],
    "fail": ["sent", "received", "started", "failed"],
    "again": ["sent", "received", "started", "sent", "retried", "received", "started", "succeeded"],
    "reject": ["sent", "received", "started", "failed", "rejected"],
    "custom": ["sent", "received", "started", "progress", "succeeded"],
    "later": ["sent", "received", "started", "succeeded"],
    "last": ["sent", "received", "started", "succeeded"],
    "unknown": ["sent", "failed"],
}


class Told:
    """What both receivers heard of both workers."""

    def __init__(self) -> None:
        #: Receiver → events.
        self.events: dict[str, list[dict[str, Any]]] = {}
        #: Worker → name → id.
        self.ids: dict[str, dict[str, str]] = {}
        #: Worker → what it logged.
        self.logs: dict[str, str] = {}

    def of(self, receiver: str, worker: str, name: str) -> list[dict[str, Any]]:
        uuid = self.ids[worker][name]
        return [event for event in self.events[receiver] if event.get("uuid") == uuid]


def environment(side: Side) -> dict[str, str]:
    return side.environment(TOLD_URL=side.url, C_FORCE_ROOT="1", CELERY_WORKER_UNKNOWN_TASK_GRACE="0")


def run(side: Side, *arguments: str) -> Background:
    command = " ".join([side.python, *arguments])
    return Background(command, side.folder, environment(side))


def call(side: Side, queue: str) -> dict[str, str]:
    script = str(golden.SCRIPTS / "told.py")
    done = subprocess.run([side.python, script, "call", queue], env=environment(side), cwd=side.folder, text=True,
                          stdout=subprocess.PIPE, timeout=2 * PATIENCE, check=True)  # fmt: skip
    ids: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return ids


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder, told = tmp_path_factory.mktemp("told"), Told()
    with RedisServer() as server, ExitStack() as stack:
        sides = {name: Side(name, folder, server.url(), server.url()) for name in SIDES}
        script = str(golden.SCRIPTS / "told.py")
        workers = {}
        for name in (THEIRS, OURS):
            options = ["-m", "celery", "-A", "told", "worker", *WORKER, "-n", f"{name}@h", "-Q", name]
            workers[name] = stack.enter_context(run(sides[name], *options))
            workers[name].wait_for(r"ready\.")
        for name, side in sides.items():
            stack.enter_context(run(side, script, "hear", str(folder / f"{name}.jsonl")))
        for name in SIDES:
            wait_until(lambda name=name: _heartbeats(folder / f"{name}.jsonl") == {f"{n}@h" for n in SIDES}, "beats")
        told.ids = {name: call(sides[name], name) for name in SIDES}
        for name, other in ((OURS, THEIRS), (THEIRS, OURS)):
            workers[name].wait_for(rf"{other}@h joined the party")
        for name in SIDES:
            assert workers[name].stop(signal.SIGTERM) == 0
            told.logs[name] = workers[name].output
        for name in SIDES:
            wait_until(lambda name=name: _goodbyes(folder / f"{name}.jsonl") == 2, "both say goodbye")
            told.events[name] = _lines(folder / f"{name}.jsonl")
        yield told


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _heartbeats(path: Path) -> set[str]:
    return {event["hostname"] for event in _lines(path) if event["type"] == "worker-heartbeat" and "active" in event}


def _goodbyes(path: Path) -> int:
    return len([event for event in _lines(path) if event["type"] == "worker-offline"])


@pytest.mark.parametrize("receiver", SIDES)
@pytest.mark.parametrize("worker", SIDES)
def test_the_course_of_each_task(told: Told, worker: str, receiver: str) -> None:
    for name, course in COURSES.items():
        heard = [event["type"].partition("-")[2] for event in told.of(receiver, worker, name)]
        assert sorted(heard) == sorted(course), name
        if worker == THEIRS and name == "again":
            continue  # there the retry may be taken on before it is told that there is one
        ends = [what for what in heard if what not in ("sent", "progress")]
        assert ends == [what for what in course if what not in ("sent", "progress")], name
    stale = {event["type"] for event in told.of(receiver, worker, "stale")}
    assert stale - {"task-received"} == {"task-sent", "task-revoked"}  # ours tells what it was, too


@pytest.mark.parametrize("receiver", SIDES)
def test_each_event_has_the_same_fields(told: Told, receiver: str) -> None:
    """Those of the real Celery's worker, with values of the same types."""
    shapes: dict[str, dict[str, set[Any]]] = {name: {} for name in SIDES}
    for name in SIDES:
        for kind in told.ids[name]:
            for event in told.of(receiver, name, kind):
                if event["type"] == "task-received" and kind == "stale":
                    continue
                shape = tuple(sorted((field, type(value).__name__) for field, value in event.items()))
                shapes[name].setdefault(f"{kind} {event['type']}", set()).add(shape)
        for event in told.events[receiver]:
            if event["hostname"] == f"{name}@h" and event["type"].startswith("worker-") and "active" in event:
                shape = tuple(sorted((field, type(value).__name__) for field, value in event.items()))
                shapes[name].setdefault(event["type"], set()).add(shape)
    assert shapes[OURS] == shapes[THEIRS]


@pytest.mark.parametrize("receiver", SIDES)
def test_what_they_say(told: Told, receiver: str) -> None:
    def of(worker: str, name: str, type: str) -> dict[str, Any]:
        return next(event for event in told.of(receiver, worker, name) if event["type"] == type)

    same = {
        ("add", "task-sent"): ("name", "args", "kwargs", "retries", "eta", "expires", "exchange"),
        ("add", "task-received"): ("name", "args", "kwargs", "retries", "eta", "expires", "parent_id"),
        ("add", "task-succeeded"): ("result",),
        ("again", "task-succeeded"): ("result",),
        ("again", "task-retried"): ("exception",),
        ("fail", "task-failed"): ("exception",),
        ("reject", "task-failed"): ("exception",),
        ("reject", "task-rejected"): ("requeue",),
        ("unknown", "task-failed"): ("exception",),
        ("stale", "task-revoked"): ("terminated", "signum", "expired"),
        ("last", "task-sent"): ("args", "retries"),
    }
    for (name, type), fields in same.items():
        ours, theirs = of(OURS, name, type), of(THEIRS, name, type)
        assert {field: ours[field] for field in fields} == {field: theirs[field] for field in fields}, (name, type)
    for worker in SIDES:
        later = of(worker, "later", "task-received")
        assert later["eta"].endswith("+00:00")
        assert later["expires"].endswith("+00:00")
        assert of(worker, "add", "task-sent")["queue"] == worker


def test_they_hear_of_each_other(told: Told) -> None:
    """Gossip and mingle, across the two."""
    assert "mingle: sync with 1 nodes" in told.logs[OURS]
    assert "mingle: sync complete" in told.logs[OURS]
    assert "sync with ours@h" in told.logs[THEIRS]
