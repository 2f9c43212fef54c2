"""Two hundred hostile exceptions in children: none of them dies of one (PAINS 33)."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from tests import hostile
from tests.running import Background, environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

PROJECT = """
import os
from celery import Celery
import hostile

app = Celery("proj", broker="sqlite:///", backend="sqlite:///")
app.conf.update(result_serializer={serializer!r}, result_accept_content=[{serializer!r}])

@app.task
def misbehave(label):
    raise hostile.make(label)

@app.task
def pid():
    return os.getpid()
"""
PATIENCE = 60.0


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_no_child_dies_of_an_exception(tmp_path: Path, serializer: str) -> None:
    (tmp_path / "proj.py").write_text(PROJECT.format(serializer=serializer))
    shutil.copy(hostile.__file__, tmp_path / "hostile.py")
    url = f"sqlite:///{tmp_path}/celery.sqlite3"
    app = Celery("proj", broker=url, backend=url, set_as_current=False)
    app.conf.update(result_serializer=serializer, result_accept_content=[serializer])
    with Background("celery -A proj worker -c 1", tmp_path, environment(tmp_path)) as worker:
        child = app.send_task("proj.pid").get(timeout=PATIENCE)
        results = {label: app.send_task("proj.misbehave", (label,)) for label in hostile.LABELS}
        for label, result in results.items():
            failure = result.get(timeout=PATIENCE, propagate=False)
            assert result.state == "FAILURE", label
            assert type(failure).__name__ != "WorkerLostError", f"{label}: {failure}"
            assert len(result.traceback.encode("utf-8", "surrogatepass")) <= 65_536, label
        assert app.send_task("proj.pid").get(timeout=PATIENCE) == child
        assert worker.stop(signal.SIGTERM) == 0
    app.close()
