"""Domain. Which queues a message reaches, for brokers that have no exchanges of their own (`[route.13]`)."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct, field

__all__ = ["Bindings", "matches"]


class Bindings(Struct):
    """The bindings of each exchange. The default exchange ("") needs none: its routing keys are queue names."""

    _of: dict[str, dict[tuple[str, str, str], None]] = field(default_factory=dict)

    def bind(self, exchange: str, kind: str, key: str, queue: str) -> None:
        """Bind; a second time changes nothing. `kind`: "direct", "topic" or "fanout"."""
        self._of.setdefault(exchange, {})[(kind, key, queue)] = None

    def queues(self, exchange: str, routing_key: str) -> list[str]:
        """Names of the queues, each once, in the order of their bindings; none: the message is dropped."""
        if not exchange:
            return [routing_key]
        bound = self._of.get(exchange, ())
        return list(dict.fromkeys(queue for kind, key, queue in bound if matches(kind, key, routing_key)))


def matches(kind: str, pattern: str, routing_key: str) -> bool:
    """Whether an exchange of this type hands a message with the routing key to a binding with the pattern.

    Topic: words between dots, `*` stands for one of them and `#` for any number.
    """
    if kind == "fanout":
        return True
    if kind == "topic":
        return _topic(tuple(pattern.split(".")), tuple(routing_key.split(".")))
    return pattern == routing_key


@lru_cache(maxsize=4096)
def _topic(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return _topic(pattern[1:], words) or (bool(words) and _topic(pattern, words[1:]))
    return bool(words) and pattern[0] in ("*", words[0]) and _topic(pattern[1:], words[1:])
