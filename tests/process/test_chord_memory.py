"""The memory of a worker over a chord with large results: its main process stays as it is, a child pays for the list.

The body gets all results as its argument, which its task has asked for: what that list costs is measured by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, chord
from tests.running import Background, environment, wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.process, pytest.mark.server]

MEMBERS, SIZE = 6000, 2000
PATIENCE = 120.0
MB = 1 << 20
#: All results, as they travel.
LIST = MEMBERS * SIZE
SOURCE = """
import os
from celery import Celery

app = Celery("proj")

@app.task
def text(size):
    return "x" * size

@app.task
def letters(texts):
    return sum(map(len, texts))

@app.task
def where():
    return os.getpid()
"""


class Process:
    """What Linux tells of a process's memory, in bytes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    @property
    def resident(self) -> int:
        return self._read("VmRSS")

    @property
    def peak(self) -> int:
        return self._read("VmHWM")

    def _read(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) << 10


@pytest.fixture(params=["redis", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    (tmp_path / "proj.py").write_text(SOURCE)
    with RedisServer() as server:
        url = server.url() if request.param == "redis" else f"sqlite:///{tmp_path}/chord.db"
        app = Celery("proj", broker=url, backend=url, set_as_current=False)
        yield app
        app.close()


def test_the_main_process_stays_flat_and_a_child_pays_for_the_list_alone(app: Celery, tmp_path: Path) -> None:
    letters: Any = app.signature("proj.letters")
    url = app.conf.broker_url
    variables = environment(tmp_path, CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND=url)

    def run(size: int) -> None:
        header = [app.signature("proj.text", (size,)) for _ in range(MEMBERS)]
        assert chord(header, letters, app=app)().get(timeout=PATIENCE) == MEMBERS * size

    with Background("celery -A proj worker -c 1 -l WARNING", tmp_path, variables) as worker:
        main = Process(worker.pid)
        child = Process(app.send_task("proj.where").get(timeout=PATIENCE))
        run(1)  # as many members, so that the window of messages is open
        wait_until(lambda: main.resident < 120 * MB, "the main process is small")
        before = main.resident

        child.forget_peak()
        assert app.send_task("proj.letters", (["x" * SIZE] * MEMBERS,)).get(timeout=PATIENCE) == LIST
        plain = child.peak

        child.forget_peak()
        run(SIZE)
        wait_until(lambda: main.resident < before + 20 * MB, "the main process has given back what it needed", PATIENCE)
        assert child.peak < plain + LIST, "the list is there once more at the most"
