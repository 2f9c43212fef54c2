"""Application. Events: what they are made of, and the exchange that they are told on (`[wireev.1]`, `[event.12]`)."""

from __future__ import annotations

import time
from copy import copy
from typing import Any

from kombu import Exchange

__all__ = ["EVENT_EXCHANGE_NAME", "Event", "event_exchange", "get_exchange", "group_from"]

EVENT_EXCHANGE_NAME = "celeryev"
#: For those who declare it by kombu. Not bound to a channel.
event_exchange = Exchange(EVENT_EXCHANGE_NAME, type="topic")
#: Transports that match no topics by themselves: the exchange reaches everybody there, each sorts out for himself.
_TO_ALL = frozenset({"redis", "gcpubsub"})


def Event(  # noqa: N802 - its public name
    type: str,
    _fields: dict[str, Any] | None = None,
    __dict__: Any = dict,
    __now__: Any = time.time,
    **fields: Any,
) -> Any:
    """An event as the mapping that is sent: `fields`, over those of `_fields`, with `type` and a `timestamp`
    (seconds since the epoch) where there is none."""
    event = __dict__(_fields or (), **fields)
    event.setdefault("timestamp", __now__())
    event["type"] = type
    return event


def group_from(type: str) -> str:
    """The group of an event type, which is all before its first dash: `task-sent` belongs to `task`."""
    return type.partition("-")[0]


def get_exchange(conn: Any, name: str = EVENT_EXCHANGE_NAME) -> Any:
    """The exchange of events as it is declared on this kombu connection's transport."""
    exchange = copy(event_exchange)
    if conn.transport.driver_type in _TO_ALL:
        exchange.type = "fanout"
    if name != exchange.name:
        exchange.name = name
    return exchange
