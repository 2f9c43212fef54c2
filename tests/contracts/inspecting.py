"""What every broker does that lets its queues be looked at (`celery.ports.Inspectable`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from celery.message import Message
from celery.ports import Deferring, Inspectable, Inspection, QueueStats
from tests.contracts.broker import ids, message, nothing, numbers, spec, take, to

if TYPE_CHECKING:
    from celery.ports import Broker, Consumer
    from tests.contracts.broker import MakeBroker, PutRaw


def named(inspection: Inspection, *queues: str) -> dict[str, QueueStats]:
    return {one.name: one for one in inspection.stats(queues)}


def park(consumer: Consumer, n: int, after: float) -> None:
    assert isinstance(consumer, Deferring)
    now = time.time()
    consumer.defer([(delivery, now + after + i) for i, delivery in enumerate(take(consumer, n))])


class InspectingContract:
    """Subclass it and override `make_broker` and `put_raw`."""

    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        raise NotImplementedError

    @pytest.fixture
    def put_raw(self, broker: Broker) -> PutRaw:
        raise NotImplementedError

    @pytest.fixture
    def broker(self, make_broker: MakeBroker) -> Broker:
        return make_broker("one@host")

    @pytest.fixture
    def inspection(self, make_broker: MakeBroker) -> Inspection:
        other = make_broker("two@host")
        assert isinstance(other, Inspectable)
        return other.inspection

    def test_queues_that_nobody_knows_are_empty(self, inspection: Inspection) -> None:
        assert inspection.stats(["a", "b"]) == [QueueStats("a"), QueueStats("b")]
        assert inspection.stats([]) == []
        assert inspection.peek("a", 10) == []
        assert inspection.parked([], 10) == []
        assert inspection.cancel(["1", "x", ""]) == []

    def test_what_waits_is_held_and_is_parked(self, broker: Broker, inspection: Inspection) -> None:
        broker.publish(to("q", *(message(i) for i in range(9))))
        broker.publish(to("other", message("far")))
        consumer = broker.consume([spec("q")])
        park(consumer, 2, 1000)
        held = take(consumer, 3)
        seen = named(inspection, "q", "none")
        assert (seen["q"].waiting, seen["q"].held, seen["q"].parked) == (4, 3, 2)
        assert seen["none"] == QueueStats("none")
        assert list(seen)[:2] == ["q", "none"]
        consumer.ack(held[:1])
        consumer.reject(held[1:2], requeue=True)
        consumer.flush()
        seen = named(inspection, "q")
        assert (seen["q"].waiting, seen["q"].held, seen["q"].parked) == (5, 1, 2)

    def test_queues_that_were_not_asked_for(self, broker: Broker, inspection: Inspection) -> None:
        broker.publish([*to("a", message(1)), *to("b", message(2))])
        consumer = broker.consume([spec("a"), spec("b")])
        take(consumer, 2)
        seen = inspection.stats(["b"])
        assert [(one.name, one.held) for one in seen] == [("b", 1), ("a", 1)]

    def test_when_the_oldest_was_sent(self, broker: Broker, inspection: Inspection) -> None:
        before = time.time()
        broker.publish(to("q", message(1)))
        between = time.time()
        broker.publish(to("q", message(2)))
        oldest = named(inspection, "q")["q"].oldest
        assert oldest is not None
        assert before - 0.001 <= oldest <= between + 0.001
        consumer = broker.consume([spec("q")])
        (first,) = take(consumer, 1)
        consumer.ack([first])
        consumer.flush()
        oldest = named(inspection, "q")["q"].oldest
        assert oldest is not None
        assert between - 0.001 <= oldest <= time.time() + 0.001

    def test_messages_of_strangers_have_no_age(self, broker: Broker, inspection: Inspection, put_raw: PutRaw) -> None:
        put_raw("q", b"noise")
        put_raw("q", b'{"properties": {"delivery_tag": 7}}')
        put_raw("q", b'{"properties": {"delivery_tag": "5f0c"}}')
        seen = named(inspection, "q")["q"]
        assert (seen.waiting, seen.oldest) == (3, None)
        assert [one.envelope for one in inspection.peek("q", 1)] == [b"noise"]

    def test_peeking_takes_nothing(self, broker: Broker, inspection: Inspection) -> None:
        broker.publish(to("q", *(message(i) for i in range(5))))
        for _ in range(2):
            seen = inspection.peek("q", 3)
            assert [Message.from_envelope(one.envelope).id for one in seen] == numbers(3)
            assert {one.queue for one in seen} == {"q"}
            assert {one.due for one in seen} == {None}
        assert len(inspection.peek("q", 100)) == 5
        assert len({one.id for one in inspection.peek("q", 100)}) == 5
        consumer = broker.consume([spec("q")])
        assert ids(take(consumer, 5)) == numbers(5)
        assert inspection.peek("q", 3) == []

    def test_peeking_in_the_order_of_urgency(self, broker: Broker, inspection: Inspection) -> None:
        for priority in (9, 0, 3, 0):
            broker.publish(to("q", message(f"p{priority}", priority=priority)))
        seen = [Message.from_envelope(one.envelope).id for one in inspection.peek("q", 3)]
        assert seen == ["p0", "p0", "p3"]
        consumer = broker.consume([spec("q")])
        assert ids(take(consumer, 4)) == ["p0", "p0", "p3", "p9"]

    def test_parked_messages_page_by_page(self, broker: Broker, inspection: Inspection) -> None:
        broker.publish([*to("a", *(message(i) for i in range(3))), *to("b", message("b"))])
        a, b = broker.consume([spec("a")]), broker.consume([spec("b")])
        park(a, 3, 1000)
        park(b, 1, 500)
        everything = inspection.parked([], 10)
        assert [Message.from_envelope(one.envelope).id for one in everything] == ["b", "0", "1", "2"]
        assert [one.queue for one in everything] == ["b", "a", "a", "a"]
        assert [one.due for one in everything if one.due] == sorted(one.due for one in everything if one.due)
        assert everything[0].due is not None
        assert 400 < everything[0].due - time.time() <= 500
        assert inspection.parked(["a"], 10) == everything[1:]
        pages, last = [], None
        while page := inspection.parked([], 2, last):
            pages.append(page)
            last = page[-1]
        assert pages == [everything[:2], everything[2:]]

    def test_cancelling(self, broker: Broker, inspection: Inspection) -> None:
        broker.publish(to("q", *(message(i) for i in range(4))))
        consumer = broker.consume([spec("q")])
        park(consumer, 3, 1000)
        parked = inspection.parked([], 10)
        assert inspection.cancel([parked[0].id, parked[2].id, "unknown"]) == [parked[0].id, parked[2].id]
        assert inspection.cancel([parked[0].id]) == []
        assert inspection.parked([], 10) == [parked[1]]
        assert ids(take(consumer, 1)) == ["3"]
        nothing(consumer)
        assert named(inspection, "q")["q"].parked == 1

    def test_what_is_held_or_waits_cannot_be_cancelled(self, broker: Broker, inspection: Inspection) -> None:
        broker.publish(to("q", message(1), message(2)))
        consumer = broker.consume([spec("q")])
        park(consumer, 1, 0.05)
        (parked,) = inspection.parked([], 1)
        held = take(consumer, 2)  # the parked one is due by now, or soon
        assert inspection.cancel([parked.id]) == []
        consumer.ack(held)
        consumer.flush()
        assert named(inspection, "q")["q"] == QueueStats("q")
