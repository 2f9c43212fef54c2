"""Messages that are nearly right: real envelopes, changed at random, byte by byte and value by value. Seeded."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

__all__ = ["FUZZ", "Fuzzer", "certainly_no_task"]

#: At full size (`make fuzz`).
FUZZ = bool(os.environ.get("FUZZ"))

_DEEP: Any = None
for _ in range(400):
    _DEEP = [_DEEP]
#: What may stand in the place of any value.
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "\0", "\ud800",
    "é❤\u202e", "%s%n", "../../etc/passwd", "x" * 5000, "2026-01-01T00:00:00", "9999-12-31T23:59:59+00:00", "-1",
    [], [None], {}, {"": ""}, [[], {}], [[], {}, {}], _DEEP, {"__type__": "datetime", "__value__": "no"},
    {"__type__": "uuid", "__value__": {"hex": "zz"}}, "application/x-python-serialize", "json", "base64", "gzip",
]  # fmt: skip
#: What may stand between any bytes.
BYTES = [
    b"",
    b"\0",
    b"\xff",
    b"{",
    b"}",
    b"[",
    b'"',
    b"\\",
    b",",
    b":",
    b"\xed\xa0\x80",
    b"null",
    b"\xef\xbb\xbf",
    b"9" * 99,
]


class Fuzzer:
    """Makes messages from samples."""

    def __init__(self, samples: Sequence[bytes], random_: random.Random) -> None:
        self._samples = list(samples)
        self._random = random_

    def message(self) -> bytes:
        """One more, wrong in up to three ways or, rarely, in none."""
        pick = self._random
        sample = pick.choice(self._samples)
        for _ in range(pick.choice((0, 1, 1, 1, 2, 3))):
            sample = pick.choice((self._bytes, self._value, self._value, self._body))(sample)
        return sample

    def _bytes(self, data: bytes) -> bytes:
        pick = self._random
        at = pick.randrange(len(data) + 1)
        to = min(len(data), at + pick.choice((0, 1, 1, 8, len(data))))
        kind = pick.randrange(5)
        if kind == 0:
            return data[:at] + pick.choice(BYTES) + data[to:]
        if kind == 1 and data:
            at = min(at, len(data) - 1)
            return data[:at] + bytes([data[at] ^ (1 << pick.randrange(8))]) + data[at + 1 :]
        if kind == 2:
            return data[:at]
        if kind == 3:
            return data[:to] + data[at:]
        other = pick.choice(self._samples)
        return data[:at] + other[pick.randrange(len(other)) :]

    def _value(self, data: bytes) -> bytes:
        """Change, drop or add a value somewhere in the document; what is no document is changed as bytes."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return self._bytes(data)
        return self._written(self._changed(document, depth=0), data)

    def _body(self, data: bytes) -> bytes:
        """Change what the body says, or how it is written."""
        try:
            document = json.loads(data)
            body = b64decode(document["body"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return self._bytes(data)
        changed = self._value(body) if self._random.random() < 0.6 else self._bytes(body)
        document["body"] = b64encode(changed).decode()
        return self._written(document, data)

    def _changed(self, value: Any, depth: int) -> Any:
        pick = self._random
        if isinstance(value, dict) and value and (depth < 1 or pick.random() < 0.7):
            key = pick.choice(list(value))
            if pick.random() < 0.15:
                return {k: v for k, v in value.items() if k != key}
            return {**value, key: self._changed(value[key], depth + 1)}
        if isinstance(value, list) and value and pick.random() < 0.6:
            at = pick.randrange(len(value))
            return [*value[:at], self._changed(value[at], depth + 1), *value[at + 1 :]]
        return pick.choice(VALUES)

    @staticmethod
    def _written(document: Any, before: bytes) -> bytes:
        try:
            return json.dumps(document).encode()
        except (ValueError, RecursionError):
            return before


def certainly_no_task(data: bytes, known: Sequence[str]) -> bool:
    """Whether no worker can take this for a call of one of these tasks; False where it may.

    Bytes that are no UTF-8 may stand where nobody looks.
    """
    try:
        document = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return True
    if not isinstance(document, dict) or not isinstance(document.get("headers") or {}, dict):
        return True
    headers = document.get("headers") or {}
    if "task" in headers:
        return headers["task"] not in known if isinstance(headers["task"], str) and headers["task"] else False
    return "body" not in document
