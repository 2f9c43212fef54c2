"""Application. Capturing events for as long as a program runs, whatever becomes of the broker meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["capture_for_ever"]

#: Seconds between two tries, growing.
_FIRST, _LONGEST = 1.0, 30.0


def capture_for_ever(
    app: Any, handlers: Mapping[str, Callable[[Any], object]], lost: Callable[[BaseException, float], object]
) -> None:
    """Hand events to `handlers` until `KeyboardInterrupt` or `SystemExit`.

    `lost` is told whenever the broker is lost: what was raised, and after how many seconds it is tried again.
    """
    pause = _FIRST
    while True:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers=handlers)
            heard, exc = _until_lost(receiver, connection)
        if heard:
            pause = _FIRST
        lost(exc, pause)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST)


def _until_lost(receiver: Any, connection: Any) -> tuple[bool, BaseException]:
    """Whether anything was heard, and what was raised in the end."""
    heard = False
    try:
        for _ in receiver.itercapture(wakeup=True):
            heard = True
    except (OperationalError, *connection.connection_errors, *connection.channel_errors) as exc:
        return heard, exc
    raise SystemExit(0)  # it was told that it should stop
