"""Domain. What a call's and a task's options may be: dates and numbers as messages have them, and what is refused."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["as_eta", "as_expiry", "check_call", "check_task", "listed"]

#: Seconds from now, within what a date can say.
_LEAST, _MOST = -(2**31), 2e11

Rule = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _are_signatures(value: Any) -> bool:
    return all(isinstance(each, Mapping) for each in listed(value))


def _is_policy(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        each is None or _is_number(each) for name, each in value.items() if name not in ("retry_errors", "errback")
    )


def _is_dict(value: Any) -> bool:
    """Or what can be made one."""
    try:
        return bool(dict(value))
    except (TypeError, ValueError):
        return False


def _are_errors(value: Any) -> bool:
    kinds = value if isinstance(value, Iterable) else (value,)
    return all(isinstance(each, type) and issubclass(each, BaseException) for each in kinds)


_SECONDS: Rule = ("seconds as a number from 0 on", _is_count)
_TEXT: Rule = ("text", lambda value: isinstance(value, str))
_SIGNATURES: Rule = ("a signature, such as task.s(), or a list of them", _are_signatures)

#: Only what no worker or broker could make anything of.
_CALL: dict[str, Rule] = {
    "compression": _TEXT,
    "exchange": ("a name or a kombu.Exchange", lambda value: isinstance(value, str) or hasattr(value, "name")),
    "headers": ("a dict", _is_dict),
    "link": _SIGNATURES,
    "link_error": _SIGNATURES,
    "priority": ("a number", _is_number),
    "retries": ("a number from 0 on", _is_count),
    "retry_policy": ("a dict of numbers: max_retries, interval_start, interval_step, interval_max", _is_policy),
    "serializer": _TEXT,
    "shadow": ("text", lambda value: isinstance(value, (str, int))),
    "soft_time_limit": _SECONDS,
    "stamped_headers": ("a list of names", lambda value: isinstance(value, (list, tuple, set, frozenset))),
    "time_limit": _SECONDS,
}
_TASK: dict[str, Rule] = {
    "default_retry_delay": _SECONDS,
    "max_retries": ("a number, or None for no limit", _is_number),
    "priority": ("a number", _is_number),
    "retry_backoff_max": _SECONDS,
    "serializer": _TEXT,
    "soft_time_limit": _SECONDS,
    "throws": ("exception classes", _are_errors),
    "time_limit": _SECONDS,
}


def check_call(options: Mapping[str, Any]) -> None:
    """Raises TypeError for an option of `apply_async` that could only fail later, on the broker or in a worker."""
    _check("", _CALL, options)


def check_task(name: str, options: Mapping[str, Any]) -> None:
    """Raises TypeError for an option of `@app.task` that could only fail when the task is sent or retried."""
    _check(f"task {name}: ", _TASK, options)


def _check(whose: str, rules: Mapping[str, Rule], options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        rule = rules.get(name)
        # What falls back to the setting may be left open in any way; code that is asked later speaks for itself.
        if rule is not None and value and not rule[1](value) and not isinstance(value, property):
            raise TypeError(f"{whose}{name}: expected {rule[0]}, got {value!r:.200}")


def listed(signatures: Any) -> list[Any]:
    """One, or a list or tuple of them, as a list."""
    return list(signatures) if isinstance(signatures, list | tuple) else [signatures]


def as_eta(options: Mapping[str, Any], now: Callable[[], dt.datetime]) -> str | None:
    """ISO text for the header (`[call.4]`). Raises TypeError and ValueError, naming the option."""
    countdown = options.get("countdown")
    if countdown:
        _check_range("countdown", countdown)
        return (now() + dt.timedelta(seconds=countdown)).isoformat()
    eta = options.get("eta")
    if isinstance(eta, str):
        _parsed("eta", eta)  # a worker could only fail the task
    elif eta is not None and not isinstance(eta, dt.datetime):
        raise TypeError(f"eta: expected a datetime or ISO 8601 text, got {eta!r}")
    return eta.isoformat() if isinstance(eta, dt.datetime) else eta


def as_expiry(expires: Any, now: Callable[[], dt.datetime]) -> tuple[str, float]:
    """ISO text for the header, and the seconds left (`[call.5]`). Raises TypeError and ValueError."""
    if isinstance(expires, str):
        expires = _parsed("expires", expires)
    if isinstance(expires, dt.datetime):
        aware = expires if expires.tzinfo else expires.replace(tzinfo=dt.UTC)
        return expires.isoformat(), (aware - now()).total_seconds()
    _check_range("expires", expires)
    return (now() + dt.timedelta(seconds=expires)).isoformat(), expires


def _parsed(option: str, text: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(f"{option}: expected a datetime or ISO 8601 text, got {text!r}") from exc


def _check_range(name: str, seconds: float) -> None:
    if not isinstance(seconds, int | float):
        raise TypeError(f"{name}: expected seconds as a number, got {seconds!r}")
    if not _LEAST <= seconds <= _MOST:
        raise ValueError(f"{name} is out of range: {seconds!r}")
