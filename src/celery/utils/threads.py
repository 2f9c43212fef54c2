"""Compatibility. `celery.utils.threads`: stacks of their own for each thread, greenlet and asyncio task ([util.8])."""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from contextlib import contextmanager
from threading import get_ident
from threading import local as Local  # noqa: N812 - its public name
from typing import TYPE_CHECKING, Any

from celery.current import LocalStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Local", "LocalManager", "LocalStack", "bgThread", "default_socket_timeout", "get_ident"]


@contextmanager
def default_socket_timeout(timeout: float | None) -> Iterator[None]:
    """Sockets that are made meanwhile wait for so many seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


class bgThread(threading.Thread):  # noqa: N801 - its public name
    """A daemon thread that calls `body` again and again until it is stopped.

    If `body` raises, that is told by `on_crash`, and the process ends with 1: whatever stood on the thread would wait
    for ever.
    """

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or type(self).__name__, daemon=True, **kwargs)
        self._ends = threading.Event()
        self._ended = threading.Event()

    def body(self) -> None:
        """One round; for subclasses."""
        raise NotImplementedError

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Tell of an exception: the text with its arguments, then the traceback."""
        sys.stderr.write(msg.format(*fmt) + "\n")
        traceback.print_exc(None, sys.stderr)

    def run(self) -> None:
        """Round after round."""
        try:
            while not self._ends.is_set():
                self.body()
        except Exception as exc:  # noqa: BLE001 - whatever a subclass raises
            self._crash(exc)
        finally:
            self._ended.set()

    def _crash(self, exc: Exception) -> None:
        try:
            self.on_crash("{0!r} crashed: {1!r}", self.name, exc)
        finally:
            sys.stderr.flush()
            os._exit(1)

    def stop(self) -> None:
        """Let the round that runs be the last, and wait for its end."""
        self._ends.set()
        if self.is_alive():
            self._ended.wait()
            self.join()


class LocalManager:
    """Empties thread-local stacks and namespaces together; `locals`: one of them, or several."""

    def __init__(self, locals: Any = None, ident_func: Callable[[], int] | None = None) -> None:
        if locals is None:
            self.locals: list[Any] = []
        else:
            self.locals = list(locals) if isinstance(locals, (list, tuple)) else [locals]
        self.ident_func = ident_func or get_ident

    def get_ident(self) -> int:
        """Whose context this is."""
        return self.ident_func()

    def cleanup(self) -> None:
        """Empty all for the current context: at the end of a request."""
        for one in self.locals:
            if isinstance(one, Local):
                one.__dict__.clear()
            else:
                while one.pop() is not None:
                    pass

    def __repr__(self) -> str:
        return f"<LocalManager: {len(self.locals)} storages>"
