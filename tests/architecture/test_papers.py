"""The papers at the top of the repository are short, and name only what is there."""

from __future__ import annotations

import re

import pytest

from tests.architecture.source import PACKAGE, ROOT
from tests.architecture.test_floors import report


@pytest.mark.parametrize(("name", "limit"), [("README.md", 150), ("ARCHITECTURE.md", 100)])
def test_papers_are_short(name: str, limit: int) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= limit


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", (ROOT / name).read_text())
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_architecture_names_what_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    files = re.findall(r"(?<![\w/.])((?:[a-z_]+/)*[a-z_]+\.py)\b", text)
    folders = re.findall(r"`((?:[a-z_]+/)+)`", text)
    named = {*files, *folders}
    assert len(named) > 15
    lost = [name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()]
    assert not lost, report(lost, "ARCHITECTURE.md names files that are not there.")
