"""What every `Broker` does (`celery.ports`), whatever it is made of."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from celery.message import Message
from celery.ports import Accompanied, Deferring, Depth, Fenced, Joining, Publication, Settled
from celery.routing import QueueSpec, Route
from tests.contracts.backend import record, results, results_by_id
from tests.contracts.processes import Child, in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from celery.ports import Broker, Consumer, Delivery, ResultBackend

    class MakeBroker(Protocol):
        def __call__(self, node: str = "") -> Broker:
            """A new broker on the test's own fresh storage, each time the same; closed after the test."""

    MakeBackend = Callable[[], ResultBackend | None]
    PutRaw = Callable[[str, bytes], None]

#: Nothing here takes this long unless it is broken.
DEADLINE = 20.0


def spec(name: str) -> QueueSpec:
    return QueueSpec(name, routing_key=name)


def message(id: str | int, *, priority: int = 0, body: bytes = b"[[], {}, {}]", **headers: Any) -> Message:
    return Message(
        {"task": "proj.tasks.add", "id": str(id), **headers},
        body,
        properties={"priority": priority, "delivery_mode": 2},
        routing_key="q",
    )


def to(queue: str, *messages: Message) -> list[Publication]:
    return [Publication(m, Route("", queue, spec(queue))) for m in messages]


def take(consumer: Consumer, n: int, *, at_once: int = 100, deadline: float = DEADLINE) -> list[Delivery]:
    """Fetch until there are n deliveries, never asking for more."""
    end = time.monotonic() + deadline
    taken: list[Delivery] = []
    while len(taken) < n and time.monotonic() < end:
        taken += consumer.fetch(min(at_once, n - len(taken)), 0.2)
    assert len(taken) == n, f"expected {n} deliveries, got {ids(taken)}"
    return taken


def nothing(consumer: Consumer, timeout: float = 0.05) -> None:
    assert ids(consumer.fetch(10, timeout)) == []


def ids(deliveries: Iterable[Delivery]) -> list[str]:
    return [d.message.id if d.message else "?" for d in deliveries]


def numbers(n: int) -> list[str]:
    return [str(i) for i in range(n)]


class BrokerContract:
    """Subclass it, override `make_broker` and `put_raw`, and `make_backend` where results can live beside messages."""

    #: False: the messages live and die with one process.
    crosses_processes = True
    #: Seconds within which the messages of a killed holder are handed to others.
    death_deadline = 10.0
    #: Messages, where it takes many to find something out.
    many = 250
    #: Whether a holder can lose what it holds while it lives, if its consumer is `Fenced`.
    lapses = True
    #: Seconds by which a message may come too late.
    lateness = 10.0

    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        raise NotImplementedError

    @pytest.fixture
    def put_raw(self, broker: Broker) -> PutRaw:
        """A function (queue, bytes) that puts bytes of a stranger on a queue."""
        raise NotImplementedError

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        """Makes the backend that the broker's consumers can join; None where there is none."""
        return lambda: None

    @pytest.fixture
    def broker(self, make_broker: MakeBroker) -> Broker:
        return make_broker("one@host")

    @pytest.fixture
    def other(self, make_broker: MakeBroker) -> Broker:
        return make_broker("two@host")

    # ------------------------------------------------------------------------------------------- publish and fetch

    def test_everything_of_a_message_arrives(self, broker: Broker) -> None:
        sent = Message(
            {"task": "täsk", "id": "1", "eta": None, "retries": 2, "timelimit": [9, 8], "x-own": {"a": [1, "ü", None]}},
            '[["❤"], {}, {}]'.encode(),
            properties={"priority": 3, "correlation_id": "1", "reply_to": "me", "delivery_mode": 2},
            routing_key="q",
        )
        broker.publish(to("q", sent))
        (delivery,) = take(broker.consume([spec("q")]), 1)
        got = delivery.message
        assert got is not None
        assert delivery.queue == "q"
        assert delivery.error == ""
        assert got.headers == sent.headers
        assert got.body == sent.body
        assert (got.task, got.id, got.retries, got.timelimit, got.priority) == ("täsk", "1", 2, (9, 8), 3)
        assert (got.content_type, got.content_encoding) == ("application/json", "utf-8")
        assert (got.exchange, got.routing_key, got.redelivered) == ("", "q", False)
        assert got.properties["correlation_id"] == "1"
        assert got.properties["reply_to"] == "me"

    @pytest.mark.slow
    def test_order_within_a_queue(self, broker: Broker) -> None:
        for i in range(5):
            broker.publish(to("q", message(i)))
        broker.publish(to("q", *(message(i) for i in range(5, self.many))))
        consumer = broker.consume([spec("q")])
        assert ids(take(consumer, self.many, at_once=7)) == numbers(self.many)
        nothing(consumer)

    def test_published_before_anybody_consumed(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", message(1)))
        broker.close()
        assert ids(take(other.consume([spec("q")]), 1)) == ["1"]

    def test_batch_over_several_queues(self, broker: Broker) -> None:
        broker.publish([*to("a", message(1)), *to("b", message(2)), *to("a", message(3))])
        assert ids(take(broker.consume([spec("a")]), 2)) == ["1", "3"]
        assert ids(take(broker.consume([spec("b")]), 1)) == ["2"]

    def test_publishing_nothing(self, broker: Broker) -> None:
        broker.publish([])
        nothing(broker.consume([spec("q")]))

    def test_direct_exchange_reaches_the_bound_queue_only(self, broker: Broker) -> None:
        media = QueueSpec("images", exchange="media", routing_key="image")
        video = QueueSpec("videos", exchange="media", routing_key="video")
        broker.declare([media, video])
        broker.publish([Publication(message(1), Route("media", "image"))])
        broker.publish([Publication(message(2), Route("media", "video", video))])
        assert ids(take(broker.consume([media]), 1)) == ["1"]
        assert ids(take(broker.consume([video]), 1)) == ["2"]

    def test_topic_exchange(self, broker: Broker) -> None:
        usa = QueueSpec("usa", exchange="world", exchange_type="topic", routing_key="usa.#")
        news = QueueSpec("news", exchange="world", exchange_type="topic", routing_key="*.news")
        broker.declare([usa, news])
        for i, key in enumerate(["usa.news", "usa.weather.rain", "de.news", "de.weather"]):
            broker.publish([Publication(message(i), Route("world", key))])
        assert ids(take(broker.consume([usa]), 2)) == ["0", "1"]
        assert ids(take(broker.consume([news]), 2)) == ["0", "2"]

    def test_unicode_and_big(self, broker: Broker) -> None:
        body = b'[["' + os.urandom(300_000).hex().encode() + b'"], {}, {}]'
        broker.publish(to("schöne schlange", message("ü", body=body)))
        (delivery,) = take(broker.consume([spec("schöne schlange")]), 1)
        assert delivery.message is not None
        assert delivery.message.body == body

    def test_each_message_goes_to_one_consumer(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(40))))
        one, two = broker.consume([spec("q")]), other.consume([spec("q")])
        taken: list[str] = []
        for _ in range(10):
            taken += ids(take(one, 2)) + ids(take(two, 2))
        assert sorted(taken, key=int) == numbers(40)

    # ------------------------------------------------------------------------------------------ limits and waiting

    def test_limit(self, broker: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(5))))
        consumer = broker.consume([spec("q")])
        assert len(consumer.fetch(3, 1.0)) == 3
        assert consumer.fetch(0, 0.0) == []
        assert len(consumer.fetch(3, 1.0)) == 2

    @pytest.mark.slow
    def test_timeout(self, broker: Broker) -> None:
        consumer = broker.consume([spec("q")])
        begin = time.monotonic()
        assert consumer.fetch(1, 0.15) == []
        assert time.monotonic() - begin >= 0.14

    def test_timeout_zero_takes_what_is_there(self, broker: Broker) -> None:
        consumer = broker.consume([spec("q")])
        assert consumer.fetch(1, 0.0) == []
        broker.publish(to("q", message(1)))
        assert ids(consumer.fetch(1, 0.0)) == ["1"]

    def test_a_message_wakes_the_waiting(self, broker: Broker, other: Broker) -> None:
        consumer = broker.consume([spec("a"), spec("b")])
        waiting = threading.Event()

        def publish() -> None:
            waiting.wait(DEADLINE)
            other.publish(to("b", message(1)))

        thread = threading.Thread(target=publish)
        thread.start()
        waiting.set()
        assert ids(consumer.fetch(10, DEADLINE)) == ["1"]
        thread.join()

    @pytest.mark.parametrize("limit", [0, 10])
    def test_a_readable_descriptor_ends_the_wait(self, broker: Broker, limit: int) -> None:
        consumer = broker.consume([spec("q")])
        read, write = os.pipe()
        idle, keep = os.pipe()
        thread = threading.Thread(target=os.write, args=(write, b"x"))
        thread.start()
        begin = time.monotonic()
        assert consumer.fetch(limit, DEADLINE, [idle, read]) == []
        assert time.monotonic() - begin < DEADLINE / 2
        assert os.read(read, 1) == b"x"
        thread.join()
        for fd in (read, write, idle, keep):
            os.close(fd)

    def test_messages_come_although_a_descriptor_is_readable(self, broker: Broker) -> None:
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        read, write = os.pipe()
        os.write(write, b"x")
        end = time.monotonic() + DEADLINE
        taken: list[Delivery] = []
        while not taken and time.monotonic() < end:
            taken = consumer.fetch(1, 1.0, [read])
        assert ids(taken) == ["1"]
        os.close(read)
        os.close(write)

    # --------------------------------------------------------------------------------------- queues and priorities

    def test_queues_have_equal_share(self, broker: Broker) -> None:
        for queue in ("a", "b"):
            broker.publish(to(queue, *(message(f"{queue}{i}") for i in range(60))))
        consumer = broker.consume([spec("a"), spec("b")])
        by_batch = [d.queue for d in take(consumer, 40, at_once=10)]
        assert by_batch.count("a") == by_batch.count("b") == 20
        one_by_one = [d.queue for d in take(consumer, 20, at_once=1)]
        assert one_by_one.count("a") == one_by_one.count("b") == 10

    def test_an_empty_queue_leaves_its_share(self, broker: Broker) -> None:
        broker.publish(to("b", *(message(i) for i in range(10))))
        consumer = broker.consume([spec("a"), spec("b"), spec("c")])
        assert ids(take(consumer, 10)) == numbers(10)

    def test_priority_zero_comes_first(self, broker: Broker) -> None:
        for priority in (9, 3, 0, 6):
            broker.publish(to("q", *(message(f"{priority}-{i}", priority=priority) for i in range(2))))
        consumer = broker.consume([spec("q")])
        assert ids(take(consumer, 8, at_once=3)) == [f"{p}-{i}" for p in (0, 3, 6, 9) for i in range(2)]

    def test_priorities_are_looked_at_on_each_fetch(self, broker: Broker) -> None:
        broker.publish(to("q", *(message(i, priority=9) for i in range(4))))
        consumer = broker.consume([spec("q")])
        assert ids(take(consumer, 2)) == ["0", "1"]
        broker.publish(to("q", message("urgent", priority=0)))
        assert ids(take(consumer, 3, at_once=1)) == ["urgent", "2", "3"]

    @pytest.mark.slow
    def test_add_and_cancel_queue(self, broker: Broker) -> None:
        consumer = broker.consume([spec("a")])
        broker.publish(to("b", message(1)))
        nothing(consumer)
        consumer.add_queue(spec("b"))
        consumer.add_queue(spec("b"))
        assert ids(take(consumer, 1)) == ["1"]
        consumer.cancel_queue("b")
        consumer.cancel_queue("never seen")
        broker.publish([*to("b", message(2)), *to("a", message(3))])
        assert ids(take(consumer, 1)) == ["3"]
        nothing(consumer)

    @pytest.mark.slow
    def test_without_any_queue(self, broker: Broker) -> None:
        consumer = broker.consume([])
        assert consumer.fetch(5, 0.01) == []
        consumer.add_queue(spec("a"))
        broker.publish(to("a", message(1)))
        assert ids(take(consumer, 1)) == ["1"]

    def test_purge(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", *(message(i, priority=i % 10) for i in range(11))))
        broker.publish(to("z", message("z")))
        consumer = broker.consume([spec("q")])
        held = take(consumer, 1)
        assert other.purge("q") == 10
        assert other.purge("q") == 0
        assert other.purge("never seen") == 0
        nothing(consumer)
        consumer.reject(held, requeue=True)
        assert len(take(consumer, 1)) == 1  # what a worker held was not waiting
        assert ids(take(broker.consume([spec("z")]), 1)) == ["z"]

    def test_depth(self, broker: Broker) -> None:
        if not isinstance(broker, Depth):
            pytest.skip("this broker cannot count")
        assert broker.depth("q") == 0
        broker.publish(to("q", *(message(i, priority=i % 10) for i in range(7))))
        assert broker.depth("q") == 7
        consumer = broker.consume([spec("q")])
        held = take(consumer, 3)
        assert broker.depth("q") == 4
        consumer.ack(held[:1])
        consumer.reject(held[1:], requeue=True)
        consumer.flush()
        assert broker.depth("q") == 6

    # --------------------------------------------------------------------------------------------------- settlement

    def test_acked_is_gone(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(10))))
        consumer = broker.consume([spec("q")])
        held = take(consumer, 10)
        consumer.ack(held[:4])
        consumer.ack([])
        consumer.flush()
        consumer.flush()
        consumer.ack(held[4:9])
        consumer.close()
        assert ids(take(other.consume([spec("q")]), 1)) == ["9"]

    def test_acks_ride_with_the_next_fetch(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(2))))
        consumer = broker.consume([spec("q")])
        consumer.ack(take(consumer, 1))
        consumer.fetch(1, 0.0)
        nothing(other.consume([spec("q")]))
        consumer.close()
        assert ids(take(other.consume([spec("q")]), 1)) == ["1"]

    def test_close_gives_back_in_order_and_marked(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(5))))
        consumer = broker.consume([spec("q")])
        consumer.ack(take(consumer, 3)[1:2])
        consumer.close()
        consumer.close()
        again = take(other.consume([spec("q")]), 4)
        assert ids(again) == ["0", "2", "3", "4"]
        assert [d.message.redelivered for d in again if d.message] == [True, True, False, False]
        first = again[0].message
        assert first is not None
        assert Message.from_envelope(first.to_envelope()).redelivered  # also where it is forwarded

    def test_requeued_is_next(self, broker: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(4))))
        consumer = broker.consume([spec("q")])
        held = take(consumer, 2)
        consumer.reject(held, requeue=True)
        again = take(consumer, 4)
        assert ids(again) == numbers(4)
        assert [d.message.redelivered for d in again if d.message] == [True, True, False, False]

    def test_rejected_is_gone(self, broker: Broker) -> None:
        broker.publish(to("q", message(1), message(2)))
        consumer = broker.consume([spec("q")])
        consumer.reject(take(consumer, 1), requeue=False)
        consumer.flush()
        consumer.close()
        assert ids(take(broker.consume([spec("q")]), 1)) == ["2"]

    @pytest.mark.slow
    def test_settled_twice(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", message(1), message(2)))
        consumer = broker.consume([spec("q")])
        held = take(consumer, 2)
        consumer.ack(held[:1])
        consumer.flush()
        consumer.ack(held[:1])
        consumer.reject(held[:1], requeue=True)
        consumer.reject(held[1:], requeue=False)
        consumer.ack(held)
        consumer.flush()
        nothing(consumer)
        consumer.close()
        nothing(other.consume([spec("q")]))

    def test_a_lost_tag_does_nothing(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", message(1)))
        loser = broker.consume([spec("q")])
        lost = take(loser, 1)
        loser.reject(lost, requeue=True)
        loser.flush()
        holder = other.consume([spec("q")])
        held = take(holder, 1)
        loser.ack(lost)
        loser.reject(lost, requeue=True)
        loser.flush()
        nothing(loser)
        holder.reject(held, requeue=True)
        holder.flush()
        assert ids(take(loser, 1)) == ["1"]

    def test_an_old_tag_of_the_same_consumer_does_nothing(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        first = take(consumer, 1)
        consumer.reject(first, requeue=True)
        take(consumer, 1)
        consumer.ack(first)
        consumer.close()
        assert ids(take(other.consume([spec("q")]), 1)) == ["1"]

    def test_malformed(self, broker: Broker, put_raw: PutRaw) -> None:
        put_raw("q", b"\x00 not an envelope \xff")
        put_raw("q", b'{"body": "W10=", "headers": {}, "properties": {}}')
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        bad, nameless, good = take(consumer, 3)
        assert bad.message is None
        assert bad.raw == b"\x00 not an envelope \xff"
        assert "envelope" in bad.error
        assert nameless.message is None
        assert nameless.error
        assert ids([good]) == ["1"]
        consumer.ack([bad])
        consumer.reject([nameless], requeue=False)
        consumer.close()
        again = take(broker.consume([spec("q")]), 1)
        assert ids(again) == ["1"]

    # ------------------------------------------------------------------------------------------------------- defer

    @pytest.mark.slow
    def test_defer(self, broker: Broker, other: Broker) -> None:
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        broker.publish(to("q", *(message(i) for i in range(3))))
        held = take(consumer, 3)
        due = time.time() + 0.3
        consumer.defer([(held[0], due), (held[1], due + 3600)])
        consumer.ack(held[2:])
        nothing(other.consume([spec("q")]))
        taken = take(consumer, 1)
        assert time.time() >= due
        assert ids(taken) == ["0"]
        assert time.time() - due < self.lateness
        consumer.ack(taken)
        nothing(consumer)

    def test_put_back_takes_its_old_place_unmarked(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(6))))
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        held = take(consumer, 4)
        consumer.defer([(held[0], time.time() + 3600), *((delivery, 0.0) for delivery in held[1:])])
        if isinstance(broker, Depth):
            assert broker.depth("q") == 5
        again = take(consumer, 2)
        again += take(other.consume([spec("q")]), 3)
        assert ids(again) == numbers(6)[1:]
        assert not any(delivery.message.redelivered for delivery in again if delivery.message)

    def test_deferred_to_the_past_comes_at_once(self, broker: Broker) -> None:
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        broker.publish(to("q", message(1)))
        consumer.defer([(take(consumer, 1)[0], time.time() - 5)])
        assert ids(take(consumer, 1)) == ["1"]

    @pytest.mark.slow
    def test_deferred_outlives_the_consumer(self, broker: Broker, other: Broker) -> None:
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        broker.publish(to("q", message(1)))
        due = time.time() + 0.2
        consumer.defer([(take(consumer, 1)[0], due)])
        consumer.close()
        assert ids(take(other.consume([spec("q")]), 1)) == ["1"]
        assert time.time() >= due

    @pytest.mark.slow
    def test_deferred_wakes_another_that_waits(self, broker: Broker, other: Broker) -> None:
        """Whoever waits learns of an earlier due time that somebody else set."""
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        broker.publish(to("q", message(1)))
        held = take(consumer, 1)
        taken: list[Delivery] = []
        thread = threading.Thread(target=lambda: taken.extend(other.consume([spec("q")]).fetch(1, DEADLINE)))
        thread.start()
        consumer.defer([(held[0], time.time() + 0.1)])
        thread.join(DEADLINE)
        assert ids(taken) == ["1"]

    def park(self, broker: Broker, consumer: Consumer, dues: dict[str, float], queue: str = "q") -> None:
        """Publish and park: id → due time."""
        assert isinstance(consumer, Deferring)
        broker.publish(to(queue, *(message(id) for id in dues)))
        taken = take(consumer, len(dues))
        consumer.defer([(d, dues[d.message.id]) for d in taken if d.message])

    @pytest.mark.parametrize("at_once", [1, 2, 100])
    def test_due_in_the_order_of_their_times_and_before_what_waits(self, broker: Broker, at_once: int) -> None:
        consumer = broker.consume([spec("q")])
        past = time.time() - 10
        self.park(broker, consumer, {"c": past + 3, "a": past + 1, "d": past + 4, "b": past + 2, "later": past + 3600})
        broker.publish(to("q", *(message(i) for i in range(5))))
        assert ids(take(consumer, 9, at_once=at_once)) == [*"abcd", *numbers(5)]

    @pytest.mark.slow
    def test_due_does_not_wait_until_the_queue_runs_dry(self, broker: Broker, other: Broker) -> None:
        consumer = broker.consume([spec("q")])
        self.park(broker, consumer, {"due": time.time() + 0.3})
        broker.publish(to("q", *(message(i) for i in range(1000))))
        end = time.monotonic() + DEADLINE
        worker = other.consume([spec("q")])
        seen: list[str] = []
        while "due" not in seen:
            assert time.monotonic() < end
            taken = worker.fetch(1, 1.0)
            seen += ids(taken)
            worker.ack(taken)
            broker.publish(to("q", message("more")))
        assert len(seen) - seen.index("due") == 1
        worker.close()

    def test_due_keeps_its_priority(self, broker: Broker) -> None:
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        broker.publish(to("q", message("due", priority=6), message("due too", priority=3)))
        consumer.defer([(delivery, time.time() - 1) for delivery in take(consumer, 2)])
        broker.publish(to("q", message("equal", priority=6), message("urgent")))
        assert ids(take(consumer, 4, at_once=1)) == ["urgent", "due too", "due", "equal"]

    @pytest.mark.slow
    def test_due_on_a_queue_that_others_serve(self, broker: Broker, other: Broker) -> None:
        """Whoever looks, they come in the order of their times, and can be counted once they are due."""
        first = broker.consume([spec("r")])
        past = time.time() - 10
        self.park(broker, first, {"c": past + 3, "a": past + 1, "b": past + 2, "later": past + 3600}, "r")
        first.close()
        assert isinstance(other, Depth)
        looking = other.consume([spec("q")])
        nothing(looking, timeout=0.3)
        assert other.depth("r") == 3
        second = broker.consume([spec("r")])
        assert ids(take(second, 3, at_once=1)) == ["a", "b", "c"]
        looking.close()
        second.close()

    @pytest.mark.slow
    def test_parked_for_ages(self, broker: Broker, other: Broker) -> None:
        """Years, to the end of what a date can say: it is a number like any other."""
        consumer = broker.consume([spec("q")])
        now = time.time()
        self.park(broker, consumer, {"decade": now + 10 * 365 * 86400, "end": 253402300799.999999, "soon": now + 0.2})
        worker = other.consume([spec("q")])
        assert ids(take(worker, 1)) == ["soon"]
        nothing(worker, timeout=0.2)
        worker.close()

    @pytest.mark.slow
    def test_parking_what_was_lost_or_settled_does_nothing(self, broker: Broker, other: Broker) -> None:
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        broker.publish(to("q", message(1), message(2)))
        settled, lost = take(consumer, 2)
        consumer.ack([settled])
        consumer.flush()
        consumer.defer([(settled, time.time())])
        consumer.reject([lost], requeue=True)
        consumer.flush()
        consumer.defer([(lost, time.time())])
        worker = other.consume([spec("q")])
        assert ids(take(worker, 1)) == ["2"]
        nothing(consumer, timeout=0.2)
        worker.close()

    # ----------------------------------------------------------------------------------- connections and processes

    def test_many_threads_publish(self, broker: Broker) -> None:
        each = self.many // 10

        def publish(name: str) -> None:
            for i in range(each):
                broker.publish(to("q", message(f"{name}-{i}")))

        threads = [threading.Thread(target=publish, args=(name,)) for name in "abcdefgh"]
        for thread in threads:
            thread.start()
        consumer = broker.consume([spec("q")])
        taken = ids(take(consumer, 8 * each))
        for thread in threads:
            thread.join()
        for name in "abcdefgh":
            assert [t for t in taken if t[0] == name] == [f"{name}-{i}" for i in range(each)]

    def test_closed_broker_connects_anew(self, broker: Broker) -> None:
        broker.publish(to("q", message(1)))
        broker.close()
        broker.close()
        broker.publish(to("q", message(2)))
        assert ids(take(broker.consume([spec("q")]), 2)) == ["1", "2"]

    def test_the_dead_lose_what_they_held(self, make_broker: MakeBroker, broker: Broker) -> None:
        self._needs_processes()
        broker.publish(to("q", *(message(i) for i in range(6))))
        broker.close()

        def hold() -> Sequence[object]:
            consumer = make_broker("dead@host").consume([spec("q")])
            held = take(consumer, 4)
            consumer.ack(held[:1])
            consumer.flush()
            return [consumer, held]

        in_child(hold)
        consumer = broker.consume([spec("q")])
        begin = time.monotonic()
        again = take(consumer, 5, deadline=self.death_deadline + 10)
        assert time.monotonic() - begin < self.death_deadline
        assert sorted(ids(again), key=int) == numbers(6)[1:]
        redelivered = {d.message.id for d in again if d.message and d.message.redelivered}
        assert redelivered == {"1", "2", "3"}

    @pytest.mark.process
    def test_the_living_keep_what_they_hold(self, make_broker: MakeBroker, broker: Broker, other: Broker) -> None:
        """Neither another process nor another consumer of the same one takes it, whoever else opens and closes."""
        self._needs_processes()
        broker.publish(to("q", message(1), message(2)))
        mine = other.consume([spec("q")])
        take(mine, 1)

        def hold() -> Sequence[object]:
            consumer = make_broker("alive@host").consume([spec("q")])
            return [consumer, take(consumer, 1)]

        child = Child(hold)
        child.done()
        in_child(lambda: make_broker("third@host").consume([spec("q")]).close())
        another = broker.consume([spec("q")])
        nothing(another, timeout=1.2)
        another.close()
        nothing(broker.consume([spec("q")]), timeout=0.1)
        child.kill()

    @pytest.mark.process
    def test_whoever_was_frozen_keeps_what_it_holds_or_learns_what_it_lost(
        self, make_broker: MakeBroker, broker: Broker
    ) -> None:
        """It wakes, is told, once, and what it settles then changes nothing. A kernel's lock never lapses."""
        self._needs_processes()
        broker.publish(to("q", *(message(i) for i in range(3))))
        broker.close()
        (word, say), (answer, tell) = os.pipe(), os.pipe()

        def hold() -> Sequence[object]:
            consumer = make_broker("frozen@host").consume([spec("q")])
            held = take(consumer, 3)

            def wake() -> None:
                os.read(word, 1)
                lost = [*consumer.lost(), *consumer.lost()] if isinstance(consumer, Fenced) else []
                assert all(delivery.lost == (delivery in lost) for delivery in held)
                consumer.ack(held)
                consumer.flush()
                os.write(tell, f"lost {' '.join(ids(lost))}".encode())

            thread = threading.Thread(target=wake)
            thread.start()
            return [consumer, held, thread]

        child = Child(hold)
        child.done()
        os.kill(child.pid, signal.SIGSTOP)
        consumer = broker.consume([spec("q")])
        fenced = isinstance(consumer, Fenced) and self.lapses
        if fenced:
            take(consumer, 3, deadline=self.death_deadline + 10)
        else:
            nothing(consumer, timeout=1.2)
        os.write(say, b"!")
        os.kill(child.pid, signal.SIGCONT)
        assert select.select([answer], [], [], DEADLINE)[0], "the one that was frozen says nothing"
        assert os.read(answer, 100).split() == ([b"lost", b"0", b"1", b"2"] if fenced else [b"lost"])
        consumer.close()
        assert ids(take(broker.consume([spec("q")]), 3 if fenced else 0)) == (numbers(3) if fenced else [])
        child.kill()

    def test_a_fork_has_connections_of_its_own(self, broker: Broker, other: Broker) -> None:
        self._needs_processes()
        broker.publish(to("q", message(1)))
        consumer = other.consume([spec("q")])
        held = take(consumer, 1)

        def use() -> None:
            broker.publish(to("q", message(2)))
            mine = broker.consume([spec("q")])
            mine.ack(take(mine, 1))
            mine.close()
            broker.close()
            other.close()
            broker.publish(to("q", message(3)))

        in_child(use)
        broker.publish(to("q", message(4)))
        assert ids(take(consumer, 2)) == ["3", "4"]
        consumer.ack(held)
        consumer.close()
        assert ids(take(broker.consume([spec("q")]), 2)) == ["3", "4"]

    def test_a_killed_publisher_loses_nothing_that_was_accepted(self, make_broker: MakeBroker, broker: Broker) -> None:
        self._needs_processes()
        in_child(lambda: make_broker().publish(to("q", message(1))))
        assert ids(take(broker.consume([spec("q")]), 1)) == ["1"]

    @pytest.mark.process
    def test_deferred_outlives_a_kill(self, make_broker: MakeBroker, broker: Broker) -> None:
        self._needs_processes()

        def defer() -> Sequence[object]:
            mine = make_broker("dead@host")
            mine.publish(to("q", message(1)))
            consumer = mine.consume([spec("q")])
            assert isinstance(consumer, Deferring)
            consumer.defer([(take(consumer, 1)[0], time.time() + 0.2)])
            return [consumer]

        in_child(defer)
        assert ids(take(broker.consume([spec("q")]), 1)) == ["1"]

    # -------------------------------------------------------------------------------------------------- join, settle

    def test_a_consumer_knows_whether_it_is_alone(self, broker: Broker, other: Broker) -> None:
        first = broker.consume([spec("q")])
        if not isinstance(first, Accompanied):
            pytest.skip("it cannot tell")
        assert (first.others(ask=True), first.others()) == (0, 0)
        second = other.consume([spec("other")])
        assert isinstance(second, Accompanied)
        for ask in (True, False):
            end = time.monotonic() + DEADLINE
            while first.others(ask=ask) != 1 and time.monotonic() < end:
                nothing(first, 0.1)
            assert first.others(ask=ask) == 1
        assert second.others(ask=True) == 1
        second.close()
        assert first.others(ask=True) == 0

    def test_settle(self, broker: Broker, other: Broker, make_backend: MakeBackend) -> None:
        consumer, backend = self._joined(broker, make_backend)
        broker.publish(to("q", *(message(i) for i in range(5))))
        held = take(consumer, 5)
        assert isinstance(consumer, Joining)
        consumer.ack(held[3:4])
        consumer.settle(
            [
                Settled(held[0], "ack", record("0", "SUCCESS", b"{0}"), to("next", message("n"))),
                Settled(held[1], "requeue"),
                Settled(held[2], "reject", record("2", "FAILURE", b"{2}")),
                Settled(held[3], "done", record("3", "SUCCESS", b"{3}")),
                Settled(held[4], "ack"),
            ]
        )
        consumer.flush()
        assert results(backend.load(numbers(5))) == [b"{0}", None, b"{2}", b"{3}", None]
        assert ids(take(other.consume([spec("next")]), 1)) == ["n"]
        assert ids(take(consumer, 1)) == ["1"]
        consumer.close()
        assert ids(take(other.consume([spec("q")]), 1)) == ["1"]

    def test_settle_wakes_those_who_wait_for_the_result(self, broker: Broker, make_backend: MakeBackend) -> None:
        consumer, backend = self._joined(broker, make_backend)
        broker.publish(to("q", message(1)))
        held = take(consumer, 1)
        seen: list[dict[str, bytes]] = []
        thread = threading.Thread(target=lambda: seen.append(results_by_id(backend.wait(["1"], DEADLINE))))
        thread.start()
        assert isinstance(consumer, Joining)
        consumer.settle([Settled(held[0], "ack", record("1", "SUCCESS", b"{}"))])
        consumer.flush()
        thread.join(DEADLINE)
        assert seen == [{"1": b"{}"}]

    def test_settling_what_was_lost_changes_nothing(
        self, broker: Broker, other: Broker, make_backend: MakeBackend
    ) -> None:
        consumer, backend = self._joined(broker, make_backend)
        broker.publish(to("q", message(1)))
        lost = take(consumer, 1)
        consumer.reject(lost, requeue=True)
        consumer.flush()
        take(other.consume([spec("q")]), 1)
        assert isinstance(consumer, Joining)
        consumer.settle([Settled(lost[0], "ack", record("1", "SUCCESS", b"{}"), to("next", message("n")))])
        consumer.flush()
        assert results(backend.load(["1"])) == [None]
        nothing(broker.consume([spec("next")]))

    def test_success_is_final_for_settle_too(self, broker: Broker, make_backend: MakeBackend) -> None:
        consumer, backend = self._joined(broker, make_backend)
        backend.save([record("1", "SUCCESS", b"first")])
        broker.publish(to("q", message(1)))
        held = take(consumer, 1)
        assert isinstance(consumer, Joining)
        consumer.settle([Settled(held[0], "ack", record("1", "FAILURE", b"second"))])
        consumer.flush()
        assert results(backend.load(["1"])) == [b"first"]

    # ------------------------------------------------------------------------------------------------------ helpers

    def _needs_processes(self) -> None:
        if not self.crosses_processes:
            pytest.skip("lives in one process")

    @staticmethod
    def _joined(broker: Broker, make_backend: MakeBackend) -> tuple[Consumer, ResultBackend]:
        consumer, backend = broker.consume([spec("q")]), make_backend()
        if backend is None or not isinstance(consumer, Joining):
            pytest.skip("results do not live beside the messages")
        assert consumer.join(backend)
        return consumer, backend
