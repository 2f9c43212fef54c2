"""Canvases are what Celery 5.7 makes of them: JSON, messages, results, eager runs.

    CELERY_REFERENCE_PYTHON=… python -m tests.wire.test_canvases

captures anew what the real one does, into `canvases.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.running import ROOT
from tests.wire import golden

KEPT = Path(__file__).parent / "canvases.json"
SCRIPT = golden.SCRIPTS / "canvas_forms.py"

#: Options that say nothing where they are empty; where Celery repeats them beside what says the same.
SILENT = ("add_to_parent", "chain", "chord", "group_id", "group_index", "parent_id", "priority", "root_id")
#: Headers that are compared elsewhere, and the text of arguments that each has its own way with.
ELSEWHERE = ("argsrepr", "kwargsrepr")


def captured(python: str, environment: dict[str, str], backend: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(SCRIPT), backend], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def reference(folder: Path) -> dict[str, Any]:
    return captured(golden.REFERENCE, golden.reference_environment(folder), "cache+memory://")


#: Forms that are not what Celery makes of them, and why ours are better.
DIFFERS = {
    "frozen(chain(a.s(), group(b.s(), c.s()), d.s()))": "no copies of the body in a header that is not sent yet",
    "chord([chain(a.s(1), group(b.s(), c.s()))], e.s()).apply_async()": "the parent is the header that is sent",
    "inside(lambda: t.replace(group(a.s(1), b.s())), callbacks=[J(h.s())], errbacks=[J(g.s())])": "group of a body",
    "inside(lambda: t.replace(chain(a.s(1), group(b.s(), c.s()))), chord=J(f.s()), group='GG', group_index=3)":
        "root ids are with the members, which are what is sent",
    "inside(lambda: t.replace(chord([a.s(1), b.s()], c.s())), replaced_task_nesting=2)": "group of a body",
}  # fmt: skip

THEIRS: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}:{golden.SCRIPTS}", "TZ": "UTC"}
    return captured(sys.executable, environment, "memory://")


def plain(value: Any) -> Any:
    """Without what says nothing; names of stamps in one order, and headers that a visitor has made a group as lists."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("subtask_type") == "group" and set(value["options"]) == set():
        return {"group": plain(value["kwargs"]["tasks"])}
    kept = {
        name: plain(item)
        for name, item in value.items()
        if name not in ELSEWHERE and not (name in SILENT and item in (None, [], False))
    }
    if isinstance(kept.get("stamped_headers"), list):
        kept["stamped_headers"] = sorted(kept["stamped_headers"])
    if isinstance(kept.get("header"), dict) and set(kept["header"]) == {"group"}:
        kept["header"] = kept["header"]["group"]
    return kept


@pytest.mark.parametrize("form", THEIRS)
def test_it_is_what_celery_makes_of_it(ours: dict[str, Any], form: str) -> None:
    assert (plain(ours[form]) == plain(THEIRS[form])) is (form not in DIFFERS)


def test_every_form_is_kept(ours: dict[str, Any]) -> None:
    assert list(ours) == list(THEIRS)


@pytest.mark.process
@pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python")
def test_what_is_kept_is_what_celery_does(tmp_path: Path) -> None:
    found = reference(tmp_path)
    assert {form: plain(value) for form, value in found.items()} == {
        form: plain(value) for form, value in THEIRS.items()
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = reference(Path(folder))
    lines = ",\n".join(f"{json.dumps(form)}: {json.dumps(value)}" for form, value in found.items())
    KEPT.write_text(f"{{\n{lines}\n}}\n")
    print(f"{len(found)} forms in {KEPT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
