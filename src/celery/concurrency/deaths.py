"""Adapter. What a prefork child's death looks like from outside."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.concurrency.seat import Seat

__all__ = ["ASKED_TO_GO", "describe", "wait_for_death"]

#: How a child ends that gets TERM.
ASKED_TO_GO = f"exit status {128 + signal.SIGTERM}"


def describe(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def wait_for_death(seat: Seat) -> None:
    """The child has been killed: wait (a second at most) until it can write nothing any more."""
    poll = select.poll()
    poll.register(seat, select.POLLHUP)
    poll.poll(1000)
