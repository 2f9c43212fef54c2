"""A broker, a project and workers for one chaos case, and what kills them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from celery import Celery
from tests.chaos.ledger import Ledger, Sender
from tests.running import Background, environment, wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["FULL", "Death", "Scene", "durable_redis", "processes", "scaled"]

#: `make chaos`: everything at full size.
FULL = os.environ.get("CHAOS") == "1"

PROJECT = """
import os, time
from celery import Celery

app = Celery("proj")
app.conf.update(%(settings)r)

def note(what, task_id):
    line = f"{what} {task_id} {os.getpid()} {time.monotonic():.6f}\\n".encode()
    file = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)
    finally:
        os.close(file)

def body(self, seconds):
    note("began", self.request.id)
    time.sleep(seconds)
    note("ended", self.request.id)
    return self.request.id

late = app.task(name="proj.late", bind=True, acks_late=True, reject_on_worker_lost=True)(body)
first = app.task(name="proj.first", bind=True, acks_first=True)(body)
early = app.task(name="proj.early", bind=True, acks_late=False)(body)

@app.task(name="proj.count", bind=True, acks_late=True, reject_on_worker_lost=True)
def count(self, ids):
    note("began", self.request.id)
    note("ended", self.request.id)
    return len(set(ids))
"""


def scaled(full: Any, small: Any) -> Any:
    """A size for `make chaos`, and one for `make test`."""
    return full if FULL else small


def durable_redis() -> RedisServer:
    """A server that has what it accepted when it comes back."""
    return RedisServer("--appendonly", "yes", "--appendfsync", "always")


def processes(worker: Background) -> list[psutil.Process]:
    """The worker's main process, its zygote and its children: the main process first."""
    try:
        main = psutil.Process(worker.pid)
        return [main, *main.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass
class Death:
    """Processes that were killed together."""

    when: float
    pids: set[int]
    kind: str


class Scene:
    """The project lies in `folder`; `url` is broker and result backend, unless `backend` is given."""

    def __init__(self, folder: Path, url: str, *, backend: str | None = None, **settings: Any) -> None:
        self.folder = folder
        self.url = url
        self.backend = backend
        self.settings = settings
        (folder / "proj.py").write_text(PROJECT % {"settings": settings})
        self.ledger = Ledger(folder / "notes")
        store = url if backend is None else backend
        self.variables = environment(
            folder, CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=store, NOTES=str(self.ledger.notes)
        )
        self.app = Celery("proj", broker=url, backend=store, set_as_current=False)
        self.app.conf.update(settings)
        self.workers: list[Background] = []
        self.deaths: list[Death] = []
        self._numbers = 0

    def client(self, url: str) -> Celery:
        """An app of the same project that reaches the broker by another way."""
        app = Celery("proj", broker=url, backend=self.backend or url, set_as_current=False)
        app.conf.update(self.settings)
        return app

    def worker(self, options: str = "-c 2", *, ready: bool = True, **variables: str) -> Background:
        """Start another one."""
        self._numbers += 1
        command = f"celery -A proj worker -l INFO -n w{self._numbers}@here {options}"
        worker = Background(command, self.folder, {**self.variables, **variables})
        self.workers.append(worker)
        if ready:
            worker.wait_for(r"ready\.$", 60)
        return worker

    def sender(self) -> Sender:
        return Sender(self.app, self.ledger)

    def kill(self, worker: Background, random_: random.Random, kinds: Sequence[str]) -> Death | None:
        """Kill the worker's main process, all of its processes at once, or only one child. None: it was not there."""
        everybody = processes(worker)
        kind = random_.choice(kinds)
        if not everybody:
            return None
        if kind == "child":
            leaves = [process for process in everybody[1:] if not process.children()]
            if not leaves:
                return None
            victims = [random_.choice(leaves)]
        else:
            victims = everybody if kind == "all" else everybody[:1]
        when = time.monotonic()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        doomed = victims if kind == "child" else everybody
        psutil.wait_procs(doomed, timeout=10)
        death = Death(when, {process.pid for process in doomed}, kind)
        self.deaths.append(death)
        if kind != "child":
            worker.stop(signal.SIGKILL)
            self.workers.remove(worker)
        return death

    def check_twice(self, slack: float = 1.0) -> float:
        """Whatever ran twice was running, or had just ended, when its process was killed: returns how long ago at most.

        Raises `AssertionError` for any other.
        """
        window = 0.0
        for task_id, runs in self.ledger.twice.items():
            for run in runs[:-1]:
                killed = [death.when for death in self.deaths if run.pid in death.pids]
                assert killed, f"{task_id} ran again although nobody killed its process: {runs}"
                if run.ended is not None:
                    window = max(window, killed[0] - run.ended)
        assert window < slack, f"a task ran again {window:.3f} s after it had ended"
        return window

    def check_interrupted(self, interruptions: Sequence[tuple[float, float]], slack: float = 1.0) -> None:
        """Whatever ran twice was running, or had just ended, when its connection was lost.

        `interruptions`: from when until when (monotonic) connections were lost. Raises `AssertionError` for any other.
        """
        for task_id, runs in self.ledger.twice.items():
            for run in runs[:-1]:
                assert any(
                    run.began < until and (run.ended is None or run.ended > since - slack)
                    for since, until in interruptions
                ), f"{task_id} ran again although nothing interrupted it: {runs}, {interruptions}"

    def settled(self) -> set[str]:
        """Ids whose results are stored by now."""
        ids = list(self.ledger.sent)
        store = self.app.assembly.store
        assert store is not None
        return {task_id for task_id, found in zip(ids, store.load(ids), strict=True) if found is not None}

    def idle(self) -> bool:
        """Nothing waits in the queue."""
        return bool(self.app.assembly.broker.depth("celery") == 0)  # type: ignore[attr-defined]

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGCONT)
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.stop(signal.SIGKILL)
        self.app.close()

    def until(self, condition: Any, what: str, timeout: float = 60.0) -> None:
        wait_until(condition, what, timeout)
