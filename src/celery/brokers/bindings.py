"""Domain. Which queues a message reaches, for brokers that have no exchanges of their own (`[route.13]`)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.routing import Binding

__all__ = ["Bindings", "matches", "pattern_of"]

_NONE: dict[str, Any] = {}


class Bindings(Struct):
    """The bindings of each exchange. The default exchange ("") needs none: its routing keys are queue names."""

    _of: dict[str, dict[tuple[str, str, str], None]] = field(default_factory=dict)

    def bind(self, binding: Binding, queue: str) -> None:
        """Bind; a second time changes nothing."""
        exchange = binding.exchange
        self._of.setdefault(exchange.name, {})[(exchange.type, pattern_of(binding), queue)] = None

    def unbind(self, queue: str) -> None:
        """Take away every binding of a queue."""
        for bound in self._of.values():
            for one in [one for one in bound if one[2] == queue]:
                del bound[one]

    def queues(self, exchange: str, routing_key: str, headers: Mapping[str, Any] = _NONE) -> list[str]:
        """Names of the queues, each once, in the order of their bindings; none: the message is dropped."""
        if not exchange:
            return [routing_key]
        bound = self._of.get(exchange, ())
        return list(dict.fromkeys(queue for kind, key, queue in bound if matches(kind, key, routing_key, headers)))


def pattern_of(binding: Binding) -> str:
    """What `matches` compares with: the routing key; of a headers exchange, where keys say nothing, the arguments."""
    if binding.exchange.type == "headers":
        return json.dumps(binding.arguments, sort_keys=True, default=str)
    return binding.routing_key


def matches(kind: str, pattern: str, routing_key: str, headers: Mapping[str, Any] = _NONE) -> bool:
    """Whether an exchange of this type hands a message with the routing key and headers to a binding with the pattern.

    Topic: words between dots, `*` stands for one of them and `#` for any number. Headers: `x-match` says whether "all"
    (as where it is missing) of the other arguments are among the message's headers, or "any"; null stands for any
    value. Those that begin with "x-" count only with "all-with-x" and "any-with-x".
    """
    if kind == "fanout":
        return True
    if kind == "topic":
        return _topic(tuple(pattern.split(".")), tuple(routing_key.split(".")))
    if kind == "headers":
        return _headers(*_wanted(pattern), headers)
    return pattern == routing_key


@lru_cache(maxsize=4096)
def _topic(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return _topic(pattern[1:], words) or (bool(words) and _topic(pattern, words[1:]))
    return bool(words) and pattern[0] in ("*", words[0]) and _topic(pattern[1:], words[1:])


@lru_cache(maxsize=1024)
def _wanted(pattern: str) -> tuple[bool, tuple[tuple[str, Any], ...]]:
    """Whether one is enough, and what is looked at."""
    arguments = json.loads(pattern) if pattern else {}
    how = arguments.pop("x-match", "all")
    return how.startswith("any"), tuple(
        (name, value) for name, value in arguments.items() if how.endswith("-with-x") or not name.startswith("x-")
    )


def _headers(one_is_enough: bool, wanted: tuple[tuple[str, Any], ...], headers: Mapping[str, Any]) -> bool:
    found = (
        name in headers and (value is None or (type(value) is type(headers[name]) and value == headers[name]))
        for name, value in wanted
    )
    return any(found) if one_is_enough else all(found)
