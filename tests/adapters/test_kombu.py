"""The contracts on transports of kombu's, and what is particular to them: what such a transport cannot do is
overridden here, with what it does instead."""

from __future__ import annotations

import uuid
from fcntl import LOCK_EX, flock
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError
from kombu.transport import memory

from celery.brokers.kombu import KombuBroker, kombu_broker
from celery.ports import BrokerConfig, Deferring
from tests.contracts.broadcasting import BroadcastingContract
from tests.contracts.broker import BrokerContract, ids, message, nothing, spec, take, to
from tests.contracts.processes import in_child
from tests.contracts.routing import RoutingContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from celery.ports import Broker
    from tests.contracts.broadcasting import MakeCarrier
    from tests.contracts.broker import MakeBroker, PutRaw

    MakeKombu = Callable[..., KombuBroker]


_FOLDERS = ("data_folder_in", "data_folder_out")


class _OnKombu(BrokerContract):
    lapses = False

    @pytest.fixture
    def config(self) -> BrokerConfig:
        raise NotImplementedError

    @pytest.fixture
    def make_broker(self, config: BrokerConfig) -> Iterator[MakeBroker]:
        made: list[KombuBroker] = []

        def make(node: str = "") -> KombuBroker:
            made.append(kombu_broker(config))
            return made[-1]

        yield make
        for broker in made:
            broker.close()

    # Nothing can be parked there: a worker keeps what is not due, unacknowledged.

    def test_nothing_parks(self, broker: Broker) -> None:
        assert not isinstance(broker.consume([spec("q")]), Deferring)

    test_defer = None
    test_put_back_takes_its_old_place_unmarked = None
    test_deferred_to_the_past_comes_at_once = None
    test_deferred_outlives_the_consumer = None
    test_deferred_wakes_another_that_waits = None
    test_due_in_the_order_of_their_times_and_before_what_waits = None
    test_due_does_not_wait_until_the_queue_runs_dry = None
    test_due_keeps_its_priority = None
    test_due_on_a_queue_that_others_serve = None
    test_parked_for_ages = None
    test_parking_what_was_lost_or_settled_does_nothing = None
    test_deferred_outlives_a_kill = None

    # These transports know no priorities.

    def test_priority_zero_comes_first(self, broker: Broker) -> None:
        for priority in (9, 3, 0, 6):
            broker.publish(to("q", message(priority, priority=priority)))
        taken = take(broker.consume([spec("q")]), 4, at_once=3)
        assert ids(taken) == ["9", "3", "0", "6"]
        assert [delivery.message.priority for delivery in taken if delivery.message] == [9, 3, 0, 6]

    def test_priorities_are_looked_at_on_each_fetch(self, broker: Broker) -> None:
        broker.publish(to("q", *(message(i, priority=9) for i in range(4))))
        consumer = broker.consume([spec("q")])
        assert ids(take(consumer, 2)) == ["0", "1"]
        broker.publish(to("q", message("urgent", priority=0)))
        assert ids(take(consumer, 3, at_once=1)) == ["2", "3", "urgent"]

    # What is given back joins the end of its queue.

    def test_close_gives_back_in_order_and_marked(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(5))))
        consumer = broker.consume([spec("q")])
        consumer.ack(take(consumer, 3)[1:2])
        consumer.close()
        consumer.close()
        again = take(other.consume([spec("q")]), 4)
        assert ids(again) == ["3", "4", "0", "2"]
        assert [d.message.redelivered for d in again if d.message] == [False, False, True, True]

    def test_requeued_is_next(self, broker: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(4))))
        consumer = broker.consume([spec("q")])
        consumer.reject(take(consumer, 2), requeue=True)
        again = take(consumer, 4)
        assert ids(again) == ["2", "3", "0", "1"]
        assert [d.message.redelivered for d in again if d.message] == [False, False, True, True]

    def test_acked_is_gone(self, broker: Broker, other: Broker) -> None:
        broker.publish(to("q", *(message(i) for i in range(5))))
        consumer = broker.consume([spec("q")])
        held = take(consumer, 5)
        consumer.ack(held[:2])
        consumer.flush()
        consumer.ack(held[2:4])
        consumer.close()
        again = other.consume([spec("q")])
        assert ids(take(again, 1)) == ["4"]
        nothing(again)

    def test_malformed(self, broker: Broker, put_raw: PutRaw, caplog: pytest.LogCaptureFixture) -> None:
        """What is no message of kombu's it takes and cannot read: it is lost, and told of. What it can read and is no
        task is handed on."""
        put_raw("q", b"\x00 not an envelope \xff")
        put_raw("q", b'{"body": "W10=", "headers": {}, "properties": {"delivery_info": {}, "delivery_tag": "1"}}')
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        nameless, good = take(consumer, 2)
        assert "which is lost" in caplog.text
        assert nameless.message is None
        assert nameless.raw == b"W10="
        assert nameless.error
        assert ids([good]) == ["1"]
        consumer.reject([nameless], requeue=False)
        consumer.close()
        again = broker.consume([spec("q")])
        assert ids(take(again, 1)) == ["1"]
        nothing(again)

    def test_the_dead_lose_what_they_held(self, make_broker: MakeBroker, broker: Broker) -> None:
        """For good: what was taken is not there any more. The others are."""
        self._needs_processes()
        broker.publish(to("q", *(message(i) for i in range(6))))
        broker.close()

        def hold() -> Sequence[object]:
            consumer = make_broker("dead@host").consume([spec("q")])
            return [consumer, take(consumer, 4)]

        in_child(hold)
        consumer = broker.consume([spec("q")])
        assert ids(take(consumer, 2)) == ["4", "5"]
        nothing(consumer)


class TestMemory(_OnKombu):
    crosses_processes = False

    @pytest.fixture
    def config(self) -> Iterator[BrokerConfig]:
        yield BrokerConfig("kombu+memory://")
        memory.Channel.queues.clear()
        memory.Transport.global_state.clear()

    @pytest.fixture
    def put_raw(self, broker: KombuBroker) -> PutRaw:
        def put(queue: str, raw: bytes) -> None:
            import json

            try:
                payload = json.loads(raw)
            except ValueError:
                payload = raw
            broker.declare([spec(queue)])
            with broker.line() as line:
                line.channel._put(queue, payload)

        return put


@pytest.mark.server
class TestRouting(RoutingContract):
    """kombu has no headers exchanges there, and drops what reaches nobody without a word; its `usa.#` does not fit
    `usa`; and what is given back goes through its exchange again, to everybody."""

    passed_over = ""
    config = TestMemory.config
    make_broker = TestMemory.make_broker
    test_headers = None
    test_words_of_topics = None
    test_everybody_gets_a_copy_and_those_who_are_away_miss_it = None
    test_a_queue_that_is_given_is_declared_for_whoever_publishes = None
    test_what_reaches_no_queue_is_told_of_once = None
    test_a_killed_worker_leaves_no_queue_of_his_own = None
    test_nobody_is_there = None


class TestFilesystem(_OnKombu):
    @pytest.fixture
    def config(self, tmp_path: Path) -> BrokerConfig:
        return on_files(tmp_path)

    @pytest.fixture
    def put_raw(self, tmp_path: Path) -> PutRaw:
        count = iter(range(10, 99))
        return lambda queue, raw: (tmp_path / "queues" / f"{next(count)}_.{queue}.msg").write_bytes(raw)

    # kombu would lose what the dead held; our files are put back.
    test_the_dead_lose_what_they_held = BrokerContract.test_the_dead_lose_what_they_held


@pytest.mark.server
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # kombu uses what SQLAlchemy is about to drop
class TestSql(_OnKombu):
    #: Each message is a transaction, and a slow one.
    many = 20

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """Of a name that was never there before: kombu creates the tables of one name once in a process."""
        return tmp_path / f"{uuid.uuid4()}.db"

    @pytest.fixture
    def config(self, file: Path) -> BrokerConfig:
        return BrokerConfig(f"sqla+sqlite:///{file}")

    @pytest.fixture
    def put_raw(self, broker: KombuBroker, file: Path) -> PutRaw:
        def put(queue: str, raw: bytes) -> None:
            import sqlite3

            broker.publish(to(queue, message("overwritten")))
            with sqlite3.connect(file) as db:
                db.execute(
                    "UPDATE kombu_message SET payload = ? WHERE payload LIKE '%overwritten%'", [raw.decode("latin-1")]
                )
            db.close()

        return put


def test_a_queue_is_not_the_end_of_another_s_name(tmp_path: Path) -> None:
    broker = kombu_broker(on_files(tmp_path))
    broker.publish(to("my.q", message(1)))
    assert (broker.depth("q"), broker.depth("my.q")) == (0, 1)
    consumer = broker.consume([spec("q")])
    nothing(consumer)
    consumer.close()
    assert broker.purge("q") == 0
    consumer = broker.consume([spec("my.q")])
    consumer.ack(take(consumer, 1))
    consumer.close()
    assert left(tmp_path) == []
    broker.close()


def test_files_that_are_done_with_are_kept_if_asked(tmp_path: Path) -> None:
    broker = kombu_broker(on_files(tmp_path, store_processed=True, processed_folder=str(tmp_path / "done")))
    broker.publish(to("q", message(1), message(2)))
    consumer = broker.consume([spec("q")])
    first, second = take(consumer, 2)
    consumer.ack([first])
    consumer.reject([second], requeue=False)
    consumer.close()
    broker.close()
    assert left(tmp_path) == []
    assert ['"id": "1"' in file.read_text() for file in sorted((tmp_path / "done").iterdir())] == [True, False]


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    broker = kombu_broker(BrokerConfig("filesystem://", dict.fromkeys(_FOLDERS, str(tmp_path / "nowhere"))))
    with pytest.raises(OperationalError, match=r"nowhere.*data_folder_"):
        broker.publish(to("q", message(1)))


def test_a_file_that_is_being_written_is_left_until_it_is(tmp_path: Path) -> None:
    """As kombu writes it: made, then locked, then written."""
    broker = kombu_broker(on_files(tmp_path))
    broker.publish(to("q", message(1), message(2)))
    whole = sorted((tmp_path / "queues").iterdir())[0]
    text = whole.read_bytes()
    consumer = broker.consume([spec("q")])
    with whole.open("wb") as file:
        assert ids(take(consumer, 1)) == ["2"]
        flock(file, LOCK_EX)
        file.write(text[:9])
        file.flush()
        nothing(consumer)
        file.write(text[9:])
    assert ids(take(consumer, 1)) == ["1"]
    consumer.close()
    broker.close()


def left(folder: Path) -> list[str]:
    """Names of all files of messages, held ones too."""
    return [file.name for file in (folder / "queues").iterdir()]


def on_files(folder: Path, **options: Any) -> BrokerConfig:
    for name in ("queues", "control"):
        (folder / name).mkdir(exist_ok=True)
    places = dict.fromkeys(_FOLDERS, f"{folder}/queues")
    return BrokerConfig("filesystem://", {**places, "control_folder": f"{folder}/control", **options})


@pytest.mark.server
class TestNotices(BroadcastingContract):
    #: kombu puts a notice on all queues that are bound, and does not say how many.
    counts = False

    @pytest.fixture
    def make_carrier(self, tmp_path: Path) -> MakeCarrier:
        return lambda: kombu_broker(on_files(tmp_path))  # type: ignore[return-value]
