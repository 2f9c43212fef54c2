"""Adapter. What has happened in a prefork pool and was not told yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.ports import Report

if TYPE_CHECKING:
    from celery.outcome import Outcome

__all__ = ["News"]


class News:
    """The lists of a `Report`, as they grow."""

    __slots__ = ("begun", "finished", "lost", "returned", "timed_out", "warned")

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.finished: list[tuple[int, Outcome]] = []
        self.returned: list[int] = []
        self.lost: list[tuple[int, str]] = []
        self.timed_out: list[tuple[int, float]] = []
        self.warned: list[tuple[int, float]] = []

    def report(self) -> Report:
        return Report(self.begun, self.finished, self.returned, self.lost, self.timed_out, self.warned)
