"""Flows of which each Celery runs a half: begun by either, members here and there, ended by whoever is last."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.running import wait_until
from tests.wire import golden
from tests.wire.mixed import SIDES

if TYPE_CHECKING:
    from tests.wire.mixed import Fleet

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]

#: Each `!` is a call's queue: they take turns. The value of each flow, in Python.
FLOWS = {
    "chain(add.s(1, 2)!, add.s(10)!, add.s(100)!)": 113,
    "group(add.s(1, 1)!, add.s(2, 2)!, add.s(3, 3)!)": [2, 4, 6],
    "chord([add.s(1, 1)!, add.s(2, 2)!, add.s(3, 3)!, add.s(4, 4)!], numbers.s()!)": [[2, 4, 6, 8]],
    "chord([add.s(1, 1)!], numbers.s()!)": [[2]],
    "chain(add.s(1, 2)!, group(add.s(1)!, add.s(2)!), total.s()!, add.s(100)!)": 109,
    "chain(add.s(1, 2)!, group(add.s(1)!, add.s(2)!))": [4, 5],
    "chord([chain(add.s(1, 1)!, add.s(2)!), add.s(5, 5)!, chain(add.s(1, 1)!, add.s(1)!)], numbers.s()!)": [[4, 10, 3]],
    "chord([chord([add.s(1, 1)!, add.s(2, 2)!], total.s()!), add.s(5, 5)!], total.s()!)": 16,
    "chord([add.s(1, 1)!, add.s(2, 2)!], group(total.s()!, numbers.s()!))": [6, [[2, 4]]],
    "chain(group(add.s(1, 1)!, add.s(2, 2)!), group(total.s()!, total.s()!), total.s()!)": 12,
    "chain(replaced.s(1)!, add.s(1)!)": 102,
    "chord([replaced.s(1)!, add.s(2, 2)!, replaced.s(3)!], numbers.s()!)": [[101, 4, 103]],
    "chain(spread.s(1)!, numbers.s()!)": [[1, 2, 3]],
    "chord([spread.s(1)!, add.s(2, 2)!], total.s()!)": 10,
    "chord([joined.s(1)!, joined.s(2)!, add.s(3, 3)!], total.s()!)": 2012,
}
MEMBER = "Dependency <id> raised KeyError('a', 1)"
FAILING = {
    "chain(add.s(1, 2)!, fail.si('builtin')!, add.s(1)!)": "KeyError('a', 1)",
    "chord([add.s(1, 1)!, fail.s('builtin')!, add.s(2, 2)!], total.s()!)": MEMBER,
    "chain(chord([add.s(1, 1)!, fail.s('builtin')!], total.s()!), add.s(1)!)": MEMBER,
    "chord([chain(fail.s('builtin')!, add.s(1)!), add.s(2, 2)!], total.s()!)": MEMBER,
    "chain(fail.s('builtin')!, group(add.s(1)!, add.s(2)!), total.s()!)": "KeyError('a', 1)",
}


def placed(flow: str, first: str) -> str:
    """The flow, each of its calls on the queue of one side in turn."""
    turn = count(SIDES.index(first))
    return re.sub("!", lambda _: f".set(queue={SIDES[next(turn) % 2]!r})", flow)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.replace("!", "")[:60])
def test_each_runs_a_half(fleet: Fleet, flow: str) -> None:
    for side in SIDES:
        for first in SIDES:
            found = fleet.clients[side](f"{placed(flow, first)}().get(timeout=20)")
            assert found == FLOWS[flow], (side, first)


@pytest.mark.parametrize("flow", FAILING, ids=lambda flow: flow.replace("!", "")[:60])
def test_a_failure_reaches_the_end(fleet: Fleet, flow: str) -> None:
    """Whoever ran the member that failed, and whoever would have run what follows."""
    for side in SIDES:
        for first in SIDES:
            client = fleet.clients[side]
            client(f"r = {placed(flow, first)}()")
            client("e = app.AsyncResult(r.id).get(timeout=20, propagate=False)")
            found = client("str(e) if 'Dependency' in str(e) else repr(e)")
            assert re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", found) == FAILING[flow], (side, first)


def test_errbacks_of_a_body_hear_of_a_member(fleet: Fleet) -> None:
    for side in SIDES:
        for first in SIDES:
            flow = placed("chord([add.s(1, 1)!, fail.s('builtin')!], total.s()!.on_error(errback.s()!))", first)
            body = fleet.clients[side](f"{flow}().id")
            fleet.read(body)
            assert "ChordError: Dependency" in fleet.wait_for(f"errback-{body}")


def test_a_barrier_leaves_what_theirs_leaves(fleet: Fleet) -> None:
    """Nothing but the mark that it was fired, whoever fired it."""
    left = []
    for queue in SIDES:
        flow = "chord([add.s(1, 1)!, add.s(2, 2)!], total.s()!)".replace("!", f".set(queue={queue!r})")
        client = fleet.clients[queue]
        client(f"r = {flow}(); r.get(timeout=20)")
        key = f"celery-taskset-meta-{client('r.parent.id')}"
        wait_until(lambda key=key: fleet.server.call("GET", f"{key}.c") == b"done", "the mark")  # type: ignore[misc]
        keys = sorted(found.decode().removeprefix(key) for found in fleet.server.call("KEYS", f"{key}*"))
        left.append((keys, fleet.server.call("TTL", f"{key}.c") > 200))
    assert left == [([".c"], True)] * 2


@pytest.mark.parametrize("saver", SIDES)
def test_groups_that_either_saved(fleet: Fleet, saver: str) -> None:
    """[rkeys.3]"""
    other = next(side for side in SIDES if side != saver)
    fleet.clients[saver]("g = group(add.s(n, n).set(queue='ours') for n in range(3))(); g.save()")
    group_id = fleet.clients[saver]("g.id")
    assert fleet.server.call("TTL", f"celery-taskset-meta-{group_id}") > 86000
    found = fleet.clients[other](f"r = app.GroupResult.restore({group_id!r}); [r.id, r.get(timeout=20), r.as_tuple()]")
    assert found == [group_id, [0, 2, 4], fleet.clients[saver]("g.as_tuple()")]
    fleet.clients[other]("r.delete()")
    assert fleet.clients[saver](f"app.GroupResult.restore({group_id!r})") is None


#: Which task a request names as its parent and its root, by the names of the client's variables.
KIN = """
def kin(said, **names):
    by_id = {id: name for name, id in names.items()}
    return [by_id.get(said[field], said[field]) for field in ("parent_id", "root_id")]
"""


@pytest.mark.parametrize("runner", SIDES)
def test_parents_and_roots(fleet: Fleet, runner: str) -> None:
    """[canvas.74], [canvas.48]"""
    client = fleet.clients[runner]
    client(KIN)
    queue = f".set(queue={runner!r})"
    client(f"r = chain(add.s(1, 2){queue}, echo.s(){queue}, request.si(){queue})(); s = r.get(timeout=20)")
    assert client("kin(s, first=r.parent.parent.id, second=r.parent.id, own=r.id)") == ["second", "first"]
    client(f"r = chord([add.s(1, 2){queue}], request.si(){queue})(); s = r.get(timeout=20)")
    assert client("kin(s, member=r.parent[0].id, own=r.id)") == ["member", "member"]
    assert client("[s['group'] == r.parent.id, s['chord'], s['id'] == r.id]") == [True, None, True]
