"""kombu's transports: how they are named, what they need, and what comes of those that wait or lose their server."""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, memory

from celery import Celery
from celery.app.adapters import BROKERS, by_kombu
from celery.brokers.amqp import AmqpBroker
from celery.brokers.kombu import KombuBroker, KombuFanoutBroker, kombu_broker
from celery.drivers.kombu import _NEEDS
from celery.exceptions import ImproperlyConfigured
from celery.ports import BrokerConfig
from tests.adapters.kombu_transports import Channel, Transport
from tests.contracts.broker import ids, message, nothing, spec, take, to
from tests.flow.engine import until
from tests.running import Traces

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW = "tests.adapters.kombu_transports:Transport"


def made(url: str | None = None, **settings: Any) -> Celery:
    app = Celery("transports", broker=url, set_as_current=False)
    app.conf.update(settings)
    return app


@pytest.fixture
def slow() -> Iterator[KombuBroker]:
    Transport.begin()
    broker = kombu_broker(BrokerConfig(f"{SLOW}://me:hush@h/v"))
    yield broker
    Channel.goes_on.set()
    Channel.away.clear()
    broker.close()


# -------------------------------------------------------------------------------------------------------------- names


def test_every_transport_of_kombu_has_an_adapter() -> None:
    assert [name for name in TRANSPORT_ALIASES if name not in BROKERS and not by_kombu(name)] == []


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("kombu+memory://", {}),
        ("kombu.transport.memory:Transport://", {}),
        ("kombu.transport.memory:Transport", {}),
        (None, {"broker_transport": "kombu.transport.memory:Transport"}),
        (None, {"broker_transport": memory.Transport}),
        ("amqp://x", {"broker_transport": "kombu+memory"}),
    ],
)
def test_ways_to_name_a_transport(url: str | None, settings: dict[str, Any]) -> None:
    app = made(url, **settings)
    broker = app.assembly.broker
    assert type(broker) is KombuFanoutBroker
    with broker.line() as line:
        assert isinstance(line.connection.transport, memory.Transport)


def test_a_name_that_a_user_has_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, "slow", SLOW)
    Transport.begin()
    broker: Any = made("slow://h").assembly.broker
    broker.publish(to("q", message(1)))
    assert Channel.queues["q"]
    assert type(broker) is KombuBroker  # it has no fanout
    broker.close()


def test_a_class_takes_its_address_from_the_url(slow: KombuBroker) -> None:
    with slow.line() as line:
        given = line.connection
        assert (given.hostname, given.userid, given.password, given.virtual_host) == ("h", "me", "hush", "v")
    theirs = made(f"{SLOW}://me:hush@h/v").connection()
    assert isinstance(theirs.transport, Transport)
    assert (theirs.hostname, theirs.userid, theirs.password, theirs.virtual_host) == ("h", "me", "hush", "v")


def test_options_are_handed_on_as_they_are() -> None:
    broker = made("kombu+memory://", broker_transport_options={"own": [1], "polling_interval": 3}).assembly.broker
    assert isinstance(broker, KombuBroker)
    with broker.line() as line:
        assert line.connection.transport_options == {"own": [1], "polling_interval": 3}
        assert line.connection.transport.polling_interval == 3


def test_librabbitmq_is_amqp_without_the_library() -> None:
    app = made("librabbitmq://u:p@h:99/v")
    assert type(app.assembly.broker) is AmqpBroker
    assert app.connection().as_uri(include_password=True) == "amqp://u:p@h:99/v"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqss://", "did you mean 'sqs'"),
        ("nothing-like-it://", "or one of kombu's transports; got 'nothing-like-it'"),
        ("localhost:5672", "got 'localhost:5672'"),
        ("valkey://", "write redis://"),
    ],
)
def test_unknown_schemes(url: str, said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        _ = made(url).assembly.broker


@pytest.mark.parametrize("scheme", sorted(_NEEDS))
def test_a_package_that_is_missing_is_named_with_what_installs_it(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery.drivers.kombu.find_spec", lambda name: None)
    packages, extra = _NEEDS[scheme]
    with pytest.raises(ImproperlyConfigured) as raised:
        kombu_broker(BrokerConfig(f"{scheme}://user:hush@host"))
    assert packages[0] in str(raised.value)
    assert f"pip install '{extra}'" in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_transport_that_cannot_be_made() -> None:
    with pytest.raises(ImproperlyConfigured, match="cannot be used: ModuleNotFoundError: No module named 'nowhere'"):
        kombu_broker(BrokerConfig("nowhere:Transport://"))


# ------------------------------------------------------------------------------------------- waiting, and being away


def test_who_waits_inside_a_look_keeps_nobody(slow: KombuBroker) -> None:
    """As SQS does for ten seconds: a descriptor still ends the wait."""
    consumer = slow.consume([spec("q")])
    Channel.waits.set()
    read, write = os.pipe()
    threading.Timer(0.05, os.write, (write, b"x")).start()
    began = time.monotonic()
    assert consumer.fetch(1, 20.0, [read]) == []
    assert Channel.waiting.is_set()
    assert time.monotonic() - began < 10
    Channel.waits.clear()
    Channel.goes_on.set()
    slow.publish(to("q", message(1)))
    consumer.ack(take(consumer, 1))
    consumer.close()
    os.close(read)
    os.close(write)
    assert slow.depth("q") == 0


@pytest.mark.slow
def test_whoever_ends_during_a_long_look_is_not_kept(slow: KombuBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What he held goes back when the look ends; no thread and no descriptor stay."""
    monkeypatch.setattr("celery.brokers.kombu_courier._PATIENCE", 0.05)
    traces = Traces()
    slow.publish(to("q", message(1)))
    consumer = slow.consume([spec("q")])
    take(consumer, 1)
    Channel.waits.set()
    assert consumer.fetch(1, 0.05) == []
    consumer.close()
    assert Channel.waiting.is_set()
    assert slow.depth("q") == 0
    Channel.waits.clear()
    Channel.goes_on.set()
    until(lambda: slow.depth("q") == 1, "it is back")
    slow.close()
    until(lambda: not traces.new, "the thread has ended")


def test_nobody_holds_more_than_he_asked_for(slow: KombuBroker) -> None:
    slow.publish(to("q", *(message(i) for i in range(9))))
    consumer = slow.consume([spec("q")])
    held = take(consumer, 2, at_once=1)
    assert slow.depth("q") == 7
    held += take(consumer, 3)
    assert slow.depth("q") == 4
    assert ids(held) == ["0", "1", "2", "3", "4"]
    consumer.ack(held)
    consumer.close()


def test_a_server_that_goes_away_and_comes_back(slow: KombuBroker) -> None:
    """What was held is lost, which its holder is told once; and nothing of it says the password."""
    slow.publish(to("q", message(1)))
    consumer = slow.consume([spec("q")])
    held = take(consumer, 1)
    Channel.away.set()
    with pytest.raises(OperationalError, match=r"me:\*\*@h.*the server is away") as raised:
        consumer.fetch(1, 20.0)
    assert "hush" not in str(raised.value)
    with pytest.raises(OperationalError):
        slow.publish(to("q", message(2)))
    assert consumer.lost() == held
    assert held[0].lost
    assert consumer.lost() == []
    consumer.ack(held)
    Channel.away.clear()
    slow.publish(to("q", message(3)))
    again = take(consumer, 1)
    assert ids(again) == ["3"]
    consumer.ack(again)
    consumer.flush()
    consumer.close()


def test_a_server_that_is_away_at_first(slow: KombuBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(Transport, "create_channel", refuse)
    traces = Traces()
    with pytest.raises(OperationalError, match="nobody listens"):
        slow.consume([spec("q")])
    assert not traces.new


def test_a_consumer_leaves_no_thread_and_no_descriptor(slow: KombuBroker) -> None:
    slow.consume([spec("q")]).close()
    traces = Traces()
    for _ in range(3):
        slow.consume([spec("q")]).close()
    assert not traces.new


def test_the_message_is_as_kombu_writes_it(slow: KombuBroker) -> None:
    sent = message(1, priority=4)
    slow.publish(to("q", sent))
    (payload,) = Channel.queues["q"]
    assert json.loads(json.dumps(payload)) == payload
    assert payload["headers"] == sent.headers
    assert (payload["content-type"], payload["content-encoding"]) == ("application/json", "utf-8")
    properties = payload["properties"]
    assert properties.pop("delivery_tag")
    assert properties == {
        "delivery_mode": 2,
        "priority": 4,
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": "q"},
    }


def test_what_is_compressed_is_handed_on_as_it_was_before(slow: KombuBroker) -> None:
    """kombu undoes it; what it cannot undo is refused, and can be settled."""
    slow.publish(to("q", message(1, body=zlib.compress(b"[[], {}, {}]"), compression="application/x-gzip")))
    slow.publish(to("q", message(2, body=b"junk", compression="application/x-gzip")))
    slow.publish(to("q", message(3, body=b"junk", compression="unheard of")))
    consumer = slow.consume([spec("q")])
    good, *bad = take(consumer, 3)
    assert good.message is not None
    assert (good.message.body, "compression" in good.message.headers) == (b"[[], {}, {}]", False)
    assert [one.message for one in bad] == [None, None]
    assert ["decompress" in one.error for one in bad] == [True, True]
    consumer.ack([good])
    consumer.reject(bad, requeue=False)
    consumer.close()
    assert slow.depth("q") == 0


def test_queues_are_served_in_turn_and_may_change(slow: KombuBroker) -> None:
    slow.publish([*to("a", *(message(f"a{i}") for i in range(4))), *to("b", *(message(f"b{i}") for i in range(4)))])
    consumer = slow.consume([spec("a"), spec("b")])
    assert sorted(ids(take(consumer, 4))) == ["a0", "a1", "b0", "b1"]
    consumer.cancel_queue("b")
    assert ids(take(consumer, 2)) == ["a2", "a3"]
    nothing(consumer)
    consumer.close()


def test_connections_are_bounded_and_waiting_ends() -> None:
    app = made("kombu+memory://", broker_pool_limit=1, broker_pool_acquire_timeout=0.05)
    broker = app.assembly.broker
    assert isinstance(broker, KombuBroker)
    with broker.line(), pytest.raises(OperationalError, match=r"all 1 connections .* broker_pool_acquire_timeout"):
        broker.publish(to("bounded", message(1)))
    broker.publish(to("bounded", message(2)))
    assert broker.purge("bounded") == 1
    app.close()


@pytest.mark.parametrize("limit", [0, None])
def test_connections_may_be_kept_by_nobody(limit: int | None) -> None:
    broker = made("kombu+memory://", broker_pool_limit=limit).assembly.broker
    assert isinstance(broker, KombuBroker)
    with broker.line() as one, broker.line() as two:
        assert one is not two
    assert broker._idle == []


@pytest.mark.server
@pytest.mark.xdist_group("rabbit-adapters")
def test_a_transport_that_is_not_one_of_kombu_s_own(rabbit_url: str) -> None:
    """py-amqp's channel is no virtual one: messages are asked for, one by one."""
    broker = kombu_broker(BrokerConfig(f"kombu+py{rabbit_url}"))
    broker.publish([*to("a", *(message(i) for i in range(4))), *to("b", message("b"))])
    until(lambda: broker.depth("a") == 4 and broker.depth("b") == 1, "all are there")
    consumer = broker.consume([spec("a"), spec("b")])
    held = take(consumer, 3)
    assert ids(held) == ["0", "b", "1"]
    consumer.reject(held[:1], requeue=True)
    consumer.ack(held[1:])
    again = take(consumer, 3)
    assert sorted((one.message.id, one.message.redelivered) for one in again if one.message) == [
        ("0", True),
        ("2", False),
        ("3", False),
    ]
    consumer.close()
    until(lambda: broker.depth("a") == 3, "what was held is back")
    assert broker.purge("a") == 3
    assert broker.depth("never seen") == broker.purge("never seen") == 0
    broker.close()
