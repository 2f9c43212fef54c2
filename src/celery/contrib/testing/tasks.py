"""Entrance. The task by which `start_worker` learns that a worker runs tasks (`[test.7]`)."""

from __future__ import annotations

from celery import shared_task

__all__ = ["PING", "ping", "pong"]

PING = "celery.ping"


def pong() -> str:
    """What the task does."""
    return "pong"


#: The task, of whichever app is current.
ping = shared_task(name=PING)(pong)
