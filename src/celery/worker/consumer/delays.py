"""Flow. How long an engine waits between two tries to reach broker and store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["startup_delays", "trouble_delays"]


def trouble_delays() -> Iterator[float]:
    """Seconds between tries while broker or store are away: 1, 2, 4, 8, 8 …: who is back is not kept waiting."""
    seconds = 1.0
    while True:
        yield seconds
        seconds = min(seconds * 2, 8.0)


def startup_delays() -> Iterator[float]:
    """Seconds between tries to reach the broker at start: 2, 4, 6 … 32."""
    seconds = 2.0
    while True:
        yield seconds
        seconds = min(seconds + 2, 32.0)
