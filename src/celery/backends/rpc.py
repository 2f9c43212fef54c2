"""Compatibility. `celery.backends.rpc`: the face of results that are sent to whoever waits for them ([backend.15])."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from celery.backends.face import StoreBackend

if TYPE_CHECKING:
    from celery.backends.encoding import Meta

__all__ = ["BacklogLimitExceeded", "RPCBackend"]


class BacklogLimitExceeded(Exception):
    """Celery raises it when it meets too many results of others while it looks for one. We keep them: never raised."""


class RPCBackend(StoreBackend):
    """Results as messages to the process that sent the task. It alone can read them; others find every task PENDING."""

    BacklogLimitExceeded = BacklogLimitExceeded
    supports_autoexpire = True
    supports_native_join = True
    #: Results survive a restart of the broker: `result_persistent`, which is off.
    persistent = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.persistent = bool(self.app.conf.result_persistent)

    @property
    def oid(self) -> str:
        """The name of this process's reply queue."""
        return str(self.app.oid)

    def destination_for(self, task_id: str, request: Any) -> tuple[str, str]:
        """Where the result of the request goes, and under which id. Raises RuntimeError if there is no request."""
        if request is None:
            raise RuntimeError(
                f"expected the request of task {task_id!r}, which says where its result goes: rpc:// has no other way"
            )
        return request.reply_to, request.correlation_id or task_id

    def as_uri(self, include_password: bool = True) -> str:
        return "rpc://"

    def poll(self, task_id: str, backlog_limit: int = 1000) -> Meta:
        """`get_task_meta`, as it was called ([compat.4])."""
        warnings.warn("RPCBackend.poll is deprecated: use get_task_meta", DeprecationWarning, stacklevel=2)
        return self.get_task_meta(task_id)
