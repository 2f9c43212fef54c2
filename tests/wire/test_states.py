"""The same events, in any order, come to the same state of the cluster as in the real Celery."""

from __future__ import annotations

import json
import os
import random
import subprocess
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from tests.wire.reference import states

PROGRAM = Path(states.__file__)
#: Far ahead, so that whoever was heard of is alive; and long ago.
AHEAD, AGO = 4_000_000_000.0, 1_000_000_000.0
KINDS = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "cancelled", "odd")
FIELDS: dict[str, dict[str, Any]] = {
    "sent": {"name": "proj.add", "args": "(1, 2)", "kwargs": "{}", "queue": "celery", "exchange": "", "retries": 0,
             "routing_key": "celery", "root_id": "r", "parent_id": None, "eta": None, "expires": None},
    "received": {"name": "proj.add", "args": "(1, 2)", "kwargs": "{'a': 1}", "retries": 1, "root_id": "a",
                 "parent_id": "b", "eta": "2096-10-02T07:06:40+00:00", "expires": None},
    "started": {},
    "succeeded": {"result": "3", "runtime": 0.25},
    "failed": {"exception": "ValueError('x')", "traceback": "Traceback …"},
    "retried": {"exception": "OSError()", "traceback": "Traceback …"},
    "revoked": {"terminated": False, "signum": None, "expired": True},
    "rejected": {"requeue": False},
    "cancelled": {},
    "odd": {"extra": "of a user's own event"},
}  # fmt: skip


def task_event(kind: str, uuid: str = "u", host: str = "w1@here", **more: Any) -> dict[str, Any]:
    event = {"type": f"task-{kind}", "uuid": uuid, "hostname": host, "pid": 7, "utcoffset": 0, **FIELDS[kind]}
    return {"timestamp": AHEAD, "local_received": AHEAD + 1, "clock": 1, **event, **more}


def one_task() -> list[dict[str, Any]]:
    """Every order of what may happen to one task."""
    lives = [("sent", "received", "started", "succeeded"), ("received", "started", "retried", "received"),
             ("sent", "received", "started", "failed"), ("received", "retried", "started", "succeeded"),
             ("received", "rejected", "revoked"), ("received", "started", "cancelled"),
             ("sent", "received", "odd", "succeeded"), ("started", "odd", "failed", "succeeded"),
             ("received", "revoked", "succeeded"), ("retried", "received", "failed"),
             ("sent", "retried", "rejected", "odd")]  # fmt: skip
    found = []
    for life in lives:
        numbered = list(enumerate(life, 1))
        for order in permutations(numbered):
            steps = [["event", task_event(kind, clock=at, timestamp=AHEAD + at, local_received=AHEAD + came)]
                     for came, (at, kind) in enumerate(order, 3)]  # fmt: skip
            found.append({"steps": steps, "limits": {}})
    return found


def fleet(seed: int) -> dict[str, Any]:
    """Some workers and tasks: late, doubled, unordered and odd events, deaths, small memories."""
    chance = random.Random(seed)
    base = chance.choice([AHEAD, AHEAD, AGO])
    hosts = [f"w{n}@here" for n in range(chance.randint(1, 4))]
    uuids = [chr(ord("a") + n) for n in range(chance.randint(1, 12))]
    flow = {uuid: {"parent_id": chance.choice([None, *uuids[:n]]), "root_id": chance.choice(["z", *uuids[:n + 1]])}
            for n, uuid in enumerate(uuids)}  # fmt: skip
    steps: list[list[Any]] = []
    clock = 5
    for n in range(chance.randint(1, 60)):
        clock = max(1, clock + chance.choice([1, 1, 1, 1, 0, -3, 5]))
        stamp = base + n + chance.choice([0, 0, 0, 0.5, -2, 40])
        when = {"timestamp": stamp, "local_received": base + n + chance.choice([0, 0.25, -1, 3]), "clock": clock}
        host = chance.choice(hosts)
        dice = chance.random()
        if dice < 0.75:
            kind = chance.choice(KINDS)
            uuid = chance.choice(uuids)
            more = (
                {**flow[uuid], "name": "proj." + "add mul".split()[ord(uuid) % 2]}
                if kind in ("sent", "received")
                else {}
            )
            steps.append(["event", task_event(kind, uuid, host, **when, **more)])
        elif dice < 0.97:
            kind = chance.choice(["online", "heartbeat", "heartbeat", "heartbeat", "offline"])
            steps.append(["event", {"type": f"worker-{kind}", "hostname": host, "pid": chance.randint(1, 3),
                                    "freq": chance.choice([2.0, 60]), "active": n, "processed": n, "utcoffset": 0,
                                    "loadavg": [1, 2, 3], "sw_ident": "py-celery", "sw_ver": "5", "sw_sys": "Linux",
                                    **when}])  # fmt: skip
        elif dice < 0.98:
            steps.append(["event", {"type": "custom-thing", "hostname": host, **when}])
        else:
            steps.append(chance.choice([["clear_tasks", True], ["clear_tasks", False], ["clear", True]]))
    limits: dict[str, Any] = {}
    if chance.random() < 0.3:
        limits = {"max_tasks_in_memory": chance.randint(2, 6), "max_workers_in_memory": chance.randint(1, 3)}
    return {"steps": steps, "limits": limits}


@pytest.mark.process
@pytest.mark.parametrize(
    "stories", [pytest.param(one_task(), id="one task"), pytest.param([*map(fleet, range(80))], id="fleets")]
)
def test_events_come_to_the_same_state(stories: list[dict[str, Any]]) -> None:
    done = subprocess.run(
        [os.environ["CELERY_REFERENCE_PYTHON"], str(PROGRAM)], input=json.dumps(stories), text=True,
        stdout=subprocess.PIPE, check=True, timeout=300,
    )  # fmt: skip
    for story, theirs in zip(stories, json.loads(done.stdout), strict=True):
        ours = states.tell(story["steps"], **story["limits"])
        _leave_out_its_faults(ours, theirs)
        assert ours == theirs, json.dumps(story)


def _leave_out_its_faults(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The real one files a task by its type only if its very first event names it, and cannot list the tasks of a
    worker while any was sent and has not arrived."""
    for name, uuids in ours.pop("of type").items():
        assert set(theirs["of type"][name]) <= set(uuids)
    del theirs["of type"]
    for host, uuids in theirs["by worker"].items():
        if uuids is None:
            ours["by worker"][host] = None
