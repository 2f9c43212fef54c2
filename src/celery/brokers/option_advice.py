"""Adapter. What is said of transport options that change nothing."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["CONNECTING", "Others", "option_advice"]

#: Options of kombu's that are known and change nothing: name → (the values that need no word, why any other does not).
Others = dict[str, tuple[tuple[Any, ...], str]]

_RETRIES = "how often a connection is tried is said by task_publish_retry_policy and broker_connection_max_retries"
#: Of every kind of broker.
CONNECTING: Others = dict.fromkeys(
    ("max_retries", "interval_start", "interval_step", "interval_max", "errback"), ((), _RETRIES)
)


def option_advice(server: str, options: Mapping[str, Any], honoured: Collection[str], others: Others) -> Iterator[str]:
    """A line for each transport option that is not known, or known but without effect (`[broker.9]`)."""
    for name, value in options.items():
        if name in honoured:
            continue
        if name in others:
            silent, why = others[name]
            if value not in silent:
                yield f"broker_transport_options: {name} has no effect: {why}."
        else:
            near = difflib.get_close_matches(name, [*honoured, *others], n=1, cutoff=0.75)
            meant = f" Did you mean {near[0]}?" if near else ""
            yield f"broker_transport_options: there is no option {name} for {server}; it has no effect.{meant}"
