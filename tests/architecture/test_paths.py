"""No file of the repository names a machine: no folder of some computer, no host of a package registry."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.architecture.source import ROOT
from tests.architecture.test_floors import report

# Written in pieces, so that this file passes its own test.
FORBIDDEN = re.compile(
    "|".join(
        [
            *("/wo" + r"rk/\w", "/ro" + r"ot/\w", "/op" + r"t/(ref|dev|briefs|pypi|wheels)"),
            "/home/" + r"(?!you|user|deploy)\w+",
            *("pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs", "deb" + r"\.debian\.org"),
        ]
    )
)


@pytest.mark.slow
def test_no_machine_is_named() -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    wrong = []
    for name in filter(None, listed.split("\0")):
        try:
            text = (ROOT / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if hit := FORBIDDEN.search(line):
                wrong.append(f"{name}:{number}: {hit.group()}")
    assert not wrong, report(wrong, "Write what holds on every machine.")
