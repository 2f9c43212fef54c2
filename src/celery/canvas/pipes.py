"""Application. What `a | b` makes of each pair of kinds ([canvas.25] to [canvas.28], [combo])."""

from __future__ import annotations

from typing import Any

from celery.canvas.chains import _chain
from celery.canvas.chords import chord
from celery.canvas.groups import group
from celery.canvas.signatures import Signature, maybe_signature

__all__ = ["chain", "join"]

#: Bodies with fewer steps, and fewer chords one in the body of the other, take in more of them.
_SHORT, _LEVELS = 8, 2


def join(left: Any, right: Any) -> Any:
    """`left | right`; a dict is the signature that it was. NotImplemented for what is none."""
    left, right = maybe_signature(left), maybe_signature(right)
    if not (isinstance(left, Signature) and isinstance(right, Signature)):
        return NotImplemented
    if isinstance(left, group):
        return _after_group(left, right)
    right = _unrolled(right)
    if isinstance(left, chord):
        return _after_chord(left, right)
    if isinstance(left, _chain):
        return _after_chain(left, right)
    following = right.unchain_tasks() if isinstance(right, _chain) else [right]
    return _chain(left, *following, app=left._app)


def _unrolled(task: Any) -> Any:
    """The one member of a group, in place of the group ([canvas.28])."""
    while isinstance(task, group) and len(task) == 1:
        task = task._inherited()[0]
    return task


def _after_group(left: group, right: Any) -> Any:
    """All of the group are waited for. An empty group on the right changes nothing."""
    if isinstance(right, group) and not right.tasks:
        return left
    return chord(left, body=right, app=left._app)


def _after_chord(left: Any, right: Any) -> Any:
    """One more task or chord becomes part of the body; anything longer follows it."""
    if isinstance(right, group | _chain) or not _short(left.body):
        following = right.unchain_tasks() if isinstance(right, _chain) else [right]
        return _chain(left, *following, app=left._app)
    return _with_longer_body(left, right)


def _short(body: Any) -> bool:
    """Whether a body may take in what follows its chord. Else that becomes a step of its own, which means the same:
    bodies within bodies would make a long canvas deep, and copying them would make it slow."""
    return not isinstance(body, _chain | chord) or (_length(body) < _SHORT and _levels(body) < _LEVELS)


def _length(body: Any) -> int:
    return len(body.tasks) if isinstance(body, _chain) else 1


def _levels(body: Any) -> int:
    """How many chords stand one in the body of the other, as far as that matters."""
    inside = body.tasks[:_SHORT] if isinstance(body, _chain) else [body]
    return max((1 + _levels(task.body) for task in inside if isinstance(task, chord)), default=0)


def _with_longer_body(left: Any, right: Any) -> Any:
    longer = left.clone()
    longer.body = right if longer.body is None else longer.body | right
    return longer


def _after_chain(left: Any, right: Any) -> Any:
    steps = left.unchain_tasks()
    for step in right.unchain_tasks() if isinstance(right, _chain) else [right]:
        _append(steps, step)
    return type(left)._revived({**left, "options": _kept(left.options)}, {"tasks": steps}, left._app)


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    """Links are with the steps from now on."""
    return {name: value for name, value in options.items() if name not in ("link", "link_error")}


def _append(steps: list[Any], step: Any) -> None:
    """One more step at the end of a chain."""
    step = _unrolled(step)
    if isinstance(step, group) and not step.tasks:
        return
    last = steps[-1] if steps else None
    if isinstance(last, group) and not isinstance(step, group):
        made = chord(last, body=step)
        steps[-1:] = [made]
        if (
            len(steps) > 1 and isinstance(steps[-2], chord) and _short(steps[-2].body)
        ):  # it takes the new one into its body
            steps[-2:] = [_with_longer_body(steps[-2], made)]
    elif isinstance(last, chord) and not isinstance(step, chord) and _short(last.body):
        steps[-1] = _with_longer_body(last, step)
    elif isinstance(step, _chain):
        for inner in step.unchain_tasks():
            _append(steps, inner)
    else:
        steps.append(step)


class chain(_chain):  # noqa: N801 - its public name
    """Calls that follow each other: `chain(a, b, c)` is `a | b | c`, and so may be a chord ([canvas.26]).

    Takes signatures, or one iterable of them. With options, or a single signature, it is always a chain.
    """

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        given = _given(tasks)
        if options or len(given) < 2:
            made = super().__new__(cls)
            _chain.__init__(made, given, **options)
            return made
        folded = _folded(given)
        if cls is not chain and isinstance(folded, _chain):
            return cls._revived(folded, folded.kwargs, folded._app)
        return folded

    def __init__(self, *tasks: Any, **options: Any) -> None:
        """All is done by `__new__`, which may take its tasks from an iterator."""


def _given(tasks: Any) -> list[Any]:
    """The signatures of a call: one of them, or an iterable of them, or several."""
    if len(tasks) == 1 and not isinstance(tasks[0], dict):
        tasks = tasks[0]
    return [maybe_signature(task) for task in tasks]


def _folded(tasks: list[Any]) -> Any:
    """`a | b | c`, in time that grows with their number."""
    made: Any = None
    for task in tasks:
        if not isinstance(task, Signature):
            raise TypeError(f"expected signatures in a chain, got {task!r}: make one with .s() or signature()")
        if isinstance(task, _chain | group) and not task.tasks:
            continue
        if made is None:
            made = _first(task)
        elif isinstance(made, _chain):
            for step in task.unchain_tasks() if isinstance(task, _chain) else [task]:
                _append(made.tasks, step)
        else:
            made = join(made, task)
    return _chain(made) if isinstance(made, group) else _chain() if made is None else made


def _first(task: Any) -> Any:
    task = _unrolled(task)
    if isinstance(task, group):
        return task
    return _chain(*(task.unchain_tasks() if isinstance(task, _chain) else [task]), app=task._app)


Signature._join = staticmethod(join)  # type: ignore[method-assign]
Signature.TYPES["chain"] = _chain
