"""Domain. Identifiers: random UUIDs as text, the fast way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["uuid"]

_random = os.urandom


def uuid(_uuid: Callable[[], Any] | None = None) -> str:
    """A new random id (UUID version 4) as text; with an argument, what that returns as text.

    Straight from the kernel's randomness, so forked children never repeat each other's ids.
    """
    if _uuid is not None:
        return str(_uuid())
    raw = bytearray(_random(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
