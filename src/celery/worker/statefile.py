"""Application. What a worker remembers over restarts: ids of revoked tasks, and the logical clock (`[worker.18]`)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from typing import Any

from celery.worker import state

__all__ = ["StateFile"]

logger = logging.getLogger("celery.worker")

_FORMAT = "celery-worker-state-1"
#: Seconds between two looks whether there is something new to write.
_EVERY = 60.0
#: Seconds between two writes at least.
_SOON = 1.0


class StateFile:
    """A part of the worker: the file is read at start, and written at the end and once a minute if anything changed.

    It is JSON, replaced as a whole. Celery's own files hold pickles, which are not read: one that is found at that
    place is put aside, with `.old` after its name.
    """

    name = "StateDB"

    def __init__(self, path: str, clock: Any) -> None:
        """`clock`: the app's logical clock."""
        self.path = path
        self._clock = clock
        self._written: dict[Any, float] | None = None
        self._look_at = self._saved_at = 0.0

    def start(self) -> None:
        """Remember what the file says. Raises `OSError` if it can be neither read nor put aside."""
        self._look_at = time.monotonic() + _EVERY
        try:
            with open(self.path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return
        try:
            found = json.loads(content)
            revoked, clock = found["revoked"], int(found["clock"])
            if found["format"] != _FORMAT or not isinstance(revoked, dict):
                raise ValueError("another format")
        except (ValueError, KeyError, TypeError) as exc:
            aside = self.path + ".old"
            os.replace(self.path, aside)
            logger.warning("%s: expected a state file of this worker, got %r; it is put aside as %s",
                           self.path, exc, aside)  # fmt: skip
            return
        state.merge_revoked(dict(sorted(revoked.items(), key=lambda item: float(item[1]))))
        self._clock.adjust(clock)

    def look(self) -> None:
        """Write, if it is time to look and there is something new. Called often."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _EVERY
            self.save()

    def hurry(self) -> None:
        """Something has changed that is to outlive this process: write it soon."""
        self._look_at = min(self._look_at, self._saved_at + _SOON)

    def stop(self, deadline: float | None) -> None:
        self.save()

    def save(self) -> None:
        """Write what is not written yet. A file that cannot be written is logged, and tried again next time."""
        self._saved_at = time.monotonic()
        state.forget_old_revocations()
        revoked = state.revoked.as_dict()
        if revoked == self._written:
            return
        fresh = f"{self.path}.{os.getpid()}.new"
        try:
            with open(fresh, "w") as file:
                json.dump({"format": _FORMAT, "clock": self._clock.value, "revoked": revoked}, file, default=str)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except OSError as exc:
            logger.error("%s: the state of this worker cannot be written: %s", self.path, exc)
            with contextlib.suppress(OSError):
                os.remove(fresh)
        else:
            self._written = revoked
