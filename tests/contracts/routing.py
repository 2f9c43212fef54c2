"""What every `Broker` does with exchanges and bindings: routing does not depend on the broker (`[route.13]`)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery.ports import Deferring, Depth, Publication
from celery.routing import Binding, ExchangeSpec, QueueSpec, Route
from tests.contracts.broker import DEADLINE, ids, message, nothing, take
from tests.contracts.processes import Child

if TYPE_CHECKING:
    from celery.ports import Broker
    from tests.contracts.broker import MakeBroker

TOPIC = ExchangeSpec("world", "topic")
FANOUT = ExchangeSpec("everybody", "fanout")
HEADERS = ExchangeSpec("papers", "headers")


def queue(name: str, *bindings: Binding, **options: Any) -> QueueSpec:
    return QueueSpec(name, bindings=bindings, **options)


def broadcast(name: str) -> QueueSpec:
    """As kombu's `Broadcast` is: each worker's own, gone with him, and bound by the default routing key."""
    return QueueSpec(name, "everybody", "fanout", "celery", auto_delete=True, declare=False)


def told(id: str | int, exchange: str, key: str = "", kind: str = "", **headers: Any) -> list[Publication]:
    return [Publication(message(id, **headers), Route(exchange, key, exchange_type=kind))]


class RoutingContract:
    """Subclass it and override `make_broker`."""

    #: False: the messages live and die with one process.
    crosses_processes = True
    #: What a queue says of options that its broker passes over; "" where it passes over none.
    passed_over = "no effect on"

    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        raise NotImplementedError

    @pytest.fixture
    def broker(self, make_broker: MakeBroker) -> Broker:
        return make_broker("one@host")

    @pytest.fixture
    def other(self, make_broker: MakeBroker) -> Broker:
        return make_broker("two@host")

    # ------------------------------------------------------------------------------------------- kinds of exchanges

    @pytest.mark.slow
    def test_words_of_topics(self, broker: Broker) -> None:
        usa, news, all_ = (broker.consume([queue(key, Binding(TOPIC, key))]) for key in ("usa.#", "*.news", "#"))
        keys = ["usa", "usa.news", "usa.news.today", "de.news", "news", "de"]
        for key in keys:
            broker.publish(told(key, "world", key, "topic"))
        assert ids(take(usa, 3)) == ["usa", "usa.news", "usa.news.today"]
        assert ids(take(news, 2)) == ["usa.news", "de.news"]
        assert ids(take(all_, 6)) == keys
        nothing(usa)
        nothing(news)

    def test_a_queue_bound_several_times_gets_one_copy(self, broker: Broker) -> None:
        bindings = [Binding(TOPIC, "usa.#"), Binding(TOPIC, "#.news"), Binding(ExchangeSpec("media"), "usa.news")]
        consumer = broker.consume([queue("q", *bindings)])
        broker.publish(told(1, "world", "usa.news", "topic"))
        broker.publish(told(2, "media", "usa.news", "direct"))
        broker.publish(told(3, "world", "de.news", "topic"))
        assert ids(take(consumer, 3)) == ["1", "2", "3"]
        nothing(consumer)

    @pytest.mark.slow
    def test_fanout_reaches_every_queue_whatever_the_key(self, broker: Broker, other: Broker) -> None:
        one = broker.consume([queue("one", Binding(FANOUT))])
        two = other.consume([queue("two", Binding(FANOUT, "some.key"))])
        broker.publish(told(1, "everybody", "", "fanout"))
        broker.publish(told(2, "everybody", "other.key", "fanout"))
        for consumer in (one, two):
            assert ids(take(consumer, 2)) == ["1", "2"]
            nothing(consumer)

    @pytest.mark.slow
    def test_headers(self, broker: Broker) -> None:
        wanted = {
            "all": {"x-match": "all", "format": "pdf", "pages": 3},
            "default": {"format": "pdf"},
            "any": {"x-match": "any", "format": "pdf", "pages": 3},
            "present": {"x-match": "all", "format": None},
        }
        consumers = {
            name: broker.consume([queue(name, Binding(HEADERS, "", arguments))]) for name, arguments in wanted.items()
        }
        sent: dict[str, dict[str, Any]] = {
            "both": {"format": "pdf", "pages": 3},
            "pdf": {"format": "pdf", "pages": 4},
            "three": {"pages": 3, "format": "odt"},
            "text": {"format": "odt", "pages": "3"},
            "neither": {"pages": 5},
        }
        for name, headers in sent.items():
            broker.publish(told(name, "papers", "ignored", "headers", **headers))
        expected = {
            "all": ["both"],
            "default": ["both", "pdf"],
            "any": ["both", "pdf", "three"],
            "present": ["both", "pdf", "three", "text"],
        }
        for name, consumer in consumers.items():
            assert ids(take(consumer, len(expected[name]))) == expected[name]
            nothing(consumer)

    def test_a_queue_that_is_given_is_declared_for_whoever_publishes(self, broker: Broker) -> None:
        pdf = queue("pdf", Binding(HEADERS, "", {"format": "pdf"}))
        usa = queue("usa", Binding(TOPIC, "usa.#"))
        broker.publish(
            [
                Publication(message(1, format="pdf"), Route("papers", "", pdf, "headers")),
                Publication(message(2), Route("world", "usa.rain", usa, "topic")),
            ]
        )
        assert ids(take(broker.consume([pdf]), 1)) == ["1"]
        assert ids(take(broker.consume([usa]), 1)) == ["2"]

    def test_who_is_bound_later_gets_what_comes_later(self, broker: Broker, other: Broker) -> None:
        """Also from those who have published to the exchange before."""
        first = broker.consume([queue("first", Binding(TOPIC, "a"))])
        broker.publish(told(1, "world", "a", "topic"))
        second = other.consume([queue("second", Binding(TOPIC, "#"))])
        broker.publish(told(2, "world", "a", "topic"))
        assert ids(take(first, 2)) == ["1", "2"]
        assert ids(take(second, 1)) == ["2"]

    def test_what_reaches_no_queue_is_told_of_once(self, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
        consumer = broker.consume([queue("q", Binding(TOPIC, "a"))])
        with caplog.at_level(logging.WARNING, "celery"):
            for number in range(3):
                broker.publish(told(number, "world", "b", "topic"))
            broker.publish(told(9, "world", "a", "topic"))
            assert ids(take(consumer, 1)) == ["9"]
            broker.close()
        (record,) = [one for one in caplog.records if "reached no queue" in one.message]
        assert "Message 0 " in record.message
        assert "'world'" in record.message
        assert "'b'" in record.message

    # ---------------------------------------------------------------------------------------------------- broadcast

    @pytest.mark.slow
    def test_everybody_gets_a_copy_and_those_who_are_away_miss_it(self, broker: Broker, other: Broker) -> None:
        """[route.14]"""
        one = broker.consume([broadcast("bcast.1"), QueueSpec("work")])
        two = other.consume([broadcast("bcast.2"), QueueSpec("work")])
        broker.publish([Publication(message(1), Route("everybody", "celery", broadcast("bcast.0"), "fanout"))])
        (mine,), (yours,) = take(one, 1), take(two, 1)
        assert (ids([mine]), mine.queue) == (["1"], "bcast.1")
        assert (ids([yours]), yours.queue) == (["1"], "bcast.2")
        one.ack([mine])
        two.reject([yours], requeue=True)
        two.flush()
        nothing(one)
        (again,) = take(two, 1)
        assert again.message is not None
        assert again.message.redelivered
        two.ack([again])
        two.close()
        broker.publish(told(2, "everybody", "celery", "fanout"))
        assert ids(take(one, 1)) == ["2"]
        three = other.consume([broadcast("bcast.2")])
        nothing(three)
        broker.publish(told(3, "everybody", "celery", "fanout"))
        (third,) = take(three, 1)
        assert ids([third]) == ["3"]
        if isinstance(three, Deferring):
            three.defer([(third, time.time() + 0.1)])
            (third,) = take(three, 1)
            assert (ids([third]), third.queue) == (["3"], "bcast.2")

    def test_broadcast_queues_at_run_time(self, broker: Broker) -> None:
        consumer = broker.consume([QueueSpec("work")])
        consumer.add_queue(broadcast("bcast.1"))
        broker.publish(told(1, "everybody", "celery", "fanout"))
        assert ids(take(consumer, 1)) == ["1"]
        consumer.cancel_queue("bcast.1")
        broker.publish(told(2, "everybody", "celery", "fanout"))
        nothing(consumer)

    def test_a_killed_worker_leaves_no_queue_of_his_own(self, broker: Broker, make_broker: MakeBroker) -> None:
        """Once somebody has found him dead, nothing gathers for him any more."""
        if not self.crosses_processes:
            pytest.skip("lives in one process")
        child = Child(lambda: make_broker("dead@host").consume([broadcast("bcast.dead")]))
        child.done()
        consumer = broker.consume([broadcast("bcast.alive")])
        broker.publish(told(0, "everybody", "celery", "fanout"))
        child.kill()
        assert isinstance(broker, Depth)
        end, number = time.monotonic() + DEADLINE, 0
        while True:
            number += 1
            broker.publish(told(number, "everybody", "celery", "fanout"))
            consumer.fetch(10, 0.2)
            if broker.depth("bcast.dead") == 0:
                break
            assert time.monotonic() < end, "messages are still kept for the dead"

    def test_nobody_is_there(self, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "celery"):
            broker.publish([Publication(message(1), Route("everybody", "celery", broadcast("bcast.0"), "fanout"))])
            broker.close()
        assert [one for one in caplog.records if "reached no queue" in one.message]

    # --------------------------------------------------------------------------------------------- options of queues

    def test_options_without_effect_are_named(self, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
        """[route.22]"""
        arguments = {"x-message-ttl": 600_000, "x-max-length": 1000, "x-expires": 600_000}
        with caplog.at_level(logging.WARNING, "celery"):
            broker.consume([QueueSpec("short", arguments=arguments)])
        said = [one.message for one in caplog.records if "short" in one.message]
        assert [self.passed_over in line for line in said] == ([True] if self.passed_over else [])
        assert all(name in line for line in said for name in arguments)

    def test_what_is_not_to_be_declared_is_not(self, broker: Broker) -> None:
        """[route.22] no_declare: others have declared it, with bindings of their own."""
        broker.declare([queue("q", Binding(TOPIC, "a"))])
        consumer = broker.consume([queue("q", Binding(TOPIC, "b"), no_declare=True)])
        broker.publish(told(1, "world", "b", "topic"))
        broker.publish(told(2, "world", "a", "topic"))
        assert ids(take(consumer, 1)) == ["2"]
        nothing(consumer)
