"""What a worker remembers, says of itself, and takes from beside its queues."""

from __future__ import annotations

import json
import shelve
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from kombu.clocks import LamportClock

from celery import Celery
from celery.utils.nodenames import worker_direct
from celery.worker import state
from celery.worker.statefile import StateFile
from tests.flow.engine import DEADLINE, until
from tests.flow.running import working

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    app = Celery("parts", broker=name, backend=name, set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    yield app
    app.close()


@pytest.fixture(autouse=True)
def _nothing_revoked() -> Iterator[None]:
    state.reset_state()
    yield
    state.reset_state()


def solo(app: Celery, **options: Any) -> Any:
    return working(app, pool="solo", **options)


def test_revoked_tasks_are_remembered_over_restarts(app: Celery, tmp_path: Path) -> None:
    path = tmp_path / "state"
    with solo(app, statedb=str(path)):
        state.revoked.add("unwanted")
        app.clock.adjust(50)
    state.reset_state()
    app.clock.value = 0
    unwanted = app.tasks["add"].apply_async((1, 1), task_id="unwanted")
    with solo(app, statedb=str(path)):
        assert app.tasks["add"].delay(1, 2).get(timeout=DEADLINE) == 3
        until(lambda: unwanted.state == "REVOKED", "it is dropped")
    assert app.clock.value >= 51
    assert [child.name for child in tmp_path.iterdir()] == ["state"]


def test_the_setting_names_the_file_too(app: Celery, tmp_path: Path) -> None:
    app.conf.worker_state_db = str(tmp_path / "from-settings")
    with solo(app):
        state.revoked.add("x")
    assert list(json.loads((tmp_path / "from-settings").read_text())["revoked"]) == ["x"]


def test_what_is_forgotten_is_not_written(tmp_path: Path) -> None:
    path, clock = tmp_path / "state", LamportClock()
    state.revoked.add("old", now=1.0)
    state.revoked.add("new")
    file = StateFile(str(path), clock)
    file.start()
    file.save()
    assert list(json.loads(path.read_text())["revoked"]) == ["new"]
    written = path.stat().st_ino
    file.stop(None)
    assert path.stat().st_ino == written  # nothing new, nothing written


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "x", "clock": 1, "revoked": {}}'])
def test_what_is_no_file_of_ours_is_put_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    file = StateFile(str(path), LamportClock())
    file.start()
    assert "expected a state file of this worker" in caplog.text
    assert (tmp_path / "state.old").read_bytes() == content
    state.revoked.add("y")
    file.stop(None)
    assert "y" in json.loads(path.read_text())["revoked"]


def test_a_pickle_of_celerys_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with shelve.open(str(path)) as theirs:
        theirs["zrevoked"] = b"..."
    found = next(child for child in tmp_path.iterdir())
    StateFile(str(found), LamportClock()).start()
    assert not state.revoked
    assert (tmp_path / f"{found.name}.old").exists()


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = StateFile(str(tmp_path / "nowhere" / "state"), LamportClock())
    file.start()
    state.revoked.add("z")
    file.stop(None)
    assert "cannot be written" in caplog.text


def test_a_queue_of_its_own(app: Celery) -> None:
    app.conf.worker_direct = True
    with solo(app, hostname="w1@here", queues="other"):
        result = app.tasks["add"].apply_async((2, 3), queue=worker_direct("w1@here"))
        assert result.get(timeout=DEADLINE) == 5


def test_none_unless_it_is_asked_for(app: Celery) -> None:
    with solo(app, hostname="w1@here") as worker:
        assert [spec.name for spec in worker.app.amqp.queues.consume_specs()] == ["celery"]


@pytest.mark.process
def test_what_it_says_of_itself(app: Celery) -> None:
    app.conf.task_time_limit = 30
    with working(app, pool="prefork", prefetch_multiplier=4, concurrency=2) as worker:
        app.tasks["add"].delay(1, 1).get(timeout=DEADLINE)
        until(lambda: len(worker.stats()["pool"]["processes"]) == 2, "both have started")
        stats = worker.stats()
    assert {name: stats[name] for name in ("total", "pid", "prefetch_count")} == {
        "total": {"add": 1}, "pid": worker.pid, "prefetch_count": 8,
    }  # fmt: skip
    assert 0 < int(stats["clock"]) <= app.clock.value  # its heart ticks
    assert stats["pool"]["max-concurrency"] == 2
    assert stats["pool"]["timeouts"] == [0, 30]
    assert stats["broker"]["transport"] == "memory"
    assert stats["rusage"] == {**worker.rusage(), **stats["rusage"]}
    assert stats["rusage"]["maxrss"] > 0
    assert worker.info() == {name: worker.stats()[name] for name in ("total", "pid", "clock", "uptime")}
    assert json.loads(json.dumps(stats)) == stats


def test_no_password_is_said() -> None:
    app = Celery("secret", broker="redis://user:hidden@127.0.0.1:1/0", set_as_current=False)
    worker = app.WorkController(app=app, pool="solo")
    assert "hidden" not in json.dumps(worker.stats())
    app.close()
