"""Tasks are typed by their functions: mypy and pyright find what must be found, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.process  # a type checker of its own

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PASSING, FAILING = HERE / "must_pass.py", HERE / "must_fail.py"


def expected_lines(path: Path) -> set[int]:
    return {number for number, line in enumerate(path.read_text().splitlines(), 1) if "# error:" in line}


@cache  # a checker reads the package once, for both files
def mypy_errors() -> dict[str, dict[int, str]]:
    from mypy import api

    files = [str(PASSING), str(FAILING)]
    out, err, _ = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--no-pretty", *files])
    assert not err, err
    found = re.findall(r"(\w+\.py):(\d+): error: (.*)", out)
    return {path.name: {int(n): text for name, n, text in found if name == path.name} for path in (PASSING, FAILING)}


@cache
def pyright_errors() -> dict[str, dict[int, str]]:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    ran = subprocess.run(
        [*command, str(PASSING), str(FAILING)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT / "src",
    )  # fmt: skip
    try:
        report = json.loads(ran.stdout)
    except ValueError:
        pytest.skip(f"pyright does not run here: {(ran.stdout + ran.stderr)[-300:]}")
    assert report["summary"]["filesAnalyzed"] == 2
    errors = [found for found in report["generalDiagnostics"] if found["severity"] == "error"]
    return {
        path.name: {
            found["range"]["start"]["line"] + 1: found["message"]
            for found in errors
            if Path(found["file"]).name == path.name
        }
        for path in (PASSING, FAILING)
    }


@pytest.mark.parametrize("checker", [mypy_errors, pyright_errors])
def test_well_typed_calls_pass(checker) -> None:
    assert checker()[PASSING.name] == {}


@pytest.mark.parametrize("checker", [mypy_errors, pyright_errors])
def test_badly_typed_calls_are_found_and_nothing_else(checker) -> None:
    assert set(checker()[FAILING.name]) == expected_lines(FAILING)
