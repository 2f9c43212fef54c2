"""Application. What follows from a run: callbacks and errbacks, called here or gathered as messages ([task.52])."""

from __future__ import annotations

import logging
from types import FunctionType
from typing import TYPE_CHECKING, Any

from celery.canvas import maybe_signature
from celery.producer import Gathered, new_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.app.base import Celery
    from celery.canvas import Signature
    from celery.ports import Publication

__all__ = ["Following"]

logger = logging.getLogger("celery.backends.base")

_VARARGS = 0x04  # CO_VARARGS


class Following:
    """Makes the messages that follow from a run. They are not sent: they travel with its outcome.

    Each goes through `apply_async` of its signature and so through everything that users or vendors put in its way.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def callbacks(self, links: Iterable[Any], value: Any) -> list[Publication]:
        """One message for each `link`; `value` comes first unless the signature is immutable ([call.9]).

        Raises what `apply_async` raises, TypeError for arguments that do not fit among it.
        """
        signatures = [self._signature(link) for link in links]
        gathered = Gathered()
        for signature, options in zip(signatures, _together(len(signatures)), strict=True):
            signature.apply_async((value,), producer=gathered, **options)
        return gathered.publications

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


def _together(count: int) -> list[dict[str, Any]]:
    """Options that make several callbacks a group ([task.53])."""
    if count < 2:
        return [{}] * count
    group_id = new_id()
    return [{"group_id": group_id, "group_index": index} for index in range(count)]


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
