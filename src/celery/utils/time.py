"""Application. Dates, durations and time zones, the machine's own among them (`[util.2]`)."""

from __future__ import annotations

import calendar
import os
import random
import time as _time
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = (
    "LocalTimezone", "add_seconds_to_datetime", "adjust_timestamp", "delta_resolution", "ffwd",
    "get_exponential_backoff_interval", "humanize_seconds", "is_naive", "localize", "make_aware", "maybe_iso8601",
    "maybe_make_aware", "maybe_timedelta", "rate", "remaining", "subtract_datetimes", "timezone", "to_utc",
    "utcoffset", "weekday", "yearmonth",
)  # fmt: skip

C_REMDEBUG = os.environ.get("C_REMDEBUG", False)

DAYNAMES = "sun", "mon", "tue", "wed", "thu", "fri", "sat"
WEEKDAYS = dict(zip(DAYNAMES, range(7), strict=True))
MONTHNAMES = "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"
YEARMONTHS = dict(zip(MONTHNAMES, range(1, 13), strict=True))

RATE_MODIFIER_MAP: dict[str, Callable[[float], float]] = {
    "s": lambda n: n,
    "m": lambda n: n / 60.0,
    "h": lambda n: n / 60.0 / 60.0,
}

#: Seconds, singular, and how a number of them is written.
TIME_UNITS: tuple[tuple[str, float, Callable[[float], str]], ...] = (
    ("day", 60 * 60 * 24.0, "{:.2f}".format),
    ("hour", 60 * 60.0, "{:.2f}".format),
    ("minute", 60.0, "{:.2f}".format),
    ("second", 1.0, "{:.2f}".format),
)

ZERO = timedelta(0)


class LocalTimezone(tzinfo):
    """The machine's time zone as the C library knows it, where it has no name in the zone data base."""

    def __repr__(self) -> str:
        return f"<LocalTimezone: UTC{-_time.timezone // 3600:+03d}>"

    def utcoffset(self, dt: datetime | None) -> timedelta:
        """Offset from UTC at that local time."""
        return timedelta(seconds=self._local(dt).tm_gmtoff)

    def dst(self, dt: datetime | None) -> timedelta:
        """What daylight saving adds at that local time."""
        local = self._local(dt)
        return timedelta(seconds=local.tm_gmtoff + _time.timezone) if local.tm_isdst > 0 else ZERO

    def tzname(self, dt: datetime | None) -> str:
        """The zone's abbreviation at that local time."""
        return self._local(dt).tm_zone

    def fromutc(self, dt: datetime) -> datetime:
        """That moment in local time."""
        moment = dt.replace(tzinfo=UTC).timestamp()
        return dt + timedelta(seconds=_time.localtime(moment).tm_gmtoff)

    def _local(self, dt: datetime | None) -> _time.struct_time:
        if dt is None:
            return _time.localtime()
        return _time.localtime(_time.mktime((dt.year, dt.month, dt.day, dt.hour, dt.minute, dt.second, 0, 0, -1)))


def _local_zone() -> tzinfo:
    """The machine's zone: by its name if that can be found, in `TZ` or behind /etc/localtime."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        path = os.path.realpath("/etc/localtime")
        name = path.partition("/zoneinfo/")[2] or "UTC" if os.path.exists(path) else "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return LocalTimezone()


class _Zone:
    """Conversions between zones; `timezone` is the only one."""

    def tz_or_local(self, tzinfo: str | tzinfo | None = None) -> tzinfo:
        """The zone, by name or itself; None: the machine's own."""
        return self.local if tzinfo is None else self.get_timezone(tzinfo)

    def to_local(self, dt: datetime, local: tzinfo | None = None, orig: tzinfo | None = None) -> datetime:
        """In the zone `local`; a naive date is in the zone `orig` (UTC)."""
        if is_naive(dt):
            dt = make_aware(dt, orig or self.utc)
        return localize(dt, self.tz_or_local(local))

    def to_system(self, dt: datetime) -> datetime:
        """In the machine's zone; a naive date is in it already."""
        return localize(dt, self.local) if not is_naive(dt) else dt.astimezone()

    def to_local_fallback(self, dt: datetime) -> datetime:
        """In the machine's zone."""
        return make_aware(dt, self.local) if is_naive(dt) else localize(dt, self.local)

    def get_timezone(self, zone: str | tzinfo) -> tzinfo:
        """The zone of that name. Raises `ZoneInfoNotFoundError`."""
        return ZoneInfo(zone) if isinstance(zone, str) else zone

    @cached_property
    def local(self) -> tzinfo:
        """The machine's zone."""
        return _local_zone()

    @cached_property
    def utc(self) -> tzinfo:
        """UTC."""
        return ZoneInfo("UTC") if _has_utc() else UTC


def _has_utc() -> bool:
    try:
        ZoneInfo("UTC")
    except ZoneInfoNotFoundError:  # a machine without zone data
        return False
    return True


timezone = _Zone()


def maybe_timedelta(delta: Any) -> Any:
    """A number is seconds; all else passes."""
    return timedelta(seconds=delta) if isinstance(delta, (int, float)) else delta


def delta_resolution(dt: datetime, delta: timedelta) -> datetime:
    """The date cut down to the delta's largest unit: the day, hour or minute; below that, the date itself."""
    seconds = max(delta.total_seconds(), 0)
    for unit, names in (
        (86400, ("hour", "minute", "second", "microsecond")),
        (3600, ("minute", "second", "microsecond")),
        (60, ("second", "microsecond")),
    ):
        if seconds >= unit:
            zeros: dict[str, Any] = dict.fromkeys(names, 0)
            return dt.replace(**zeros)
    return dt


def remaining(
    start: datetime, ends_in: timedelta | ffwd, now: datetime | None = None, relative: bool = False
) -> timedelta:
    """Time left until `ends_in` after `start`, as it elapses: a clock put forward or back in between is accounted for.

    `relative`: the end falls on the last whole day, hour or minute before that, whichever unit `ends_in` is made of.
    """
    now = now or datetime.now(UTC)
    if isinstance(ends_in, ffwd) or relative:
        end = start + ends_in
        if isinstance(ends_in, timedelta):
            end = delta_resolution(end, ends_in).replace(microsecond=0)
    else:
        end = add_seconds_to_datetime(start, ends_in.total_seconds())
    return subtract_datetimes(end, now)


def rate(r: str | float | None) -> float:
    """Calls a second from `"100/m"`, `"10/s"`, `"5/h"`, or a number of them; nothing is 0."""
    if not r:
        return 0
    if isinstance(r, str):
        number, _, unit = r.partition("/")
        return RATE_MODIFIER_MAP[unit or "s"](float(number))
    return r


def weekday(name: str) -> int:
    """0 (Sunday) to 6, by the name's first three letters. Raises `KeyError`."""
    try:
        return WEEKDAYS[name[:3].lower()]
    except KeyError:
        raise KeyError(name) from None


def yearmonth(name: str) -> int:
    """1 to 12, by the name's first three letters. Raises `KeyError`."""
    try:
        return YEARMONTHS[name[:3].lower()]
    except KeyError:
        raise KeyError(name) from None


def humanize_seconds(secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False) -> str:
    """`"1.50 minutes"`, after the prefix; less than a second is `now`, unless `microseconds`."""
    secs = float(f"{float(secs):.2f}")
    for unit, divider, form in TIME_UNITS:
        if secs >= divider:
            amount = secs / divider
            return f"{prefix}{sep}{form(amount)} {unit}{'s' if amount != 1 else ''}"
    if microseconds and secs > 0.0:
        return f"{prefix}{sep}{secs:.2f} seconds"
    return now


def maybe_iso8601(dt: datetime | str | None) -> datetime | None:
    """The date of an ISO 8601 text; a date passes, and nothing is None. Raises `ValueError`, `TypeError`."""
    if not dt:
        return None
    if isinstance(dt, datetime):
        return dt
    return datetime.fromisoformat(dt)


def is_naive(dt: datetime) -> bool:
    """Has it no zone?"""
    return dt.tzinfo is None or dt.tzinfo.utcoffset(dt) is None


def add_seconds_to_datetime(dt: datetime, seconds: float) -> datetime:
    """So many elapsed seconds later, whatever the clock on the wall does meanwhile."""
    return (
        (dt.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(dt.tzinfo)
        if (dt.tzinfo)
        else dt + timedelta(seconds=seconds)
    )


def subtract_datetimes(end: datetime, start: datetime) -> timedelta:
    """Elapsed time between two dates, whatever the clock on the wall does meanwhile."""
    if is_naive(end) or is_naive(start):
        return end - start
    return end.astimezone(UTC) - start.astimezone(UTC)


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """The same digits, in the zone. An hour that comes twice is the first."""
    return dt.replace(tzinfo=tz)


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """The same moment in the zone; a naive date is in it already."""
    return make_aware(dt, tz) if is_naive(dt) else dt.astimezone(tz)


def to_utc(dt: datetime) -> datetime:
    """In UTC; the digits of a naive date are UTC's."""
    return make_aware(dt, timezone.utc) if is_naive(dt) else localize(dt, timezone.utc)


def maybe_make_aware(dt: datetime, tz: tzinfo | None = None, naive_as_utc: bool = True) -> datetime:
    """A naive date gets a zone: as UTC, then put into `tz`; or, with `naive_as_utc` False, as a date in `tz`."""
    if not is_naive(dt):
        return dt
    if naive_as_utc:
        dt = to_utc(dt)
    return localize(dt, timezone.utc if tz is None else timezone.tz_or_local(tz))


class ffwd:  # noqa: N801 - Celery's name
    """Some fields of a date replaced, then weeks and days added: `dt + ffwd(hour=0, minute=0, days=1)`.

    `weekday` (0 is Monday) goes on to the next one, or stays. A day past the end of the month is its last.
    """

    def __init__(
        self,
        year: int | None = None,
        month: int | None = None,
        weeks: float = 0,
        weekday: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        minute: int | None = None,
        second: int | None = None,
        microsecond: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.year, self.month, self.weeks, self.weekday, self.day = year, month, weeks, weekday, day
        self.hour, self.minute, self.second, self.microsecond = hour, minute, second, microsecond
        self.days = kwargs.get("days", 0) + weeks * 7
        self._has_time = self.hour is not None or self.minute is not None

    def __repr__(self) -> str:
        names = ("year", "month", "weeks", "weekday", "day", "hour", "minute", "second", "microsecond")
        given = {name: getattr(self, name) for name in names}
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
        return f"ffwd({shown})"

    def __radd__(self, other: object) -> Any:
        if not isinstance(other, date):
            return NotImplemented
        year, month = self.year or other.year, self.month or other.month
        day = min(calendar.monthrange(year, month)[1], self.day or other.day)
        fields = {name: getattr(self, name) for name in ("hour", "minute", "second", "microsecond")}
        given = {name: value for name, value in fields.items() if value is not None}
        moved = other.replace(**given, year=year, month=month, day=day)
        if self.weekday is not None:
            moved += timedelta(days=(self.weekday - moved.weekday()) % 7)
        return moved + timedelta(days=self.days)


def utcoffset(time: Any = _time, localtime: Callable[..., _time.struct_time] = _time.localtime) -> float:
    """Hours by which the machine's time is now behind UTC (west is positive)."""
    return float(-localtime().tm_gmtoff / 3600) if hasattr(localtime(), "tm_gmtoff") else time.timezone / 3600


def adjust_timestamp(ts: float, offset: float, here: Callable[..., float] = utcoffset) -> float:
    """An event's timestamp, taken where clocks are `offset` hours behind UTC, as it would have been taken here."""
    return ts - (offset - here()) * 3600


def get_exponential_backoff_interval(factor: int, retries: int, maximum: int, full_jitter: bool = False) -> int:
    """Seconds to wait before a retry: `factor` doubled at each, at most `maximum`; with jitter, any part of that."""
    # The power is bounded first: after a thousand retries it would be a number of a thousand digits.
    countdown = min(maximum, factor * 2 ** min(retries, 64)) if factor else 0
    if full_jitter:
        countdown = random.randrange(countdown + 1)
    return max(0, countdown)
