"""A mixed fleet on one Redis, or with a broker of its own: this project and the real Celery, running one project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.running import PATIENCE, ROOT, Background, wait_until
from tests.wire import golden

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from tests.servers import RedisServer

OURS, THEIRS = "ours", "theirs"
SIDES = (OURS, THEIRS)
#: Who sends, who runs. The pair of theirs alone is what the others are measured by.
PAIRS = [(THEIRS, THEIRS), (THEIRS, OURS), (OURS, THEIRS), (OURS, OURS)]
MIXED = PAIRS[1:3]


@dataclass
class Side:
    """One of the two Celeries: how its processes are started."""

    name: str
    folder: Path
    #: The broker's and that of the results.
    url: str
    results: str

    @property
    def python(self) -> str:
        return sys.executable if self.name == OURS else golden.REFERENCE

    def environment(self, **variables: str) -> dict[str, str]:
        fleet = {"FLEET_URL": self.url, "FLEET_RESULTS": self.results, "FLEET_FOLDER": str(self.folder), **variables}
        if self.name == THEIRS:
            return golden.reference_environment(self.folder, **fleet)
        path = f"{ROOT / 'src'}:{golden.SCRIPTS}"
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONPATH": path, "TZ": "UTC", **fleet}

    def worker(self, *options: str, **variables: str) -> Background:
        """Start a worker, not waiting until it is ready."""
        given = ["-l", "INFO", "-P", "prefork", "-c", "2", "-n", f"{self.name}@fleet", *options]
        if self.name == THEIRS:
            given += ["--without-mingle", "--without-gossip", "--without-heartbeat"]
        command = " ".join([self.python, "-m", "celery", "-A", "fleet", "worker", *given])
        return Background(command, self.folder, self.environment(C_FORCE_ROOT="1", **variables))

    def client(self, told: Callable[[], str] = str, **variables: str) -> Client:
        """`told`: what is shown beside an error."""
        return Client(self, self.environment(**variables), told)


class Client:
    """A process of one side that calls tasks and reads results. A context manager."""

    def __init__(self, side: Side, environment: dict[str, str], told: Callable[[], str]) -> None:
        self.side = side
        self._told = told
        self._process = subprocess.Popen(
            [side.python, str(golden.SCRIPTS / "client.py")], cwd=side.folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, source: str) -> Any:
        """The value of the last expression. Raises `AssertionError` with what it raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        alarm = threading.Timer(2 * PATIENCE, self._process.kill)
        alarm.start()
        try:
            self._process.stdin.write(json.dumps(source) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            alarm.cancel()
        assert line, f"the client of {self.side.name} ended over: {source}"
        reply = json.loads(line)
        assert "error" not in reply, f"{self.side.name}: {source}\n{reply['error']}\n{self._told()}"
        return reply["value"]

    def send(self, call: str, queue: str) -> str:
        """`call`: "add.apply_async((1, 2), priority=3)"; sent to that queue. Returns the id."""
        identifier = self(f"{call[:-1].rstrip(', ')}, queue={queue!r}).id")
        assert isinstance(identifier, str)
        return identifier

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Fleet:
    """A worker and a client of each side. Each worker takes from the queue that bears its side's name."""

    def __init__(self, server: RedisServer, folder: Path, broker: str = "", **variables: str) -> None:
        """`server` has the results, and the queues unless there is another `broker`."""
        self.server = server
        self.folder = folder
        self.sides = {name: Side(name, folder, broker or server.url(), server.url()) for name in SIDES}
        self.workers = {name: side.worker("-Q", name, **variables) for name, side in self.sides.items()}
        self.clients = {name: side.client(self.tails, **variables) for name, side in self.sides.items()}

    def tails(self) -> str:
        """What the workers printed last."""
        lines = {name: worker.output.splitlines()[-20:] for name, worker in self.workers.items()}
        return "\n".join(line for name, last in lines.items() for line in [f"the worker of {name}:", *last])

    def start(self) -> None:
        """Wait until the workers are ready."""
        for worker in self.workers.values():
            worker.wait_for(r"ready\.")

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def wait_for(self, name: str) -> str:
        path = self.folder / name
        wait_until(lambda: path.exists() and path.stat().st_size >= 0, f"the file {name}")
        return path.read_text()

    def read(self, identifier: str) -> dict[str, Any]:
        """What both clients read of a finished task; they must agree."""
        ours, theirs = (self.clients[name](f"describe({identifier!r})") for name in SIDES)
        assert "TimeoutError" not in f"{ours.get('error')} {theirs.get('error')}", self.tails()
        assert ours == theirs, "\n".join(
            f"{key}: ours reads {ours.get(key)!r}, theirs {theirs.get(key)!r}"
            for key in {**ours, **theirs}
            if ours.get(key) != theirs.get(key)
        )
        return dict(theirs)

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        with ThreadPoolExecutor() as threads:  # each takes its time
            list(threads.map(lambda worker: worker.stop(signal.SIGTERM), self.workers.values()))
