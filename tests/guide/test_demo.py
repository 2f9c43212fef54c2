"""`make demo`, without make."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.running import ROOT


@pytest.mark.process
def test_the_demo_shows_every_answer_and_stops_cleanly() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "demo.py")]
    shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert shown.returncode == 0, shown.stdout
    for line in ["$ celery -A proj worker -l INFO", ">>> add.delay(2, 2).get(timeout=10)", "everything as expected"]:
        assert line in shown.stdout, shown.stdout
    assert shown.stdout.count("exit code 0") == 2, shown.stdout
