"""Many threads wait for results while the store goes away and comes back (PAINS 20)."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from kombu.exceptions import OperationalError

from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError
from tests.running import Traces
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.server

#: `make chaos` asks for all of it: 64 threads, 1,000 results each, 10 restarts.
FULL = os.environ.get("CHAOS") == "1"
THREADS, GETS, RESTARTS = (64, 1000, 10) if FULL else (64, 50, 3)
#: Seconds that one `get` may take, and how much longer it may last.
TIMEOUT, GRACE = 2.0, 6.0
POOL = 8


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Load:
    """Threads that store a result and wait for it, or wait for one that nobody stores."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.ended: list[str] = []
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(THREADS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(GETS * (TIMEOUT + GRACE))
            assert not thread.is_alive(), "a get() hangs"

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _work(self, number: int) -> None:
        for turn in range(GETS):
            task_id = f"t{number}-{turn}"
            began = time.monotonic()
            self.ended.append(self._one(task_id, turn))
            self.slowest = max(self.slowest, time.monotonic() - began)

    def _one(self, task_id: str, turn: int) -> str:
        try:
            if turn % 25 != 24:
                self.app.backend.store_result(task_id, turn, "SUCCESS")
            value = self.app.AsyncResult(task_id).get(timeout=TIMEOUT if turn % 25 != 24 else 0.05)
        except CeleryTimeoutError:
            return "timeout"
        except OperationalError:
            time.sleep(0.05)  # a client would do something else, too
            return "away"
        assert value == turn
        return "value"


def test_every_get_ends_while_the_store_restarts(server: RedisServer) -> None:
    app = Celery("load", broker="memory://", backend=server.url(), set_as_current=False)
    app.conf.update(redis_max_connections=POOL)
    app.backend.store_result("first", 1, "SUCCESS")
    assert app.AsyncResult("first").get(timeout=TIMEOUT) == 1
    app.close()
    traces, memory = Traces(), resident()
    most = 0
    with Load(app) as load:
        for _ in range(RESTARTS):
            wanted = len(load.ended) + THREADS * GETS // (RESTARTS + 2)
            while len(load.ended) < wanted and load.running:
                most = max(most, connections(server))
                time.sleep(0.05)
            server.stop(keep_directory=True)
            time.sleep(0.2)
            server.start()
    assert len(load.ended) == THREADS * GETS
    assert load.slowest < TIMEOUT + GRACE
    assert load.ended.count("value") > THREADS * GETS * 0.5
    assert load.ended.count("timeout") >= THREADS
    assert most <= POOL + 2, "the pool, the one that waits, and the one that asks"
    app.close()
    gc.collect()
    assert not [one for one in traces.new if not isinstance(one, int)], "but for the server's process, which is new"
    assert resident() - memory < 40_000_000


def connections(server: RedisServer) -> int:
    listed: bytes = server.call("CLIENT", "LIST")
    return listed.count(b"id=")
