"""What one job passes on its way: modules and calls from `delay()` to `get()`, counted in every thread.

Comprehensions and generator expressions are no calls (each step of one would count, and not in every Python).

`python -m tests.architecture.hops` prints them.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from celery import Celery
from celery.worker import WorkController
from tests.running import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any


LOOPS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


class Counting:
    """Counts calls of Python functions whose module is ours, while it is switched on."""

    def __init__(self) -> None:
        self.on = False
        self.calls: Counter[tuple[str, str]] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if self.on and event == "call":
            module = frame.f_globals.get("__name__", "")
            name = frame.f_code.co_name
            if (module == "celery" or module.startswith("celery.")) and name not in LOOPS:
                self.calls[module, frame.f_code.co_qualname] += 1


@contextmanager
def worker(app: Celery, profile: Counting) -> Iterator[None]:
    """A solo worker in a thread of this process, counted from its start."""
    controller = WorkController(app=app, pool="solo", concurrency=1)
    threading.setprofile(profile)
    thread = threading.Thread(target=controller.start, name="counted worker")
    thread.start()
    threading.setprofile(None)
    try:
        yield
    finally:
        controller.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the worker did not stop"


def one_job(repetitions: int = 9) -> Counter[tuple[str, str]]:
    """Calls of one job, by (module, function): memory broker and backend, solo pool, everything warmed up.

    Of several jobs, the one of the median: a worker that looks at its clock just then adds a call or two.
    """
    app = Celery("hops", broker="memory://hops", backend="cache+memory://hops", set_as_current=False)

    @app.task(name="hops.add")
    def add(x: int, y: int) -> int:
        return x + y

    counting = Counting()
    with worker(app, counting):
        assert add.delay(1, 2).get(timeout=PATIENCE) == 3
        jobs = [_count(counting, lambda: add.delay(1, 2).get(timeout=PATIENCE)) for _ in range(repetitions)]
    return sorted(jobs, key=lambda job: job.total())[len(jobs) // 2]


def _count(counting: Counting, work: Callable[[], object]) -> Counter[tuple[str, str]]:
    counting.calls = Counter()
    sys.setprofile(counting)
    counting.on = True
    try:
        work()
    finally:
        counting.on = False
        sys.setprofile(None)
    return counting.calls


def table(calls: Counter[tuple[str, str]]) -> str:
    modules = sorted({module for module, _ in calls})
    lines = [f"{calls.total()} calls in {len(modules)} modules"]
    for module in modules:
        inside = [f"{name} ×{n}" if n > 1 else name for (m, name), n in calls.items() if m == module]
        lines.append(f"  {module}: {', '.join(inside)}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(one_job()))
