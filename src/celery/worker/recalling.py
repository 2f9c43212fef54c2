"""Application. Who waits for the result of a revoked task is told at once (`[limit.9]`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import codecs, documents
from celery.exceptions import TaskRevokedError
from celery.outcome import Record
from celery.states import READY_STATES, REVOKED, STARTED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery.worker.worker import WorkController

__all__ = ["mark_revoked"]

logger = logging.getLogger("celery.worker.control")


def mark_revoked(worker: WorkController, ids: Iterable[str]) -> None:
    """Store REVOKED for those that neither run here nor are known to run or to have ended elsewhere.

    Its flow hears of it when the message's turn comes. A store that does not answer is logged: then the record is
    stored in that turn, too.
    """
    app = worker.app
    store = app.assembly.store
    held = list(worker.consumer.held.values())
    # A pool without descriptors runs what it has in the thread of the loop, and tells of it afterwards.
    at_once = worker.pool is not None and not worker.pool.descriptors()
    running = {one.message.id for one in held if one.begun or at_once}
    asked = [each for each in ids if each not in running]
    if store is None or not asked:
        return
    try:
        found = zip(asked, store.load(asked), strict=True)
        waiting = [each for each, document in found if document is None or _is_open(app, document)]
        if waiting:
            store.save([Record(each, REVOKED, _document(worker, each)) for each in waiting])
    except Exception as exc:  # noqa: BLE001 - whatever a store raises; the tasks are revoked all the same
        logger.warning("Revoked tasks cannot be marked so in the result backend now: %r", exc)


def _is_open(app: Any, document: bytes) -> bool:
    """Whether that document says that the task neither runs nor has ended."""
    serializer = getattr(app.backend, "serializer", app.conf.result_serializer)
    accept = codecs.accept_types(app.conf.result_accept_content or app.conf.accept_content)
    status = documents.decode(document, serializer, accept).get("status")
    return status not in READY_STATES and status != STARTED


def _document(worker: WorkController, task_id: str) -> bytes:
    request = worker.app.Context({"id": task_id})
    return worker.app.assembly.documents.failure(TaskRevokedError("revoked"), request, None, REVOKED)  # type: ignore[no-any-return]
