"""Adapter. kombu's `filesystem://`, with files that are whole as soon as they are seen.

kombu makes a file and then writes to it: whoever looks in between takes an empty one, and the message is gone. Here a
file is written under another name, and renamed. And names are in the order of sending, also within a millisecond.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

from kombu.exceptions import OperationalError
from kombu.transport import filesystem
from kombu.utils.json import dumps

__all__ = ["Channel", "Transport"]


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu ships no types
    """Puts messages where kombu looks for them: `<milliseconds>_<anything>.<queue>.msg` in `data_folder_out`."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        """On disk when it returns. Raises `OperationalError`."""
        folder = Path(self.data_folder_out)
        milliseconds, rest = divmod(time.monotonic_ns(), 1_000_000)
        name = f"{milliseconds}_{rest:06}{uuid.uuid4().hex}.{queue}.msg"
        hidden = folder / f".{uuid.uuid4().hex}.part"
        try:
            with hidden.open("wb") as file:
                file.write(dumps(payload).encode())
                file.flush()
                os.fsync(file.fileno())
            hidden.rename(folder / name)
        except OSError as exc:
            hidden.unlink(missing_ok=True)
            raise OperationalError(
                f"the broker filesystem:// cannot write to {folder} (transport option data_folder_out): {exc}"
            ) from exc


class Transport(filesystem.Transport):  # type: ignore[misc]
    """kombu's, with our channel."""

    Channel = Channel
