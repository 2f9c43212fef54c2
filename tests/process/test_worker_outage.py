"""`celery worker` on Redis while the server comes and goes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from tests.process.test_worker_program import PROJECT
from tests.running import Background, environment, wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.process, pytest.mark.server]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


def worker_on(server: RedisServer, folder: Path) -> Background:
    (folder / "proj.py").write_text(PROJECT)
    variables = environment(folder, CELERY_BROKER_URL=server.url(), CELERY_RESULT_BACKEND=server.url())
    return Background("celery -A proj worker -l INFO -c 2", folder, variables)


def test_what_runs_while_the_server_is_away_is_settled_when_it_is_back(server: RedisServer, tmp_path: Path) -> None:
    app = Celery("proj", broker=server.url(), backend=server.url(), set_as_current=False)
    server.start()
    note = tmp_path / "note"
    with worker_on(server, tmp_path) as worker:
        worker.wait_for("ready")
        results = [app.send_task(f"proj.{name}", (1.5, str(note))) for name in ("nap", "late_nap")]
        wait_until(lambda: note.exists() and len(note.read_text().splitlines()) == 2, "both tasks run")
        server.stop(keep_directory=True)
        worker.wait_for("WARNING/MainProcess. consumer: Connection lost: .* Trying again in 1.00 seconds")
        worker.wait_for("(?s)succeeded in.*succeeded in")
        server.start()
        assert [result.get(timeout=30) for result in results] == ["rested"] * 2
        assert app.send_task("proj.add", (1, 2)).get(timeout=30) == 3
    assert len(note.read_text().splitlines()) == 2  # none ran twice
    assert server.call("HLEN", "unacked") == 0
    app.close()


def test_a_worker_waits_for_a_server_that_is_not_there_yet(server: RedisServer, tmp_path: Path) -> None:
    worker = worker_on(server, tmp_path)
    worker.wait_for(r"ERROR/MainProcess. consumer: Cannot connect to redis://127.0.0.1:\d+/0: .*")
    worker.wait_for(r"Trying again in 2\.00 seconds\.\.\. \(1/100\)")
    server.start()
    worker.wait_for(r"(?s)INFO/MainProcess. Connected to redis://.*ready\.$")
    assert worker.stop(signal.SIGTERM) == 0


def test_a_worker_that_never_reached_its_server_stops_at_once(server: RedisServer, tmp_path: Path) -> None:
    worker = worker_on(server, tmp_path)
    worker.wait_for("Cannot connect")
    assert worker.stop(signal.SIGTERM, timeout=5) == 0
