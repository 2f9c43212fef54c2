"""Adapter. RabbitMQ's place: says what is the matter until its adapter is here.

The default broker is `amqp://`, as in Celery, so this is what a project without any configuration meets. It looks
whether anything answers at the address, so that the error names the real trouble and the one line that helps.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url

from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.ports import BrokerConfig, Consumer, Publication
    from celery.routing import QueueSpec

__all__ = ["AmqpBroker"]

_EMBEDDED = "To use the embedded broker, which needs no server: app.conf.broker_url = 'sqlite:///' (or -b sqlite:///)."


class AmqpBroker:
    """Refuses every verb with the reason."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self.url_text: str = maybe_sanitize_url(config.url)

    def publish(self, publications: Sequence[Publication]) -> None:
        self._refuse()

    def consume(self, queues: Sequence[QueueSpec]) -> Consumer:
        self._refuse()

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        self._refuse()

    def purge(self, queue: str) -> int:
        self._refuse()

    def close(self) -> None:
        """Nothing is open."""

    def _refuse(self) -> NoReturn:
        parts = urlsplit(self._config.url)
        address = (parts.hostname or "localhost", parts.port or (5671 if parts.scheme == "amqps" else 5672))
        try:
            socket.create_connection(address, timeout=self._config.connect_timeout).close()
        except OSError as exc:
            raise OperationalError(
                f"Cannot reach the broker at {self.url_text}: {exc}. "
                "Start it, or correct broker_url (or CELERY_BROKER_URL). " + _EMBEDDED
            ) from exc
        raise ImproperlyConfigured(
            f"A broker answers at {self.url_text}, but this version has no adapter for AMQP yet: "
            "expected sqlite://, redis:// or memory://. " + _EMBEDDED
        )
