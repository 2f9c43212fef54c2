"""Application. How many runs at once a machine is good for (`[worker.7]`)."""

from __future__ import annotations

import os

from celery.utils.sysinfo import cpu_budget

__all__ = ["cpu_count", "usable_cpus"]


def cpu_count() -> int:
    """The machine's CPUs, at least 1."""
    return os.cpu_count() or 1


def usable_cpus() -> int:
    """The CPUs that this process may use: affinity mask and the quota of its control group, rounded up; at least 1."""
    return cpu_budget().count
