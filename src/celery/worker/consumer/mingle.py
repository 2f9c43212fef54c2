"""Application. Mingle: a worker that starts asks the others what it has missed (`[worker.17]`)."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from celery.app.adapters import all_urls, scheme_of
from celery.worker import state

__all__ = ["Mingle", "transport_of"]

logger = logging.getLogger("celery.worker.consumer.mingle")

#: Seconds in which the others answer, where the broker does not say how many they are.
_PATIENCE = 1.0
#: Scheme of a URL → kombu's name of the transport, where that is another.
_TRANSPORTS = {"pyamqp": "amqp", "amqps": "amqp", "librabbitmq": "amqp", "rediss": "redis", "sentinel": "redis"}


def transport_of(app: Any) -> str:
    """kombu's name for the kind of broker that the app reads from."""
    urls = all_urls(app.conf.broker_read_url)
    scheme = scheme_of(urls[0]).removeprefix("kombu+").partition("+")[0] if urls else "amqp"
    return _TRANSPORTS.get(scheme, scheme)


class Mingle:
    """Asks all other workers for the ids that they know to be revoked, and for their logical clocks."""

    label = "Mingle"
    name = "Mingle"
    requires: ClassVar[tuple[Any, ...]] = ()
    compatible_transports: ClassVar[set[str]] = {"amqp", "redis", "gcpubsub"}

    def __init__(self, c: Any, without_mingle: bool = False, **kwargs: Any) -> None:
        """`c`: the worker, with `app` and `hostname`."""
        self.enabled = not without_mingle and self.compatible_transport(c.app)

    def compatible_transport(self, app: Any) -> bool:
        """Whether there may be others."""
        return transport_of(app) in self.compatible_transports

    def start(self, c: Any) -> None:
        """Ask, if it is enabled."""
        if self.enabled:
            self.sync(c)

    def sync(self, c: Any) -> None:
        """Ask, and wait up to a second for each answer. Who cannot be asked does not keep a worker from starting."""
        logger.info("mingle: searching for neighbors")
        try:
            replies = self.send_hello(c)
        except Exception as exc:  # noqa: BLE001 - whatever a broker raises; the engine will tell of it
            logger.warning("mingle: the others cannot be asked: %s", exc)
            return
        if not replies:
            logger.info("mingle: all alone")
            return
        logger.info("mingle: sync with %s nodes", len(replies))
        for nodename, reply in replies.items():
            if reply:
                self.on_node_reply(c, nodename, reply)
        logger.info("mingle: sync complete")

    def send_hello(self, c: Any) -> dict[str, Any]:
        """What the others answer, by their names."""
        inspect = c.app.control.inspect(timeout=_PATIENCE)
        replies: dict[str, Any] = inspect.hello(c.hostname, list(state.revoked)) or {}
        replies.pop(c.hostname, None)
        return replies

    def on_node_reply(self, c: Any, nodename: str, reply: Any) -> None:
        """Take over what one has answered; what cannot be read is told of, and passed over."""
        logger.debug("mingle: processing reply from %s", nodename)
        try:
            self.sync_with_node(c, **reply)
        except Exception as exc:  # noqa: BLE001 - whatever somebody has answered
            logger.error("mingle: expected an answer from %s with clock and revoked, got %.200r: %r",
                         nodename, reply, exc)  # fmt: skip

    def sync_with_node(self, c: Any, clock: int | None = None, revoked: Any = None, **kwargs: Any) -> None:
        self.on_clock_event(c, clock)
        self.on_revoked_received(c, revoked)

    def on_clock_event(self, c: Any, clock: int | None) -> None:
        if clock:
            c.app.clock.adjust(clock)
        else:
            c.app.clock.forward()

    def on_revoked_received(self, c: Any, revoked: Any) -> None:
        if revoked:
            state.merge_revoked(revoked)
