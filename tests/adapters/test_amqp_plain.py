"""AMQP 0-9-1 as the standard has it, without RabbitMQ's extensions: nothing is used that was not granted."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from celery import Celery
from celery.brokers.amqp import AmqpBroker
from celery.exceptions import ImproperlyConfigured
from celery.ports import BrokerConfig, Deferring
from tests.adapters.plain_amqp import PlainProxy
from tests.contracts.broadcasting import ear, hear, notice
from tests.contracts.broker import DEADLINE, ids, message, numbers, spec, take, to
from tests.embedded import working
from tests.flow.engine import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]


@pytest.fixture
def proxy(rabbit_url: str) -> Iterator[PlainProxy]:
    proxy = PlainProxy(urlsplit(rabbit_url).port or 5672)
    yield proxy
    proxy.close()
    assert proxy.used == []


@pytest.fixture
def url(proxy: PlainProxy, rabbit_url: str) -> str:
    parts = urlsplit(rabbit_url)
    return parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")).geturl()


@pytest.fixture
def broker(url: str) -> Iterator[AmqpBroker]:
    broker = AmqpBroker(BrokerConfig(url))
    yield broker
    broker.close()


def test_messages_go_and_come(broker: AmqpBroker) -> None:
    broker.publish(to("q", *(message(i) for i in range(40))))
    until(lambda: broker.depth("q") == 40, "all are there")
    consumer = broker.consume([spec("q")])
    held = take(consumer, 40, at_once=9)
    assert ids(held) == numbers(40)
    consumer.ack(held[:38])
    consumer.reject(held[38:39], requeue=True)
    consumer.reject(held[39:], requeue=False)  # dropped: nothing keeps it safely
    held = take(consumer, 1)
    assert [(one.message.id, one.message.redelivered, one.message.deaths) for one in held if one.message] == [
        ("38", True, 0)
    ]
    consumer.close()
    assert broker.depth("celery.dead.letters.q") == 0
    assert broker.purge("q") == 1


def test_what_is_held_keeps_nothing_from_coming(broker: AmqpBroker) -> None:
    """Messages that come while one waits, from each of two queues, while others are held that came so too."""
    consumer = broker.consume([spec("a"), spec("b")])
    for i, name in enumerate("abab"):
        publishing = threading.Timer(0.05, broker.publish, [to(name, message(i))])
        publishing.start()
        began = time.monotonic()
        assert ids(consumer.fetch(9, DEADLINE)) == [str(i)]
        assert time.monotonic() - began < DEADLINE / 2
        publishing.join()
    consumer.close()


def test_nothing_parks(broker: AmqpBroker) -> None:
    consumer = broker.consume([spec("q")])
    assert not isinstance(consumer, Deferring)
    consumer.close()


def test_notices(broker: AmqpBroker) -> None:
    listener = broker.listen([ear("n.pidbox")])
    broker.tell([notice("one"), notice("two")])
    assert hear(listener, 2) == ["one", "two"]
    listener.close()


def test_confirms_cannot_be_had(url: str) -> None:
    broker = AmqpBroker(BrokerConfig(url, {"confirm_publish": True}))
    with pytest.raises(ImproperlyConfigured, match="confirm_publish needs publisher confirms"):
        broker.publish(to("q", message(1)))
    broker.close()


def test_a_worker_with_delays_and_refusals(url: str) -> None:
    app = Celery("plain", broker=url, backend="cache+memory://plain", set_as_current=False)

    @app.task(name="add", acks_late=True)
    def add(x: int, y: int) -> int:
        return x + y

    with working(app) as worker:
        app.send_task("nobody knows it")
        assert app.send_task("add", (1, 1), countdown=0.5).get(timeout=DEADLINE) == 2
        assert app.control.ping(timeout=DEADLINE, limit=1) == [{worker.hostname: {"ok": "pong"}}]
