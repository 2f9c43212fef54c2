"""`celery worker -b filesystem://`: to the result and back, killed, and beside the real Celery."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from tests.process.project import Project, lines
from tests.running import Background, wait_until
from tests.wire.golden import REFERENCE, reference_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

SOURCE = """
import os, time
from celery import Celery

HERE = os.path.dirname(os.path.abspath(__file__))
app = Celery("proj", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": HERE + "/queues", "data_folder_out": HERE + "/queues", "control_folder": HERE + "/control",
}


@app.task(acks_late=True, reject_on_worker_lost=True)
def note(path, text, seconds=0.0):
    with open(path, "a") as file:
        file.write(text + "\\n")
    time.sleep(seconds)
    return text
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    for name in ("queues", "control"):
        (tmp_path / name).mkdir()
    project = Project(tmp_path, SOURCE, "filesystem://")
    project.app = Celery("proj", broker="filesystem://", set_as_current=False)
    project.app.conf.broker_transport_options = dict.fromkeys(
        ("data_folder_in", "data_folder_out"), f"{tmp_path}/queues"
    ) | {"control_folder": f"{tmp_path}/control"}
    yield project
    project.app.close()


def test_what_a_killed_worker_held_is_run_by_another(project: Project) -> None:
    note = project.note()
    worker = project.ready("-c 2")
    for i in range(5):
        project.send("note", str(note), str(i), 2.0 if i < 2 else 0.0)
    wait_until(lambda: lines(note) >= 2, "two run")
    os.killpg(worker.pid, signal.SIGKILL)
    with project.ready("-c 2"):
        wait_until(lambda: set(note.read_text().split()) == set("01234"), "all have run")
        wait_until(lambda: lines(note) == 7, "and those twice that had not ended")
    assert project.depth() == 0
    assert not list((project.folder / "queues").iterdir())


@pytest.mark.skipif(not Path(REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python")
def test_beside_the_real_celery(project: Project) -> None:
    note = project.note()
    theirs = reference_environment(project.folder)
    path = str(note)
    send = f"from proj import note; note.delay({path!r}, 'theirs'); note.apply_async(({path!r}, 'late'), countdown=1)"
    with project.ready("-c 1"):
        subprocess.run([REFERENCE, "-c", send], cwd=project.folder, env=theirs, check=True, timeout=60)
        wait_until(lambda: lines(note) == 2, "ours runs what theirs sends")
    worker = Background(f"{REFERENCE} -m celery -A proj worker -c 1 -l INFO -P solo", project.folder, theirs)
    with worker:
        worker.wait_for(r"ready\.$")
        project.send("note", str(note), "ours")
        wait_until(lambda: lines(note) == 3, "theirs runs what ours sends")
    assert note.read_text().split() == ["theirs", "late", "ours"]
