"""Application. What follows from a run: callbacks and errbacks, called here or gathered as messages ([task.52])."""

from __future__ import annotations

import logging
from types import FunctionType
from typing import TYPE_CHECKING, Any

from celery.app.chords import pack
from celery.canvas import group, maybe_signature
from celery.outcome import Arrival, Further, Record
from celery.producer import Gathered, new_id
from celery.states import FAILURE, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery.app.base import Celery
    from celery.canvas import Signature
    from celery.documents import Documents
    from celery.lifecycle import Run
    from celery.ports import Publication

__all__ = ["Following", "awaited"]

logger = logging.getLogger("celery.backends.base")

_VARARGS = 0x04  # CO_VARARGS


class Following:
    """Makes the messages that follow from a run. They are not sent: they travel with its outcome.

    Each goes through `apply_async` of its signature and so through everything that users or vendors put in its way.
    """

    def __init__(self, app: Celery, documents: Documents) -> None:
        self._app = app
        self._documents = documents

    def callbacks(self, links: Iterable[Any], value: Any) -> list[Publication]:
        """One message for each `link`; `value` comes first unless the signature is immutable ([call.9]).

        Of several, the groups are sent by themselves, the others as one group more ([task.53]). Raises what
        `apply_async` raises, TypeError for arguments that do not fit among it.
        """
        signatures = [self._signature(link) for link in links]
        gathered = Gathered()
        if len(signatures) > 1:
            single = [signature for signature in signatures if not isinstance(signature, group)]
            signatures = [signature for signature in signatures if isinstance(signature, group)]
            signatures += [group(single, app=self._app)] if single else []
        for signature in signatures:
            signature.apply_async((value,), producer=gathered)
        return gathered.publications

    def next(self, request: Any, value: Any) -> list[Publication]:
        """The message of the next task of the chain that the request is of; it takes the rest along ([canvas.32]).

        Raises as `callbacks` does.
        """
        chain = list(request.chain)
        signature = self._signature(chain.pop())
        gathered = Gathered()
        options = {"parent_id": request.id, "root_id": request.root_id or request.id}
        signature.apply_async((value,), producer=gathered, chain=chain or None, **options)
        return gathered.publications

    def further(self, run: Run, state: str, value: Any, traceback: str | None) -> Further | None:
        """What it means for other tasks that this one has come to `state` with `value` (or an exception).

        The chord that it is a member of is told ([canvas.54]). What would have followed in its chain never runs: each
        of those tasks fails as this one did, and so do the chords that they are members of ([canvas.34]).
        """
        request = run.request
        made = Further()
        if request.chord and type(request.group) is str:
            member = (request.group, request.id, _place(request.group_index))
            made.arrivals.append(self._arrival(run, member, request.chord, state, value))
        if state != SUCCESS:
            for signature in awaited(request.chain or ()):
                self.fail(run, signature, value, traceback, made)
        return made if made.arrivals or made.records else None

    def fail(self, run: Run, signature: Any, exc: BaseException, traceback: str | None, made: Further) -> None:
        """Add to `made` that this call, which follows from the run, has failed."""
        get = signature["options"].get
        task_id, group = get("task_id"), get("group_id")
        if type(task_id) is not str:
            return
        if not get("ignore_result"):
            fields = {"id": task_id, "task": signature["task"], "group": group}
            request = self._app.Context(fields, root_id=run.request.root_id or run.request.id, parent_id=run.request.id)
            document = self._documents.failure(exc, request, traceback)
            made.records.append(Record(task_id, FAILURE, document, str(get("reply_to") or "")))
        if get("chord") is not None and type(group) is str:
            member = (group, task_id, _place(get("group_index")))
            made.arrivals.append(self._arrival(run, member, get("chord"), FAILURE, exc))

    def _arrival(self, run: Run, member: tuple[str, str, int | None], body: Any, state: str, value: Any) -> Arrival:
        """`member`: group, task and place in the group. Raises `EncodeError` for a value that cannot be kept."""
        group, task_id, index = member
        request = run.request
        part = self._documents.part(task_id, state, value)
        priority = (request.delivery_info or {}).get("priority")
        packed = pack(body, task_id, request.root_id or request.id, priority, run.message.content_type)
        more = request._added if task_id == request.id else 0
        return Arrival(group, task_id, index, part, packed, more)

    def errbacks(self, request: Any, exc: BaseException, traceback: str | None) -> list[Publication]:
        """Call the errbacks that take a failure, and give messages for those that take a task id.

        A task known here whose arguments leave room for more than one is called at once, with the failed `request`,
        `exc` and `traceback` ([canvas.20]); what it raises is logged ([canvas.22]). A bound task, one with room for a
        single argument, and one that is unknown here get a message with the failed task's id ([canvas.21]).
        """
        sent: list[Signature[Any]] = []
        for link in request.errbacks or ():
            signature = self._signature(link)
            if _takes_failure(self._app._tasks.get(signature.task), signature):
                _call(signature, request, exc, traceback)
            else:
                sent.append(signature)
        gathered = Gathered()
        group_id = new_id()
        for index, signature in enumerate(sent):
            options = {"parent_id": request.id, "root_id": request.root_id or request.id}
            options |= {"group_id": group_id, "group_index": index, "add_to_parent": False}
            try:
                signature.apply_async((request.id,), producer=gathered, **options)
            except Exception:
                logger.exception("Errback %r cannot be sent", signature.task)
        return gathered.publications

    def _signature(self, link: Any) -> Signature[Any]:
        signature: Signature[Any] = maybe_signature(dict(link), app=self._app)
        return signature


def _place(index: Any) -> int | None:
    """A sender may have written anything."""
    return index if type(index) is int else None


def awaited(signatures: Iterable[Any]) -> Iterator[Any]:
    """The calls within these signatures: what was to be run, in the end."""
    for one in signatures:
        parts = one.get("kwargs") or {}
        kind = one.get("subtask_type")
        if kind in ("chain", "group"):
            yield from awaited(parts.get("tasks") or ())
        elif kind == "chord":
            header = parts.get("header") or ()
            yield from awaited([header] if isinstance(header, dict) else header)
            if parts.get("body"):
                yield from awaited([parts["body"]])
        else:
            yield one
        yield from awaited((one.get("options") or {}).get("chain") or ())


def _takes_failure(task: Any, signature: Signature[Any]) -> bool:
    if task is None:
        return False
    body = type(task).__dict__.get("__wrapped__")
    if not isinstance(body, staticmethod):  # a bound task, or a class with a `run`
        return False
    return _room(body.__func__, signature) > 1


def _room(fun: Any, signature: Signature[Any]) -> float:
    """How many positional arguments are missing yet from the call ([canvas.23])."""
    while not isinstance(fun, FunctionType):
        fun = getattr(fun, "__wrapped__", None)
        if fun is None:
            return 0
    code = fun.__code__
    if code.co_flags & _VARARGS:
        return float("inf")
    named = sum(name in signature.kwargs for name in code.co_varnames[: code.co_argcount])
    return code.co_argcount - named - len(signature.args)


def _call(signature: Signature[Any], request: Any, exc: BaseException, traceback: str | None) -> None:
    try:
        signature(request, exc, traceback)
    except Exception:
        logger.exception("Errback %r raised an exception", signature.task)
