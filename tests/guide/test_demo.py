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
    lines = ["$ celery -A proj worker -l INFO", ">>> add.delay(2, 2).get(timeout=10)", "everything as expected"]
    for line in [*lines, ">>> (group(add.s(i, i) for i in range(10)) | xsum.s())().get(timeout=10)"]:
        assert line in shown.stdout, shown.stdout
    shown_canvases = [line for line in shown.stdout.splitlines() if line in ("64", "90")]
    assert shown_canvases == ["64", "64", "90", "90"], shown.stdout
    assert shown.stdout.count("exit code 0") == 2, shown.stdout
