"""Application. What starting a canvas means, as a value, and its carrying out (decision 24).

Each kind of canvas lowers itself to a `Plan`, sending nothing: the calls to make now, with everything that follows from
them embedded, and the barriers that must stand before the first of these calls can end. `start` carries it out.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from celery.canvas.references import kept_under
from celery.current import get_current_worker_task
from celery.ports import Gathered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery.app.base import Celery
    from celery.canvas.signatures import Signature

__all__ = ["Opening", "Plan", "Sending", "attach", "start"]

#: Messages that are handed to the broker at once.
_BATCH = 1000
#: Options for which each message must be published by itself (`[call.23]`).
_ALONE = ("producer", "publisher", "connection", "declare", "retry", "retry_policy")
#: Options of a chord that are for the task that polls for its end, where the backend cannot count.
POLLING = {"interval": "interval", "max_retries": "max_retries", "unlock_countdown": "countdown"}


class Sending(Struct, eq=False):
    """A call to be made: `signature.apply_async(args, kwargs, **options)`."""

    signature: Signature[Any]
    args: Any
    kwargs: Any
    options: dict[str, Any]

    def send(self, **more: Any) -> Any:
        return self.signature.apply_async(self.args, self.kwargs, **self.options, **more)


class Opening(Struct, eq=False):
    """A barrier to open: `size` completions of members of the group `id` are awaited, then `body` is sent."""

    id: str
    size: int
    body: Signature[Any]
    results: list[Any]
    options: dict[str, Any]
    #: The body, if it is kept with the barrier and not carried by each member.
    kept: bytes | None = None


class Plan(Struct, eq=False):
    """What to do now. `trail`: results that the running task notes as its children, beside those of the calls."""

    sendings: list[Sending] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    trail: list[Any] = field(default_factory=list)


def start(canvas: Signature[Any], args: Any, kwargs: Any, options: dict[str, Any], *, eager: bool = True) -> Any:
    """Lower the canvas and carry its plan out. Returns its result. `eager`: run it here where the settings say so."""
    app = canvas.app
    if eager and app.conf.task_always_eager:
        return canvas.apply(args, kwargs, **options)
    plan = Plan()
    how = {name: options.pop(name) for name in _ALONE if options.get(name) is not None}
    result = canvas._lower(plan, args, kwargs, options)
    _carry_out(app, plan, how)
    return result


def _carry_out(app: Celery, plan: Plan, how: dict[str, Any]) -> None:
    """Open the barriers, then send: in batches, unless somebody wants a say in how each message is published."""
    for opening in plan.openings:
        _open(app, opening)
    if how or len(plan.sendings) == 1:
        for sending in plan.sendings:
            sending.send(**how)
    else:
        for batch in _batches(plan.sendings):
            _send_together(app, batch)
    if plan.trail and (parent := get_current_worker_task()) is not None:
        for result in plan.trail:
            parent.add_trail(result)


def _open(app: Celery, opening: Opening) -> None:
    """Before the first member is sent: its end may come at once. Raises NotImplementedError where none can be kept."""
    app.backend.ensure_chords_allowed()
    if (barriers := app.assembly.barriers) is not None:
        if opening.kept is not None:
            store: Any = app.assembly.store
            store.groups.save_group(kept_under(opening.id), opening.kept)
        barriers.open(opening.id, opening.size)
        return
    app.backend.set_chord_size(opening.id, opening.size)
    app.backend.apply_chord((opening.id, opening.results), opening.body, **opening.options)


def _batches(sendings: Sequence[Sending]) -> Iterator[list[Sending]]:
    waiting = iter(sendings)
    while batch := list(islice(waiting, _BATCH)):
        yield batch


def _send_together(app: Celery, batch: list[Sending]) -> None:
    gathered = Gathered(relayed=False)
    for sending in batch:
        if _ALONE_SET.isdisjoint(sending.signature.options):
            sending.send(producer=gathered)
        else:
            sending.send()
    if gathered.publications:
        app.assembly.producer.send_gathered(gathered)


_ALONE_SET = frozenset(_ALONE)


def attach(result: Any, parent: Any) -> None:
    """Make `parent` what the first of the results that lead to `result` follows."""
    while result.parent is not None:
        result = result.parent
    result.parent = parent
