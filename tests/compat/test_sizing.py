"""How many processes `-c auto` makes (`[new57.7]`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from celery.utils import sysinfo
from celery.worker.worker import WorkController

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("files", "children"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),  # as Celery 5.7's `-c auto` does
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 64),
    ],
)
@pytest.mark.parametrize("asked", [None, "auto"])
def test_a_quota_on_a_machine_of_64_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], children: int, asked: str | None
) -> None:
    """PAINS 40: children by the quota of the control group, whether or not `auto` was asked for."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "self").write_text("0::/\n")
    monkeypatch.setattr(sysinfo, "CGROUP_ROOT", str(tmp_path))
    monkeypatch.setattr(sysinfo, "PROC_SELF_CGROUP", str(tmp_path / "self"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    app = Celery("sizing", broker="memory://", set_as_current=False)
    assert WorkController(app, pool="prefork", concurrency=asked).concurrency == children


def test_affinity_counts_for_prefork_and_the_cpus_for_others() -> None:
    before = os.sched_getaffinity(0)
    app = Celery("sizing", broker="memory://", set_as_current=False)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert WorkController(app, pool="prefork", concurrency="auto").concurrency == 1
        assert WorkController(app, pool="solo", concurrency="auto").concurrency == os.cpu_count()
    finally:
        os.sched_setaffinity(0, before)
