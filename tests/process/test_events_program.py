"""`celery events` and `celery worker -E`, as a user runs them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.running import Background, environment, shell
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.server, pytest.mark.process]

PROJECT = """
import os
from celery import Celery
from celery.events.snapshot import Polaroid

app = Celery("proj", broker=os.environ["URL"], backend=os.environ["URL"])

@app.task(bind=True)
def add(self, x, y):
    self.send_event("task-progress", done=1)
    return x + y

class Camera(Polaroid):
    clear_after = True
    def on_shutter(self, state):
        for uuid, task in state.tasks_by_time():
            print("seen", task.name, task.state, flush=True)
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    (tmp_path / "proj.py").write_text(PROJECT)
    with RedisServer() as server:
        yield tmp_path, environment(tmp_path, URL=server.url())


def test_dump_and_camera(project: tuple[Path, dict[str, str]]) -> None:
    folder, variables = project
    call = "celery -A proj call proj.add -a '[2, 3]'"
    with (
        Background("celery -A proj worker -E -c 1 -n w@h -l INFO --heartbeat-interval 1", folder, variables) as worker,
        Background("celery -A proj events --dump", folder, variables) as dump,
        Background("celery -A proj events -c proj.Camera -F 0.2 -l INFO", folder, variables) as camera,
    ):
        worker.wait_for(r"w@h ready\.")
        dump.wait_for(r"^w@h \[.*\] heartbeat: active=0, clock=\d+, freq=1\.0, loadavg=")
        camera.wait_for(r"-> evcam: Taking snapshots with proj\.Camera \(every 0\.2 secs\.\)")
        shell(call, folder, variables)
        dump.wait_for(r"task received: proj\.add\([-0-9a-f]+\) args=\[2, 3\] kwargs={} ")
        dump.wait_for(r"task progress: .*done=1")  # told by the process that runs it
        dump.wait_for(r"task succeeded: proj\.add\([-0-9a-f]+\) args=\[2, 3\] kwargs={} .*result=5, ")
        camera.wait_for(r"seen proj\.add SUCCESS")
        assert worker.stop(signal.SIGTERM) == 0
        output = dump.wait_for(r"^w@h \[.*\] shutdown: ")
        assert output.startswith("-> evdump: starting capture...\n")
        assert dump.stop(signal.SIGINT) == 0
        assert camera.stop(signal.SIGINT) == 0


def test_a_broker_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Nothing has to be started anew: the dump hears on, and the worker tells on."""
    (tmp_path / "proj.py").write_text(PROJECT)
    with RedisServer() as server:
        variables = environment(tmp_path, URL=server.url())
        port = int(server.url().rpartition(":")[2].partition("/")[0])
        with (
            Background("celery -A proj worker -E -c 1 -n w@h -l INFO --heartbeat-interval 1", tmp_path, variables) as w,
            Background("celery -A proj events --dump", tmp_path, variables) as dump,
        ):
            w.wait_for(r"ready\.")
            dump.wait_for(r"heartbeat:")
            server.stop()
            dump.wait_for(r"-> evdump: lost the broker: ")
            w.wait_for(r"Heartbeats cannot be sent|Connection lost")
            with RedisServer(port=port):
                shell("celery -A proj call proj.add -a '[20, 3]'", tmp_path, variables)
                dump.wait_for(r"task succeeded: .*result=23, ", 60.0)
                w.stop(signal.SIGTERM)
                dump.stop(signal.SIGINT)
