"""A Redis server whose memory is full: nothing new is taken, everything that is there is finished, nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from celery.backends.redis_store import RedisStore
from celery.brokers.redis import RedisBroker
from celery.exceptions import OperationalError
from celery.ports import BackendConfig, BrokerConfig, Settled
from tests.contracts.backend import record, results
from tests.contracts.broker import ids, message, numbers, spec, take, to
from tests.running import wait_until
from tests.servers import RedisServer, redis_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.server

PROGRAMS = redis_programs()


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(program=request.param) as server:
        yield server


def fill(server: RedisServer) -> None:
    """From now on every command that needs memory is refused."""
    server.call("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(Exception, match="OOM"):
        server.call("SET", "more", "x")


def make_room(server: RedisServer) -> None:
    server.call("CONFIG", "SET", "maxmemory", "0")


def test_messages_are_taken_held_and_settled_where_memory_is_full(server: RedisServer) -> None:
    """Draining frees memory, and must not need any: fetch, lease, requeue, dead letters, settlement with its result."""
    config = BrokerConfig(server.url(), {"lease_timeout": 1.0}, node="one")
    broker, store = RedisBroker(config), RedisStore(BackendConfig(server.url()))
    consumer, other = broker.consume([spec("q")]), broker.consume([spec("q")])
    assert consumer.join(store)
    broker.publish(to("q", *(message(i) for i in range(6))))
    fill(server)
    with pytest.raises(OperationalError, match=r"OOM.*reached maxmemory.*start more workers"):
        broker.publish(to("q", message(9)))
    held = take(consumer, 4)
    consumer.reject(held[:1], requeue=True)
    wait_until(lambda: server.call("PTTL", f"celery.1.lease.{consumer.holder}") > 0, "the lease lives")
    score = float(server.call("ZSCORE", "unacked_index", held[1].tag))
    renewals = iter(range(1, 1000))
    wait_until(lambda: next(renewals) > 60 and other.fetch(0, 0.05) == [], "several leases' time has passed")
    assert ids(other.fetch(10, 0.0)) == ["0", "4", "5"]  # and nothing of what `consumer` holds was taken for abandoned
    assert float(server.call("ZSCORE", "unacked_index", held[1].tag)) >= score
    consumer.settle([Settled(held[1], "ack", record("1", meta=b"done"), to("q", message("next")))])
    consumer.settle([Settled(held[2], "requeue")])
    consumer.reject(held[3:], requeue=False)
    assert results(store.load(["1"])) == [b"done"]
    assert [letter.reason for letter in broker.dead_letters.newest("q", 10)] == ["rejected"]
    assert sorted(ids(take(consumer, 2))) == ["2", "next"]
    make_room(server)
    other.close()
    consumer.close()
    assert broker.depth("q") == 5
    broker.close()
    store.close()


def test_a_dead_workers_messages_are_taken_over_where_memory_is_full(server: RedisServer) -> None:
    config = BrokerConfig(server.url(), {"lease_timeout": 1.0})
    broker = RedisBroker(config)
    dying, other = broker.consume([spec("q")]), broker.consume([spec("q")])
    broker.publish(to("q", *(message(i) for i in range(3))))
    take(dying, 3)
    fill(server)
    dying._keeper.stop()
    assert ids(take(other, 3)) == numbers(3)
    other.close()
    dying.close()
    broker.close()


def test_results_that_find_no_memory_are_refused_and_stored_later(server: RedisServer) -> None:
    """Where they are not part of a settlement, for messages or results are elsewhere: the worker keeps and repeats."""
    broker, store = RedisBroker(BrokerConfig(server.url())), RedisStore(BackendConfig(server.url()))
    consumer = broker.consume([spec("q")])
    assert consumer.join(store)
    broker.publish(to("q", message(1)))
    (delivery,) = take(consumer, 1)
    consumer.ack([delivery])
    consumer.flush()
    fill(server)
    with pytest.raises(OperationalError, match=r"OOM.*reached maxmemory"):
        store.save([record("2", meta=b"late")])
    consumer.settle([Settled(delivery, "done", record("1", meta=b"done"))])
    assert results(store.load(["1", "2"])) == [b"done", None]
    make_room(server)
    store.save([record("2", meta=b"late")])
    assert results(store.load(["2"])) == [b"late"]
    consumer.close()
    broker.close()
    store.close()
