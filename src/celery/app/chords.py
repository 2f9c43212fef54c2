"""Application. Full barriers: what the members of a chord came to becomes the input of its body ([canvas.49])."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import codecs
from celery.canvas import maybe_signature
from celery.canvas.references import is_reference, kept_under, load
from celery.documents import exception_from_data
from celery.exceptions import ChordError, OperationalError
from celery.lifecycle import Run
from celery.message import Message
from celery.outcome import Further
from celery.ports import Firing
from celery.producer import Gathered, new_id
from celery.states import FAILURE, PROPAGATE_STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery.app.base import Celery
    from celery.app.following import Following
    from celery.ports import Barrier, Full, Publication

__all__ = ["Closing", "failure_of", "pack", "unpack"]

logger = logging.getLogger("celery.backends.base")


def pack(body: Any, parent_id: str, root_id: str, priority: int | None, content_type: str) -> bytes:
    """The body of a chord, as its barrier keeps it: in the format of the message that brought it."""
    data = {"body": body, "parent_id": parent_id, "root_id": root_id, "priority": priority}
    return content_type.encode() + b"\n" + codecs.encode_as(data, content_type)


def unpack(packed: bytes) -> dict[str, Any]:
    """What was given to `pack`, as a dict; it was accepted when it came. Raises kombu's `DecodeError`."""
    content_type, _, data = packed.partition(b"\n")
    text = content_type.decode()
    encoding = "utf-8" if text in ("application/json", "application/x-yaml") else "binary"
    found: dict[str, Any] = codecs.decode(data, text, encoding, (text,))
    return {**found, "content_type": text}


class Closing:
    """Makes the messages of a chord's body, or what its failure leaves behind. They are not sent, but given back."""

    def __init__(self, app: Celery, barriers: Barrier, following: Following) -> None:
        self._app = app
        self._barriers = barriers
        self._following = following
        backend = app.backend
        self._serializer, self._accept = backend.serializer, backend.accept

    def __call__(self, full: Full) -> Firing:
        """Raises `OperationalError` if the parts cannot be read now; everything else is the body's failure."""
        packed = unpack(full.body)
        if not is_reference(packed["body"]):
            return self._close(full, packed)
        try:
            packed["body"] = load(self._app, full.barrier)
        except OperationalError:
            raise
        except Exception as exc:  # noqa: BLE001 - the body cannot be read
            firing = self._failed(full, packed, ChordError(f"Body error: {exc!r}"))
        else:
            firing = self._close(full, packed)
        firing.kept = kept_under(full.barrier)
        return firing

    def _close(self, full: Full, packed: dict[str, Any]) -> Firing:
        body = maybe_signature(packed["body"], app=self._app)
        try:
            values, error = self._join(full.barrier)
        except OperationalError:
            raise
        except Exception as exc:  # noqa: BLE001 - what a member came to cannot be read
            values, error = [], ChordError(f"Join error: {exc!r}")
        if error is None:
            try:
                return Firing(full.barrier, self._send(body, values, packed))
            except Exception as exc:
                logger.exception("Chord %r raised", full.barrier)
                error = ChordError(f"Callback error: {exc!r}")
        return self._failed(full, packed, error)

    def _failed(self, full: Full, packed: dict[str, Any], error: ChordError) -> Firing:
        logger.error("Chord %r raised: %r", full.barrier, error)
        body = maybe_signature(packed["body"], app=self._app)
        return failure_of(self._app, self._following, full.barrier, body, error, packed)

    def _join(self, barrier: str) -> tuple[list[Any], ChordError | None]:
        """The values of all members; or the error of the first one that failed."""
        values: list[Any] = []
        for batch in self._barriers.parts(barrier):
            for part in batch:
                _, task_id, state, value = codecs.decode_from(part, self._serializer, self._accept)
                if state in PROPAGATE_STATES:
                    cause = exception_from_data(value)
                    error = ChordError(f"Dependency {task_id} raised {cause!r}")
                    error.__cause__ = cause
                    return [], error
                values.append(value)
        return values, None

    def _send(self, body: Any, values: list[Any], packed: dict[str, Any]) -> list[Any]:
        gathered = Gathered()
        options = {"parent_id": packed["parent_id"], "root_id": packed["root_id"]}
        if self._app.conf.task_inherit_parent_priority and packed["priority"] is not None:
            options["priority"] = packed["priority"]
        body.apply_async((values,), producer=gathered, add_to_parent=False, **options)
        return gathered.publications


def failure_of(
    app: Celery, following: Following, barrier: str, body: Any, error: BaseException, packed: Mapping[str, Any]
) -> Firing:
    """Each task of the body fails with the error, its errbacks are called, and the chords that wait for it fail.

    The tasks of a group, and its id, fail with what the member failed with ([canvas.55]). `packed`: see `unpack`.
    """
    side_by_side = body.get("subtask_type") == "group"
    exc = error.__cause__ if side_by_side and error.__cause__ is not None else error
    fields = {"id": body["options"].get("task_id") or new_id(), "task": body["task"]}
    kin = {"root_id": packed["root_id"], "parent_id": packed["parent_id"]}
    message = Message(fields, b"", content_type=packed.get("content_type") or "application/json")
    run = Run(message, None, app.Context(fields, chain=[body], **kin), (), {}, {})
    further = following.further(run, FAILURE, exc, None) or Further()
    if side_by_side:
        following.fail(run, {"task": body["task"], "options": {"task_id": fields["id"]}}, exc, None, further)
    publications: list[Publication] = []
    for one in _heirs(body):
        links = one["options"].get("link_error")
        if links:
            said = {"id": one["options"].get("task_id"), "task": one["task"], "errbacks": links}
            request = app.Context(said, args=(), kwargs={}, **kin)
            publications += following.errbacks(request, exc, None)
    return Firing(barrier, publications, further.records, further.arrivals, failed=True)


def _heirs(signature: Any) -> Iterator[Any]:
    """The calls whose errbacks are to hear that this one cannot begin."""
    yield signature
    parts = signature.get("kwargs") or {}
    kind = signature.get("subtask_type")
    if kind == "chain":
        for one in (parts.get("tasks") or ())[:1]:
            yield from _heirs(one)
    elif kind == "group":
        for one in parts.get("tasks") or ():
            yield from _heirs(one)
    elif kind == "chord" and parts.get("body"):
        yield from _heirs(parts["body"])
