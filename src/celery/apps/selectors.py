"""Application. Which nodes of a command line an option is for: `-c:1-3`, `-c:w1,w2` (`[multi.4]`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

__all__ = ["resolve"]

_RANGE = re.compile(r"(\d*)-(\d*)")


def resolve(namespaces: MutableMapping[str, dict[str, Any]], names: Sequence[str], *, counted: bool) -> None:
    """Put the options of lists, ranges and numbers under the names that they mean, in place.

    `counted`: the names are the numbers from 1 on, since only a count was given; then, and only then, there are
    ranges, and what is beyond the count is passed over in them. Raises `ValueError`.
    """
    for selector in list(namespaces):
        parts = _parts(selector, len(names)) if counted else [part for part in selector.split(",") if part]
        if parts == [selector]:
            if counted and selector.isdigit():
                _index(selector, names)
            continue
        options = namespaces.pop(selector)
        for part in parts:
            namespaces.setdefault(part, {}).update(options)
    if not counted:
        _resolve_numbers(namespaces, names)


def _parts(selector: str, count: int) -> list[str]:
    parts: list[str] = []
    for part in selector.split(","):
        found = _RANGE.fullmatch(part)
        if not found:
            parts.append(part)
        elif not all(found.groups()):
            raise ValueError(f"expected a range such as 1-3, got {part!r} in the selector {selector!r}")
        else:
            first, last = map(int, found.groups())
            parts += map(str, range(first, min(last, count) + 1))
    return parts


def _resolve_numbers(namespaces: MutableMapping[str, dict[str, Any]], names: Sequence[str]) -> None:
    for selector in list(namespaces):
        if selector.isdigit() and selector not in names:
            namespaces.setdefault(names[_index(selector, names)], {}).update(namespaces.pop(selector))


def _index(selector: str, names: Sequence[str]) -> int:
    number = int(selector)
    if not 1 <= number <= len(names):
        raise ValueError(f"expected the number of a node, 1 to {len(names)}, got the selector {selector!r}")
    return number - 1
