"""Domain. Text for reading, of any value, never longer than asked by much and never without end (`[util.4]`)."""

from __future__ import annotations

import re
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ("reprstream", "saferepr")

_PLAIN = frozenset({int, float, bool, type(None)})
_SCALARS = _PLAIN | {str}
#: Containers of more items are cut off anyhow, in most cases.
_SMALL = 256
_SURROGATES = re.compile("[\ud800-\udfff]+")


class _literal(NamedTuple):  # noqa: N801
    """A bracket or a separator. `direction`: 1 opens, -1 closes, 0 stands between."""

    value: str
    truncate: bool
    direction: int


class _quoted(NamedTuple):  # noqa: N801
    """A text."""

    value: str


class _key(NamedTuple):  # noqa: N801
    """A key of a dict that is a text."""

    value: str


class _KeyOf(NamedTuple):
    """A key of a dict that is no text; as a container it lies as deep as the dict."""

    value: Any


class _End(NamedTuple):
    """After the last item of a container: its closing bracket, and who it was."""

    value: str
    container: int
    level: int


_COMMA, _COLON = _literal(", ", True, 0), _literal(": ", True, 0)


def saferepr(o: Any, maxlen: int | None = None, maxlevels: int | None = 3, seen: set[int] | None = None) -> str:
    """A value as text, about `maxlen` characters of it and containers `maxlevels` deep; None or 0: all.

    What is left out shows as `...`, brackets are always closed, and a container within itself shows as such.
    Texts stand in quotes but their control characters are not escaped; bytes that are no UTF-8 show as hex digits.
    Never raises because of a value: one whose `repr` fails is `<Unrepresentable …>`.
    """
    if _is_plain((o,) if type(o) in _SCALARS else o, maxlevels or 100):
        try:
            text = repr(o)
        except ValueError:  # an integer of more digits than Python is willing to write
            text = ""
        if text and (not maxlen or len(text) <= maxlen):
            return text
    return "".join(_cut(reprstream(deque([iter([o])]), seen=seen, maxlevels=maxlevels or 0), maxlen or 0))


def _is_plain(container: Any, levels: int) -> bool:
    """Would the long way come to the container's own `repr`? True for small ones of plain values."""
    kind = type(container)
    if kind is dict:
        items = [*container, *container.values()]
    elif kind is tuple or kind is list:
        items = container
    else:
        return False
    if len(items) > _SMALL:
        return False
    for item in items:
        kind = type(item)
        if kind in _PLAIN:
            continue
        if kind is str:
            if len(item) < 1024 and item.isprintable() and "'" not in item and "\\" not in item:
                continue
            return False
        if levels < 2 or not _is_plain(item, levels - 1):
            return False
    return True


def _cut(tokens: Iterator[tuple[Any, Any]], maxlen: int) -> Iterator[str]:
    """Texts of the tokens until `maxlen` is reached, then what closes the open brackets."""
    left = maxlen
    closers: list[str] = []
    for token, rest in tokens:
        kind = type(token)
        if kind is _literal and token.direction < 0:
            yield closers.pop()
            left -= len(token.value)
            continue
        if maxlen and left <= 0:
            yield ", ..."
            break
        if kind is _literal:
            text = token.value
            if token.direction > 0:
                closers.append(rest)
        elif kind is _quoted or kind is _key:
            text = _quote(_truncate(token.value, left) if maxlen else token.value)
        elif kind is bytes:
            text = _bytes_text(token[:left], "..." if len(token) >= left else "") if maxlen else _bytes_text(token, "")
        else:
            text = _truncate(token, left) if maxlen else token
        yield text
        left -= len(text)
    yield from reversed(closers)


def reprstream(
    stack: deque[Any], seen: set[int] | None = None, maxlevels: int = 3, level: int = 0, isinstance: Any = isinstance
) -> Iterator[tuple[Any, Any]]:
    """The pieces that the text of a value is made of, as they come: pairs of a piece and, with an opening bracket, the
    bracket that will close it. `stack` holds an iterator over the values; it is emptied."""
    seen = set() if seen is None else seen
    while stack:
        try:
            item = next(stack[-1])
        except StopIteration:
            stack.pop()
            continue
        inner = level + 1
        if isinstance(item, _KeyOf):
            item, inner = item.value, level
        if isinstance(item, (_literal, _key)):
            yield item, None
        elif isinstance(item, _End):
            level = item.level
            seen.discard(item.container)
            yield _literal(item.value, False, -1), None
        elif isinstance(item, str):
            yield _quoted(item), None
        elif isinstance(item, bytes):
            yield item, None
        elif isinstance(item, (dict, list, tuple, set, frozenset)) and not _is_empty_set(item):
            opening, closing, children = _container(item)
            if maxlevels and inner > maxlevels:
                yield _literal(f"{opening}...{closing}", False, 0), None
            elif id(item) in seen:
                yield f"<Recursion on {type(item).__name__} with id={id(item)}>", None
            else:
                seen.add(id(item))
                yield _literal(opening, False, 1), closing
                stack.append(chain(children, [_End(closing, id(item), level)]))
                level = inner
        else:
            yield _safe(item), None


def _is_empty_set(value: Any) -> bool:
    return not value and isinstance(value, (set, frozenset))


def _container(value: Any) -> tuple[str, str, Iterator[Any]]:
    """Opening and closing bracket, and what comes between."""
    if isinstance(value, dict):
        return "{", "}", _pairs(value)
    children = _between(value)
    if isinstance(value, list):
        return "[", "]", children
    if isinstance(value, tuple):
        return "(", ",)" if len(value) == 1 else ")", children
    return ("{", "}", children) if isinstance(value, set) else ("frozenset({", "})", children)


def _between(values: Iterable[Any]) -> Iterator[Any]:
    for n, value in enumerate(values):
        if n:
            yield _COMMA
        yield value


def _pairs(mapping: dict[Any, Any]) -> Iterator[Any]:
    for n, (key, value) in enumerate(mapping.items()):
        if n:
            yield _COMMA
        yield _key(key) if isinstance(key, str) else _KeyOf(key)
        yield _COLON
        yield value


def _safe(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        return f"<Unrepresentable {type(value)!r}{id(value):#x}: {type(error).__name__}>"


def _truncate(text: str, limit: int) -> str:
    """The first `limit` characters, to the end of a word if there is one."""
    return text[:limit].rsplit(" ", 1)[0] + "..." if len(text) >= limit else text


def _quote(text: str) -> str:
    if not text.isascii():
        text = _SURROGATES.sub("\ufffd", text)
    return "'" + text.replace("'", "\\'") + "'"


def _bytes_text(value: bytes, ellipsis: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.hex()
    return f"b'{text}{ellipsis}'"
