"""Application. Names of an app in a process and in a thread: addresses for replies ([app.38])."""

from __future__ import annotations

import os
import threading

from celery.producer import new_id

__all__ = ["Identity"]


class Identity:
    """Random, and stable: the same answer for the same process (thread), another one in a forked child."""

    def __init__(self) -> None:
        self._process = (0, "")
        self._thread = threading.local()

    def of_process(self) -> str:
        pid, name = self._process
        if pid != os.getpid():
            self._process = (os.getpid(), new_id())
            name = self._process[1]
        return name

    def of_thread(self) -> str:
        here = self._thread.__dict__
        if here.get("pid") != os.getpid():
            here.update(pid=os.getpid(), name=new_id())
        name: str = here["name"]
        return name
