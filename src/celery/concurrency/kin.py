"""Adapter. A process and everything that it forked: found and killed together."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict

__all__ = ["kill_with_kin"]


def kill_with_kin(pid: int) -> None:
    """Kill a child of this process, which has been stopped, and all its descendants (`[limit.1]`).

    Whatever is found is stopped before its own children are looked for, so nothing forks unseen, and no process id
    becomes free meanwhile: a stopped parent reaps nobody. Where there is no `/proc`, the process dies alone.
    """
    found = [pid]
    while fresh := _children_of(found):
        for one in fresh:
            _send(one, signal.SIGSTOP)
        found += fresh
    for one in reversed(found):
        _send(one, signal.SIGKILL)


def _children_of(known: list[int]) -> list[int]:
    """Children of these processes that are not among them."""
    children = _processes()
    return [child for parent in known for child in children.get(parent, ()) if child not in known]


def _processes() -> dict[int, list[int]]:
    """Parent → children, of all processes that can be seen."""
    children: dict[int, list[int]] = defaultdict(list)
    try:
        names = os.listdir("/proc")
    except FileNotFoundError:
        return children
    for name in filter(str.isdigit, names):
        children[_parent(name)].append(int(name))
    return children


def _parent(name: str) -> int:
    """0: it is dead, or not ours to see."""
    with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
        state, parent = file.read().rpartition(b")")[2].split()[:2]
        return 0 if state == b"Z" else int(parent)
    return 0


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)
