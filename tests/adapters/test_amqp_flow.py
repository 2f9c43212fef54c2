"""Messages that come by themselves where there is room for many: as many as there is room for, and from all queues."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from celery.brokers.amqp import AmqpBroker
from celery.ports import BrokerConfig, Publication
from celery.routing import QueueSpec, Route
from tests.contracts.broker import DEADLINE, ids, message, numbers, spec, take
from tests.flow.engine import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.brokers.amqp_consumer import AmqpConsumer
    from celery.ports import Delivery

    MakeAmqp = Callable[..., AmqpBroker]

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]


@pytest.fixture
def make_amqp(rabbit_url: str) -> Iterator[MakeAmqp]:
    made: list[AmqpBroker] = []

    def make() -> AmqpBroker:
        made.append(AmqpBroker(BrokerConfig(rabbit_url, {"confirm_publish": True})))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


def fill(broker: AmqpBroker, queue: str, n: int, first: int = 0) -> None:
    route = Route("", queue, QueueSpec(queue, queue, routing_key=queue))
    broker.publish([Publication(message(first + i), route) for i in range(n)])


def begin(consumer: AmqpConsumer, room: int) -> list[Delivery]:
    """Take until they come by themselves."""
    taken: list[Delivery] = []

    def flows() -> bool:
        taken.extend(consumer.fetch(room - len(taken), 0.1))
        return bool(consumer._flow.width)

    until(flows, "they come by themselves")
    return taken


def test_no_more_than_there_is_room_for(make_amqp: MakeAmqp) -> None:
    """A worker with room for 200, in which runs end a few at a time and not in order."""
    broker = make_amqp()
    fill(broker, "q", 3000)
    consumer = broker.consume([spec("q")])
    running = begin(consumer, 200)
    seen = ids(running)
    while len(seen) < 3000:
        ended, running = running[1::3] + running[:1], [one for i, one in enumerate(running) if i and i % 3 != 1]
        consumer.ack(ended)
        got = consumer.fetch(200 - len(running), DEADLINE)
        assert got, f"{len(seen)} have come, and no more"
        running += got
        assert len(consumer.held) <= 200
        seen += ids(got)
    assert seen == numbers(3000)
    consumer.ack(running)
    consumer.close()
    assert broker.depth("q") == 0


def test_more_room_lets_more_come(make_amqp: MakeAmqp) -> None:
    broker = make_amqp()
    fill(broker, "q", 2000)
    consumer = broker.consume([spec("q")])
    taken = begin(consumer, 50)
    while len(taken) < 2000:
        got = consumer.fetch(2000 - len(taken), DEADLINE)
        assert got, f"{len(taken)} have come without an acknowledgement, and no more"
        taken += got
    assert ids(taken) == numbers(2000)
    consumer.ack(taken)
    consumer.close()


def test_a_part_of_a_message_is_not_silence(make_amqp: MakeAmqp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that ends early, for no whole message has come, does not end the flow."""
    broker = make_amqp()
    fill(broker, "q", 500)
    consumer = broker.consume([spec("q")])
    taken = begin(consumer, 200)
    while len(taken) < 200:
        taken += consumer.fetch(200 - len(taken), DEADLINE)
    link = consumer._link
    assert link is not None
    wait, early = link.wait, [True] * 6

    def ends_early(timeout: float, until_readable: Sequence[int] = ()) -> list[int]:
        if early:
            early.pop()
            link.heard_at = time.monotonic()  # bytes have come
            return []
        return wait(timeout, until_readable)

    monkeypatch.setattr(link, "wait", ends_early)
    width = consumer._flow.width
    consumer.ack(taken)
    taken = consumer.fetch(200, DEADLINE)
    assert not early
    assert taken
    assert consumer._flow.width == width


def test_what_finds_no_room_goes_to_others(make_amqp: MakeAmqp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery.brokers.amqp_consumer._GIVEN_BACK", 0.05)
    broker = make_amqp()
    fill(broker, "q", 400)
    busy = broker.consume([spec("q")])
    taken = begin(busy, 100)
    busy.ack(taken)  # as many come in their place, and now there is no room
    until(lambda: not busy.fetch(0, 0.05) and not busy.held and broker.depth("q") == 400 - len(taken), "they went back")
    other = make_amqp().consume([spec("q")])
    others = take(other, 400 - len(taken))
    assert any(one.message is not None and one.message.redelivered for one in others)
    assert sorted(ids([*taken, *others]), key=int) == numbers(400)
    other.ack(others)
    other.close()
    busy.close()


def test_a_queue_that_fills_later_gets_its_share(make_amqp: MakeAmqp) -> None:
    broker = make_amqp()
    fill(broker, "a", 3000)
    consumer = broker.consume([spec("a"), spec("b")])
    consumer.ack(begin(consumer, 200))
    fill(broker, "b", 1000, first=3000)
    at_once = 0

    def has_its_share() -> bool:
        nonlocal at_once
        got = consumer.fetch(20, DEADLINE)  # slowly, so that the other queue stays full
        at_once = max(at_once, sum(one.queue == "b" for one in got))
        consumer.ack(got)
        return at_once >= 5

    until(has_its_share, "half of them come from there")
    assert broker.depth("a") > 0
    consumer.close()


def test_a_queue_that_is_cancelled_sends_no_more(make_amqp: MakeAmqp) -> None:
    broker = make_amqp()
    fill(broker, "a", 500)
    fill(broker, "b", 500, first=500)
    consumer = broker.consume([spec("a"), spec("b")])
    consumer.ack(begin(consumer, 100))
    consumer.cancel_queue("a")
    while got := consumer.fetch(100, 0.5):
        assert {one.queue for one in got} == {"b"}
        consumer.ack(got)
    assert broker.depth("b") == 0
    assert broker.depth("a") > 0
    consumer.close()
