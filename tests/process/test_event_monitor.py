"""`celery events` on a terminal: it shows what a worker does, and does what its keys say."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pytest

from tests.process.project import Project
from tests.running import PATIENCE
from tests.servers import RedisServer

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

pytestmark = [pytest.mark.process, pytest.mark.server]

SOURCE = """
import time
from celery import Celery

app = Celery("proj", broker=URL, backend=URL)


@app.task
def wait(seconds):
    time.sleep(seconds)


@app.task
def fail():
    raise ValueError("on purpose")
"""


class Terminal:
    """A program on a terminal of 80 × 24."""

    def __init__(self, project: Project, command: str) -> None:
        self.screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            f"exec {command}", shell=True, cwd=project.folder, env={**project.variables, "TERM": "xterm-256color"},
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.drawn = ""

    def wait_for(self, pattern: str) -> None:
        """Until the program has drawn it, since the last time that was asked for something.

        Only what changes is drawn, so it is asked to draw everything, again and again (Ctrl-L).
        """
        deadline = time.monotonic() + PATIENCE
        self.type("\x0c")
        while not re.search(pattern, self.drawn, re.S):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.drawn!r}"
            if not select.select([self.screen], [], [], 0.5)[0]:
                self.type("\x0c")
            else:
                try:
                    self.drawn += os.read(self.screen, 1 << 16).decode(errors="replace")
                except OSError:  # it has ended
                    assert re.search(pattern, self.drawn, re.S), f"no {pattern!r} in {self.drawn!r}"
        self.drawn = ""

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


def test_it_shows_a_task_and_ends_it(tmp_path: Path) -> None:
    with RedisServer() as server:
        project = Project(tmp_path, SOURCE, server.url())
        with project.ready("-E -c 1 -n w1@here") as worker, Terminal(project, "celery -A proj events") as monitor:
            monitor.wait_for("1 of 1 workers")
            running = project.send("wait", 600)
            monitor.wait_for(r"STARTED.*proj\.wait")
            monitor.type("x")
            monitor.wait_for("yes/no")
            monitor.type("yes\n")
            monitor.wait_for("w1@here: terminate")
            monitor.wait_for("REVOKED")
            assert running.state == "REVOKED"
            project.send("fail")
            monitor.wait_for(r"FAILURE.*proj\.fail")
            monitor.type("gt")  # of the topmost
            monitor.wait_for("on purpose")
            monitor.type("q")
            monitor.type("W")
            monitor.wait_for("prefork 1")
            monitor.type("qq")
            assert monitor.process.wait(PATIENCE) == 0
            assert worker.running


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    project = Project(tmp_path, SOURCE)
    with Terminal(project, "celery -A proj events") as monitor:
        monitor.wait_for("Waiting for events")
        os.killpg(monitor.process.pid, signal.SIGINT)
        assert monitor.process.wait(PATIENCE) == 0
