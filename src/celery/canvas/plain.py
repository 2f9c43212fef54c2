"""Application. Signatures as plain dicts, as they are embedded in messages."""

from __future__ import annotations

from typing import Any

from celery.canvas.lazy import Lazy
from celery.canvas.signatures import Signature

__all__ = ["plain"]

#: Where signatures are among the arguments of a canvas, and among options.
_PARTS = frozenset({"tasks", "header", "body", "task"})
_LINKS = frozenset({"link", "link_error", "chain", "chord"})


def plain(value: Any) -> Any:
    """A signature, and those in it, as plain dicts; lists of them as lists. Anything else stays as it is.

    Arguments for typed tasks become plain data: raises TypeError or ValueError for those that are not what they should.
    """
    if isinstance(value, list | Lazy):
        return [plain(item) for item in value]
    if not isinstance(value, Signature):
        return value
    copied = dict(value)
    if copied.get("subtask_type") is None and (copied.get("args") or copied.get("kwargs")):
        _embed_typed(value, copied)
    options, kwargs = copied.get("options"), copied.get("kwargs")
    if options and not _LINKS.isdisjoint(options):
        copied["options"] = {name: plain(given) if name in _LINKS else given for name, given in options.items()}
    if type(value) is not Signature and kwargs:
        copied["kwargs"] = {name: plain(given) if name in _PARTS else given for name, given in kwargs.items()}
        if (sent := getattr(value, "_sent", None)) is not None:  # calls for many arguments
            copied["kwargs"]["it"] = sent(kwargs["it"])
    return copied


def _embed_typed(signature: Signature[Any], copied: dict[str, Any]) -> None:
    embed = getattr(getattr(signature._known_task(), "_types", None), "embed", None)
    if embed is not None:  # what comes before its arguments is one result, if anything
        copied["args"], copied["kwargs"] = embed(signature.args, signature.kwargs, 0 if signature.immutable else 1)
