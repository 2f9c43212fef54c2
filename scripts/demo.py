"""Run the example project on the embedded SQLite broker: start its workers, call its tasks, show the answers, stop.

Needs the package alone. Exit code 0: every answer was the one to be expected, and every worker stopped cleanly.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

PROJECT = Path(__file__).resolve().parents[1] / "examples" / "next-steps"
READY_WITHIN = 30.0  # seconds
STOPPED_WITHIN = 15.0
#: What is typed at the Python prompt, and what it must answer; None: nothing is shown.
CALLS: list[tuple[str, object]] = [
    ("from celery import chord, group", None),
    ("from proj.celery import app", None),
    ("from proj.tasks import add, mul, xsum", None),
    ("add.delay(2, 2).get(timeout=10)", 4),
    ("add.apply_async((2, 2), queue='lopri').get(timeout=10)", 4),
    ("add(2, 2)", 4),
    ("mul.delay(6, 7).get(timeout=10)", 42),
    ("xsum.delay([1, 2, 3]).get(timeout=10)", 6),
    ("res = add.delay(2, '2')", None),
    ("repr(res.get(timeout=10, propagate=False))", "TypeError(\"unsupported operand type(s) for +: 'int' and 'str'\")"),
    ("res.failed(), res.successful(), res.state", (True, False, "FAILURE")),
    ("res.traceback.splitlines()[-1]", "TypeError: unsupported operand type(s) for +: 'int' and 'str'"),
    ("app.AsyncResult('this-id-does-not-exist').state", "PENDING"),
    # Canvas: tasks side by side, one after the other, and both.
    ("group(add.s(i, i) for i in range(10))().get(timeout=10)", [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]),
    ("g = group(add.s(i) for i in range(10))", None),
    ("g(10).get(timeout=10)", [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
    ("(add.s(4, 4) | mul.s(8))().get(timeout=10)", 64),
    ("(add.s(4) | mul.s(8))(4).get(timeout=10)", 64),
    ("chord((add.s(i, i) for i in range(10)), xsum.s())().get(timeout=10)", 90),
    ("(group(add.s(i, i) for i in range(10)) | xsum.s())().get(timeout=10)", 90),
    ("res = (add.s(2, 2) | add.s('4') | mul.s(8))()", None),
    ("repr(res.get(timeout=10, propagate=False))", "TypeError(\"unsupported operand type(s) for +: 'int' and 'str'\")"),
    ("print(res.flow())", None),
]


def show(line: str) -> None:
    print(line, flush=True)


class Worker:
    """`celery -A proj worker …` in a process of its own; what it prints is shown, each line behind its name."""

    def __init__(self, name: str, *options: str) -> None:
        self.name = name
        self.command = ["celery", "-A", "proj", "worker", "-l", "INFO", *options]
        self._ready = False
        self._settled = threading.Event()  # it is ready, or it ended

    def start(self) -> None:
        show(f"$ {' '.join(self.command)}")
        start_it = [sys.executable, "-m", *self.command]
        self._process = subprocess.Popen(
            start_it, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._show, args=[self._process.stdout], daemon=True)
        self._reader.start()
        if not self._settled.wait(READY_WITHIN) or not self._ready:
            raise SystemExit(f"the worker ended, or was not ready within {READY_WITHIN:.0f} s")

    def _show(self, output: IO[str]) -> None:
        for line in output:
            show(f"  {self.name} | {line.rstrip()}")
            if line.rstrip().endswith("ready."):
                self._ready = True
                self._settled.set()
        self._settled.set()

    def stop(self) -> int:
        """Ask it to finish (SIGTERM); returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(STOPPED_WITHIN)
        code = self._process.wait()
        show(f"$ kill {self._process.pid}  # the worker {self.name!r}: exit code {code}")
        return code


def call_tasks() -> bool:
    """Type all of `CALLS` and compare the answers; False if one was wrong."""
    sys.path.insert(0, str(PROJECT))
    names: dict[str, object] = {}
    right = True
    for source, expected in CALLS:
        show(f">>> {source}")
        if expected is None:
            exec(source, names)
            sys.stdout.flush()
            continue
        answer = eval(source, names)
        show(answer if isinstance(answer, str) else repr(answer))
        if answer != expected:
            show(f"!!! expected {expected!r}")
            right = False
    return right


def main() -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="celery-demo-") as folder, contextlib.ExitStack() as cleanup:
        url = f"sqlite:///{folder}/demo.sqlite3"
        os.environ.update(CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url, PYTHONUNBUFFERED="1")
        workers = [Worker("first"), Worker("lopri", "-Q", "lopri", "-n", "lopri@%h")]
        codes: list[int] = []
        for worker in workers:
            cleanup.callback(lambda w=worker: codes.append(w.stop()))
            worker.start()
        right = call_tasks()
        cleanup.close()
    well = right and not any(codes)
    show(f"{'everything as expected' if well else 'NOT as expected'}, {time.monotonic() - began:.1f} s")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
