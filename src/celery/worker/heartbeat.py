"""Application. The heart of a worker: tells that it is there, and how it does, every other second (`[event.11]`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.signals import heartbeat_sent
from celery.utils.sysinfo import load_average
from celery.worker import state

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Heart"]

logger = logging.getLogger("celery.worker.heartbeat")

#: Seconds between two heartbeats, where nobody has said otherwise.
_INTERVAL = 2.0


class Heart:
    """Beats by a timer (anything with `call_repeatedly`), through an event dispatcher, as long as that is enabled."""

    def __init__(
        self, timer: Any, eventer: Any, interval: float | None = None, active: Callable[[], int] | None = None
    ) -> None:
        """`interval` in seconds. `active`: how many tasks run now."""
        self.timer = timer
        self.eventer = eventer
        self.interval = float(interval or _INTERVAL)
        self.tref: Any = None
        self._active = active or (lambda: len(state.active_requests))
        self._silent = False
        eventer.on_enabled.add(self.start)
        eventer.on_disabled.add(self.stop)

    def start(self) -> None:
        """Tell `worker-online`, and beat from now on."""
        if self.eventer.enabled and self.tref is None:
            self._send("worker-online")
            self.tref = self.timer.call_repeatedly(self.interval, self._send, ("worker-heartbeat",))

    def stop(self) -> None:
        """Tell `worker-offline`. Idempotent."""
        if self.tref is not None:
            self.timer.cancel(self.tref)
            self.tref = None
            self._send("worker-offline", retry=False)

    def _send(self, event: str, retry: bool = True) -> None:
        """A heartbeat that cannot be sent is of no use later: it is left out."""
        heartbeat_sent.send(sender=self)
        try:
            self.eventer.send(
                event,
                freq=self.interval,
                active=self._active(),
                processed=state.all_total_count[0],
                loadavg=load_average(),
                retry=retry,
                **state.SOFTWARE_INFO,
            )
        except Exception as exc:  # noqa: BLE001 - whatever a broker raises; the engine tells of the broker
            if not self._silent:
                logger.warning("Heartbeats cannot be sent: %s", exc)
            self._silent = True
        else:
            self._silent = False
