"""What every broker does that keeps dead letters (`celery.ports.Burying`), and that counts deaths (`Blaming`)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from celery.message import Message
from celery.ports import Blaming, Burying, DeadLetterBounds, Joining, Settled
from tests.contracts.backend import record
from tests.contracts.broker import ids, message, nothing, spec, take, to
from tests.contracts.processes import Child
from tests.flow.engine import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.ports import Broker, DeadLetter, Delivery
    from tests.contracts.broker import MakeBackend, PutRaw

    class MakeBounded(Protocol):
        def __call__(self, bounds: DeadLetterBounds = ...) -> Broker:
            """A new broker on the test's own fresh storage, each time the same; closed after the test."""


#: What a broker has by default.
BOUNDS = DeadLetterBounds()


def letters(broker: Broker, queue: str = "q", limit: int = 100, before: str = "") -> list[DeadLetter]:
    assert isinstance(broker, Burying)
    return broker.dead_letters.newest(queue, limit, before)


def refuse(consumer: Any, deliveries: Sequence[Delivery], reason: str = "no good", traceback: str = "") -> None:
    for delivery in deliveries:
        delivery.error, delivery.traceback = reason, traceback
    consumer.reject(deliveries, requeue=False)
    consumer.flush()


class DeadLetterContract:
    """Subclass it, override `make_bounded` and `put_raw`, and `make_backend` where results can live beside messages."""

    crosses_processes = True
    death_deadline = 10.0

    @pytest.fixture
    def make_bounded(self) -> MakeBounded:
        raise NotImplementedError

    @pytest.fixture
    def put_raw(self, broker: Broker) -> PutRaw:
        raise NotImplementedError

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        raise NotImplementedError

    @pytest.fixture
    def broker(self, make_bounded: MakeBounded) -> Broker:
        return make_bounded()

    # --------------------------------------------------------------------------------------------------------- kept

    def test_everything_of_a_refused_message_is_kept(self, broker: Broker) -> None:
        sent = message("täsk-1", priority=3, body='[["❤"], {}, {}]'.encode(), root_id="r", eta=None)
        broker.publish(to("q", sent))
        before = time.time()
        consumer = broker.consume([spec("q")])
        refuse(consumer, take(consumer, 1), "no göod \udc80", "Traceback\n  line")
        (letter,) = letters(broker)
        assert letter.queue == "q"
        assert letter.reason == "no göod ?"
        assert letter.traceback == "Traceback\n  line"
        assert before - 1 < letter.died_at < time.time() + 1
        assert letter.deaths == 0
        kept = Message.from_envelope(letter.envelope)
        assert (kept.id, kept.headers, kept.body, kept.priority) == ("täsk-1", sent.headers, sent.body, 3)
        assert (kept.exchange, kept.routing_key) == ("", "q")
        nothing(consumer)

    def test_any_bytes_are_kept(self, broker: Broker, put_raw: PutRaw) -> None:
        noise = [b"\x00 not an envelope \xff", b'[{"], "", "q"]', b"", bytes(range(256)) * 64]
        for raw in noise:
            put_raw("q", raw)
        consumer = broker.consume([spec("q")])
        for delivery in take(consumer, len(noise)):
            consumer.reject([delivery], requeue=False)
        consumer.flush()
        kept = letters(broker)
        assert [letter.envelope for letter in reversed(kept)] == noise
        assert all(letter.reason for letter in kept)

    @pytest.mark.slow
    def test_ten_megabytes(self, broker: Broker, put_raw: PutRaw) -> None:
        raw = b"\x80" * 10_000_000
        put_raw("q", raw)
        consumer = broker.consume([spec("q")])
        refuse(consumer, take(consumer, 1))
        assert letters(broker)[0].envelope == raw

    def test_reason_and_traceback_are_cut(self, broker: Broker) -> None:
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        refuse(consumer, take(consumer, 1), "r" * 100_000, "first" + "t" * 1_000_000 + "last")
        (letter,) = letters(broker)
        assert len(letter.reason) < 5_000
        assert len(letter.traceback) < 50_000
        assert letter.traceback.endswith("last")

    def test_letters_of_a_settled_batch(self, broker: Broker, make_backend: MakeBackend) -> None:
        """With its record, in one step; whose message was lost meanwhile leaves neither."""
        broker.publish(to("q", message(1), message(2), message(3)))
        consumer = broker.consume([spec("q")])
        backend = make_backend()
        assert isinstance(consumer, Joining)
        assert backend is not None
        assert consumer.join(backend)
        held = take(consumer, 3)
        for delivery in held:
            delivery.error = "settled"
        consumer.ack(held[1:2])
        consumer.flush()
        outcomes = [Settled(held[0], "reject", record("1")), Settled(held[1], "reject", record("2"))]
        consumer.settle([*outcomes, Settled(held[2], "ack", record("3"))])
        assert [(letter.reason, Message.from_envelope(letter.envelope).id) for letter in letters(broker)] == [
            ("settled", "1")
        ]
        assert [found is not None for found in backend.load(["1", "2", "3"])] == [True, False, True]

    # ------------------------------------------------------------------------------------------------------- listed

    def test_listing(self, broker: Broker) -> None:
        assert isinstance(broker, Burying)
        dead = broker.dead_letters
        assert (dead.queues(), dead.newest("q", 10), dead.find(["1", "x", "q:1-1", "q:-"])) == ([], [], [])
        broker.publish([*to("q", *(message(i) for i in range(7))), *to("other", message("o"))])
        consumer = broker.consume([spec("q"), spec("other")])
        for delivery in take(consumer, 8):
            refuse(consumer, [delivery])
        assert dead.queues() == ["other", "q"]
        first = dead.newest("q", 3)
        rest = dead.newest("q", 10, first[-1].id)
        assert [Message.from_envelope(letter.envelope).id for letter in (*first, *rest)] == list("6543210")
        (other,) = dead.newest("other", 10)
        found = dead.find([rest[0].id, other.id, "nobody"])
        assert found == [rest[0], other]
        assert dead.newest("q", 10, rest[-1].id) == []

    # ------------------------------------------------------------------------------------------- requeue and discard

    def test_counting(self, make_bounded: MakeBounded) -> None:
        broker = make_bounded()
        assert isinstance(broker, Burying)
        assert broker.dead_letters.counts() == {}
        consumer = broker.consume([spec("a"), spec("b")])
        broker.publish([*to("a", message(1), message(2)), *to("b", message(3))])
        refuse(consumer, take(consumer, 3))
        assert broker.dead_letters.counts() == {"a": 2, "b": 1}
        broker.dead_letters.discard([letters(broker, "b")[0].id])
        assert broker.dead_letters.counts() == {"a": 2}

    def test_requeue_puts_the_original_back(self, broker: Broker, make_bounded: MakeBounded) -> None:
        assert isinstance(broker, Burying)
        sent = message(1, priority=9, kept={"a": [1, {}]})
        broker.publish(to("q", sent, message(2)))
        consumer = broker.consume([spec("q")])
        held = take(consumer, 2)
        for delivery in held:
            delivery.died = delivery.message is not None and delivery.message.id == "1"
        refuse(consumer, held)
        by_id = {Message.from_envelope(letter.envelope).id: letter for letter in letters(broker)}
        assert (by_id["1"].deaths, by_id["2"].deaths) == (1, 0)
        assert broker.dead_letters.requeue([by_id["1"].id, by_id["1"].id, "9999"]) == 1
        assert broker.dead_letters.requeue([by_id["1"].id]) == 0
        (again,) = take(make_bounded().consume([spec("q")]), 1)
        assert again.message is not None
        assert (again.message.id, again.message.body, again.message.priority) == ("1", sent.body, 9)
        assert again.message.headers["kept"] == {"a": [1, {}]}
        assert (again.message.redelivered, again.message.deaths) == (True, 0)
        assert [letter.id for letter in letters(broker)] == [by_id["2"].id]
        nothing(consumer)

    def test_requeued_noise_is_what_it_was(self, broker: Broker, put_raw: PutRaw) -> None:
        assert isinstance(broker, Burying)
        put_raw("q", b"\xff noise")
        consumer = broker.consume([spec("q")])
        refuse(consumer, take(consumer, 1))
        assert broker.dead_letters.requeue([letters(broker)[0].id]) == 1
        (again,) = take(consumer, 1)
        assert again.raw == b"\xff noise"

    def test_discard(self, broker: Broker) -> None:
        assert isinstance(broker, Burying)
        broker.publish(to("q", *(message(i) for i in range(4))))
        consumer = broker.consume([spec("q")])
        refuse(consumer, take(consumer, 4))
        kept = letters(broker)
        assert broker.dead_letters.discard([kept[0].id, kept[2].id, kept[2].id, "x", "7:x"]) == 2
        assert letters(broker) == [kept[1], kept[3]]
        assert broker.dead_letters.discard([kept[1].id, kept[3].id]) == 2
        assert broker.dead_letters.queues() == []
        nothing(consumer)

    # ------------------------------------------------------------------------------------------------------ bounded

    def test_bounded_by_number_of_each_queue(self, make_bounded: MakeBounded, caplog: pytest.LogCaptureFixture) -> None:
        broker = make_bounded(DeadLetterBounds(count=3))
        broker.publish([*to("other", message("o")), *to("q", *(message(i) for i in range(5)))])
        consumer = broker.consume([spec("q"), spec("other")])
        held = sorted(take(consumer, 6), key=lambda d: d.message.id if d.message else "")
        with caplog.at_level(logging.WARNING, "celery.worker.dead_letters"):
            refuse(consumer, held)
        assert [Message.from_envelope(letter.envelope).id for letter in letters(broker)] == ["4", "3", "2"]
        assert len(letters(broker, "other")) == 1
        assert [r.getMessage() for r in caplog.records if "'q' overflow" in r.getMessage()]

    def test_bounded_by_size(self, make_bounded: MakeBounded, put_raw: PutRaw) -> None:
        broker = make_bounded(DeadLetterBounds(size=2500))
        consumer = broker.consume([spec("q")])
        for i in range(5):
            put_raw("q", b"%d" % i * 1000)
        for delivery in take(consumer, 5):
            refuse(consumer, [delivery], "r" * 10)
        assert [letter.envelope[:1] for letter in letters(broker)] == [b"4", b"3"]
        assert isinstance(broker, Burying)
        assert broker.dead_letters.discard([letters(broker)[0].id]) == 1  # makes room again
        put_raw("q", b"5" * 1000)
        refuse(consumer, take(consumer, 1), "r" * 10)
        assert [letter.envelope[:1] for letter in letters(broker)] == [b"5", b"3"]
        put_raw("q", b"6" * 3000)
        refuse(consumer, take(consumer, 1))
        assert letters(broker) == []

    @pytest.mark.slow
    def test_bounded_by_age(self, make_bounded: MakeBounded) -> None:
        broker = make_bounded(DeadLetterBounds(age=0.3))
        assert isinstance(broker, Burying)
        broker.publish(to("q", message(1), message(2)))
        consumer = broker.consume([spec("q")])
        first, second = take(consumer, 2)
        refuse(consumer, [first])
        until(lambda: not letters(broker), "it is too old")
        assert broker.dead_letters.queues() == []
        refuse(consumer, [second])
        wide = make_bounded()
        assert [Message.from_envelope(letter.envelope).id for letter in letters(wide)] == ["2"]

    # ------------------------------------------------------------------------------------------------------- deaths

    def test_what_died_counts_and_what_was_given_back_does_not(self, broker: Broker) -> None:
        broker.publish(to("q", message(1), message(2)))
        consumer = broker.consume([spec("q")])
        for expected in (0, 1, 2):
            held = take(consumer, 2)
            counts = {d.message.id: d.message.deaths for d in held if d.message}
            assert counts == {"1": expected, "2": 0}
            for delivery in held:
                delivery.died = delivery.message is not None and delivery.message.id == "1"
            consumer.reject(held, requeue=True)
        consumer.close()

    def test_deaths_of_a_settled_batch(self, broker: Broker, make_backend: MakeBackend) -> None:
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        backend = make_backend()
        assert isinstance(consumer, Joining)
        assert backend is not None
        assert consumer.join(backend)
        for expected in (0, 1, 2):
            (held,) = take(consumer, 1)
            assert held.message is not None
            assert held.message.deaths == expected
            held.died = True
            consumer.settle([Settled(held, "requeue", record("1"))])

    def test_deferring_forgets_no_death(self, broker: Broker) -> None:
        broker.publish(to("q", message(1)))
        consumer: Any = broker.consume([spec("q")])
        (held,) = take(consumer, 1)
        held.died = True
        consumer.reject([held], requeue=True)
        consumer.defer([(take(consumer, 1)[0], time.time() - 1)])
        (again,) = take(consumer, 1)
        assert again.message.deaths == 1

    @pytest.mark.process
    def test_the_dead_are_blamed_for_what_they_had_begun(self, make_bounded: MakeBounded) -> None:
        """First deliveries are all suspected, of redelivered ones those that had begun; close blames nobody."""
        if not self.crosses_processes:
            pytest.skip("lives in one process")
        broker = make_bounded()
        broker.publish(to("q", message("begins"), message("waits")))
        seen: list[dict[str, int]] = []
        for _ in range(3):
            child = Child(lambda: self._hold(make_bounded()))
            child.done()
            child.kill()
            consumer = broker.consume([spec("q")])
            held = take(consumer, 2, deadline=self.death_deadline + 10)
            seen.append({d.message.id: d.message.deaths for d in held if d.message})
            consumer.close()
        assert seen == [{"begins": 1, "waits": 1}, {"begins": 2, "waits": 1}, {"begins": 3, "waits": 1}]

    @staticmethod
    def _hold(broker: Broker) -> Sequence[object]:
        consumer = broker.consume([spec("q")])
        held = take(consumer, 2)
        assert isinstance(consumer, Blaming)
        begun = [d for d in held if d.message and d.message.redelivered and d.message.id == "begins"]
        if begun:
            consumer.begun(begun)
        return [broker, consumer, held]

    def test_begun_and_settled(self, broker: Broker) -> None:
        """Marks leave with what they were set on, in any order."""
        broker.publish(to("q", message(1), message(2), message(3)))
        consumer = broker.consume([spec("q")])
        consumer.reject(take(consumer, 3), requeue=True)
        held = take(consumer, 3)
        assert isinstance(consumer, Blaming)
        consumer.begun(held[:1])
        consumer.ack(held[:1])
        consumer.begun(held[1:])
        consumer.reject(held[1:], requeue=True)
        consumer.flush()
        again = take(consumer, 2)
        assert [d.message.deaths for d in again if d.message] == [0, 0]
        assert ids(again) == ["2", "3"]
