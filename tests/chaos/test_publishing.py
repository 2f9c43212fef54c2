"""`delay()` while Redis is down, blackholed, silent, or answers into nowhere: an error in time (PAINS 13)."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from kombu.exceptions import OperationalError

from celery import Celery
from tests.chaos.ledger import Ledger
from tests.chaos.proxy import FaultProxy
from tests.chaos.scene import scaled
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.chaos.conftest import MakeScene
    from tests.servers import RedisServer

    Book = Callable[[dict[str, str]], None]

pytestmark = pytest.mark.server

THREADS = 100
#: Seconds that are promised, and some for a machine that has other things to do.
PROMISED, GRACE = 10.0, 5.0


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis.port) as proxy:
        yield proxy


class Crowd:
    """Many threads that each call one task at the same time."""

    def __init__(self, app: Celery, threads: int = THREADS) -> None:
        self.errors: list[BaseException] = []
        self.ids: list[str] = []
        self.slowest = 0.0
        self._app = app
        self._threads = [threading.Thread(target=self._call, args=(n,), daemon=True) for n in range(threads)]

    def go(self) -> Crowd:
        began = time.monotonic()
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(began + 60 - time.monotonic())
            assert not thread.is_alive(), "delay() hangs"
        return self

    def _call(self, number: int) -> None:
        began = time.monotonic()
        try:
            self._app.send_task("proj.late", (0.0,), task_id=f"c{number}")
        except BaseException as exc:  # noqa: BLE001 - looked at by the test
            self.errors.append(exc)
        else:
            self.ids.append(f"c{number}")
        self.slowest = max(self.slowest, time.monotonic() - began)

    def check_refused(self) -> None:
        assert not self.ids
        assert all(isinstance(error, OperationalError) for error in self.errors), self.errors
        assert self.slowest < PROMISED + GRACE


def app_on(url: str) -> Celery:
    return Celery("proj", broker=url, set_as_current=False)


def refused(folder: Path, crowd: Crowd, how: str, book: Book) -> None:
    crowd.check_refused()
    said = f"{len(crowd.errors)} errors, the last after {crowd.slowest:.1f} s"
    book(Ledger(folder / "notes").row(f"delay(), redis {how}, {THREADS} threads", None, said))


def test_nobody_listens(tmp_path: Path, book: Book) -> None:
    app = app_on(f"redis://127.0.0.1:{free_port()}/0")
    refused(tmp_path, Crowd(app).go(), "down", book)
    app.close()


def test_a_server_that_accepts_and_never_answers(tmp_path: Path, book: Book) -> None:
    """Real Celery blocks for more than a minute here."""
    with FaultProxy(free_port()) as proxy:
        proxy.swallow()
        app = app_on(proxy.url())
        crowd = Crowd(app).go()
        refused(tmp_path, crowd, "accepts and is silent", book)
        assert "127.0.0.1" in str(crowd.errors[0])
        app.close()


def test_a_port_behind_which_packets_vanish(tmp_path: Path, book: Book) -> None:
    """A listener whose queue is full answers no SYN: the connection is not even made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        time.sleep(0.2)
        app = app_on(f"redis://127.0.0.1:{port}/0")
        refused(tmp_path, Crowd(app).go(), "blackholed", book)
        app.close()
        for filler in fillers:
            filler.close()


def test_a_server_that_is_frozen(tmp_path: Path, redis: RedisServer, book: Book) -> None:
    app = app_on(redis.url())
    app.send_task("proj.late", (0.0,), task_id="first")
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        refused(tmp_path, Crowd(app).go(), "frozen", book)
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    app.send_task("proj.late", (0.0,), task_id="last")
    app.close()


def test_connections_that_are_half_open_are_replaced(redis: RedisServer, proxy: FaultProxy) -> None:
    """The server lives, only the connections of before are dead: every call succeeds in time."""
    app = app_on(proxy.url())
    assert not Crowd(app, 10).go().errors  # the pool is full of connections
    proxy.half_open()
    crowd = Crowd(app).go()
    assert not crowd.errors
    assert crowd.slowest < PROMISED + GRACE
    assert len(app.assembly.broker._pool._places) == 10  # type: ignore[attr-defined]
    app.close()


def test_a_repeat_keeps_its_id(scene: MakeScene, redis: RedisServer, proxy: FaultProxy, book: Book) -> None:
    """The server took the message, its answer was lost: it is published again, under the same id."""
    here = scene(proxy.url())
    total = scaled(20, 3)
    with here.sender() as sender:
        sender.send("proj.late", "t0", 0.0)
        for n in range(1, total):
            proxy.lose_answers()
            sender.send("proj.late", f"t{n}", 0.0)
    assert here.ledger.repeated == {f"t{n}": 1 for n in range(1, total)}
    assert redis.call("LLEN", "celery") == 2 * total - 1
    here.worker("-c 1")
    here.until(lambda: here.idle() and redis.call("HLEN", "unacked") == 0, "all is run")
    assert {i: len(runs) for i, runs in here.ledger.runs().items()} == {"t0": 1} | {f"t{n}": 2 for n in range(1, total)}
    book(here.ledger.row("delay(), redis, answers lost", None, "each repeat ran under its id"))


def test_a_short_freeze_repeats_nothing(redis: RedisServer) -> None:
    """A server that says nothing to anybody is waited for: sending again would be sending twice."""
    app = app_on(redis.url())
    app.send_task("proj.late", (0.0,), task_id="first")
    os.kill(redis.pid, signal.SIGSTOP)
    thaw = threading.Timer(5.5, os.kill, (redis.pid, signal.SIGCONT))
    thaw.start()
    app.send_task("proj.late", (0.0,), task_id="second")
    thaw.join()
    assert redis.call("LLEN", "celery") == 2
    app.close()


def test_a_policy_of_the_call_is_kept_to() -> None:
    app = app_on(f"redis://127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    policy = {"max_retries": 3, "interval_start": 0.3, "interval_step": 0.0, "interval_max": 0.3}
    with pytest.raises(OperationalError, match=r"127\.0\.0\.1"):
        app.send_task("proj.late", retry_policy=policy)
    assert time.monotonic() - began >= 0.9
    app.close()
