"""Private servers for tests and benchmarks: started on a free port and a fresh directory, stopped with the process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

import hiredis

__all__ = ["RedisServer", "free_port"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server of our own: TCP and a unix socket, nothing written to disk. A context manager."""

    def __init__(self, *options: str, port: int = 0) -> None:
        executable = shutil.which("redis-server")
        if executable is None:
            raise RuntimeError("expected redis-server on PATH: apt-get install redis-server")
        self._command = executable
        self._options = options
        self.directory = tempfile.mkdtemp(prefix="redis-")
        self.port = port or free_port()
        self.socket = os.path.join(self.directory, "redis.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, db: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it, and return once it answers."""
        command = [
            self._command, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket,
            "--save", "", "--appendonly", "no", "--dir", self.directory, *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.call("PING")
            except (OSError, hiredis.ReplyError):  # not there yet, or still loading its data
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.01)
            else:
                return self

    def stop(self, *, keep_directory: bool = False) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if not keep_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def call(self, *command: Any, db: int = 0) -> Any:
        """One command, over a connection of its own."""
        return self.pipeline([command], db=db)[0]

    def pipeline(self, commands: Sequence[tuple[Any, ...]], db: int = 0) -> list[Any]:
        reader = hiredis.Reader(notEnoughData=Ellipsis)
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as line:
            line.sendall(b"".join(hiredis.pack_command(c) for c in [("SELECT", db), *commands]))  # type: ignore[misc, arg-type]
            replies: list[Any] = []
            while len(replies) <= len(commands):
                reply = reader.gets()
                if reply is Ellipsis:
                    reader.feed(line.recv(1 << 16))
                else:
                    replies.append(reply)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise reply
        return replies[1:]
