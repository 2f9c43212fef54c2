"""What is particular to fanout exchanges on Redis: kombu's channels, and lists that go with whoever listens."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery.brokers.redis import RedisBroker
from celery.ports import BrokerConfig, Publication, Settled
from celery.routing import Binding, ExchangeSpec, QueueSpec, Route
from tests.contracts.broker import DEADLINE, ids, message, nothing, take, to
from tests.contracts.processes import Child
from tests.contracts.routing import broadcast, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RedisServer

    MakeBroker = Callable[..., RedisBroker]

pytestmark = pytest.mark.server


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[MakeBroker]:
    made: list[RedisBroker] = []

    def make_broker(**options: Any) -> RedisBroker:
        kinds = {"everybody": "fanout"}
        config = BrokerConfig(
            redis_server.url(), {"lease_timeout": 1.0, **options}, exchange_type_of=lambda name: kinds.get(name, "")
        )
        made.append(RedisBroker(config))
        return made[-1]

    yield make_broker
    for broker in made:
        broker.close()


def test_layout_is_kombus_and_nothing_is_left(make: MakeBroker, redis_server: RedisServer) -> None:
    """[redis.4] [redis.11]"""
    consumer = make().consume([broadcast("bcast.1"), QueueSpec("named", "everybody", "fanout", "celery")])
    members = {b"celery\x06\x16\x06\x16bcast.1", b"celery\x06\x16\x06\x16named"}
    assert set(redis_server.call("SMEMBERS", "_kombu.binding.everybody")) == members
    assert redis_server.call("PUBSUB", "CHANNELS") == [b"/0.everybody"]
    assert redis_server.call("PUBSUB", "NUMPAT") == 1
    assert redis_server.call("PUBLISH", "/0.everybody/celery", "noise") == 1
    broken = take(consumer, 2)
    assert [(one.message, one.error != "") for one in broken] == [(None, True)] * 2
    assert sorted(one.queue for one in broken) == ["bcast.1", "named"]
    consumer.reject(broken, requeue=False)
    assert sorted(make().dead_letters.queues()) == ["bcast.1", "named"]
    consumer.close()
    left = {key for key in redis_server.call("KEYS", "*") if not key.startswith(b"celery.1.dead")}
    assert left == {b"_kombu.binding.everybody", b"_kombu.binding_permanent.everybody"}
    assert redis_server.call("SMEMBERS", "_kombu.binding.everybody") == [b"celery\x06\x16\x06\x16named"]


def test_what_is_put_on_the_list_itself_is_taken_too(make: MakeBroker, redis_server: RedisServer) -> None:
    """By clients of real Celery that have not declared the exchange: they take it for a direct one."""
    consumer = make().consume([broadcast("bcast.1")])
    redis_server.call("LPUSH", "bcast.1", message(1).to_envelope("1"))
    (delivery,) = take(consumer, 1)
    assert (ids([delivery]), delivery.queue) == (["1"], "bcast.1")


def test_a_type_that_the_project_knows_need_not_be_said(make: MakeBroker) -> None:
    """What follows from a run, as that has no more than a name."""
    broker = make()
    consumer = broker.consume([broadcast("bcast.1"), QueueSpec("work")])
    broker.publish(told(1, "everybody", "celery"))
    (delivery,) = take(consumer, 1)
    topic = QueueSpec("topic", bindings=(Binding(ExchangeSpec("t", "topic"), "a.#"),))
    other = broker.consume([topic])
    follow = [*told(2, "everybody", "celery"), *told(3, "t", "a.b"), *told(4, "t", "b"), *to("work", message(5))]
    consumer.settle([Settled(delivery, "ack", None, follow)])
    assert sorted(ids(take(consumer, 2))) == ["2", "5"]
    assert ids(take(other, 1)) == ["3"]
    nothing(other)


def test_copies_that_were_held_are_in_custody(make: MakeBroker, redis_server: RedisServer) -> None:
    """Heard once, one is not lost with a connection; and its priority counts."""
    broker = make()
    consumer = broker.consume([broadcast("bcast.1")])
    for id, priority in (("low", 9), ("high", 0)):
        broker.publish([Publication(message(id, priority=priority), Route("everybody", "celery", None, "fanout"))])
    consumer.fetch(0, 0.3)
    for client in redis_server.call("CLIENT", "LIST").decode().splitlines():
        if f"id={client.split('id=')[1].split()[0]}" and "sub=0" in client and "cmd=client" not in client:
            redis_server.call("CLIENT", "KILL", "ID", client.split("id=")[1].split()[0])
    end = time.monotonic() + DEADLINE
    found: list[str] = []
    while len(found) < 2 and time.monotonic() < end:
        try:
            found += ids(consumer.fetch(1, 0.2))
        except Exception:  # noqa: BLE001 - the line that was cut
            threading.Event().wait(0.05)
    assert found == ["high", "low"]


def test_whoever_finds_a_dead_worker_takes_away_what_was_his(make: MakeBroker, redis_server: RedisServer) -> None:
    broker = make()

    def hold() -> Any:
        consumer = make().consume([broadcast("bcast.dead"), QueueSpec("named", "everybody", "fanout", "celery")])
        make().publish([*told(1, "everybody", "celery", "fanout"), *told(2, "everybody", "celery", "fanout")])
        return consumer, take(consumer, 3)

    child = Child(hold)
    child.done()
    child.kill()
    alive = broker.consume([QueueSpec("work")])
    end = time.monotonic() + DEADLINE
    while any(b"heard" in key or b"transient" in key for key in redis_server.call("KEYS", "*")):
        assert time.monotonic() < end, redis_server.call("KEYS", "*")
        alive.fetch(1, 0.1)
    assert redis_server.call("SMEMBERS", "_kombu.binding.everybody") == [b"celery\x06\x16\x06\x16named"]
    assert redis_server.call("HLEN", "unacked") == 0
    assert redis_server.call("EXISTS", "bcast.dead") == 0
