"""Tasks are typed by their functions: mypy and pyright find what must be found, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PASSING, FAILING = HERE / "must_pass.py", HERE / "must_fail.py"


def expected_lines(path: Path) -> set[int]:
    return {number for number, line in enumerate(path.read_text().splitlines(), 1) if "# error:" in line}


def mypy_errors(path: Path) -> dict[int, str]:
    api = pytest.importorskip("mypy.api")
    out, err, _ = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--follow-imports=silent", "--no-pretty", str(path)]
    )
    assert not err, err
    found = re.findall(rf"{path.name}:(\d+): error: (.*)", out)
    return {int(line): text for line, text in found}


def pyright_errors(path: Path) -> dict[int, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT / "src",
    )  # fmt: skip
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        pytest.skip(f"pyright does not run here: {(ran.stdout + ran.stderr)[-300:]}")
    assert report["summary"]["filesAnalyzed"] == 1
    errors = [found for found in report["generalDiagnostics"] if found["severity"] == "error"]
    return {found["range"]["start"]["line"] + 1: found["message"] for found in errors}


@pytest.mark.parametrize("checker", [mypy_errors, pyright_errors])
def test_well_typed_calls_pass(checker) -> None:
    assert checker(PASSING) == {}


@pytest.mark.parametrize("checker", [mypy_errors, pyright_errors])
def test_badly_typed_calls_are_found_and_nothing_else(checker) -> None:
    assert set(checker(FAILING)) == expected_lines(FAILING)
