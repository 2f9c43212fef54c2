"""A project whose workers tell events; run by this project and by the real Celery, as worker, client and receiver.

python told.py hear FILE        each event as a line of JSON
python told.py call QUEUE       one task of each kind; their ids, as JSON
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import patience  # noqa: F401

from celery import Celery
from celery.exceptions import Reject

app = Celery("told", broker=os.environ["TOLD_URL"], backend=os.environ["TOLD_URL"])
app.conf.update(task_send_sent_event=True, broker_connection_retry_on_startup=True, worker_send_task_events=True)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def fail() -> None:
    raise KeyError("a")


@app.task(bind=True)
def again(self: Any) -> str:
    if not self.request.retries:
        raise self.retry(exc=ValueError("why"), countdown=0)
    return "x" * 3000


@app.task(acks_late=True)
def reject() -> None:
    raise Reject("no", requeue=False)


@app.task(bind=True)
def custom(self: Any) -> None:
    self.send_event("task-progress", done=1)


def hear(path: str) -> None:
    with open(path, "w", buffering=1) as out, app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: print(json.dumps(event), file=out)})
        receiver.capture(limit=None, timeout=None, wakeup=True)


def call(queue: str) -> None:
    signatures = {
        "add": add.s(1, 2), "fail": fail.s(), "again": again.s(), "reject": reject.s(), "custom": custom.s(),
        "stale": add.s(1, 1).set(expires=-1), "later": add.s(1, 3).set(countdown=0.2, expires=60),
        "unknown": app.signature("told.unknown"),
    }  # fmt: skip
    results = {name: signature.set(queue=queue).apply_async() for name, signature in signatures.items()}
    ids = {name: result.id for name, result in results.items()}
    chained = (add.s(1, 2).set(queue=queue) | add.s(4).set(queue=queue)).apply_async()
    ids["last"] = chained.id
    assert chained.get(timeout=30) == 7
    for name in ("again", "later"):  # the last ones: a worker that is stopped sooner leaves them to the next
        results[name].get(timeout=30)
    print(json.dumps(ids))


if __name__ == "__main__":
    {"hear": hear, "call": call}[sys.argv[1]](sys.argv[2])
