"""Application. A run that hands on to another call, or brings its chord another member ([canvas.64] to [canvas.68])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.canvas import chunks, group, signature
from celery.exceptions import Ignore, ImproperlyConfigured
from celery.ports import Gathered

if TYPE_CHECKING:
    from celery.app.task import Task
    from celery.canvas import Signature

__all__ = ["add_to_chord", "hand_over", "replace"]


def replace(task: Task[..., Any], sig: Any) -> Any:
    """See `Task.replace`."""
    request = task.request
    sig = _narrow(task, sig)
    sig.options.pop("task_id", None)
    if not request.is_eager:
        for callback in request.callbacks or ():
            sig.link(signature(callback, app=task.app))
        for errback in request.errbacks or ():
            sig.link_error(signature(errback, app=task.app))
    with task.app.assembly.address.of(request.reply_to):
        sig.freeze(
            request.id,
            group_id=request.group,
            chord=request.chord,
            root_id=request.root_id,
            group_index=request.group_index,
        )
        sig.set(replaced_task_nesting=request.replaced_task_nesting + 1)
        if request.chain:
            sig.options["chain"] = [*request.chain, *(sig.options.get("chain") or ())]
        return task.on_replace(sig)


def _narrow(task: Task[..., Any], sig: Any) -> Any:
    """A copy of the replacement that ends with one task, for there is one result to be kept.

    Raises `ImproperlyConfigured` for what cannot stand in the place of a task.
    """
    sig = signature(sig, app=task.app)
    if sig.options.get("chord"):
        raise ImproperlyConfigured(
            f"expected a signature that belongs to no chord to replace {task.name}, got {sig!r}: "
            "it becomes a member of the chord of the task that it replaces"
        )
    if sig.subtask_type == "chain" and not sig.tasks:
        raise ImproperlyConfigured(f"expected something to replace {task.name} with, got an empty chain")
    if isinstance(sig, chunks):
        sig = sig.group()
    last = sig.tasks[-1] if sig.subtask_type == "chain" else sig
    return sig | task.app.tasks["celery.accumulate"].s(index=0) if isinstance(last, group) else sig


def hand_over(task: Task[..., Any], sig: Any) -> Any:
    """See `Task.on_replace`."""
    if task.request.is_eager:
        return sig.apply().get(disable_sync_subtasks=False)
    sig.apply_async(**_settled(task.request))
    raise Ignore("Replaced by new task")


def _settled(request: Any) -> dict[str, Any]:
    """Options of a call that is to go out in the step that settles the run, as the next attempt of a retry does: a kill
    in between makes neither two of it nor none. Nothing for a run that nobody settles."""
    if request._gathered is None:
        return {}
    request._gathered = request._gathered or Gathered()
    return {"producer": request._gathered}


def add_to_chord(task: Task[..., Any], sig: Signature[Any], lazy: bool) -> Any:
    """See `Task.add_to_chord`."""
    request = task.request
    if not request.chord or request.group is None:
        raise ValueError(
            f"Current task is not member of any chord: expected {task.name} to be run as part of the header of one"
        )
    result = sig.freeze(group_id=request.group, chord=request.chord, root_id=request.root_id)
    barriers = task.app.assembly.barriers
    if barriers is None:
        task.backend.add_to_chord(request.group, result)
    elif not lazy and request._gathered is not None:
        request._added += sig._completions()  # with this run's own arrival, in the step that sends the call
        return sig.apply_async(**_settled(request))
    else:
        barriers.grow(request.group, sig._completions())
    return sig if lazy else sig.delay()
