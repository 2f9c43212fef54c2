"""Domain. Which messages are not to be run because somebody has said so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from celery.message import Message

__all__ = ["Revocations", "bears", "stamp_values"]


class Revocations:
    """Ids and stamps of what is revoked; both may change at any time (`[limit.9]`, `[limit.13]`)."""

    def __init__(self, ids: Collection[str] = (), stamps: Mapping[str, Collection[Any]] | None = None) -> None:
        """`stamps`: header → values, any of which will do; see `stamp_values`."""
        self.ids = ids
        self.stamps: Mapping[str, Collection[Any]] = {} if stamps is None else stamps

    def concern(self, message: Message) -> bool:
        """Whether this one is revoked."""
        return message.id in self.ids or bool(self.stamps and bears(message, self.stamps))


def bears(message: Message, stamps: Mapping[str, Collection[Any]]) -> bool:
    """Whether the message bears any of these stamps with any of these values."""
    found = message.headers.get("stamps")
    if not isinstance(found, dict):
        return False
    return any(
        value in wanted
        for header, wanted in list(stamps.items())
        if header in found
        for value in stamp_values(found[header])
    )


def stamp_values(value: Any) -> list[Any]:
    """The values of a stamp, which may be one or several, as things that can be looked up."""
    several: Iterable[Any] = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    return [one if isinstance(one, str | int | float | None) else repr(one) for one in several]
