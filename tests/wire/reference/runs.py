"""What happens around a run, noted by hooks, receivers and errbacks; run by this project and by the real Celery.

As a program it sends all cases, waits until they are over, and prints what was noted: case → lines.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import patience  # noqa: F401

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject

FOLDER = Path(os.environ["RUNS_FOLDER"])

app = Celery("runs", broker=os.environ["RUNS_URL"], backend=os.environ["RUNS_URL"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)


def note(root_id: str | None, *what: Any) -> None:
    with (FOLDER / f"noted-{root_id}").open("a") as lines:
        lines.write(json.dumps(what, default=repr) + "\n")


class Noted(Task):
    abstract = True
    raises: Any = None  # the hook that raises

    def _hook(self, name: str, *what: Any) -> None:
        request = self.request
        note(request.root_id, name, *what, self.AsyncResult(request.id).state)
        if self.raises == name:
            raise ValueError(name)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self._hook("before_start", task_id == self.request.id, args, kwargs)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self._hook("on_success", retval, args, kwargs)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._hook("on_failure", exc, args, kwargs, type(einfo).__name__, type(einfo.exception).__name__)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._hook("after_return", status, retval, args, kwargs)


def receive(name: str) -> None:
    def receiver(sender: Any = None, signal: Any = None, **kwargs: Any) -> None:
        said = {
            key: type(value).__name__ if key in ("einfo", "traceback", "request", "task", "runtime") else value
            for key, value in kwargs.items()
            if key != "task_id"
        }
        note(sender.request.root_id or kwargs.get("task_id"), name, sender.name, said)

    getattr(signals, name).connect(receiver, weak=False)


for name in ("task_prerun", "task_postrun", "task_success", "task_failure"):
    receive(name)


@app.task(base=Noted, throws=(KeyError,))
def act(what: str = "value", **kwargs: Any) -> Any:
    if what == "value":
        return {"v": 1}
    if what == "set":
        return {1}
    raise {"error": ValueError("no"), "expected": KeyError("x"), "ignore": Ignore("i"), "requeue": Reject("r")}[what]


def one() -> int:
    return 1


HOOKS = ("before_start", "on_success", "after_return")
for hook in HOOKS:
    app.task(base=Noted, name=f"runs.{hook}", raises=hook)(one)


@app.task
def at_once(request: Any, exc: Any, traceback: Any, *more: Any) -> None:
    last = str(traceback).strip().splitlines()[-1]
    note(request.root_id, "at_once", type(request).__name__, exc, last, more, act.AsyncResult(request.id).state)


@app.task
def two(a: Any, b: Any) -> None:
    note(two.request.root_id, "two", a == two.request.parent_id, b)


@app.task(bind=True)
def by_id(self: Any, task_id: str, **more: Any) -> None:
    request = self.request
    note(request.root_id, "by_id", task_id == request.parent_id, more, request.group is not None, request.group_index)


@app.task
def raises(request: Any, exc: Any, traceback: Any) -> None:
    note(request.root_id, "raises")
    raise RuntimeError("errback")


@app.task
def after(value: Any = None, *more: Any) -> None:
    request = after.request
    note(request.root_id, "after", value, more, request.parent_id == request.root_id, request.group_index)


class ClassBased(Task):
    name = "runs.class_based"

    def run(self, task_id: str, other: Any = None, third: Any = None) -> None:
        note(self.request.root_id, "class_based", task_id == self.request.parent_id, other)


class_based = app.register_task(ClassBased())

#: Case → task, arguments, options.
CASES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "value": (act, (), {}),
    "error": (act, ("error",), {}),
    "expected": (act, ("expected",), {}),
    "ignore": (act, ("ignore",), {}),
    "set": (act, ("set",), {}),
    **{hook: (app.tasks[f"runs.{hook}"], (), {}) for hook in HOOKS},
    "link": (act, (), {"link": after.s("mine")}),
    "immutable link": (act, (), {"link": after.si("mine")}),
    "links": (act, (), {"link": [after.s(1), after.si(2)]}),
    "errback at once": (act, ("error",), {"link_error": at_once.s()}),
    "errback with arguments": (act, ("error",), {"link_error": at_once.s("p")}),
    "errback of two": (act, ("error",), {"link_error": two.s(7)}),
    "errback of two by name": (act, ("error",), {"link_error": two.s(b=7)}),
    "errback by id": (act, ("error",), {"link_error": by_id.s(k=1)}),
    "errback of a class": (act, ("error",), {"link_error": class_based.s()}),
    "immutable errback": (act, ("error",), {"link_error": after.si("mine")}),
    "errback that raises": (act, ("error",), {"link_error": [raises.s(), at_once.s()]}),
    "errbacks": (act, ("error",), {"link_error": [by_id.s(), at_once.s(), by_id.s(x=2)]}),
}


def main() -> None:
    ids = {case: f"the {case}" for case in CASES}
    for case, (task, args, options) in CASES.items():
        task.apply_async(args, task_id=ids[case], **options)
    # The worker runs one after the other: the first of these comes behind all cases, the second behind what follows
    # from them.
    for _ in range(2):
        app.send_task("runs.act").get(timeout=60)
    noted = {}
    for case, identifier in ids.items():
        path = FOLDER / f"noted-{identifier}"
        noted[case] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    print(json.dumps(noted))


if __name__ == "__main__":
    main()
