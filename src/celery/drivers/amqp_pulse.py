"""Adapter. Signs of life over an AMQP connection whose owner may be away."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.drivers.amqp import Link
    from celery.ports import BrokerConfig

__all__ = ["HEARTBEAT", "Pulse", "heartbeat_of"]

#: Seconds after which either side may take the other for dead; half of that between two signs of life.
HEARTBEAT = 6.0


def heartbeat_of(config: BrokerConfig) -> float:
    """Seconds; 0: as the server says."""
    return float(config.options.get("heartbeat", HEARTBEAT))


class Pulse:
    """Sends heartbeats over a link from a thread of its own, until it is stopped or the link is closed."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._stopped = threading.Event()
        if link.heartbeat:
            threading.Thread(target=self._run, name="celery-amqp-heartbeat", daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.wait(self._link.heartbeat / 2) and not self._link.closed:
            self._link.beat()

    def stop(self) -> None:
        self._stopped.set()
