"""The threaded timer of `celery.utils.timer2` ([util.12])."""

from __future__ import annotations

import datetime as dt
import threading
import time
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest

from celery.utils.timer2 import Entry, Schedule, Timer, to_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 30


@pytest.fixture
def timer() -> Iterator[Timer]:
    timer = Timer(max_interval=0.2)
    yield timer
    timer.stop()
    assert not timer.is_alive()


@pytest.fixture
def calls() -> Queue[Any]:
    return Queue()


def test_the_first_entry_starts_it(timer: Timer, calls: Queue[Any]) -> None:
    assert (timer.daemon, timer.running, timer.empty()) == (True, False, True)
    entry = timer.call_after(0.01, calls.put, ("late",))
    assert (type(entry), timer.running) == (Entry, True)
    timer.call_after(0, calls.put, ("soon",))
    assert [calls.get(timeout=DEADLINE) for _ in range(2)] == ["soon", "late"]


def test_every_way_to_enter(timer: Timer, calls: Queue[Any]) -> None:
    timer.call_at(time.monotonic() + 0.01, calls.put, (1,))
    timer.enter(Entry(calls.put, (2,), {}), time.monotonic() + 0.02)
    timer.enter_after(0.03, Entry(calls.put, (3,), {}))
    timer.call_after(0.04, lambda **kwargs: calls.put(kwargs), (), {"n": 4})
    assert [calls.get(timeout=DEADLINE) for _ in range(4)] == [1, 2, 3, {"n": 4}]


def test_what_is_cancelled_or_cleared_is_not_called(timer: Timer, calls: Queue[Any]) -> None:
    timer.cancel(timer.call_after(0.01, calls.put, ("cancelled",)))
    timer.call_after(0.02, calls.put, ("cleared",))
    timer.clear()
    assert timer.empty()
    timer.call_after(0.05, calls.put, ("kept",))
    assert calls.get(timeout=DEADLINE) == "kept"


def test_repeated_calls_outlast_their_errors_until_cancelled(calls: Queue[Any]) -> None:
    errors: Queue[Any] = Queue()
    timer = Timer(on_error=errors.put, max_interval=0.2)

    def fail() -> None:
        calls.put(1)
        raise ValueError("no")

    entry = timer.call_repeatedly(0.005, fail)
    for _ in range(3):
        calls.get(timeout=DEADLINE)
        assert repr(errors.get(timeout=DEADLINE)) == "ValueError('no')"
    timer.cancel(entry)
    timer.stop()
    assert not timer.is_alive()


def test_a_long_wait_ends_when_something_sooner_comes(calls: Queue[Any]) -> None:
    ticks: Queue[float] = Queue()
    timer = Timer(max_interval=3600, on_tick=ticks.put, on_start=lambda timer: calls.put(timer.name))
    timer.call_after(3600, calls.put, ("never",))
    assert calls.get(timeout=DEADLINE) == timer.name
    assert ticks.get(timeout=DEADLINE) > 3000
    timer.call_after(0, calls.put, ("now",))
    assert calls.get(timeout=DEADLINE) == "now"
    timer.stop()
    assert not timer.is_alive()


def test_exit_after_ends_the_thread(timer: Timer) -> None:
    timer.exit_after(0.01)
    timer.join(DEADLINE)
    assert not timer.is_alive()


def test_a_timer_that_never_started_stops(timer: Timer) -> None:
    timer.stop()
    timer.ensure_started()
    assert threading.current_thread() is not timer
    assert not timer.is_alive()


def test_by_hand(calls: Queue[Any]) -> None:
    timer = Timer(Schedule(max_interval=7))
    assert timer.next() == 7
    timer.schedule.call_after(0, calls.put, (1,))
    assert timer.next() is None
    assert calls.get_nowait() == 1


def test_timestamps() -> None:
    assert to_timestamp(5.0) == 5.0
    assert to_timestamp(dt.datetime(2020, 1, 1, tzinfo=dt.UTC)) == 0
