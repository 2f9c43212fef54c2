"""Application. Large bodies of chords: kept once in the result backend, members carrying their name (decision 25)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import codecs
from celery.message import Repeated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.app.base import Celery

__all__ = ["is_reference", "kept_under", "load", "shortened_body"]

#: Stands for the body where its members carry it. No worker runs it.
_TASK = "celery.chord_body"
#: What must be known of a body to let it fail.
_OPTIONS = ("task_id", "reply_to", "ignore_result")


def shortened_body(app: Celery, body: Any, barrier: str, serializer: str | None) -> tuple[Any, bytes | None]:
    """What the members of a chord carry of its plain body, and what is to be kept of it: None if they carry all.

    `serializer`: of the members' messages. Raises `EncodeError` as these would.
    """
    limit = app.conf.get("task_chord_embed_limit")
    if limit is None or app.assembly.barriers is None:
        return Repeated(body), None
    content_type, encoding, data = codecs.encode(body, serializer or app.conf.task_serializer)
    if len(data) <= limit:
        return Repeated(body), None
    options = {name: body["options"][name] for name in _OPTIONS if name in body["options"]}
    reference = {"task": _TASK, "args": [], "kwargs": {"barrier": barrier}, "options": options}
    kept = f"{content_type} {encoding}\n".encode() + data
    return Repeated({**reference, "subtask_type": None, "immutable": False}), kept


def is_reference(body: Mapping[str, Any]) -> bool:
    return bool(body["task"] == _TASK)


def kept_under(barrier: str) -> str:
    """Where the body of that barrier is kept, among the documents of groups."""
    return f"{barrier}.b"


def load(app: Celery, barrier: str) -> Any:
    """The body, as `shortened_body` got it. Raises LookupError where it is not kept any more, kombu's
    `ContentDisallowed` for a format that the app does not accept, `OperationalError`."""
    store: Any = app.assembly.store
    kept = store.groups.load_group(kept_under(barrier))
    if kept is None:
        raise LookupError(f"expected the body of chord {barrier} in the result backend, where nothing is kept of it")
    head, _, data = kept.partition(b"\n")
    content_type, encoding = head.decode().split(" ")
    return codecs.decode(data, content_type, encoding, codecs.accept_types(app.conf.accept_content or ()))
