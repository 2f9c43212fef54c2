"""Long runs on RabbitMQ: their messages are moved, renewed, settled, given back, lost and inherited."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery.brokers.amqp import AmqpBroker
from celery.brokers.amqp_delay import DelayingConsumer
from celery.ports import BrokerConfig, Publication
from celery.routing import QueueSpec, Route
from tests.contracts.broker import ids, message, numbers, spec, take, to
from tests.contracts.dead_letters import letters, refuse
from tests.flow.engine import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.ports import Delivery
    from tests.servers import RabbitServer

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]

#: Seconds; what is held for a third of it or two is moved.
LEASE = 1.5


@pytest.fixture
def make(rabbit_url: str) -> Iterator[Callable[..., AmqpBroker]]:
    made: list[AmqpBroker] = []

    def make(**options: Any) -> AmqpBroker:
        options = {"confirm_publish": True, "heartbeat": 2, "lease_timeout": LEASE, **options}
        made.append(AmqpBroker(BrokerConfig(rabbit_url, options)))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


def holding(broker: AmqpBroker, n: int, queue: QueueSpec | None = None) -> tuple[DelayingConsumer, list[Delivery]]:
    """A consumer that has held n messages for so long that they are moved."""
    queue = queue or spec("q")
    broker.publish([Publication(message(i), Route("", "q", queue)) for i in range(n)])
    consumer = broker.consume([queue])
    assert isinstance(consumer, DelayingConsumer)
    held = take(consumer, n)
    moved(consumer, held)
    return consumer, held


def moved(consumer: DelayingConsumer, held: Sequence[Delivery]) -> None:
    leases = consumer._leases
    assert leases is not None
    until(lambda: set(leases.kept) >= {delivery.tag for delivery in held}, "they are moved")


def queues(server: RabbitServer, url: str) -> list[str]:
    """Those of ours in which something is kept."""
    found = server.call("GET", f"queues/{url.rpartition('/')[2]}?columns=name")
    return [one["name"] for one in found if one["name"].startswith("celery.held.")]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_they_outlive_the_lease_and_the_connection_and_are_settled_once(
    kind: str, make: Callable[..., AmqpBroker], rabbit_session: RabbitServer, rabbit_url: str
) -> None:
    broker = make()
    arguments = {"x-queue-type": "quorum"} if kind == "quorum" else {}
    consumer, held = holding(broker, 3, QueueSpec("q", "q", routing_key="q", arguments=arguments))
    assert consumer._link is not None
    consumer._link.hang_up()
    since = time.monotonic()
    until(lambda: time.monotonic() > since + 2 * LEASE and not consumer.fetch(0, 0.1), "two leases have passed")
    assert consumer.lost() == []
    assert not any(delivery.lost for delivery in held)
    assert broker.depth("q") == 0
    consumer.ack(held)
    consumer.flush()
    until(lambda: not queues(rabbit_session, rabbit_url), "nothing is left")
    consumer.close()
    assert broker.depth("q") == 0


def test_a_consumer_timeout_does_not_hit_them(make: Callable[..., AmqpBroker], rabbit_session: RabbitServer) -> None:
    """PAINS 11: the server closes channels on which something is unacknowledged for longer than that."""
    with rabbit_session.consumer_timeout(2000):
        broker = make()
        consumer, held = holding(broker, 2)
        since = time.monotonic()
        until(lambda: time.monotonic() > since + 5 and not consumer.fetch(1, 0.1), "the timeout has passed twice")
        assert consumer._generation == 1
        consumer.ack(held)
        consumer.close()
        assert broker.depth("q") == 0


def test_what_is_young_goes_with_the_connection(make: Callable[..., AmqpBroker]) -> None:
    """Half is moved: that is ours, the other half anybody's."""
    broker = make()
    consumer, held = holding(broker, 2)
    broker.publish(to("q", message("young")))
    young = take(consumer, 1)
    assert consumer._link is not None
    consumer._link.hang_up()
    assert consumer.lost() == young
    again = take(consumer, 1)
    assert ids(again) == ["young"]
    consumer.ack([*held, *young, *again])
    consumer.close()
    assert broker.depth("q") == 0


def test_a_frozen_worker_has_lost_them_and_changes_nothing(make: Callable[..., AmqpBroker]) -> None:
    broker = make()
    consumer, held = holding(broker, 2)
    leases = consumer._leases
    assert leases is not None
    with leases.lock:  # its thread gets no further than that
        until(lambda: broker.depth("q") == 2, "the lease is over")
        other = broker.consume([spec("q")])
        again = take(other, 2)
    assert sorted((one.message.id, one.message.redelivered, one.message.deaths) for one in again if one.message) == [
        ("0", True, 1),
        ("1", True, 1),
    ]
    assert all(set(one.message.headers) == {"task", "id"} for one in again if one.message)
    lost: list[Delivery] = []
    until(lambda: lost.extend(consumer.lost()) or len(lost) == 2, "it is told")
    assert lost == held
    consumer.ack(held)
    consumer.reject(held, requeue=True)
    other.ack(again)
    consumer.close()
    other.close()
    assert broker.depth("q") == 0


def test_given_back_in_good_order_nobody_is_blamed(make: Callable[..., AmqpBroker]) -> None:
    broker = make()
    consumer, held = holding(broker, 3)
    held[2].died = True
    consumer.reject(held[1:], requeue=True)
    again = take(consumer, 2)
    assert [(one.message.id, one.message.redelivered, one.message.deaths) for one in again if one.message] == [
        ("1", True, 0),
        ("2", True, 1),
    ]
    consumer.ack(again)
    consumer.close()
    other = broker.consume([spec("q")])
    rest = take(other, 1)
    assert ids(rest) == ["0"]
    assert rest[0].message is not None
    assert rest[0].message.deaths == 0
    other.ack(rest)
    other.close()


def test_rejected_they_are_dead_letters(make: Callable[..., AmqpBroker]) -> None:
    broker = make()
    consumer, held = holding(broker, 2)
    refuse(consumer, held[:1], "no good")
    assert [letter.reason for letter in letters(broker)] == ["no good"]
    consumer.ack(held[1:])
    consumer.close()
    assert broker.depth("q") == 0


def test_deferred_they_go_back(make: Callable[..., AmqpBroker]) -> None:
    broker = make()
    consumer, held = holding(broker, 1)
    consumer.defer([(held[0], time.time() + 60)])
    assert ids(take(consumer, 1)) == ["0"]
    consumer.close()


def test_expiration_and_deaths_of_before_go_along(make: Callable[..., AmqpBroker]) -> None:
    """A message that expires in its queue does not expire while it runs."""
    broker = make()
    fleeting = message("f")
    fleeting.properties["expiration"] = "700"
    broker.publish(to("q", fleeting))
    consumer = broker.consume([spec("q")])
    held = take(consumer, 1)
    held[0].died = True
    consumer.reject(held, requeue=True)
    held = take(consumer, 1)
    assert isinstance(consumer, DelayingConsumer)
    moved(consumer, held)
    since = time.monotonic()
    until(lambda: time.monotonic() > since + LEASE and not consumer.fetch(0, 0.1), "it would have expired")
    assert (consumer.lost(), broker.depth("q")) == ([], 0)
    consumer.reject(held, requeue=True)
    (again,) = take(consumer, 1)
    assert again.message is not None
    assert (again.message.deaths, again.message.redelivered) == (1, True)
    consumer.ack([again])
    consumer.close()


def test_threads_and_connections_end_with_the_consumer(
    make: Callable[..., AmqpBroker], rabbit_session: RabbitServer, rabbit_url: str
) -> None:
    before = set(threading.enumerate())
    broker = make()
    consumer, _ = holding(broker, 1)
    consumer.close()
    until(lambda: not (set(threading.enumerate()) - before), "its threads have ended")
    assert queues(rabbit_session, rabbit_url) == []
    assert numbers(1) == ids(take(broker.consume([spec("q")]), 1))
