"""How many processes `-c auto` makes (`[new57.7]`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from celery import Celery
from celery.worker import sizing
from celery.worker.worker import WorkController

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_the_control_group_is_read(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert sizing._cgroup_quota(tmp_path) == quota


def test_affinity_counts_for_prefork_and_the_cpus_for_others() -> None:
    before = os.sched_getaffinity(0)
    app = Celery("sizing", broker="memory://", set_as_current=False)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert WorkController(app, pool="prefork", concurrency="auto").concurrency == 1
        assert WorkController(app, pool="solo", concurrency="auto").concurrency == os.cpu_count()
    finally:
        os.sched_setaffinity(0, before)
