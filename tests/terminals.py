"""Programs that want a terminal, on one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

from tests.running import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class Terminal:
    """A program on a terminal of 80 × 24."""

    def __init__(self, command: str, folder: Path, variables: dict[str, str]) -> None:
        self.screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            f"exec {command}", shell=True, cwd=folder, env={**variables, "TERM": "xterm-256color"},
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.drawn = ""

    def wait_for(self, pattern: str) -> None:
        """Until the program has drawn it, since the last time that was asked for something.

        Only what changes is drawn, so it is asked to draw everything, again and again (Ctrl-L).
        """
        deadline = time.monotonic() + PATIENCE
        self.type("\x0c")
        while not re.search(pattern, self.drawn, re.S):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.drawn!r}"
            if not select.select([self.screen], [], [], 0.5)[0]:
                self.type("\x0c")
            else:
                try:
                    self.drawn += os.read(self.screen, 1 << 16).decode(errors="replace")
                except OSError:  # it has ended
                    assert re.search(pattern, self.drawn, re.S), f"no {pattern!r} in {self.drawn!r}"
        self.drawn = ""

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)
