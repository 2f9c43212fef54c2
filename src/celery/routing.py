"""Domain. Where a message goes: queues, routes, and the rules that choose between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["QueueSpec", "Route"]


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue as brokers see it. kombu's `Queue` is the user's vocabulary; this is the value that crosses the port."""

    name: str
    #: "" is the default exchange: messages arrive by queue name.
    exchange: str = ""
    exchange_type: str = "direct"
    routing_key: str = ""
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    #: `x-…` arguments, passed through (`[route.22]`).
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: False for queues that a publisher must not declare (`Broadcast`, `[wire.18]`).
    declare: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """Where to publish: exchange and routing key, and the queue to declare first, if one is known."""

    exchange: str
    routing_key: str
    queue: QueueSpec | None = None
