"""Application. The order in which the nodes of a cluster are started and stopped (`[multi.9]`)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from celery.platforms import signal_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.apps.multi import Cluster, Node

    Listener = Callable[..., Any] | None

__all__ = ["maybe_call", "start_all", "stop_all"]

#: Seconds between two looks at processes that are to end.
_LOOK = 0.1


def maybe_call(fun: Listener, *args: Any, **kwargs: Any) -> None:
    """Call it, if it is anything."""
    if fun is not None:
        fun(*args, **kwargs)


def start_all(cluster: Cluster, nodes: Sequence[Node], listener: Listener) -> list[int]:
    """Start nodes, several at a time: most of it is loading the app. Returns the exit codes.

    They are told one after the other, each to `listener` first.
    """
    codes: list[int] = []
    width = 2 * (os.cpu_count() or 1)
    for at in range(0, len(nodes), width):
        some = nodes[at : at + width]
        for node in some:
            node.spawn(cluster.env)
        for node in some:
            maybe_call(listener, node)
            maybe_call(cluster.on_child_spawn, node, argstr=node.command_line, env=cluster.env)
            code = node.wait(cluster.on_child_signalled, cluster.on_child_failure)
            maybe_call(cluster.on_node_status, node, code)
            codes.append(code)
    return codes


def stop_all(cluster: Cluster, nodes: Sequence[Node], sig: int, retry: float | None) -> Iterator[list[Node]]:
    """Send a signal to the nodes, and give those that are down, as they get there.

    First come those that were down before. Without `retry` nobody waits for the others; with it, it is the seconds
    between two signs that the waiting goes on.
    """
    running = [node for node in nodes if node.alive()]
    down = [node for node in nodes if node not in running]
    for node in down:
        node.forget()
    if down:
        yield down
    if not running:
        return
    maybe_call(cluster.on_stopping_preamble, running)
    for node in running:
        maybe_call(cluster.on_node_signal, node, signal_name(sig))
        node.send(sig, cluster.on_node_signal_dead)
    if retry:
        yield from _wait(cluster, running, retry)


def _wait(cluster: Cluster, nodes: list[Node], retry: float) -> Iterator[list[Node]]:
    while nodes:
        maybe_call(cluster.on_still_waiting_for, nodes)
        down = _next_down(cluster, nodes, retry)
        for node in down:
            node.forget()
            maybe_call(cluster.on_node_shutdown_ok, node)
        yield down
        nodes = [node for node in nodes if node not in down]
    maybe_call(cluster.on_still_waiting_end)


def _next_down(cluster: Cluster, nodes: list[Node], retry: float) -> list[Node]:
    """Wait until one of them is down, at least."""
    told = time.monotonic()
    while True:
        down = [node for node in nodes if node.signalled is None or node.signalled.ended]
        if down:
            return down
        if time.monotonic() >= told + retry:
            told += retry
            maybe_call(cluster.on_still_waiting_progress, nodes)
        time.sleep(_LOOK)
