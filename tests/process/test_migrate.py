"""`celery migrate` as a program of its own, killed in the middle ([cli.18]): nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.routing import QueueSpec
from tests.running import PATIENCE, environment, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

MESSAGES = 2_000
COMMAND = ["-m", "celery", "-A", "proj", "migrate", "sqlite:///one.db", "sqlite:///two.db", "-a", "-t", "0.5"]


def ids(app: Celery, url: str) -> list[str]:
    broker: Any = app.assembly.open_broker(url)
    consumer = broker.consume([QueueSpec("other")])
    consumer.others(ask=True)  # what the dead held is put back
    consumer.close()
    found = [json.loads(one.envelope)["headers"]["id"] for one in broker.inspection.peek("celery", 10 * MESSAGES)]
    assert broker.inspection.stats(["celery"])[0].held == 0
    broker.close()
    return found


def test_killed_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proj.py").write_text("from celery import Celery\napp = Celery('proj', broker='sqlite:///one.db')\n")
    app = Celery("sender", broker="sqlite:///one.db", set_as_current=False)
    with app.connection():
        for i in range(MESSAGES):
            app.send_task("add", (i, i), task_id=str(i))
    everything = {str(i) for i in range(MESSAGES)}
    log = tmp_path / "said"
    with open(log, "w", encoding="utf-8") as file:
        variables = environment(tmp_path)
        program = subprocess.Popen([sys.executable, *COMMAND], cwd=tmp_path, env=variables, stdout=file, stderr=file)
        wait_until(lambda: f"Migrating task {MESSAGES // 5}/" in log.read_text(), "a fifth is migrated")
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    there, here = ids(app, "sqlite:///two.db"), ids(app, "sqlite:///one.db")
    assert len(there) > 0
    assert len(here) > 0, "it was done before it could be killed: raise MESSAGES"
    assert {*there, *here} == everything
    assert len(there) + len(here) <= MESSAGES + 100  # a batch may be in both
    done = subprocess.run(
        [sys.executable, *COMMAND], cwd=tmp_path, env=variables, text=True, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert f"Migrated {len(here)} tasks." in done.stdout
    assert ids(app, "sqlite:///one.db") == []
    assert {*ids(app, "sqlite:///two.db")} == everything
    app.close()
