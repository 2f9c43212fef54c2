"""Hooks, receivers, callbacks and errbacks around a run: what each hears, in which order, ours and theirs."""

from __future__ import annotations

import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.running import PATIENCE, Background
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire.mixed import OURS, SIDES, THEIRS, Side

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]

CASES = [
    "value", "error", "expected", "ignore", "set", "before_start", "on_success", "after_return", "link",
    "immutable link", "links", "errback at once", "errback with arguments", "errback of two",
    "errback of two by name", "errback by id", "errback of a class", "immutable errback", "errback that raises",
    "errbacks",
]  # fmt: skip


def noted_by(name: str, url: str, folder: Path) -> dict[str, Any]:
    """Run all cases with a worker and a client of one side."""
    folder.mkdir()
    side = Side(name, folder, url, url)
    environment = side.environment(RUNS_URL=url, RUNS_FOLDER=str(folder), C_FORCE_ROOT="1")
    worker = Background(f"{side.python} -m celery -A runs worker -P solo -l INFO", folder, environment)
    try:
        worker.wait_for(r"ready\.")
        done = subprocess.run(
            [side.python, str(golden.SCRIPTS / "runs.py")], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=2 * PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + worker.output
    finally:
        worker.stop(signal.SIGTERM)
    noted: dict[str, Any] = json.loads(done.stdout)
    return noted


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("runs")
    with RedisServer() as server, ThreadPoolExecutor() as threads:
        urls = {name: server.url(index) for index, name in enumerate(SIDES)}
        jobs = {name: threads.submit(noted_by, name, urls[name], folder / name) for name in SIDES}
        yield {name: job.result() for name, job in jobs.items()}


@pytest.mark.parametrize("case", CASES)
def test_both_tell_the_same(noted: dict[str, dict[str, Any]], case: str) -> None:
    ours, theirs = noted[OURS][case], noted[THEIRS][case]
    assert theirs, "nothing was noted"
    assert [line[0] for line in ours] == [line[0] for line in theirs]
    assert ours == theirs


def test_no_case_is_left_out(noted: dict[str, dict[str, Any]]) -> None:
    assert sorted(noted[OURS]) == sorted(CASES)
