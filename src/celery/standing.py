"""Application. Where a flow stands: its tasks, as far as they can be found from one result, and what became of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from celery import states
from celery.failures import repr_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Flow", "Node"]

_NOT_FINISHED = "not finished: it waits in a queue or runs, or its message was removed"


class Node(NamedTuple):
    """A task or a group of a flow."""

    #: How far it is from the first task.
    depth: int
    id: str
    #: The task's state; of a group, "GROUP".
    state: str
    #: What it failed with, or what is missing; "" for a success.
    detail: str


class Flow:
    """The tasks that lead to a result, and all that came of them; `print(flow)` shows them as a tree.

    Found by the parents of the result and by the children that finished tasks noted. A task that is PENDING here is
    what the flow waits for: its message waits in a queue, or was lost there (purged, say).
    """

    def __init__(self, result: Any) -> None:
        first = result
        while first.parent is not None:
            first = first.parent
        self.nodes = list(_walk(first, 0, set()))
        if all(node.id != result.id for node in self.nodes):  # what leads to it has not come that far
            self.nodes += _walk(result, 0, {node.id for node in self.nodes})

    @property
    def waiting(self) -> list[Node]:
        """Tasks that have not come to an end."""
        return [node for node in self.nodes if node.state not in states.READY_STATES and node.state != "GROUP"]

    @property
    def failed(self) -> list[Node]:
        return [node for node in self.nodes if node.state in states.PROPAGATE_STATES]

    def __str__(self) -> str:
        return "\n".join(f"{'  ' * one.depth}{one.state:8} {one.id}  {one.detail}".rstrip() for one in self.nodes)


def _walk(result: Any, depth: int, seen: set[str]) -> Iterator[Node]:
    if result.id in seen:
        return
    seen.add(result.id)
    results = getattr(result, "results", None)
    if results is not None:
        progress = result.progress()
        yield Node(depth, result.id, "GROUP", f"{progress.ready} of {progress.total} ready")
        for one in results:
            yield from _walk(one, depth + 1, seen)
        return
    meta = result._get_task_meta()
    state, detail = meta["status"], ""
    if state in states.PROPAGATE_STATES:
        value = meta["result"]
        detail = repr_of(value) if isinstance(value, BaseException) else str(value)
    elif state not in states.READY_STATES:
        detail = _NOT_FINISHED
    yield Node(depth, result.id, state, detail)
    for child in (result.children or ()) if state in states.READY_STATES else ():
        yield from _walk(child, depth + 1, seen)
