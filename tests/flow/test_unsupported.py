"""What pools of one process cannot do, and gevent's pool where nothing is patched."""

from __future__ import annotations

from pathlib import Path

import pytest

from celery.concurrency import get_implementation
from tests.contracts.pool import Scripted


@pytest.mark.parametrize("name", ["threads", "gevent", "solo"])
def test_what_was_asked_for_and_cannot_be_done_is_said_at_start(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = get_implementation(name)(Scripted(tmp_path / "diary"), 1, max_tasks=5, max_memory=1000)
    pool.start()
    pool.stop(0.0)
    said = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
    assert [text.split()[0] for text in said] == ["--max-tasks-per-child", "--max-memory-per-child"]
    assert all(f"-P {name}" in text for text in said)
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_nothing_is_said_where_nothing_was_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pool = get_implementation("threads")(Scripted(tmp_path / "diary"), 1)
    pool.start()
    pool.stop(0.0)
    assert not caplog.records
