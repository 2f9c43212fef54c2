"""A mixed fleet on RabbitMQ, results over `rpc://`: each Celery reads what came of tasks that the other ran."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.wire import golden
from tests.wire.pair import Pair

if TYPE_CHECKING:
    pass

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.xdist_group("rabbit"),
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]

SOURCE = """
import os, threading
from celery import Celery, chain, chord, group
from kombu import Queue

app = Celery("mixed", broker=os.environ["BROKER"], backend="rpc://")
app.conf.task_queues = [Queue("ours", routing_key="ours"), Queue("theirs", routing_key="theirs")]
app.conf.worker_enable_remote_control = False
app.conf.task_track_started = True
app.conf.result_serializer = os.environ["SERIALIZER"]
app.conf.result_accept_content = [os.environ["SERIALIZER"]]
app.conf.result_persistent = os.environ["SERIALIZER"] != "json"


class Odd(Exception):
    pass


@app.task
def add(x, y):
    return x + y


@app.task(bind=True)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return [self.request.retries, self.request.reply_to == app.oid]


@app.task
def fail(text):
    raise Odd(text, 1)


@app.task(bind=True)
def steps(self):
    for i in range(3):
        self.update_state(state="PROGRESS", meta={"i": i})
    return "done"


@app.task(bind=True)
def other(self, to):
    raise self.replace(add.s(2, 40).set(queue=to))
"""
#: What one side sends to the worker of the other, and what comes of it.
CLIENT = """
import json, sys
import patience
from mixed import add, again, app, chain, chord, fail, group, other, steps, threading
to = dict(queue=sys.argv[2])
sent_by = sys.argv[1]
heard = []
def states(document):
    heard.append(document["status"])
stepping = steps.apply_async(**to)
stepped = stepping.get(timeout=60, on_message=states)
failed = fail.apply_async(("why",), **to).get(timeout=60, propagate=False)
many = [add.apply_async((i, i), **to) for i in range(50)]
threads = []
def mine(n):
    try:
        threads.append(add.apply_async((n, 1), **to).get(timeout=60) - n)
    except Exception as exc:
        threads.append(repr(exc))
# Of Celery's own client a thread now and then waits in vain for what came before it had its queue.
running = [threading.Thread(target=mine, args=(n,)) for n in range(16 if sent_by == "ours" else 0)]
for one in running: one.start()
for one in running: one.join()
chained = chain(add.s(1, 1).set(**to), add.s(5).set(**to), add.s(10).set(**to)).apply_async()
found = {
    "plain": add.apply_async((2, 3), **to).get(timeout=60),
    "states": [state for state in heard if state in ("PROGRESS", "SUCCESS")],
    "stepped": stepped,
    "retry": again.apply_async(**to).get(timeout=60)[0],
    "failed": [type(failed).__name__, list(failed.args)],
    "backwards": [one.get(timeout=60) for one in reversed(many)] == [2 * i for i in reversed(range(50))],
    "threads": threads,
    "chain": [chained.get(timeout=60), chained.parent.get(timeout=60), chained.parent.parent.get(timeout=60)],
    "group": group(add.s(i, i).set(**to) for i in range(5)).apply_async().get(timeout=60),
    "ignored": add.apply_async((1, 1), ignore_result=True, **to).get(timeout=60),
}
if sys.argv[2] == "ours":  # Celery's worker does not hand on where the result of a replaced task goes
    found["replaced"] = other.apply_async(("ours",), **to).get(timeout=60)
if sys.argv[3:]:
    header = [add.s(i, i).set(**to) for i in range(3)]
    found["chord"] = chord(header, steps.si().set(**to)).apply_async().get(timeout=60)
print(json.dumps(found))
"""


#: Who sends, to whom; and whether with a chord: Celery has none on `rpc://`.
RUNS = (("ours", "theirs"), ("theirs", "ours"), ("ours", "ours", "chord"))


@pytest.fixture(params=["json", "pickle"])
def fleet(request: pytest.FixtureRequest, rabbit_url: str, tmp_path: Path) -> Pair:
    return Pair(tmp_path, SOURCE, CLIENT, BROKER=rabbit_url, SERIALIZER=request.param)


def test_each_reads_what_came_of_what_it_sent(fleet: Pair) -> None:
    with fleet.worker("ours") as ours, fleet.worker("theirs") as theirs:
        for worker in (ours, theirs):
            worker.wait_for(r"ready\.")
        found = [fleet.send(one, one, other, *more) for one, other, *more in RUNS]
    assert found[2].pop("chord") == "done"
    assert [results.pop("replaced", None) for results in found] == [None, 42, 42]
    assert [results.pop("threads") for results in found] == [[1] * 16, [], [1] * 16]
    for results in found:
        assert results == {
            "plain": 5,
            "states": ["PROGRESS"] * 3 + ["SUCCESS"],
            "stepped": "done",
            "retry": 2,
            "failed": ["Odd", ["why", 1]],
            "backwards": True,
            "chain": [17, 7, 2],
            "group": [0, 2, 4, 6, 8],
            "ignored": None,
        }
