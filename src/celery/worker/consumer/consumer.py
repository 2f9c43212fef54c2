"""Application. What commands and plugins know as the consumer of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils.collections import AttributeDict

if TYPE_CHECKING:
    from celery.worker.worker import WorkController

__all__ = ["Consumer", "state_for"]


class Consumer:
    """A worker by the names that commands expect: `state.consumer`."""

    def __init__(self, worker: WorkController) -> None:
        self.controller = worker

    @property
    def app(self) -> Any:
        return self.controller.app

    @property
    def hostname(self) -> str:
        return str(self.controller.hostname)

    @property
    def pool(self) -> Any:
        return self.controller.pool


def state_for(worker: WorkController) -> Any:
    """The `state` that every command is called with: `app`, `hostname`, `consumer` and `tset` (`[control.37]`)."""
    return AttributeDict(app=worker.app, hostname=worker.hostname, consumer=Consumer(worker), tset=set)
