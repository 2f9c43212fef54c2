"""The gevent and eventlet pools: the contract, each in a process of its own that is patched before all else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATCHED = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", PATCHED)
@pytest.mark.slow
def test_the_contract(library: str) -> None:
    arguments = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/contracts/green.py"]
    code = f"{PATCHED[library]}\nimport sys, pytest\nsys.exit(pytest.main({arguments!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],  # eventlet warns of its own age
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "GREEN_LIBRARY": library, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
