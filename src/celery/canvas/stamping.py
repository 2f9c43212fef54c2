"""Domain. Stamps, which travel with each call of a canvas, and visitors that choose them ([stamp.1] to [stamp.5])."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StampingVisitor", "added", "stamped"]


class StampingVisitor(ABC):
    """Chooses stamps for each part of a canvas: what its methods return becomes stamps.

    All keys of a returned dict are stamps, unless it says which by `stamped_headers`: the others are then options of
    the call. Stamps of a group, chain or chord are those of all its parts. Keyword arguments are the stamps so far.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any] | None:
        """A task that is to be called."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any] | None:
        """Before the members of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - need not be overridden
        """After the members of a group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any] | None:
        """Before the steps of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027 - need not be overridden
        """After the steps of a chain."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> dict[str, Any] | None:
        """Before the header of a chord; by default as for a group of its members."""
        return self.on_group_start(sig._header_group(), **header)

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:
        """After the header of a chord; by default as for a group of its members."""
        self.on_group_end(sig._header_group(), **header)

    def on_chord_body(self, sig: Any, **header: Any) -> dict[str, Any] | None:
        """Before the body of this chord."""
        return {}

    def on_callback(self, callback: Any, **header: Any) -> dict[str, Any] | None:
        """A callback, before it is visited as a signature."""
        return {}

    def on_errback(self, errback: Any, **header: Any) -> dict[str, Any] | None:
        """An errback, before it is visited as a signature."""
        return {}


def added(headers: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The headers with those that a visitor returned for a part; what was there stays."""
    found = found or {}
    names = [*_names(headers), *_names(found)]
    return {**found, **headers, "stamped_headers": list(dict.fromkeys(names))}


def stamped(options: Mapping[str, Any], headers: Mapping[str, Any], append: bool) -> dict[str, Any]:
    """The options that stamp a call which has these already. `append`: earlier values are kept beside the new ones."""
    made = {name: value for name, value in headers.items() if name != "stamped_headers"}
    names = _names(headers)
    if append:
        for name in names:
            if name in options:
                made[name] = [*_as_list(made[name]), *_as_list(options[name])]
    earlier = options.get("stamped_headers") or ()
    return {**made, "stamped_headers": list(dict.fromkeys([*names, *earlier]))}


def _names(headers: Mapping[str, Any]) -> list[str]:
    names = headers.get("stamped_headers")
    return [name for name in headers if name != "stamped_headers"] if names is None else list(names)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
