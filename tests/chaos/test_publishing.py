"""`delay()` while the broker is down, blackholed, silent, full or answers into nowhere: an error in time (PAINS 13)."""

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
from tests.chaos.crowd import GRACE, PROMISED, THREADS, Crowd
from tests.chaos.ledger import Ledger
from tests.chaos.proxy import FaultProxy
from tests.chaos.scene import scaled
from tests.running import wait_until
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.chaos.conftest import MakeScene, Node, Server
    from tests.servers import RabbitServer, RedisServer

    Book = Callable[[dict[str, str]], None]

pytestmark = pytest.mark.server

BROKERS = ["redis", pytest.param("rabbit", marks=pytest.mark.xdist_group("rabbit"))]


@pytest.fixture(params=BROKERS)
def server(request: pytest.FixtureRequest) -> Server:
    """One of either kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis.port) as proxy:
        yield proxy


@pytest.fixture(params=[None, 2.0], ids=["as ever", "in two seconds"])
def within(request: pytest.FixtureRequest) -> float | None:
    """`task_publish_timeout`."""
    found: float | None = request.param
    return found


def app_on(url: str, within: float | None = None) -> Celery:
    """An app that knows when its messages are safe."""
    app = Celery("proj", broker=url, set_as_current=False)
    app.conf.task_publish_timeout = within
    if url.startswith("amqp"):
        app.conf.broker_transport_options = {"confirm_publish": True}
    return app


def refused(folder: Path, crowd: Crowd, how: str, book: Book, within: float | None = None) -> None:
    crowd.check_refused(within)
    said = f"{len(crowd.errors)} errors, the last after {crowd.slowest:.1f} s"
    bound = f", task_publish_timeout = {within:g}" if within else ""
    book(Ledger(folder / "notes").row(f"delay(), {how}, {THREADS} threads{bound}", None, said))


#: Nothing needs to be there: how a broker on this port is called.
SCHEMES = {"redis": "redis://127.0.0.1:%d/0", "rabbit": "amqp://guest:s3cret@127.0.0.1:%d//"}


@pytest.mark.parametrize("kind", SCHEMES)
def test_nobody_listens(kind: str, tmp_path: Path, book: Book) -> None:
    app = app_on(SCHEMES[kind] % free_port())
    crowd = Crowd(app).go()
    refused(tmp_path, crowd, f"{kind} down", book)
    assert "s3cret" not in str(crowd.errors)
    app.close()


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_server_that_accepts_and_never_answers(kind: str, within: float | None, tmp_path: Path, book: Book) -> None:
    """Real Celery blocks for more than a minute here, on Redis."""
    with FaultProxy(free_port()) as proxy:
        proxy.swallow()
        app = app_on(SCHEMES[kind] % proxy.port, within)
        crowd = Crowd(app).go()
        refused(tmp_path, crowd, f"{kind} accepts and is silent", book, within)
        assert ("task_publish_timeout = 2 s" if within else "127.0.0.1") in str(crowd.errors[0])
        app.close()


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_port_behind_which_packets_vanish(kind: str, within: float | None, tmp_path: Path, book: Book) -> None:
    """A listener whose queue is full answers no SYN: the connection is not even made."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        time.sleep(0.2)
        app = app_on(SCHEMES[kind] % port, within)
        refused(tmp_path, Crowd(app).go(), f"{kind} blackholed", book, within)
        app.close()
        for filler in fillers:
            filler.close()


def test_a_server_that_is_frozen(within: float | None, tmp_path: Path, server: Server, book: Book) -> None:
    app = app_on(server.url(), within)
    app.send_task("proj.late", (0.0,), task_id="first")
    server.freeze()
    try:
        refused(tmp_path, Crowd(app).go(), f"{server.kind} frozen", book, within)
    finally:
        server.thaw()
    app.send_task("proj.late", (0.0,), task_id="last")
    app.close()


def test_connections_that_are_half_open_are_found_out(server: Server) -> None:
    """Who will not wait for that is told, and the next one finds connections that live."""
    with FaultProxy(server.port) as proxy:
        app = app_on(server.url(port=proxy.port), 2.0)
        assert not Crowd(app, 10).go().errors
        proxy.half_open()
        crowd = Crowd(app, 10).go()
        assert crowd.slowest < 2.0 + GRACE
        assert len(crowd.errors) + len(crowd.ids) == 10
        wait_until(lambda: not Crowd(app, 10).go().errors, "the dead ones are replaced")
        app.close()


def test_connections_that_are_half_open_are_replaced(server: Server) -> None:
    """The server lives, only the connections of before are dead: every call succeeds in time."""
    with FaultProxy(server.port) as proxy:
        app = app_on(server.url(port=proxy.port))
        assert not Crowd(app, 10).go().errors  # the pool is full of connections
        proxy.half_open()
        crowd = Crowd(app).go()
        assert not crowd.errors
        assert crowd.slowest < PROMISED + GRACE
        if server.kind == "redis":
            assert len(app.assembly.broker._pool._places) == 10  # type: ignore[attr-defined]
        app.close()


@pytest.mark.xdist_group("rabbit")
def test_a_server_short_of_memory(
    within: float | None, tmp_path: Path, rabbit: Node, rabbit_session: RabbitServer, book: Book
) -> None:
    """RabbitMQ says so, and takes nothing: no call waits for ever, and each says why; then all goes on by itself."""
    app = app_on(rabbit.url(), within)
    app.conf.broker_transport_options["confirm_timeout"] = 3.0
    plain = Celery("proj", broker=rabbit.url(), set_as_current=False, broker_pool_limit=1)
    with rabbit_session.short_of_memory():
        plain.send_task("proj.late", (0.0,), task_id="nobody knows")  # it is told when it has sent something
        (idle,) = plain.assembly.broker._idle  # type: ignore[attr-defined]
        wait_until(lambda: idle.is_stale() or idle.blocked, "it is told")
        crowd = Crowd(app).go()
        with pytest.raises(OperationalError, match="takes no messages now: low on memory"):
            plain.send_task("proj.late", (0.0,), task_id="refused")
        refused(tmp_path, crowd, "rabbit short of memory", book, within)
        why = "task_publish_timeout = 2 s" if within else "low on memory"
        assert all(why in str(error) for error in crowd.errors), crowd.errors
    app.send_task("proj.late", (0.0,), task_id="last")
    plain.send_task("proj.late", (0.0,), task_id="last too")
    app.close()
    plain.close()


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
