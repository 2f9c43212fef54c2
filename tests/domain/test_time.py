"""Dates, durations, rates and time zones."""

from datetime import UTC, date, datetime, timedelta
from datetime import timezone as fixed
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils import time as ct
from celery.utils.iso8601 import parse_iso8601

OSLO = ZoneInfo("Europe/Oslo")
UTC = UTC
NAIVE = datetime(2020, 1, 2, 3, 4, 5, 6)


@given(st.datetimes(timezones=st.sampled_from([None, UTC, OSLO, fixed(timedelta(hours=-3, minutes=-30))])))
def test_iso_texts_come_back(moment):
    for parse in (ct.maybe_iso8601, parse_iso8601):
        assert parse(moment.isoformat()) == moment if moment.tzinfo is None else True
        if moment.utcoffset() is not None and not moment.utcoffset().total_seconds() % 60:
            assert parse(moment.isoformat()) == moment.astimezone(UTC)


def test_iso_oddities():
    assert ct.maybe_iso8601(None) is None
    assert ct.maybe_iso8601("") is None
    assert ct.maybe_iso8601(NAIVE) is NAIVE
    assert ct.maybe_iso8601("2020-01-02T03:04:05Z") == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_iso8601("2020-01-02T03:04:05.5-0330").utcoffset() == -timedelta(hours=3, minutes=30)
    for parse in (ct.maybe_iso8601, parse_iso8601):
        with pytest.raises(ValueError, match="x"):
            parse("x")


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (None, 0),
        (0, 0),
        ("", 0),
        (10, 10),
        (1.5, 1.5),
        ("10/s", 10),
        ("10/m", 10 / 60),
        ("100/h", 100 / 3600),
        ("1", 1),
    ],
)
def test_rate(text, calls):
    assert ct.rate(text) == pytest.approx(calls)


def test_rate_refuses():
    with pytest.raises(ValueError, match="a"):
        ct.rate("a/m")
    with pytest.raises(KeyError):
        ct.rate("10/x")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (0.5, "now"),
        (1, "1.00 second"),
        (90, "1.50 minutes"),
        (3600, "1.00 hour"),
        (90000, "1.04 days"),
        (-5, "now"),
    ],
)
def test_humanize_seconds(seconds, text):
    assert ct.humanize_seconds(seconds) == text


def test_humanize_seconds_with_words():
    assert ct.humanize_seconds(10, "in", " ") == "in 10.00 seconds"
    assert ct.humanize_seconds(0, prefix="in ", now="at once") == "at once"
    assert ct.humanize_seconds(0.5, microseconds=True) == "0.50 seconds"


def test_making_aware():
    assert ct.maybe_make_aware(NAIVE).utcoffset() == timedelta(0)
    assert ct.maybe_make_aware(NAIVE, OSLO) == NAIVE.replace(tzinfo=UTC)
    assert ct.maybe_make_aware(NAIVE, OSLO, naive_as_utc=False) == NAIVE.replace(tzinfo=OSLO)
    aware = NAIVE.replace(tzinfo=OSLO)
    assert ct.maybe_make_aware(aware) is aware
    assert ct.to_utc(NAIVE) == NAIVE.replace(tzinfo=UTC)
    assert ct.localize(NAIVE.replace(tzinfo=UTC), OSLO).hour == 4
    assert ct.is_naive(NAIVE)
    assert not ct.is_naive(aware)


def test_zones():
    assert ct.timezone.get_timezone("Europe/Oslo") is OSLO
    assert ct.timezone.tz_or_local(OSLO) is OSLO
    assert ct.timezone.tz_or_local() is ct.timezone.local
    assert ct.timezone.to_local(NAIVE, OSLO) == NAIVE.replace(tzinfo=UTC)
    assert ct.timezone.to_system(NAIVE).utcoffset() is not None
    with pytest.raises(KeyError):
        ct.timezone.get_timezone("No/Where")


@given(st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)))
def test_the_local_zone_of_the_c_library(moment):
    local = ct.LocalTimezone()
    there = moment.replace(tzinfo=UTC).astimezone(local)
    assert there == moment.replace(tzinfo=UTC)
    assert there.utcoffset() == moment.replace(tzinfo=UTC).astimezone().utcoffset()


class TestRemaining:
    def test_elapses(self):
        now = datetime(2020, 1, 1, tzinfo=UTC)
        assert ct.remaining(now, timedelta(seconds=10), now=now) == timedelta(seconds=10)
        assert ct.remaining(now, timedelta(minutes=1), now=now + timedelta(minutes=5)) == timedelta(minutes=-4)

    def test_over_a_change_of_the_clock(self):
        start, now = datetime(2020, 3, 29, 1, 30, tzinfo=OSLO), datetime(2020, 3, 29, 3, 30, tzinfo=OSLO)
        assert ct.subtract_datetimes(now, start) == timedelta(hours=1)
        assert ct.remaining(start, timedelta(hours=2), now=now) == timedelta(hours=1)
        assert ct.add_seconds_to_datetime(start, 3600) == now

    def test_relative_ends_on_a_whole_unit(self):
        assert ct.remaining(NAIVE, timedelta(hours=1), now=NAIVE, relative=True) == timedelta(
            minutes=55, seconds=55
        ) - (timedelta(microseconds=6))

    def test_until_a_field(self):
        assert ct.remaining(NAIVE, ct.ffwd(hour=5, minute=0), now=NAIVE) == timedelta(hours=1, minutes=56)


@pytest.mark.parametrize(
    ("delta", "resolution"),
    [
        (timedelta(days=1), datetime(2020, 1, 2)),
        (timedelta(hours=2), datetime(2020, 1, 2, 3)),
        (timedelta(seconds=70), datetime(2020, 1, 2, 3, 4)),
        (timedelta(seconds=4), NAIVE),
    ],
)
def test_delta_resolution(delta, resolution):
    assert ct.delta_resolution(NAIVE, delta) == resolution


def test_ffwd():
    assert NAIVE + ct.ffwd(hour=1, minute=0) == NAIVE.replace(hour=1, minute=0)
    assert date(2020, 1, 31) + ct.ffwd(month=2) == date(2020, 2, 29)
    assert NAIVE + ct.ffwd(weeks=1) == NAIVE + timedelta(days=7)
    assert [(NAIVE + ct.ffwd(weekday=day)).day for day in range(7)] == [6, 7, 8, 2, 3, 4, 5]
    assert repr(ct.ffwd(day=31)) == "ffwd(weeks=0, day=31)"
    with pytest.raises(TypeError):
        3 + ct.ffwd(day=1)


def test_names_of_days_and_months():
    assert [ct.weekday(name) for name in ("sun", "Monday", "SAT")] == [0, 1, 6]
    assert [ct.yearmonth(name) for name in ("jan", "December")] == [1, 12]
    with pytest.raises(KeyError):
        ct.weekday("x")


def test_offsets():
    assert ct.utcoffset() == -datetime.now().astimezone().utcoffset().total_seconds() / 3600
    assert ct.adjust_timestamp(100000, 2, here=lambda: 5) == 110800


@given(st.integers(0, 100), st.integers(0, 10_000), st.integers(0, 1000))
def test_backoff_is_bounded(factor, retries, maximum):
    whole = ct.get_exponential_backoff_interval(factor, retries, maximum)
    assert whole == max(0, min(maximum, factor * 2**retries))
    assert 0 <= ct.get_exponential_backoff_interval(factor, retries, maximum, full_jitter=True) <= whole


def test_maybe_timedelta():
    assert ct.maybe_timedelta(5.5) == timedelta(seconds=5.5)
    assert ct.maybe_timedelta(None) is None
    assert ct.maybe_timedelta("x") == "x"
