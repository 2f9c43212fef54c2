"""The ledger of a chaos run: what was sent, what ran, what was lost, what ran twice, and how long recovery took.

Tasks write a line when they begin and one when they end, each with one `write` to a file opened for appending, which
outlives any kill of the process. Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from tests.running import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from celery import Celery

__all__ = ["COLUMNS", "Ledger", "Run", "Sender"]

#: The columns of a row, in order.
COLUMNS = ("case", "sent", "run", "lost", "run twice", "repeated publishes", "seconds to recover", "remarks")


@dataclass(slots=True)
class Run:
    """One execution, as its process told of it."""

    pid: int
    began: float
    ended: float | None = None


@dataclass
class Ledger:
    """The books of one case."""

    notes: Path
    #: Task id → when the broker had accepted it.
    sent: dict[str, float] = field(default_factory=dict)
    #: Task id → how often its publish was repeated, by the retry policy or by the sender.
    repeated: Counter[str] = field(default_factory=Counter)
    #: How often a call was refused with `OperationalError`.
    refused: int = 0

    def runs(self) -> dict[str, list[Run]]:
        """All executions so far, by task id, in the order of their beginnings."""
        found: dict[str, list[Run]] = defaultdict(list)
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        for line in lines:
            what, task_id, pid, when = line.split()
            if what == "began":
                found[task_id].append(Run(int(pid), float(when)))
            else:
                run = next(run for run in reversed(found[task_id]) if run.pid == int(pid) and run.ended is None)
                run.ended = float(when)
        return found

    def done(self) -> set[str]:
        """Ids of those that ran to their end."""
        return {task_id for task_id, runs in self.runs().items() if any(run.ended is not None for run in runs)}

    @property
    def lost(self) -> list[str]:
        """Accepted by the broker, and not run to the end."""
        return sorted(set(self.sent) - self.done())

    @property
    def twice(self) -> dict[str, list[Run]]:
        """Begun more than once, though sent once."""
        return {i: runs for i, runs in self.runs().items() if len(runs) > 1 and not self.repeated[i]}

    def wait(self, timeout: float, who: Iterable[Any] = ()) -> float:
        """Wait until everything that was sent has run; returns the seconds that it took.

        `who`: workers whose output is shown if it does not come to that.
        """
        began = time.monotonic()
        while self.lost and time.monotonic() < began + timeout:
            time.sleep(0.05)
        lost = self.lost
        shown = "\n".join(f"--- {worker.command}\n{worker.output[-4000:]}" for worker in who) if lost else ""
        assert not lost, f"not run after {timeout} s: {len(lost)} of {len(self.sent)}: {lost[:5]}\n{shown}"
        return time.monotonic() - began

    def row(self, case: str, recovery: float | None, remarks: str = "") -> dict[str, str]:
        """A row of the table."""
        return dict(
            zip(
                COLUMNS,
                (
                    case,
                    str(len(self.sent)),
                    str(len(self.done() & set(self.sent))),
                    str(len(self.lost)),
                    str(len(self.twice)),
                    str(self.repeated.total()),
                    "" if recovery is None else f"{recovery:.1f}",
                    remarks,
                ),
                strict=True,
            )
        )


class Sender(logging.Handler):
    """Sends tasks from a thread of its own, as a program that tries again with the same id when a call is refused."""

    def __init__(self, app: Celery, ledger: Ledger) -> None:
        super().__init__(logging.DEBUG)
        self._app = app
        self._ledger = ledger
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._log = logging.getLogger("celery.producer")
        self._level = self._log.level

    def emit(self, record: logging.LogRecord) -> None:
        """The producer says which ids it publishes again."""
        if str(record.msg).startswith("publishing") and isinstance(record.args, tuple):
            self._ledger.repeated.update(str(record.args[0]).split())

    def __enter__(self) -> Sender:
        self._log.addHandler(self)
        self._log.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(60)
        self._log.removeHandler(self)
        self._log.setLevel(self._level)

    def send(self, name: str, task_id: str, *args: Any, patience: float = 60.0) -> None:
        """Send one; on return the broker has accepted it."""
        deadline = time.monotonic() + patience
        while True:
            try:
                self._app.send_task(name, args, task_id=task_id)
            except OperationalError:
                self._ledger.refused += 1
                self._ledger.repeated[task_id] += 1
                if time.monotonic() > deadline or self._over.is_set():
                    raise
                time.sleep(0.2)
            else:
                self._ledger.sent[task_id] = time.monotonic()
                return

    def flow(self, name: str, ids: Iterable[str], args: Callable[[int], tuple[Any, ...]], pause: float) -> None:
        """Send these in the background, one every `pause` seconds."""

        def go() -> None:
            for number, task_id in enumerate(ids):
                self.send(name, task_id, *args(number))
                if self._over.wait(pause):
                    return

        self._thread = threading.Thread(target=go, name="chaos-sender", daemon=True)
        self._thread.start()

    def finish(self, timeout: float = 120.0) -> None:
        """Wait until all are sent."""
        assert self._thread is not None
        thread = self._thread
        wait_until(lambda: not thread.is_alive(), "everything is sent", timeout)
