"""Application. How many runs at once a machine is good for (`[worker.7]`)."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_count", "usable_cpus"]


def cpu_count() -> int:
    """The machine's CPUs, at least 1."""
    return os.cpu_count() or 1


def usable_cpus() -> int:
    """The CPUs that this process may use: affinity mask and the quota of its control group, at least 1."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpu_count()
    quota = _cgroup_quota()
    return max(1, usable if quota is None else min(usable, int(quota)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPUs' worth of time that the control group grants, version 2 or 1; None if it sets no limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in ("max", "-1") or not float(period):
        return None
    return float(limit) / float(period)
