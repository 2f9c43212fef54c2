"""Workers and children are killed at random moments while tasks flow (PAINS 3, 12)."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.conftest import scene_at
from tests.chaos.scene import Scene, processes, scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.conftest import MakeScene, Server

    Book = Callable[[dict[str, str]], None]

TASKS, KILLS = scaled((2000, 20), (300, 3))
RABBIT = pytest.param("rabbit", marks=[pytest.mark.server, pytest.mark.xdist_group("rabbit")])
BROKERS = ["sqlite", pytest.param("redis", marks=pytest.mark.server), *scaled([RABBIT], [])]
POOLS = ["prefork", "threads"]
#: Custody does not depend on the pool: of RabbitMQ the short run has the one that is the default.
BOTH = [
    *(pytest.param("sqlite", pool, id=f"sqlite-{pool}") for pool in POOLS),
    *(pytest.param("redis", pool, id=f"redis-{pool}", marks=pytest.mark.server) for pool in POOLS),
    *(pytest.param("rabbit", pool, id=f"rabbit-{pool}", marks=RABBIT.marks) for pool in scaled(POOLS, POOLS[:1])),
]


def scene_on(broker: str, scene: MakeScene, request: pytest.FixtureRequest, **settings: Any) -> Scene:
    if broker == "sqlite":
        return scene(**settings)
    server: Server = request.getfixturevalue(broker)
    return scene_at(server, scene, **settings)


def kinds(pool: str) -> list[str]:
    """What can be killed: threads die with their process."""
    return ["main", "all", "child"] if pool == "prefork" else ["main"]


@pytest.mark.parametrize(("broker", "pool"), BOTH)
def test_late_tasks_survive_every_kill(
    broker: str, pool: str, scene: MakeScene, request: pytest.FixtureRequest, book: Book
) -> None:
    """Nothing is lost. What runs again was running, or had just ended; never what had its result."""
    chaos = random.Random(f"{broker} {pool}")
    here = scene_on(broker, scene, request)
    durations = [chaos.choice([0.0, 0.0, 0.002, 0.02, 0.1]) for _ in range(TASKS)]
    workers = [here.worker(f"-P {pool} -c 2") for _ in range(2)]
    settled: list[tuple[float, set[str]]] = []
    with here.sender() as sender:
        sender.flow("proj.late", [f"t{n:05}" for n in range(TASKS)], lambda n: (durations[n],), 0.02)
        for wanted in sorted(chaos.sample(range(TASKS // 20, TASKS * 19 // 20), KILLS)):
            here.until(lambda wanted=wanted: len(here.ledger.done()) >= wanted, f"{wanted} tasks have run")
            time.sleep(chaos.uniform(0.0, 0.05))
            victim = chaos.choice(workers)
            death = here.kill(victim, chaos, kinds(pool))
            if death is not None and death.kind != "child":
                stored = here.settled()
                settled.append((time.monotonic(), stored))  # in this order: others run meanwhile
                workers[workers.index(victim)] = here.worker(f"-P {pool} -c 2")
        sender.finish()
    here.ledger.wait(60, workers)
    window = here.check_twice()
    runs = here.ledger.runs()
    for when, ids in settled:
        again = {i: runs[i] for i in ids if runs[i][-1].began > when}
        assert not again, f"ran again although the results were there at {when}"
    here.until(lambda: len(here.settled()) == TASKS, "every result is stored")
    kills = f"{len(here.deaths)} kills; ran again at most {window * 1000:.0f} ms after their end"
    book(here.ledger.row(f"kill -9, late, {broker}, {pool}", None, kills))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("broker", BROKERS)
def test_early_tasks_are_lost_only_where_they_had_begun(
    broker: str, pool: str, scene: MakeScene, request: pytest.FixtureRequest, book: Book
) -> None:
    """What waited in a batch of the killed worker is run by another. What had begun in its last moments may run again:
    the acknowledgement goes out while the task runs, or with its end."""
    chaos = random.Random(f"early {broker} {pool}")
    here = scene_on(broker, scene, request)
    worker = here.worker(f"-P {pool} -c 2")
    total = scaled(1000, 200)
    with here.sender() as sender:
        for n in range(total):
            sender.send("proj.early", f"t{n:05}", 0.004)
    here.until(lambda: len(here.ledger.done()) > total // 3, "a third has run")
    death = here.kill(worker, chaos, ["all"])
    assert death is not None
    successor = here.worker(f"-P {pool} -c 2")
    begun = {i for i, runs in here.ledger.runs().items() if runs[0].pid in death.pids}
    here.until(lambda: set(here.ledger.lost) <= begun, "all that had not begun is run")
    recovery = time.monotonic() - death.when
    here.until(lambda: len(here.settled()) >= total - len(here.ledger.lost) - 2, "the results are stored")
    successor.stop()
    lost = here.ledger.lost
    assert set(lost) <= begun
    assert len(lost) <= 2, "one for each that could run at once"
    window = here.check_twice()
    book(
        here.ledger.row(
            f"kill -9, early, {broker}, {pool}", recovery, f"ran again at most {window * 1000:.0f} ms after their end"
        )
    )


@pytest.mark.parametrize(("broker", "pool"), BOTH)
def test_what_is_acknowledged_first_never_runs_twice(
    broker: str, pool: str, scene: MakeScene, request: pytest.FixtureRequest, book: Book
) -> None:
    """At most once, whatever is killed, and when; lost are at most as many as could run at once."""
    chaos = random.Random(f"first {broker} {pool}")
    here = scene_on(broker, scene, request, broker_transport_options={"lease_timeout": 1.0})
    total, kills = scaled((2000, 20), (200, 3))
    worker = here.worker(f"-P {pool} -c 2")
    with here.sender() as sender:
        for n in range(total):
            sender.send("proj.first", f"t{n:05}", chaos.choice([0.0, 0.0, 0.002, 0.02]))
    for n in range(1, kills + 1):
        here.until(lambda n=n: len(here.ledger.runs()) >= total * n // (kills + 1), "some more have run")
        time.sleep(chaos.uniform(0.0, 0.02))
        death = here.kill(worker, chaos, kinds(pool))
        if death is not None and death.kind != "child":
            worker = here.worker(f"-P {pool} -c 2")
    inherited = here.deaths[-1].when + 3.0  # three leases: what a dead worker held is back by then
    here.until(
        lambda: time.monotonic() > inherited and here.idle() and len(here.ledger.lost) <= 2 * len(here.deaths),
        "all but those that had begun have run",
    )
    worker.stop()
    here.workers.remove(worker)
    assert here.idle()
    assert not here.ledger.twice
    remarks = f"{len(here.deaths)} kills; two could run at once"
    book(here.ledger.row(f"kill -9, acknowledged first, {broker}, {pool}", None, remarks))


@pytest.mark.parametrize("broker", [*BROKERS, *scaled([], [RABBIT])])
def test_another_worker_takes_over(broker: str, scene: MakeScene, request: pytest.FixtureRequest, book: Book) -> None:
    """What a killed worker held begins elsewhere within ten seconds; what a stopped one gave back, at once."""
    here = scene_on(broker, scene, request)
    first = here.worker("-c 2")
    with here.sender() as sender:
        for n in range(2):
            sender.send("proj.late", f"held{n}", 8.0)
    here.until(lambda: len(here.ledger.runs()) == 2, "both run")
    second = here.worker("-c 2")
    death = here.kill(first, random.Random(1), ["all"])
    assert death is not None
    here.ledger.wait(30, [second])
    begun_again = [runs[-1].began for runs in here.ledger.runs().values() if len(runs) == 2]
    assert len(begun_again) == 2
    recovery = max(begun_again) - death.when
    assert recovery < 10, "an upper bound that is promised"
    book(here.ledger.row(f"take-over after kill -9, {broker}", recovery))


@pytest.mark.parametrize("broker", BROKERS)
def test_a_stopped_worker_gives_back_at_once(
    broker: str, scene: MakeScene, request: pytest.FixtureRequest, book: Book
) -> None:
    here = scene_on(broker, scene, request)
    first = here.worker("-c 1")
    with here.sender() as sender:
        for n in range(3):
            sender.send("proj.late", f"held{n}", 0.5)
    here.until(here.ledger.runs, "one runs")
    second = here.worker("-c 1", ready=False)
    second.wait_for(r"ready\.$", 60)
    stopped = time.monotonic()
    first.stop()
    here.workers.remove(first)
    assert here.ledger.wait(30, [second]) < 30
    assert not here.ledger.twice
    book(here.ledger.row(f"clean stop, {broker}", time.monotonic() - stopped))


@pytest.mark.parametrize("broker", BROKERS)
def test_short_tasks_do_not_wait_behind_a_long_one(
    broker: str, scene: MakeScene, request: pytest.FixtureRequest, book: Book
) -> None:
    """PAINS 12: one long task and seven short ones, two workers of one child each."""
    here = scene_on(broker, scene, request)
    long = scaled(20.0, 5.0)
    for _ in range(2):
        here.worker("-c 1")
    with here.sender() as sender:
        began = time.monotonic()
        sender.send("proj.late", "long", long)
        for n in range(7):
            sender.send("proj.late", f"short{n}", 0.1)
    short = {f"short{n}" for n in range(7)}
    here.until(lambda: short <= here.ledger.done(), "the short ones are done")
    took = time.monotonic() - began
    assert "long" not in here.ledger.done(), "the short ones waited for the long one"
    here.ledger.wait(long + 30)
    assert not here.ledger.twice
    book(here.ledger.row(f"1 of {long:g} s and 7 of 0.1 s, {broker}", None, f"short ones done after {took:.1f} s"))


def test_a_child_takes_nothing_with_it(scene: MakeScene, book: Book) -> None:
    """Children are killed while they hold batches: what ran runs again, what waited is not touched."""
    chaos = random.Random(7)
    here = scene()
    worker = here.worker("-c 2")
    total = scaled(2000, 300)
    with here.sender() as sender:
        for n in range(total):
            sender.send("proj.late", f"t{n:05}", 0.003)
    for _ in range(scaled(20, 4)):
        seen = len(here.ledger.done())
        here.until(lambda seen=seen: len(here.ledger.done()) > seen + 20 or not here.ledger.lost, "some have run")
        here.kill(worker, chaos, ["child"])
    here.ledger.wait(60, [worker])
    here.check_twice()
    assert len(here.ledger.twice) <= len(here.deaths), "more than the one that a child was running"
    here.until(lambda: len(processes(worker)) >= 4, "the children are replaced")
    book(here.ledger.row("kill -9 of children, sqlite, prefork", None, f"{len(here.deaths)} kills"))
