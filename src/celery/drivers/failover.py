"""Adapter. In which order several servers are tried (`broker_failover_strategy`, `[broker.2]`)."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["failover_order"]


def failover_order(given: Any) -> Callable[[list[str]], Iterator[str]]:
    """An order by its name, or a function of the user's: from the list of URLs to an endless iterator over them.

    Raises `ImproperlyConfigured` for any other.
    """
    if callable(given):
        strategy: Callable[[list[str]], Iterator[str]] = given
        return strategy
    if given in (None, "round-robin"):
        return itertools.cycle
    if given == "shuffle":
        return _shuffled
    raise ImproperlyConfigured(
        f"broker_failover_strategy: expected 'round-robin', 'shuffle' or a function, got {given!r}"
    )


def _shuffled(urls: list[str]) -> Iterator[str]:
    chance = random.Random()  # our own, so that a sequence that user code has seeded is not disturbed
    while True:
        chance.shuffle(urls)
        yield from urls
