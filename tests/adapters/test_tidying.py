"""Memory that is free and was kept by the C library goes back to the system, seldom enough to cost nothing."""

from __future__ import annotations

import pytest

from celery.ports import SystemClock
from celery.worker.tidying import Tidying, trim

MB = 1 << 10  # of KiB


class Hands(SystemClock):
    """A clock that stands still."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Host:
    """A process whose memory is what the test says."""

    def __init__(self, *, trims: bool = True) -> None:
        self.clock = Hands()
        self.held, self.trimmed, self.asked = 50 * MB, 0, 0
        self._trims = trims
        self.tidying = Tidying(self.clock, self._resident, self._trim)

    def _resident(self) -> int:
        self.asked += 1
        return self.held

    def _trim(self) -> bool:
        self.trimmed += 1
        return self._trims

    def look(self, held: int) -> int:
        """Some seconds later it holds so much; returns how often it was trimmed by now."""
        self.clock.now += 10.0
        self.held = held
        self.tidying.look()
        return self.trimmed


def test_only_a_process_that_has_grown_is_trimmed_and_as_long_as_it_is_large() -> None:
    host = Host()
    assert [host.look(held * MB) for held in (50, 60, 66, 67, 90, 50)] == [0, 0, 0, 1, 2, 2]


def test_what_it_needs_least_is_learnt() -> None:
    host = Host()
    assert [host.look(held * MB) for held in (50, 30, 47, 46)] == [0, 0, 1, 1]


def test_it_looks_every_two_seconds() -> None:
    host = Host()
    for _ in range(100):
        host.clock.now += 0.25
        host.tidying.look()
    assert host.asked in (12, 13)


def test_where_nothing_can_be_given_back_it_looks_no_more() -> None:
    host = Host(trims=False)
    assert [host.look(held * MB) for held in (50, 90, 90, 90)] == [0, 1, 1, 1]


def test_a_c_library_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trim() in (True, False), "it is called for real"
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert trim() is False
