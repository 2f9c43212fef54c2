"""Application. A program that goes into the background, and the one that waits until it is up (`[worker.20]`).

The one in front ends when the other says that it is ready, or is dead: then it tells why, and fails. What was started
with `--detach` therefore runs once the command is back, and its pid file is there.
"""

from __future__ import annotations

import os
import select
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from celery.platforms import EX_FAILURE, EX_OK

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

__all__ = ["Launch", "Launched"]

#: The descriptor that the one in the background speaks to, for what it executes.
_VARIABLE = "_CELERY_LAUNCH_FD"
#: Seconds for the program to be loaded, and from then on to be ready: a broker may be down for long.
LOADING, READYING = 60.0, 5.0
#: Lines and bytes of the log that are shown of a program that did not start.
_LINES, _BYTES = 15, 8192


class Launch:
    """The side in front."""

    def __init__(self, what: str, logfile: str | None = None) -> None:
        """`what`: the program, for messages. `logfile`: where it writes, or nowhere."""
        self.what = what
        self.logfile = logfile
        self._read, self._write = os.pipe()
        os.set_inheritable(self._write, True)
        # Where there is no log, somebody may still want to know why it did not start.
        self._errors: BinaryIO | None = None if logfile else tempfile.TemporaryFile()  # noqa: SIM115

    def run(self, in_background: Callable[[Launch], object]) -> int:
        """Call the function in a child, which must become a daemon there and execute the program. Returns an exit code.

        The function is to call `attach` when it is in the background.
        """
        skip = _size(self.logfile)
        child = os.fork()
        if not child:
            self._run_in_child(in_background)
        os.close(self._write)
        os.waitpid(child, 0)
        try:
            return self._wait(skip)
        finally:
            os.close(self._read)
            if self._errors is not None:
                self._errors.close()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a daemon must not close."""
        return (self._write, *([self._errors.fileno()] if self._errors else []))

    def attach(self) -> None:
        """In the background: errors go to the log, and the program knows whom to tell."""
        target = open(self.logfile, "ab") if self.logfile else self._errors  # noqa: SIM115 - for as long as it runs
        if target is not None:
            os.dup2(target.fileno(), 2)
        os.environ[_VARIABLE] = str(self._write)

    def _run_in_child(self, in_background: Callable[[Launch], object]) -> None:
        code = EX_FAILURE
        try:
            os.close(self._read)
            in_background(self)
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else EX_FAILURE
        except BaseException:  # noqa: BLE001 - this process must not go on as its parent
            traceback.print_exc()
        finally:
            with suppress(OSError):
                os.write(self._write, f"exit {code}\n".encode())
            os._exit(code)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _wait(self, skip: int) -> int:
        told, deadline = b"", time.monotonic() + LOADING
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._read], [], [], left)[0]:
                break
            new = os.read(self._read, 4096)
            if not new:
                return self._failed(told, skip)
            told += new
            if b"ready\n" in told:
                return EX_OK
            if b"loaded\n" in new:
                deadline = time.monotonic() + READYING
        _say(f"{self.what} runs, but is not ready yet.", self._last_lines(skip, 3))
        return EX_OK

    def _failed(self, told: bytes, skip: int) -> int:
        code = told.rpartition(b"exit ")[2].strip()
        lines = self._last_lines(skip, _LINES)
        where = f" Last lines of {self.logfile}:" if lines and self.logfile else ""
        _say(f"{self.what} did not start.{where}", lines)
        return int(code) if code.isdigit() else EX_FAILURE

    def _last_lines(self, skip: int, count: int) -> list[str]:
        """Lines that were written since the start."""
        if self._errors is not None:
            skip, text = 0, _tail(self._errors, 0)
        else:
            try:
                with open(self.logfile or os.devnull, "rb") as log:
                    text = _tail(log, skip)
            except OSError:
                return []
        return [line for line in text.decode(errors="replace").splitlines() if line.strip()][-count:]


def _size(path: str | None) -> int:
    try:
        return os.path.getsize(path) if path else 0
    except OSError:
        return 0


def _tail(file: BinaryIO, skip: int) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(skip if skip <= size else 0, size - _BYTES))
    return file.read().strip()


def _say(text: str, lines: list[str]) -> None:
    print("\n".join([text, *(f"    {line}" for line in lines)]), file=sys.stderr, flush=True)  # noqa: T201


class Launched:
    """The side in the background; without a launch, all of it does nothing."""

    def __init__(self) -> None:
        """Take over what the environment says; nobody else is to find it there."""
        text = os.environ.pop(_VARIABLE, "")
        self._fd: int | None = int(text) if text.isdigit() else None
        if self._fd is not None:
            try:
                os.set_inheritable(self._fd, False)
            except OSError:
                self._fd = None

    def loaded(self) -> None:
        """The program is complete: what follows depends on others."""
        self._tell(b"loaded\n")

    def ready(self, logs: bool) -> None:
        """It does its work. `logs`: it has a log file; else nobody will read its errors from now on."""
        if self._fd is None:
            return
        self._tell(b"ready\n")
        os.close(self._fd)
        self._fd = None
        if not logs:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)

    def _tell(self, text: bytes) -> None:
        if self._fd is not None:
            with suppress(OSError):  # whoever launched us has gone
                os.write(self._fd, text)
