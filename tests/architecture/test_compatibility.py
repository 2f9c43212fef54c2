"""The compatibility table is whole, true and rendered: every item once, and each test that a row names exists."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from scripts import compat

from tests.architecture.test_floors import report

if TYPE_CHECKING:
    from pathlib import Path


def test_every_item_is_there_once() -> None:
    areas = compat.read()
    gaps = [name for name, area in areas.items() if sorted(area.rows) != list(range(1, len(area.rows) + 1))]
    assert not gaps, f"these areas have gaps in their numbers: {gaps}"
    assert sum(len(area.rows) for area in areas.values()) == compat.ITEMS


@pytest.mark.slow
def test_each_named_test_exists() -> None:
    missing = compat.missing_tests(compat.read())
    assert not missing, report(missing, "Name the tests by their pytest ids, or put the rows back to later.")


def test_the_page_is_current() -> None:
    assert compat.PAGE.read_text() == compat.page(compat.read()), "run: python scripts/compat.py render"


@pytest.mark.slow
def test_writing_keeps_everything(tmp_path: Path) -> None:
    areas = compat.read()
    compat.change(areas, "call.4-5", status="done", tests=("tests/architecture/test_compatibility.py::test_*",))
    compat.change(areas, "app.1", status="differs", reason='because "so" | not')
    compat.write(areas, tmp_path / "table.toml")
    again = compat.read(tmp_path / "table.toml")
    assert again == areas
    assert [again["call"].rows[n].status for n in (3, 4, 5, 6)].count("done") >= 2
    assert not compat.missing_tests({"call": again["call"]}) or compat.missing_tests(compat.read())


@pytest.mark.slow
def test_a_test_that_is_not_there_is_told() -> None:
    areas = compat.read()
    compat.change(areas, "call.4", status="done", tests=("tests/architecture/test_compatibility.py::test_nowhere",))
    assert "call.4: tests/architecture/test_compatibility.py::test_nowhere" in compat.missing_tests(areas)


def test_a_row_says_one_thing(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text('[a]\nsubject = "s"\n1 = { title = "t", later = 2, done = ["x"] }\n')
    with pytest.raises(ValueError, match=r"a\.1: expected later"):
        compat.read(tmp_path / "t.toml")


@pytest.mark.slow
def test_what_comes_later_may_be_there_in_part(tmp_path: Path) -> None:
    areas = compat.read()
    tests = ("tests/architecture/test_compatibility.py::test_*",)
    compat.change(areas, "app.1", status="later", issue=6, reason="a part", tests=tests)
    compat.write(areas, tmp_path / "table.toml")
    assert compat.read(tmp_path / "table.toml") == areas
    assert f"later: issue 6: a part `{tests[0]}`" in compat.page(areas)


@pytest.mark.process
def test_an_unknown_item_is_refused() -> None:
    command = [sys.executable, str(compat.ROOT / "scripts" / "compat.py"), "done", "call.999", "tests/x.py::test_y"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "call.999" in refused.stderr
