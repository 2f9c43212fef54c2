"""Queues of a mixed fleet: what one side declared, filled or marked, the other one routes, takes and empties."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.running import wait_until
from tests.wire import golden
from tests.wire.mixed import OURS, SIDES, THEIRS

if TYPE_CHECKING:
    from tests.wire.mixed import Fleet

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]
SEPARATOR = "\x06\x16"

DECLARE = """
from kombu import Exchange, Queue
app.amqp.queues.add(Queue("news-{0}", Exchange("feeds-{0}", type="topic"), routing_key="feed.#"))
app.amqp.queues.add(Queue("plain-{0}", Exchange("named-{0}", type="direct"), routing_key="key"))
None
"""


#: The real one asks that a publisher declare an exchange of such a type.
PUBLISH = """
from kombu import Exchange
feeds = Exchange("feeds-{0}", type="topic")
add.apply_async((7, 8), exchange=feeds, routing_key="feed.x.y", declare=[feeds]).id
"""


DELETE = """
mine = app.amqp.queues["{0}"](app.connection().default_channel)
mine.declare()
mine.delete()
None
"""


def other(side: str) -> str:
    return THEIRS if side == OURS else OURS


@pytest.mark.parametrize("sender", SIDES)
def test_a_worker_takes_what_was_there_before_it(fleet: Fleet, sender: str) -> None:
    """Queues that only the sender declared, and bindings that a third party publishes by; priorities in order."""
    runner, client = other(sender), fleet.clients[sender]
    client(DECLARE.format(sender))
    sent = {
        client(f"add.apply_async((1, 2), queue='news-{sender}', routing_key='feed.sport.today').id"): 3,
        client(f"add.apply_async((3, 4), queue='plain-{sender}').id"): 7,
        client(f"add.apply_async((5, 6), queue='created-{sender}').id"): 11,
    }
    # Nobody but the sender knows that queue; its binding stands in Redis.
    sent[fleet.clients[runner](PUBLISH.format(sender))] = 15
    assert fleet.server.call("LLEN", f"news-{sender}") == 2
    for priority in (9, 6, 3, 0):
        client(f"order.apply_async(('{sender}-{priority}',), queue='ranked-{sender}', priority={priority}).id")
    queues = ",".join(f"{name}-{sender}" for name in ("news", "plain", "created", "ranked"))
    with fleet.sides[runner].worker("-Q", queues, "-c", "1", "-P", "solo", "-n", f"late-{sender}@fleet"):
        for identifier, value in sent.items():
            assert fleet.read(identifier)["value"][1] == value
        lines = fleet.folder / "order"
        wait_until(lambda: lines.exists() and lines.read_text().count(sender) == 4, "all four")
        ran = [line for line in lines.read_text().splitlines() if line.startswith(sender)]
        assert ran == [f"{sender}-{priority}" for priority in (0, 3, 6, 9)]


@pytest.mark.parametrize("side", SIDES)
def test_a_worker_declares_its_queue(fleet: Fleet, side: str) -> None:
    """[redis.4] [redis.5]"""
    member = f"{side}{SEPARATOR}{SEPARATOR}{side}".encode()
    for table in ("binding", "binding_permanent"):
        assert fleet.server.call("SMEMBERS", f"_kombu.{table}.{side}") == [member]


PURGE = {
    OURS: "app.assembly.broker.purge('heap')",
    THEIRS: "with app.connection() as c: n = c.default_channel.queue_purge('heap')\nn",
}
COUNT = {
    OURS: "app.assembly.broker.depth('heap')",
    THEIRS: "with app.connection() as c: n = c.default_channel.queue_declare('heap', passive=True).message_count\nn",
}


@pytest.mark.parametrize("sender", SIDES)
def test_either_counts_and_purges_what_the_other_sent(fleet: Fleet, sender: str) -> None:
    """[redis.16]: over all priorities."""
    fleet.server.call("DEL", "heap")
    fleet.clients[sender]("[add.apply_async((1, 2), queue='heap', priority=p).id for p in (0, 2, 3, 7, 9)]")
    suffixes = ["", f"{SEPARATOR}3", f"{SEPARATOR}6", f"{SEPARATOR}9"]
    assert [fleet.server.call("LLEN", f"heap{suffix}") for suffix in suffixes] == [2, 1, 1, 1]
    purger = other(sender)
    assert [fleet.clients[side](COUNT[side]) for side in SIDES] == [5, 5]
    assert fleet.clients[purger](PURGE[purger]) == 5
    assert fleet.clients[OURS](COUNT[OURS]) == 0
    assert fleet.server.call("EXISTS", *(f"heap{suffix}" for suffix in suffixes)) == 0


@pytest.mark.parametrize("sender", SIDES)
def test_either_deletes_what_the_other_declared(fleet: Fleet, sender: str) -> None:
    """[redis.16]: all lists, and the binding."""
    fleet.clients[sender](DECLARE.format(f"gone-{sender}"))
    queue = f"plain-gone-{sender}"
    fleet.clients[sender](f"[add.apply_async((1, 2), queue={queue!r}, priority=p).id for p in (0, 9)]")
    bound = f"_kombu.binding.named-gone-{sender}"
    assert fleet.server.call("SCARD", bound) == 1
    remover = fleet.clients[other(sender)]
    remover(DECLARE.format(f"gone-{sender}"))
    remover(DELETE.format(queue))
    assert fleet.server.call("EXISTS", queue, f"{queue}{SEPARATOR}9", bound) == 0


@pytest.mark.parametrize("sender", SIDES)
def test_routes(fleet: Fleet, sender: str) -> None:
    """Both routers send a task of one name to the same queue."""
    fleet.clients[sender]("routed.delay().id")
    assert fleet.server.call("LLEN", "routed") == 1
    fleet.server.call("DEL", "routed")


@pytest.mark.parametrize("runner", SIDES)
def test_nothing_is_left_once_acknowledged(fleet: Fleet, runner: str) -> None:
    """[redis.6]"""
    for name in SIDES:
        fleet.read(fleet.clients[name].send("add.apply_async((1, 2))", runner))
    wait_until(lambda: fleet.server.call("HLEN", "unacked") == 0, "all acknowledged")
    wait_until(lambda: fleet.server.call("ZCARD", "unacked_index") == 0, "all acknowledged")
    assert fleet.server.call("LLEN", runner) == 0


@pytest.mark.parametrize("runner", SIDES)
def test_results_expire(fleet: Fleet, runner: str) -> None:
    """[rkeys.1]: a string under `celery-task-meta-<id>` that lives for `result_expires`."""
    identifier = fleet.clients[OURS].send("add.apply_async((1, 2))", runner)
    fleet.read(identifier)
    key = f"celery-task-meta-{identifier}"
    assert fleet.server.call("TYPE", key) == b"string"
    assert 86400 - 60 < fleet.server.call("TTL", key) <= 86400


#: As each process of a project has it; then what a program does that has declared the exchange by itself.
BROADCAST = """
from kombu import Exchange
from kombu.common import Broadcast
app.amqp.queues.add(Broadcast("noise"))
heard.apply_async((NAME,), queue="noise")
None
"""
DECLARED = """
from kombu import Exchange
noise = Exchange("noise", type="fanout")
heard.apply_async((NAME,), exchange=noise, exchange_type="fanout", routing_key="celery", declare=[noise])
None
"""


def test_a_broadcast_reaches_the_workers_of_both(fleet: Fleet) -> None:
    """[route.14] [redis.11] Where a client of the real one has not declared the exchange, it takes it for a direct one,
    and puts a copy on the list of each worker: its own workers do not look there, ours do."""
    ours, theirs = fleet.clients[OURS], fleet.clients[THEIRS]
    command = (
        "app.control.add_consumer('{}', 'noise', 'fanout', 'celery', destination=['{}@fleet'], reply=True, limit=1)"
    )
    for side in SIDES:
        assert "ok" in str(ours(command.format(f"noise-{side}", side)))
    everybody = ["ours@fleet", "theirs@fleet"]

    def both_listen() -> bool:  # the real one says so before it does
        ours(BROADCAST.replace("NAME", "'try'"))
        return set(heard(fleet, "try")) == {*everybody}

    wait_until(both_listen, "both listen")
    for name, client, source, expected in (
        ("ours", ours, BROADCAST, everybody),
        ("theirs", theirs, BROADCAST, everybody[:1]),
        ("declared", theirs, DECLARED, everybody),
    ):
        client(source.replace("NAME", repr(name)))
        wait_until(lambda name=name, all_=expected: len(heard(fleet, name)) >= len(all_), name)
        assert heard(fleet, name) == expected
    fleet.server.call("DEL", "noise-theirs")
    for side in SIDES:
        ours(f"app.control.cancel_consumer('noise-{side}', destination=['{side}@fleet'], reply=True, limit=1)")
    for name, n in (("ours", 2), ("declared", 2), ("theirs", 1)):  # nobody has run one twice meanwhile
        assert len(heard(fleet, name)) == n


def heard(fleet: Fleet, name: str) -> list[str]:
    """Which workers have run it."""
    path = fleet.folder / f"heard-{name}"
    return sorted(path.read_text().split()) if path.exists() else []
