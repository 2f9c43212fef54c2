"""What calls and tasks may be told, and what is refused by name before anything is sent."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.options import as_eta, as_expiry, check_call, check_task, listed

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Named:
    name = "x"


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("compression", [5]),
        ("exchange", [5, ["x"]]),
        ("headers", [5, "x", [1]]),
        ("link", [5, "x", [5], object(), [{}, 5]]),
        ("link_error", [5, "x", [5]]),
        ("priority", ["high", [1], float("nan")]),
        ("retries", ["x", -1]),
        ("retry_policy", ["x", [1], {"max_retries": "x"}, {"interval_start": "a"}]),
        ("serializer", [5, ["json"]]),
        ("shadow", [object(), ["x"]]),
        ("soft_time_limit", ["x", -1, [1], float("inf"), True]),
        ("stamped_headers", [5, "x"]),
        ("time_limit", ["x", -1, [1], float("nan"), dt.timedelta(seconds=1)]),
    ],
)
def test_what_a_call_cannot_have_is_refused_by_name(option: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(TypeError, match=rf"^{option}: expected .+, got "):
            check_call({"queue": "q", option: value})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exchange": Named(), "headers": [("a", 1)], "shadow": 5, "whatever": object()},
        {"exchange": "", "headers": None, "link": None, "link_error": [], "priority": 0, "time_limit": None},
        {"link": {"task": "x"}, "link_error": [{"task": "x"}], "priority": 9, "retries": 3, "time_limit": 0.5},
        {"retry_policy": {"max_retries": None, "interval_start": 0.1, "retry_errors": (OSError,), "errback": print}},
        {"serializer": "json", "compression": "zlib", "stamped_headers": ["a"], "soft_time_limit": 3},
    ],
)
def test_what_a_call_can_have(options: dict[str, Any]) -> None:
    check_call(options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("default_retry_delay", "x"),
        ("max_retries", "x"),
        ("priority", "x"),
        ("retry_backoff_max", "x"),
        ("serializer", 5),
        ("soft_time_limit", [1]),
        ("throws", 5),
        ("throws", (5,)),
        ("time_limit", -1),
    ],
)
def test_what_a_task_cannot_have_is_refused_with_its_name(option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^task proj\.t: {option}: expected .+, got "):
        check_task("proj.t", {option: value})


def test_what_a_task_can_have() -> None:
    check_task("t", {"max_retries": None, "throws": ValueError, "time_limit": property(lambda self: 5)})
    check_task("t", {"max_retries": 3, "throws": (ValueError, OSError), "time_limit": 5.5, "mine": object()})


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_seconds_are_a_date_or_out_of_range(seconds: float) -> None:
    if -(2**31) <= seconds <= 2e11:
        text, left = as_expiry(seconds, lambda: NOW)
        assert dt.datetime.fromisoformat(text) == NOW + dt.timedelta(seconds=seconds)
        assert left == seconds
        assert as_eta({"countdown": seconds}, lambda: NOW) == (text if seconds else None)
    else:
        with pytest.raises(ValueError, match=r"^expires is out of range: "):
            as_expiry(seconds, lambda: NOW)
        with pytest.raises(ValueError, match=r"^countdown is out of range: "):
            as_eta({"countdown": seconds}, lambda: NOW)


def test_dates() -> None:
    tomorrow = NOW + dt.timedelta(days=1)
    assert as_eta({"eta": tomorrow}, lambda: NOW) == as_eta({"eta": tomorrow.isoformat()}, lambda: NOW)
    assert as_expiry(tomorrow, lambda: NOW) == (tomorrow.isoformat(), 86400)
    assert as_expiry(tomorrow.replace(tzinfo=None).isoformat(), lambda: NOW)[1] == 86400  # no zone: UTC
    for wrong, error in (("tomorrow", ValueError), (5, TypeError), (dt.date(2026, 1, 1), TypeError)):
        with pytest.raises(error, match=r"^eta: expected a datetime or ISO 8601 text, got "):
            as_eta({"eta": wrong}, lambda: NOW)
    for wrong, error in (("soon", ValueError), ([1], TypeError), (dt.timedelta(1), TypeError)):
        with pytest.raises(error, match=r"^expires: expected "):
            as_expiry(wrong, lambda: NOW)


def test_listed() -> None:
    assert (listed({"task": "x"}), listed([1, 2]), listed((1,))) == ([{"task": "x"}], [1, 2], [1])
