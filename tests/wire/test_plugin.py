"""One pytest project under the plugins of both Celeries: the same outcomes, and the same observations."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.running import ROOT
from tests.wire import golden
from tests.wire.mixed import SIDES, THEIRS

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]

PROJECT = golden.SCRIPTS / "plugin"
FILES = {
    "settings.py": "conftest.py", "shared_tasks.py": "shared_tasks.py", "functions.py": "test_functions.py",
    "sessions.py": "test_sessions.py", "traps.py": "test_traps.py",
}  # fmt: skip
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")


def pytest_for_the_reference(folder: Path) -> Path:
    """A folder with this environment's pytest, and nothing else of it."""
    site = folder / "site"
    site.mkdir()
    for name in PYTEST:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (site / source.name).symlink_to(source)
    for name in ("pytest", "pluggy"):
        found = Path(str(importlib.metadata.distribution(name)._path))  # type: ignore[attr-defined]
        (site / found.name).symlink_to(found)
    return site


def run(side: str, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Each test's outcome, and what it noted."""
    project = folder / side
    project.mkdir()
    for source, target in FILES.items():
        shutil.copy(PROJECT / source, project / target)
    path = pytest_for_the_reference(folder) if side == THEIRS else ROOT / "src"
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "TZ": "UTC", "PYTHONPATH": str(path),
        "NOTES": str(project / "notes"), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    python = golden.REFERENCE if side == THEIRS else sys.executable
    # One process a file: a session's worker shares the queues of every other app in its process.
    outcomes: dict[str, str] = {}
    for file in ("test_functions.py", "test_sessions.py", "test_traps.py"):
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--strict-markers", "--tb=short", file]
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        lines = [line.split() for line in done.stdout.splitlines()]
        found = {line[1]: line[0] for line in lines if len(line) > 1 and line[1].startswith(f"{file}::")}
        assert found, done.stdout + done.stderr
        assert set(found.values()) == {"PASSED"}, f"{side}:\n{done.stdout}"
        outcomes.update(found)
    notes = [json.loads(line) for line in (project / "notes").read_text().splitlines()]
    return outcomes, {f"{test}: {name}": value for test, name, value in notes}


def test_the_same_project_under_both_plugins(tmp_path: Path) -> None:
    (our_outcomes, ours), (their_outcomes, theirs) = (run(side, tmp_path) for side in SIDES)
    assert our_outcomes == their_outcomes
    assert len(their_outcomes) == 21
    assert ours == theirs, "\n".join(
        f"{key}: ours {ours.get(key)!r}, theirs {theirs.get(key)!r}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    )
    assert len(theirs) > 40
