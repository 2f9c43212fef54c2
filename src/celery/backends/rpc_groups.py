"""Adapter. What is known of groups, at an AMQP server: a queue for each, with one message in it."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING

from celery.backends.rpc_wire import lease
from celery.brokers.amqp_methods import await_confirms, exists, passive_queue, publish, with_confirms
from celery.drivers.amqp_frames import framed, method, packed, short

if TYPE_CHECKING:
    from celery.brokers.amqp import AmqpBroker

__all__ = ["RpcGroups"]

_KEPT = packed({"delivery_mode": 2})
#: Times that a document is looked for that somebody else is reading, and seconds between them.
_TRIES, _PAUSE = 100, 0.02


class RpcGroups:
    """See `ports.Groups`."""

    def __init__(self, broker: AmqpBroker, expires: float | None) -> None:
        """`expires`: seconds for which a document is kept that nobody reads."""
        self._broker = broker
        self._expires = expires

    def save(self, id: str, document: bytes) -> None:
        """In place of what was kept before; it survives a restart of the server."""
        queue = short(_name(id))
        arguments = lease(self._expires, **{"x-max-length": 1})
        with self._broker.link() as link:
            link.call(method(50, 10, b"\0\0" + queue + b"\x02" + arguments), {(50, 11)})
            with_confirms(link)
            link.send(publish("", _name(id)) + framed(_KEPT, document, link.frame_max))
            await_confirms(link, 1)

    def load(self, id: str) -> bytes | None:
        """None: nothing is kept of it."""
        question = passive_queue(_name(id), channel=2)
        get = method(60, 70, b"\0\0" + short(_name(id)) + b"\0")
        with self._broker.link() as link:
            for _ in range(_TRIES):
                if exists(link, question, (50, 11)) is None:
                    return None
                came = link.call(get, {(60, 71), (60, 72)})
                if came.kind == (60, 71):
                    link.send(method(60, 120, came.arguments[:8] + b"\x02"))
                    return came.body
                time.sleep(_PAUSE)  # another reader has it for a moment
        return None

    def delete(self, id: str) -> None:
        """Forget it."""
        with self._broker.link() as link:
            link.call(method(50, 40, b"\0\0" + short(_name(id)) + b"\0"), {(50, 41)})


def _name(id: str) -> str:
    return f"celery.group.{id if len(id) <= 60 else sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()}"
