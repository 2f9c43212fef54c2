"""Application. How many processors, how busy, how much room on a disk (`[util.11]`)."""

from __future__ import annotations

import os
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

__all__ = (
    "AUTO_CONCURRENCY", "CpuBudget", "available_cpu_count", "cgroup_cpu_quota", "cpu_budget", "df",
    "is_auto_concurrency", "load_average",
)  # fmt: skip

#: As many children as there are processors to run them.
AUTO_CONCURRENCY = "auto"
CGROUP_ROOT = "/sys/fs/cgroup"
PROC_SELF_CGROUP = "/proc/self/cgroup"


class CpuBudget(NamedTuple):
    """What this process may use: `count` is the smaller of what is `available` and (rounded up) the `quota`."""

    count: int  # type: ignore[assignment]
    available: int
    quota: float | None


def is_auto_concurrency(value: Any) -> bool:
    """Is it the word `auto`?"""
    return isinstance(value, str) and value.strip().lower() == AUTO_CONCURRENCY


def available_cpu_count() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def cgroup_cpu_quota() -> float | None:
    """Processors' worth of time that the control group (a container) has; None: no limit, or not known."""
    try:
        lines = Path(PROC_SELF_CGROUP).read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            quotas += [_quota_2(Path(CGROUP_ROOT + part)) for part in _upwards(path)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_1(Path(f"{CGROUP_ROOT}/{controllers}{part}")) for part in _upwards(path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _upwards(path: str) -> list[str]:
    """The group and all above it: each may have a limit of its own."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return ["/" + "/".join(parts[:n]) for n in range(len(parts), -1, -1)]


def _quota_2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return quota / int((group / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def cpu_budget(use_cgroup_quota: bool = True) -> CpuBudget:
    """How many processes are worth running."""
    available = available_cpu_count()
    quota = cgroup_cpu_quota() if use_cgroup_quota else None
    count = available if quota is None else max(1, min(available, ceil(quota)))
    return CpuBudget(count, available, quota)


def load_average() -> tuple[float, ...]:
    """The system's load over 1, 5 and 15 minutes, to two digits; zeros where it is not to be had."""
    try:
        return tuple(ceil(load * 1e2) / 1e2 for load in os.getloadavg())
    except OSError:
        return 0.0, 0.0, 0.0


class df:  # noqa: N801 - Celery's name
    """Room on the file system that `path` is on."""

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        self.path = path

    @property
    def total_blocks(self) -> float:
        """Size in kilobytes."""
        return self.stat.f_blocks * self.stat.f_frsize / 1024

    @property
    def available(self) -> float:
        """Kilobytes that a user may still write."""
        return self.stat.f_bavail * self.stat.f_frsize / 1024

    @property
    def capacity(self) -> int:
        """Per cent in use, of what users may use."""
        used = self.stat.f_blocks - self.stat.f_bfree
        return ceil(100 * used / (used + self.stat.f_bavail)) if used + self.stat.f_bavail else 100

    @cached_property
    def stat(self) -> os.statvfs_result:
        """What the system says."""
        return os.statvfs(os.path.abspath(self.path))
