"""Entrance. The task by which `start_worker` learns that a worker runs tasks (`[test.7]`)."""

from __future__ import annotations

from celery import shared_task

__all__ = ["ping"]


@shared_task(name="celery.ping")
def ping() -> str:
    """Answers `pong`."""
    return "pong"
