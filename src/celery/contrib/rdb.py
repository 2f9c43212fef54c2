"""Entrance. A debugger that is spoken to over a socket, for tasks: they have no terminal (`[debug.1]`).

    from celery.contrib import rdb

    @app.task
    def add(x, y):
        rdb.set_trace()
        return x + y

The worker then prints where it listens: `telnet 127.0.0.1 6900`. `CELERY_RDB_HOST` and `CELERY_RDB_PORT` say where
else. Whoever can reach that port can run any code as the worker's user.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pdb import Pdb
from typing import TYPE_CHECKING, Any, TextIO

from billiard.process import current_process

if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

__all__ = ("CELERY_RDB_HOST", "CELERY_RDB_PORT", "DEFAULT_PORT", "Rdb", "debugger", "set_trace")

DEFAULT_PORT = 6899
CELERY_RDB_HOST = os.environ.get("CELERY_RDB_HOST") or "127.0.0.1"
CELERY_RDB_PORT = int(os.environ.get("CELERY_RDB_PORT") or DEFAULT_PORT)

#: The debugger of this process.
_current: list[Rdb | None] = [None]


class Rdb(Pdb):
    """A debugger whose commands come from a socket, from one client."""

    me = "Remote Debugger"

    def __init__(
        self,
        host: str = CELERY_RDB_HOST,
        port: int = CELERY_RDB_PORT,
        port_search_limit: int = 100,
        port_skew: int = 0,
        out: TextIO | None = None,
    ) -> None:
        """Listen at the first free port from `port + port_skew` on, and wait for a client.

        `out`: where it is said where. Raises OSError if none of `port_search_limit` ports is free.
        """
        self.active = True
        self.out = out or sys.stdout
        self._before = sys.stdin, sys.stdout
        self._sock, self.host, self.port = self.get_avail_port(host, port, port_search_limit, port_skew)
        self.ident = f"{self.me}:{self.port}"
        self.say(
            f"{self.ident}: listens: telnet {self.host} {self.port}\n"
            f"{self.ident}: `exit` there ends the session. Waiting for somebody..."
        )
        try:
            self._client, address = self._sock.accept()
        except BaseException:
            self._sock.close()
            raise
        self.remote_addr = ":".join(str(part) for part in address[:2])
        self.say(f"{self.ident}: {self.remote_addr} is here.")
        self._handle = self._client.makefile("rw")
        sys.stdin = sys.stdout = self._handle
        super().__init__(completekey="tab", stdin=self._handle, stdout=self._handle)
        self.use_rawinput = False

    def get_avail_port(self, host: str, port: int, search_limit: int = 100, skew: int = 0) -> tuple[Any, str, int]:
        """A socket that listens, and where. By default each process of a pool looks from a port of its own on."""
        number = getattr(current_process(), "index", None)
        first = port + (skew or (number + 1 if isinstance(number, int) else 0))
        for place in range(first, first + search_limit):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, place))
                sock.listen(1)
            except OSError as exc:
                sock.close()
                if exc.errno in (errno.EADDRINUSE, errno.EINVAL):
                    continue
                raise
            return sock, host, place
        raise OSError(
            errno.EADDRINUSE,
            f"{self.me}: no port is free from {first} to {first + search_limit - 1}: set CELERY_RDB_PORT",
        )

    def say(self, message: str) -> None:
        """Print where the worker prints."""
        print(message, file=self.out, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_session()

    def _close_session(self) -> None:
        """Let the client go. Idempotent."""
        if not self.active:
            return
        self.active = False
        sys.stdin, sys.stdout = self._before
        for open_ in (self._handle, self._client, self._sock):
            open_.close()
        _current[0] = None
        self.say(f"{self.ident}: {self.remote_addr} has gone.")

    def do_continue(self, arg: str) -> bool:
        """Let the task go on, and the client go."""
        self._close_session()
        self.set_continue()
        return True

    do_c = do_cont = do_continue

    def do_quit(self, arg: str) -> bool:
        """The same: the task is to end as it would."""
        self._close_session()
        self.set_quit()
        return True

    do_q = do_exit = do_quit

    def set_quit(self) -> None:
        """Trace no more; pdb would raise into the task."""
        self.set_continue()


def debugger() -> Rdb:
    """The debugger of this process, made if there is none; waits for a client then."""
    found = _current[0]
    if found is None:
        found = _current[0] = Rdb()
    return found


def set_trace(frame: FrameType | None = None) -> None:
    """Stop here, or in another frame, and wait for commands of a client."""
    debugger().set_trace(frame or sys._getframe().f_back)
