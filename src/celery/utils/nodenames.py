"""Application. Names of nodes: `celery@host`, and file names made of them (`[util.1]`)."""

from __future__ import annotations

import os
import socket
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery.utils.text import simple_format

if TYPE_CHECKING:
    from kombu.entity import Queue

__all__ = (
    "anon_nodename", "current_process_index", "default_nodename", "gethostname", "host_format", "node_format",
    "nodename", "nodesplit", "set_process_index", "worker_direct",
)  # fmt: skip

WORKER_DIRECT_EXCHANGE_NAME = "C.dq2"
WORKER_DIRECT_QUEUE_FORMAT = "{hostname}.dq2"
NODENAME_SEP = "@"
NODENAME_DEFAULT = "celery"

#: Which child of a pool this process is, from 0.
_process_index: int | None = None

#: Asked once: the name of the machine does not change under a running process.
gethostname = lru_cache(maxsize=1)(socket.gethostname)


def worker_direct(hostname: str | Queue) -> Queue:
    """The queue that only this worker consumes from (`worker_direct`, `[drift.6]`)."""
    from kombu.entity import Exchange, Queue

    if isinstance(hostname, Queue):
        return hostname
    queue = WORKER_DIRECT_QUEUE_FORMAT.format(hostname=hostname)
    return Queue(queue, Exchange(WORKER_DIRECT_EXCHANGE_NAME), hostname)


def nodename(name: str, hostname: str) -> str:
    """`name@hostname`."""
    return NODENAME_SEP.join((name, hostname))


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """A name for a process that is no worker: `gen<pid>@<host>`."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def nodesplit(name: str) -> tuple[str | None, str]:
    """Name and host; a name without `@` is a host."""
    first, separator, rest = name.partition(NODENAME_SEP)
    return (first, rest) if separator else (None, first)


def default_nodename(hostname: str | None, default_name: str = NODENAME_DEFAULT) -> str:
    """A whole node name from what was given: a host, `name@`, `@host`, or nothing."""
    name, host = nodesplit(hostname or "")
    return nodename(name or default_name, host or gethostname())


def node_format(s: str, name: str, **extra: Any) -> str:
    """With `%n`, `%h`, `%d`, `%i`, `%I` and `%p` (the whole name) taken from the node name."""
    first, host = nodesplit(name)
    return host_format(s, host, first or NODENAME_DEFAULT, **{"p": name, **extra})


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: Any) -> str:
    """With `%h` (host), `%n` (name), `%d` (domain), and `%i` and `%I` (number of the pool's child).

    `%i` is 0 in the main process, and `%I` nothing there but `-<number>` in a child. Raises `ValueError`.
    """
    host = host or gethostname()
    first, _, domain = host.partition(".")
    keys = {"h": host, "n": name or first, "d": domain, "i": _index, "I": _index_with_dash, **extra}
    return simple_format(s, keys) or ""


def current_process_index(base: int = 1) -> int | None:
    """Number of this child of a pool, counted from `base`; None in other processes."""
    index = _process_index
    if index is None:
        billiard = sys.modules.get("billiard.process")  # one of its own children, perhaps
        index = getattr(billiard.current_process(), "index", None) if billiard else None
    return None if index is None else index + base


def set_process_index(index: int | None) -> None:
    """Say that this process is the pool's child `index` (from 0), or no child of a pool."""
    global _process_index
    _process_index = index


def _index() -> str:
    return str(current_process_index() or 0)


def _index_with_dash() -> str:
    number = current_process_index()
    return f"-{number}" if number else ""
