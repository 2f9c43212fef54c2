"""Application. What an app has to do with events (`app.events`, `[app.38]`): its classes, and a dispatcher at hand."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.app.base import Celery

__all__ = ["Events"]


class Events:
    """`app.events`. Subclasses may name other classes."""

    receiver_cls = "celery.events.receiver:EventReceiver"
    dispatcher_cls = "celery.events.dispatcher:EventDispatcher"
    state_cls = "celery.events.state:State"

    def __init__(self, app: Celery | None = None) -> None:
        self.app = app

    @cached_property
    def Receiver(self) -> Any:  # noqa: N802 - its public name
        """The class of receivers, bound to the app (`[event.15]`)."""
        return self._bound(self.receiver_cls, "events.Receiver")

    @cached_property
    def Dispatcher(self) -> Any:  # noqa: N802 - its public name
        """The class of dispatchers, bound to the app (`[event.14]`)."""
        return self._bound(self.dispatcher_cls, "events.Dispatcher")

    @cached_property
    def State(self) -> Any:  # noqa: N802 - its public name
        """The class of cluster states, bound to the app (`[event.16]`)."""
        return self._bound(self.state_cls, "events.State")

    @contextmanager
    def default_dispatcher(
        self, hostname: str | None = None, enabled: bool = True, buffer_while_offline: bool = False
    ) -> Iterator[Any]:
        """A dispatcher to where the app publishes, for as long as the context lasts (`[event.14]`)."""
        dispatcher = self.Dispatcher(None, hostname, enabled, buffer_while_offline=buffer_while_offline)
        try:
            yield dispatcher
        finally:
            dispatcher.close()

    def _bound(self, cls: str, reverse: str) -> Any:
        assert self.app is not None, "app.events belongs to an app"
        return self.app.subclass_with_self(cls, reverse=reverse)
