"""Domain. Dates as ISO 8601 writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

__all__ = ("parse_iso8601",)

_DATE = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:[T ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d+))?)?"
    r"(?P<zone>Z|[+-]\d{2}(?::?\d{2})?)?)?$"
)


def parse_iso8601(datestring: str) -> datetime:
    """A date, with or without time, fraction of a second and offset. Raises `ValueError`."""
    match = _DATE.match(datestring)
    if match is None:
        raise ValueError(f"unable to parse date string {datestring!r}: expected YYYY-MM-DD[Thh:mm[:ss[.f]][Z|+hh:mm]]")
    number = {name: int(match[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")}
    microsecond = int((match["fraction"] or "0")[:6].ljust(6, "0"))
    return datetime(**number, microsecond=microsecond, tzinfo=_zone(match["zone"]))


def _zone(text: str | None) -> timezone | None:
    if not text:
        return None
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
