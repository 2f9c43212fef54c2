"""Flow. A descriptor by which other threads (and signal handlers) interrupt the engine's wait."""

from __future__ import annotations

import os
import threading

from celery.waits import drain, poke

__all__ = ["WakeUp"]


class WakeUp:
    """A pipe of one byte. `set` may be called from any thread and from a signal handler, any number of times."""

    def __init__(self) -> None:
        #: `descriptor` becomes readable.
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)
        #: Whether `clear` has anything to do. Set after the byte is written: otherwise a byte could be left unread.
        self.written = False
        #: So that nobody writes to what is being closed; a signal handler may come in while its own thread has it.
        self._lock = threading.RLock()

    def set(self) -> None:
        """Make it readable. Does nothing once closed."""
        with self._lock:
            if self._writer >= 0:
                poke(self._writer)
                self.written = True

    def clear(self) -> None:
        """Make it unreadable again."""
        self.written = False
        drain(self.descriptor)

    def close(self) -> None:
        """Release both descriptors. Idempotent."""
        with self._lock:
            if self._writer >= 0:
                reader, writer = self.descriptor, self._writer
                self.descriptor = self._writer = -1
                os.close(reader)
                os.close(writer)
