"""The broker is killed, cut off, silent or frozen; workers and clients come back by themselves (PAINS 1)."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from celery.exceptions import TimeoutError as CeleryTimeoutError
from tests.chaos.conftest import scene_at
from tests.chaos.proxy import FaultProxy
from tests.chaos.scene import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.conftest import MakeScene, Server
    from tests.servers import RedisServer

    Book = Callable[[dict[str, str]], None]

pytestmark = pytest.mark.server

#: Rounds of each fault, tasks that are sent after it, and seconds in which they must have run (PAINS 1).
ROUNDS, TASKS, WITHIN = scaled(5, 1), 20, 30.0
#: Rounds of those that last half a minute.
LONG_ROUNDS = scaled(2, 1)
FROZEN = scaled(30.0, 8.0)


BROKERS = ["redis", pytest.param("rabbit", marks=pytest.mark.xdist_group("rabbit"))]


@pytest.fixture(params=BROKERS)
def server(request: pytest.FixtureRequest) -> Server:
    """One of either kind."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.port) as proxy:
        yield proxy


class Fault:
    """What is done to the line or to the server, between the worker's last task and the next ones."""

    def __init__(self, proxy: FaultProxy, server: Server) -> None:
        self.proxy = proxy
        self.server = server

    def reset(self) -> None:
        self.proxy.reset()

    def half_open(self) -> None:
        self.proxy.half_open()

    def lost_answers(self) -> None:
        self.proxy.lose_answers()

    def frozen_line(self) -> None:
        self.proxy.freeze()
        time.sleep(FROZEN)
        self.proxy.freeze(False)

    def frozen_server(self) -> None:
        self.server.freeze()
        time.sleep(FROZEN)
        self.server.thaw()

    def restart(self) -> None:
        self.server.stop(keep_directory=True)
        time.sleep(1)
        self.server.start()


#: How a lost connection is told of.
SAID = re.compile(
    r"(lost|cannot use) the Redis server at|lost the connection to|did not answer|gave no sign of life|Cannot reach the"
)
FAULTS = ["reset", "half_open", "lost_answers", "frozen_line", "frozen_server", "restart"]
#: Of RabbitMQ not all in the short run: a restart takes ten seconds, and happens under load there.
RABBIT_FAULTS = scaled(FAULTS, ["half_open", "frozen_server"])
CASES = [
    *(pytest.param("redis", fault, id=f"redis-{fault}") for fault in FAULTS),
    *(
        pytest.param("rabbit", fault, id=f"rabbit-{fault}", marks=pytest.mark.xdist_group("rabbit"))
        for fault in RABBIT_FAULTS
    ),
]


@pytest.mark.parametrize(("server", "fault"), CASES, indirect=["server"])
def test_a_worker_comes_back(fault: str, scene: MakeScene, proxy: FaultProxy, server: Server, book: Book) -> None:
    """Twenty tasks that are sent after the fault have run within thirty seconds; one line names the cause."""
    here = scene_at(server, scene, port=proxy.port)
    direct = here.client(server.url())
    pool = {"half_open": "threads", "restart": "threads"}.get(fault, "prefork")
    worker = here.worker(f"-P {pool} -c 2")
    slowest, interruptions = 0.0, []
    rounds = LONG_ROUNDS if fault.startswith("frozen") else ROUNDS
    for number in range(rounds):
        ids = [f"r{number}t{n}" for n in range(TASKS)]
        direct.send_task("proj.late", (0.0,), task_id=f"warm{number}")
        here.until(lambda number=number: f"warm{number}" in here.ledger.done(), "the worker works")
        noticed = worker.output.count("Connection lost")
        before = time.monotonic()
        getattr(Fault(proxy, server), fault)()
        began = time.monotonic()
        for task_id in ids:
            direct.send_task("proj.late", (0.01,), task_id=task_id)
            here.ledger.sent[task_id] = time.monotonic()
        here.ledger.wait(WITHIN + 30, [worker])
        slowest = max(slowest, time.monotonic() - began)
        interruptions.append((before, time.monotonic()))
        lines = re.findall(r"WARNING/MainProcess\] .*Connection lost: (.*)", worker.output)[noticed:]
        long = server.kind == "rabbit" and fault in ("restart", "frozen_line", "frozen_server")
        assert len(lines) <= (6 if long else 3), f"one line for each attempt, no more: {lines}"
        if fault in ("reset", "half_open", "restart"):
            assert lines, f"nothing was said:\n{worker.output[-3000:]}"
        for line in lines:
            assert SAID.search(line)
            assert str(proxy.port) in line
    assert slowest < WITHIN, "an upper bound that is promised"
    assert not here.ledger.lost
    here.check_interrupted(interruptions)
    results = [direct.AsyncResult(task_id).get(timeout=10) for task_id in here.ledger.sent]
    assert results == list(here.ledger.sent)
    direct.close()
    remarks = f"{rounds} rounds of {TASKS}; {worker.output.count('Connection lost')} lines in the log"
    book(here.ledger.row(f"{server.kind}, {fault.replace('_', ' ')}, {pool}", slowest, remarks))


def test_nothing_is_lost_under_load(scene: MakeScene, proxy: FaultProxy, server: Server, book: Book) -> None:
    """Every fault in turn while tasks are sent and run, and somebody waits for each result."""
    chaos = random.Random(20)
    here = scene_at(server, scene, port=proxy.port)
    for _ in range(2):
        here.worker("-c 2")
    total = scaled(4000, 400)
    ids = [f"t{n:05}" for n in range(total)]
    got: list[str] = []
    recovery, interruptions = 0.0, []
    with here.sender() as sender:
        sender.flow("proj.late", ids, lambda n: (0.005,), 0.02)
        waiter = threading.Thread(target=wait_for_each, args=(here.client(here.url), ids, got), daemon=True)
        waiter.start()
        for fault in scaled(FAULTS, ["reset", "half_open", "restart", "lost_answers"]):
            seen = len(here.ledger.done())
            here.until(lambda seen=seen: len(here.ledger.done()) >= min(seen + 20, total), "tasks flow", 90)
            time.sleep(chaos.uniform(0, 0.5))
            since = time.monotonic()
            getattr(Fault(proxy, server), fault)()
            over, before = time.monotonic(), here.ledger.done()
            here.until(lambda before=before: here.ledger.done() - before or len(before) == total, "tasks run again", 90)
            recovery = max(recovery, time.monotonic() - over)
            interruptions.append((since, time.monotonic()))
        sender.finish()
        here.ledger.wait(90, here.workers)
    waiter.join(90)
    assert not waiter.is_alive(), "somebody waits for ever"
    assert sorted(got) == ids
    # Nobody was killed: on Redis none runs twice; RabbitMQ gives back what was not acknowledged over a lost line.
    here.check_interrupted(interruptions if server.kind == "rabbit" else [])
    again = sum(len(runs) - 1 for runs in here.ledger.runs().values())
    book(here.ledger.row(f"{server.kind}, all faults under load", recovery, f"{again} runs more"))


def wait_for_each(app: object, ids: list[str], got: list[str]) -> None:
    """Get every result, as a program does that tries again after an error."""
    from kombu.exceptions import OperationalError

    from celery import Celery

    assert isinstance(app, Celery)
    for task_id in ids:
        while True:
            try:
                got.append(app.AsyncResult(task_id).get(timeout=60))
            except (OperationalError, CeleryTimeoutError):
                time.sleep(0.2)
            else:
                break
    app.close()


def test_a_freeze_or_a_restart_moves_no_lease(scene: MakeScene, redis: RedisServer, book: Book) -> None:
    """Long tasks run on while the server is away longer than a lease; the other worker does not take them."""
    here = scene(redis.url(), broker_transport_options={"lease_timeout": 2})
    workers = [here.worker("-c 1") for _ in range(2)]
    with here.sender() as sender:
        for n in range(2):
            sender.send("proj.late", f"long{n}", 14.0)
    here.until(lambda: len(here.ledger.runs()) == 2, "both run")
    os.kill(redis.pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(redis.pid, signal.SIGCONT)
    time.sleep(2)
    redis.stop(keep_directory=True)
    time.sleep(3)
    redis.start()
    here.ledger.wait(60, workers)
    here.until(lambda: len(here.settled()) == 2, "the results are stored")
    assert not here.ledger.twice, "a living worker's task was given to another"
    book(here.ledger.row("redis, frozen and restarted during long tasks", None))
