"""A worker that stops for longer than its lease, and clocks that are set while tasks run."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.chaos.proxy import FaultProxy
from tests.chaos.scene import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.conftest import MakeScene
    from tests.running import Background
    from tests.servers import RedisServer

    Book = Callable[[dict[str, str]], None]

LEASE = 1.0


def freeze(worker: Background) -> None:
    for process in processes(worker):
        process.send_signal(signal.SIGSTOP)


def thaw(worker: Background) -> None:
    for process in reversed(processes(worker)):
        process.send_signal(signal.SIGCONT)


@pytest.mark.server
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_frozen_worker_loses_its_lease_and_changes_nothing_when_it_wakes(
    pool: str, scene: MakeScene, redis: RedisServer, book: Book
) -> None:
    """What it held runs on the other one; its own late outcome neither settles nor stores; then it works on."""
    here = scene(redis.url(), broker_transport_options={"lease_timeout": LEASE}, worker_prefetch_multiplier=3)
    frozen = here.worker(f"-P {pool} -c 1")
    with here.sender() as sender:
        for n in range(3):
            sender.send("proj.late", f"held{n}", 2.0)
        here.until(here.ledger.runs, "one runs")
        freeze(frozen)
        stopped = time.monotonic()
        other = here.worker(f"-P {pool} -c 1")
        here.until(lambda: len(here.settled()) == 3, "the other one has run all")
        assert time.monotonic() - stopped > 3 * LEASE
        others = {run.pid for runs in here.ledger.runs().values() for run in runs[1:]}
        first = here.ledger.runs()["held0"][0]
        documents = {key: redis.call("GET", key) for key in redis.call("KEYS", "celery-task-meta-*")}
        redis.call("CONFIG", "RESETSTAT")
        thaw(frozen)
        frozen.wait_for(r"held0\] succeeded")
        other.stop()
        here.workers.remove(other)
        sender.send("proj.late", "after", 0.0)
        here.ledger.wait(30, [frozen])
    here.until(lambda: "after" in here.settled(), "the last result is stored")
    runs = here.ledger.runs()
    assert len(runs["held0"]) == 2
    assert runs["held0"][0].pid == first.pid
    assert first.pid not in others
    assert [len(runs[f"held{n}"]) for n in (1, 2)] == [1, 1], "it ran what was no longer its own"
    for key, document in documents.items():
        assert redis.call("GET", key) == document, "the late outcome was stored"
    assert redis.call("HLEN", "unacked") == 0
    assert redis.call("LLEN", "celery") == 0
    book(here.ledger.row(f"SIGSTOP for three leases, redis, {pool}", None, "the late outcome changed nothing"))


GATED = """
@app.task(name="proj.gated", bind=True, acks_late=True, reject_on_worker_lost=True)
def gated(self, waits):
    note("began", self.request.id)
    while waits and not os.path.exists("open"):
        time.sleep(0.05)
    note("ended", self.request.id)
"""


@pytest.mark.server
def test_a_frozen_worker_that_wakes_drops_the_rest_of_its_batch(
    scene: MakeScene, redis: RedisServer, book: Book
) -> None:
    """Its child has short tasks behind one that lasts. Others have run them: it is told so, and begins none."""
    here = scene(redis.url(), broker_transport_options={"lease_timeout": LEASE})
    with open(here.folder / "proj.py", "a") as project:
        project.write(GATED)
    first, short = [f"first{n:03}" for n in range(300)], [f"short{n:03}" for n in range(200)]
    with here.sender() as sender:
        for task_id in first:  # until they are known to be short, and come in batches
            sender.send("proj.gated", task_id, False)
        sender.send("proj.gated", "long", True)
        for task_id in short:
            sender.send("proj.gated", task_id, False)
        frozen = here.worker("-c 1")
        here.until(lambda: "long" in here.ledger.runs(), "the long one runs")
        here.until(lambda: here.settled() >= set(first), "those before it are settled")
        freeze(frozen)
        held = redis.call("HLEN", "unacked")
        assert held > 1, "it holds no batch"
        other = here.worker("-c 2")  # one of its children will wait with the long one
        here.until(lambda: here.ledger.done() >= set(short), "the other one has run the rest")
        thaw(frozen)
        told = frozen.wait_for(r"taken over \d+ of its messages")
        assert f"taken over {held} of its messages" in told
        time.sleep(1.0)  # the child has given back what it had not begun
        (here.folder / "open").touch()
        sender.send("proj.gated", "after", False)
        here.ledger.wait(30, [frozen, other])
        frozen.wait_for(r"long\] succeeded")
        other.stop()
        here.workers.remove(other)
        sender.send("proj.gated", "last", False)
        here.ledger.wait(30, [frozen])
    runs = here.ledger.runs()
    assert {task_id for task_id, found in runs.items() if len(found) > 1} == {"long"}
    here.until(lambda: redis.call("HLEN", "unacked") == 0, "all is settled")
    remarks = f"{held} messages held, {held - 1} of them not begun and dropped"
    book(here.ledger.row("SIGSTOP for three leases with a batch, redis", None, remarks))


@pytest.mark.server
def test_a_worker_that_is_cut_off_changes_nothing_when_it_is_back(
    scene: MakeScene, redis: RedisServer, book: Book
) -> None:
    """Its line is frozen for longer than a lease: another worker takes over, and what it then says is ignored."""
    with FaultProxy(redis.port) as proxy:
        here = scene(proxy.url(), broker_transport_options={"lease_timeout": LEASE})
        direct = scene(redis.url(), broker_transport_options={"lease_timeout": LEASE})
        cut_off = here.worker("-c 1")
        direct.app.send_task("proj.late", (3.0,), task_id="held")
        here.ledger.sent["held"] = time.monotonic()
        here.until(here.ledger.runs, "it runs")
        proxy.freeze()
        other = direct.worker("-c 1 --hostname other@here")
        here.until(lambda: direct.app.AsyncResult("held").state == "SUCCESS", "the other one has run it")
        document = redis.call("GET", "celery-task-meta-held")
        proxy.freeze(False)
        cut_off.wait_for(r"held\] succeeded")
        direct.app.send_task("proj.late", (0.0,), task_id="after")
        here.ledger.sent["after"] = time.monotonic()
        here.ledger.wait(30, [cut_off, other])
        here.until(lambda: redis.call("HLEN", "unacked") == 0, "all is settled")
        assert redis.call("GET", "celery-task-meta-held") == document
        assert len(here.ledger.runs()["held"]) == 2
        book(here.ledger.row("cut off for three leases, redis", None, "the late outcome changed nothing"))
        here.close()


def test_a_frozen_worker_on_sqlite_keeps_what_it_holds(scene: MakeScene) -> None:
    """Custody there is a lock of the kernel's, and no clock: it ends with the process, and only with it."""
    here = scene()
    frozen = here.worker("-c 1")
    with here.sender() as sender:
        sender.send("proj.late", "held", 1.0)
        here.until(here.ledger.runs, "it runs")
        freeze(frozen)
        other = here.worker("-c 1")
        sender.send("proj.late", "next", 0.0)
        here.until(lambda: "next" in here.ledger.done(), "the other one works")
        time.sleep(1.5)
        thaw(frozen)
        here.ledger.wait(30, [frozen, other])
    assert not here.ledger.twice


@pytest.mark.parametrize("broker", ["sqlite", pytest.param("redis", marks=pytest.mark.server)])
def test_the_wall_clock_moves_no_lease_and_no_deadline(
    broker: str, scene: MakeScene, request: pytest.FixtureRequest, book: Book
) -> None:
    """The clock of one worker is set an hour ahead, then an hour back, while it runs tasks and another one idles."""
    options = {"lease_timeout": LEASE} if broker == "redis" else {}
    url = request.getfixturevalue("redis").url() if broker == "redis" else None
    here = scene(url, broker_transport_options=options)
    (here.folder / "sitecustomize.py").write_text(CLOCK)
    clock = here.folder / "clock"
    clock.write_text("0")
    here.worker("-c 1", CLOCK=str(clock), PYTHONPATH=f"{here.folder}:{here.variables['PYTHONPATH']}")
    with here.sender() as sender:
        sender.send("proj.late", "long", 9.0)
        here.until(here.ledger.runs, "it runs")
        here.worker("-c 1")
        for hours in (1, -1, 0):
            set_clock(clock, hours * 3600)
            jumping_until = time.monotonic() + 2.0
            sender.send("proj.late", f"at {hours} h".replace(" ", "_"), 0.0)
            here.until(lambda until=jumping_until: time.monotonic() > until, "two leases have passed")
        here.ledger.wait(30, here.workers)
        here.until(lambda: len(here.settled()) == len(here.ledger.sent), "all results are stored")
        assert not here.ledger.twice, "a lease moved with the clock"
        here.workers.pop().stop()
        if broker == "sqlite":
            set_clock(clock, 3600)  # what is due in an hour is due for this worker
            here.app.send_task("proj.late", (0.0,), task_id="later", countdown=3590)
            here.until(lambda: "later" in here.ledger.done(), "what is due by its clock is run")
            set_clock(clock, 0)
        else:
            here.app.send_task("proj.late", (0.0,), task_id="later", countdown=3590)
            server = request.getfixturevalue("redis")
            here.until(lambda: server.call("ZCARD", "celery.1.due"), "it is parked")
            set_clock(clock, 3600)
        sender.send("proj.late", "after", 0.0)
        here.ledger.wait(30, here.workers)
    # On Redis the server's clock decides when what is parked is due.
    assert ("later" in here.ledger.done()) is (broker == "sqlite")
    book(here.ledger.row(f"wall clock set by an hour, {broker}", None))


#: The hour of a worker's clock is what a file says.
CLOCK = """
import os, time
if os.environ.get("CLOCK"):
    wall, file = time.time, os.environ["CLOCK"]
    time.time = lambda: wall() + float(open(file).read())
"""


def set_clock(clock: os.PathLike[str], seconds: float) -> None:
    new = f"{os.fspath(clock)}.new"
    with open(new, "w") as file:
        file.write(str(seconds))
    os.replace(new, clock)
