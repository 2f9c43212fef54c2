"""The contracts on `amqp://`, against RabbitMQ, and what is particular to it."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import ExitStack
from select import select
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from celery import Celery
from celery.app.checking import check
from celery.brokers import amqp_dead
from celery.brokers.amqp import AmqpBroker
from celery.brokers.amqp_dead import Refused
from celery.brokers.amqp_listening import tell
from celery.brokers.amqp_methods import ASK, ASKED, RETURNED, await_confirms, publish, returned_from, with_confirms
from celery.drivers.amqp_frames import content
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.message import Message
from celery.ports import Blaming, BrokerConfig, DeadLetterBounds, Deferring, Depth, Notice, Publication
from celery.routing import QueueSpec, Route
from tests.chaos.proxy import FaultProxy
from tests.contracts.broadcasting import BroadcastingContract, ear, hear, notice
from tests.contracts.broker import BrokerContract, ids, message, numbers, spec, take, to
from tests.contracts.dead_letters import BOUNDS, DeadLetterContract, letters, refuse
from tests.contracts.processes import Child, in_child
from tests.contracts.routing import RoutingContract
from tests.flow.engine import until
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.drivers.amqp import Link
    from celery.ports import Broker, Listener
    from tests.contracts.broadcasting import MakeCarrier
    from tests.contracts.broker import MakeBackend, MakeBroker, PutRaw
    from tests.contracts.dead_letters import MakeBounded
    from tests.servers import RabbitServer

    MakeAmqp = Callable[..., AmqpBroker]

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]

#: Confirmed, so that what one connection has published another one finds; signs of life often, so that tests are short.
OPTIONS: dict[str, Any] = {"confirm_publish": True, "heartbeat": 2}


@pytest.fixture
def make_amqp(rabbit_url: str) -> Iterator[MakeAmqp]:
    made: list[AmqpBroker] = []

    def make(node: str = "", **options: Any) -> AmqpBroker:
        made.append(AmqpBroker(BrokerConfig(rabbit_url, {**OPTIONS, **options}, node=node)))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


def raw_through(make_amqp: MakeAmqp) -> PutRaw:
    def put(queue: str, raw: bytes) -> None:
        broker = make_amqp()
        broker.declare([spec(queue)])
        with broker.link() as link:
            with_confirms(link)
            link.send(publish("", queue) + content({}, raw, link.frame_max))
            await_confirms(link, 1)

    return put


class TestBroker(BrokerContract):
    #: One that is frozen is found out by its heartbeats.
    death_deadline = 15.0
    #: Delays are whole seconds, and the first one declares some thirty exchanges.
    lateness = 10.0

    @pytest.fixture
    def make_broker(self, make_amqp: MakeAmqp) -> MakeBroker:
        return make_amqp

    @pytest.fixture
    def put_raw(self, make_amqp: MakeAmqp) -> PutRaw:
        return raw_through(make_amqp)

    # AMQP has it the other way round: the largest number comes first, on queues that are declared with priorities.

    def test_priority_zero_comes_first(self, broker: Broker) -> None:
        consumer = broker.consume([ranked("q")])
        for priority in (0, 6, 3, 9):
            broker.publish(ranked_to("q", *(message(f"{priority}-{i}", priority=priority) for i in range(2))))
        assert ids(take(consumer, 8, at_once=3)) == [f"{p}-{i}" for p in (9, 6, 3, 0) for i in range(2)]

    def test_priorities_are_looked_at_on_each_fetch(self, broker: Broker) -> None:
        consumer = broker.consume([ranked("q")])
        broker.publish(ranked_to("q", *(message(i, priority=1) for i in range(4))))
        assert ids(take(consumer, 2)) == ["0", "1"]
        broker.publish(ranked_to("q", message("urgent", priority=9)))
        assert ids(take(consumer, 3, at_once=1)) == ["urgent", "2", "3"]

    # Parked messages go through queues of the server's: what is due comes at the end of its queue, by the second.

    def test_put_back_takes_its_old_place_unmarked(self, broker: Broker, other: Broker) -> None:
        """Its old place, but AMQP marks whatever is given back."""
        broker.publish(to("q", *(message(i) for i in range(6))))
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        held = take(consumer, 4)
        consumer.defer([(held[0], time.time() + 3600), *((delivery, 0.0) for delivery in held[1:])])
        again = take(consumer, 2)
        again += take(other.consume([spec("q")]), 3)
        assert ids(again) == numbers(6)[1:]

    @pytest.mark.parametrize("at_once", [1, 100])
    def test_due_in_the_order_of_their_times_and_before_what_waits(self, broker: Broker, at_once: int) -> None:
        consumer = broker.consume([spec("q")])
        now = time.time()
        self.park(broker, consumer, {"b": now + 3, "a": now + 1.5, "later": now + 3600})
        broker.publish(to("q", *(message(i) for i in range(3))))
        assert ids(take(consumer, 5, at_once=at_once)) == ["0", "1", "2", "a", "b"]

    def test_due_does_not_wait_until_the_queue_runs_dry(self, broker: Broker, other: Broker) -> None:
        """It waits for what was there before it was due, and for nothing else."""
        consumer = broker.consume([spec("q")])
        self.park(broker, consumer, {"due": time.time() + 0.3})
        assert isinstance(broker, Depth)
        broker.publish(to("q", message("before")))
        until(lambda: depth_of(broker) == 2, "it is due")
        broker.publish(to("q", message("after")))
        assert ids(take(other.consume([spec("q")]), 3)) == ["before", "due", "after"]

    def test_due_keeps_its_priority(self, broker: Broker) -> None:
        consumer = broker.consume([ranked("q")])
        assert isinstance(consumer, Deferring)
        broker.publish(ranked_to("q", message("due", priority=6), message("due too", priority=7)))
        consumer.defer([(delivery, time.time() + 0.1) for delivery in take(consumer, 2)])
        broker.publish(ranked_to("q", message("less", priority=5)))
        until(lambda: depth_of(broker) == 3, "all are there")
        assert ids(take(consumer, 3, at_once=1)) == ["due too", "due", "less"]

    def test_due_on_a_queue_that_others_serve(self, broker: Broker, other: Broker) -> None:
        first = broker.consume([spec("r")])
        self.park(broker, first, {"a": time.time() + 0.1, "later": time.time() + 3600}, "r")
        first.close()
        until(lambda: depth_of(other, "r") == 1, "it is due")
        assert ids(take(broker.consume([spec("r")]), 1)) == ["a"]


class TestDeadLetters(DeadLetterContract):
    death_deadline = 15.0

    @pytest.fixture
    def make_bounded(self, rabbit_url: str) -> Iterator[MakeBounded]:
        made: list[AmqpBroker] = []

        def make(bounds: DeadLetterBounds = BOUNDS) -> AmqpBroker:
            made.append(AmqpBroker(BrokerConfig(rabbit_url, OPTIONS, dead_letters=bounds)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()

    @pytest.fixture
    def put_raw(self, make_amqp: MakeAmqp) -> PutRaw:
        return raw_through(make_amqp)

    # Results never live beside messages here: what a batch leaves behind is settled without them.

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        return lambda: None

    def test_letters_of_a_settled_batch(self, broker: Broker, make_backend: MakeBackend) -> None:
        """Whose message was settled before leaves no letter."""
        broker.publish(to("q", message(1), message(2), message(3)))
        consumer = broker.consume([spec("q")])
        held = take(consumer, 3)
        consumer.ack(held[1:2])
        refuse(consumer, held[:2], "settled")
        consumer.ack(held[2:])
        assert [(letter.reason, Message.from_envelope(letter.envelope).id) for letter in letters(broker)] == [
            ("settled", "1")
        ]

    def test_deaths_of_a_settled_batch(self, broker: Broker, make_backend: MakeBackend) -> None:
        """They are told to whoever takes it next, and forgotten with its end."""
        broker.publish(to("q", message(1)))
        for expected in (0, 1, 2):
            consumer = broker.consume([spec("q")])
            (held,) = take(consumer, 1)
            assert held.message is not None
            assert held.message.deaths == expected
            held.died = True
            consumer.reject([held], requeue=True)
            consumer.close()
        consumer = broker.consume([spec("q")])
        consumer.ack(take(consumer, 1))
        consumer.close()
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        (held,) = take(consumer, 1)
        assert held.message is not None
        assert held.message.deaths == 0

    # ---------------------------------------------------------------------------------------------- what is AMQP's

    def test_a_kill_between_the_letter_and_the_rejection_leaves_both(self, make_bounded: MakeBounded) -> None:
        broker = make_bounded()
        broker.publish(to("q", message(1)))
        in_child(lambda: self._bury_only(make_bounded()))
        consumer = broker.consume([spec("q")])
        held = take(consumer, 1, deadline=self.death_deadline + 10)
        assert len(letters(broker)) == 1
        refuse(consumer, held)
        assert [Message.from_envelope(letter.envelope).id for letter in letters(broker)] == ["1", "1"]

    @staticmethod
    def _bury_only(broker: Broker) -> list[object]:
        assert isinstance(broker, AmqpBroker)
        consumer = broker.consume([spec("q")])
        held = take(consumer, 1)
        broker.dead_letters.bury([Refused(held[0], None)])
        return [broker, consumer, held]

    def test_who_is_killed_while_he_looks_leaves_all_as_it_was(self, make_bounded: MakeBounded) -> None:
        """Nobody else can look meanwhile, and after that everybody."""
        broker = make_bounded()
        broker.publish(to("q", *(message(i) for i in range(40))))
        consumer = broker.consume([spec("q")])
        refuse(consumer, take(consumer, 40))
        before = letters(broker)
        child = Child(lambda: self._look(make_bounded()))
        child.done()
        assert isinstance(broker, AmqpBroker)
        with broker.link() as link:
            assert not amqp_dead._lock(link, amqp_dead._name("lock", "q"))
        child.kill()
        assert letters(broker) == before
        assert len(before) == 40

    @staticmethod
    def _look(broker: Broker) -> list[object]:
        assert isinstance(broker, AmqpBroker)
        opened = ExitStack()
        link = opened.enter_context(broker.link())
        return [opened, list(opened.enter_context(amqp_dead._all_of(link, "q")))]

    def test_what_was_looked_at_is_there_at_once(self, broker: Broker) -> None:
        """The server puts hundreds back one after another, and answers some questions before it has done."""
        broker.publish(to("q", *(message(i) for i in range(600))))
        consumer = broker.consume([spec("q")])
        refuse(consumer, take(consumer, 600))
        assert isinstance(broker, AmqpBroker)
        dead = broker.dead_letters
        for _ in range(3):
            some = dead.newest("q", 5)
            assert dead.counts() == {"q": 600}
            assert dead.find([letter.id for letter in some]) == some
            assert len(dead.newest("q", 1000)) == 600
        assert dead.requeue([letter.id for letter in some]) == 5
        assert dead.counts() == {"q": 595}

    def test_bytes_are_counted_again_where_the_number_is_wrong(
        self, make_bounded: MakeBounded, put_raw: PutRaw
    ) -> None:
        """Somebody has written a letter, and died before he told how many there are."""
        broker = make_bounded(DeadLetterBounds(size=2500))
        consumer = broker.consume([spec("q")])
        for i in range(2):
            put_raw("q", b"%d" % i * 1000)
        refuse(consumer, take(consumer, 2))
        assert isinstance(broker, AmqpBroker)
        with broker.link() as link:
            assert link.call(amqp_dead._get(amqp_dead._name("total", "q"), keep=False), {(60, 71), (60, 72)}).body
        put_raw("q", b"2" * 1000)
        refuse(consumer, take(consumer, 1))
        assert [letter.envelope[:1] for letter in letters(broker)] == [b"2", b"1"]

    def test_the_queue_s_own_dead_letter_exchange_gets_it_too(self, broker: Broker) -> None:
        """Whoever comes from Celery may have one."""
        own = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "theirs"}
        queue = QueueSpec("q", "q", routing_key="q", arguments=own)
        broker.declare([spec("theirs")])
        broker.publish([Publication(message(1), Route("", "q", queue))])
        consumer = broker.consume([queue])
        refuse(consumer, take(consumer, 1))
        assert ids(take(broker.consume([spec("theirs")]), 1)) == ["1"]
        assert len(letters(broker)) == 1

    def test_deaths_on_quorum_queues(self, broker: Broker) -> None:
        """The server counts there how often it has handed a message out: not the same, and no task's concern."""
        queue = QueueSpec("q", "q", routing_key="q", arguments={"x-queue-type": "quorum"})
        broker.publish([Publication(message(1), Route("", "q", queue))])
        consumer = broker.consume([queue])
        for died, expected in ((False, 0), (True, 0), (False, 1), (True, 1), (False, 2)):
            (held,) = take(consumer, 1)
            assert held.message is not None
            assert (held.message.deaths, set(held.message.headers)) == (expected, {"task", "id"})
            held.died = died
            consumer.reject([held], requeue=True)
        consumer.close()

    def test_parked_messages_take_their_deaths_along(self, broker: Broker) -> None:
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        assert isinstance(consumer, Deferring)
        (held,) = take(consumer, 1)
        held.died = True
        consumer.reject([held], requeue=True)
        consumer.defer([(take(consumer, 1)[0], time.time() + 0.1)])
        (again,) = take(consumer, 1)
        assert again.message is not None
        assert (again.message.deaths, set(again.message.headers)) == (1, {"task", "id"})
        consumer.close()

    def test_who_has_begun_and_ends_in_good_order_is_not_blamed(
        self, broker: Broker, make_bounded: MakeBounded
    ) -> None:
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        (held,) = take(consumer, 1)
        held.died = True
        consumer.reject([held], requeue=True)
        held = take(consumer, 1)
        assert isinstance(consumer, Blaming)
        consumer.begun(held)
        consumer.close()
        (again,) = take(make_bounded().consume([spec("q")]), 1)
        assert again.message is not None
        assert again.message.deaths == 1


class TestRouting(RoutingContract):
    passed_over = ""
    make_broker = TestBroker.make_broker


class TestBroadcasting(BroadcastingContract):
    counts = False

    @pytest.fixture
    def make_carrier(self, make_amqp: MakeAmqp) -> MakeCarrier:
        return make_amqp

    def test_it_says_so_if_nobody_has_heard(self, make_amqp: MakeAmqp) -> None:
        """Of what is for everybody: then no answer is waited for. What came back of others is not taken for it."""
        broker = make_amqp()

        def told(*notices: Notice) -> int | None:
            return broker.tell(notices)

        assert told(notice("nobody")) == told(notice("one"), notice("two", "no.pidbox")) == 0
        lost = Route("ctl", "nowhere", None, exchange_type="direct")
        broker.publish([Publication(message(1), lost)])
        listener = broker.listen([ear("n.pidbox")])
        assert told(notice("one")) is None
        assert told(notice("two"), notice("nobody", "no.pidbox")) is None
        assert told(notice("event", "ev", "topic", "worker.online")) == 0
        assert hear(listener, 2) == ["one", "two"]
        listener.close()
        assert told(notice("nobody")) == 0
        with broker.link() as link:
            with_confirms(link)
        assert told(notice("nobody")) == 0

    @pytest.mark.parametrize("confirmed", [False, True])
    def test_it_says_of_events_that_nobody_has_heard_them(
        self, make_amqp: MakeAmqp, listen: Callable[..., Listener], confirmed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        carrier = make_amqp(confirm_publish=confirmed)

        def told(*keys: str) -> int | None:
            return carrier.tell([notice(key, "ev", "topic", key) for key in keys])

        assert told("task.multi") == told("task.multi", "worker.online") == 0
        workers = listen(ear("ev.1", "ev", "topic", "worker.#"))
        assert told("task.multi") == 0
        assert told("task.multi", "worker.online") is None
        everything = listen(ear("ev.2", "ev", "topic", "#"))
        assert told("task.multi") is None
        assert carrier.tell([notice("command", "nobody.pidbox")]) == 0
        assert (hear(workers, 1), hear(everything, 1)) == (["worker.online"], ["task.multi"])
        everything.close()
        until(lambda: told("task.multi") == 0, "its queue is gone")
        assert not [record for record in caplog.records if "task.multi" in record.getMessage()]

    def test_a_server_that_takes_nothing_is_not_waited_for(
        self, make_amqp: MakeAmqp, rabbit_session: RabbitServer
    ) -> None:
        """It says so once it is sent something, and reads no question after that."""
        carrier = make_amqp(confirm_publish=False)
        event = notice("event", "ev", "topic", "task.multi")
        assert carrier.tell([event]) == 0
        with rabbit_session.short_of_memory():
            until(lambda: carrier.tell([event]) is None, "it has stopped")
            assert carrier.tell([event]) is None
        until(lambda: carrier.tell([event]) == 0, "it takes messages again")

    def test_a_task_that_came_back_is_not_taken_for_an_event(self, make_amqp: MakeAmqp) -> None:
        carrier = make_amqp(confirm_publish=False)
        event = notice("event", "ev", "topic", "task.multi")
        assert carrier.tell([event]) == 0
        with carrier.link() as link:
            link.call(publish("ev", "else", mandatory=True) + content({}, b"", link.frame_max) + ASK, {ASKED})
            assert [came.kind for came in link.inbox] == [RETURNED]
        with carrier.link() as link:
            assert tell(link, [event]) == 0
            assert [returned_from(came.arguments) for came in link.inbox] == [("ev", "else")]
            link.inbox.clear()


def depth_of(broker: Broker, queue: str = "q") -> int:
    assert isinstance(broker, Depth)
    return broker.depth(queue)


def ranked(name: str, most: int = 9) -> QueueSpec:
    return QueueSpec(name, name, routing_key=name, arguments={"x-max-priority": most})


def ranked_to(name: str, *messages: Message) -> list[Publication]:
    return [Publication(each, Route("", name, ranked(name))) for each in messages]


def test_a_queue_that_is_declared_otherwise_is_named_with_both_values(make_amqp: MakeAmqp) -> None:
    broker = make_amqp()
    broker.declare([ranked("q", 5)])
    with pytest.raises(ImproperlyConfigured, match=r"queue 'q' .* x-max-priority is '5' .* and '9'"):
        broker.publish(ranked_to("q", message(1)))
    broker.publish([Publication(message(2), Route("", "q", ranked("q", 5)))])
    assert ids(take(broker.consume([ranked("q", 5)]), 1)) == ["2"]


def test_what_follows_reaches_a_queue_that_nobody_declared(make_amqp: MakeAmqp) -> None:
    """A run's follow-ups name a queue and do not describe it."""
    broker = make_amqp()
    broker.publish([Publication(message(1), Route("", "nowhere yet"))])
    broker.declare([ranked("there")])
    broker.publish([Publication(message(2), Route("", "there"))])
    assert ids(take(broker.consume([spec("nowhere yet"), ranked("there")]), 2)) in (["1", "2"], ["2", "1"])


def test_wrong_password_and_missing_vhost(rabbit_url: str) -> None:
    for url, said in ((rabbit_url.replace(":guest@", ":s3cret@"), "password"), (rabbit_url + "-none", "virtual host")):
        broker = AmqpBroker(BrokerConfig(url))
        with pytest.raises(ImproperlyConfigured, match=said) as caught:
            broker.declare([spec("q")])
        assert "s3cret" not in str(caught.value) + repr(broker)


def test_several_urls_are_tried_in_turn(rabbit_url: str) -> None:
    broker = AmqpBroker(BrokerConfig(f"amqp://guest@127.0.0.1:{free_port()}//;{rabbit_url}", OPTIONS))
    broker.publish(to("q", message(1)))
    assert ids(take(broker.consume([spec("q")]), 1)) == ["1"]
    broker.close()


def test_nobody_answers() -> None:
    broker = AmqpBroker(BrokerConfig(f"amqp://guest:s3cret@127.0.0.1:{free_port()}//"))
    with pytest.raises(OperationalError, match=r"Cannot reach the broker at amqp://guest:\*\*@.*sqlite:///") as caught:
        broker.publish(to("q", message(1)))
    assert "s3cret" not in str(caught.value)


def test_confirms_that_the_server_does_not_offer(make_amqp: MakeAmqp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other servers speak AMQP 0-9-1 without RabbitMQ's extensions."""
    broker = make_amqp()
    connect = broker.endpoint.connect

    def plainly(*, heartbeat: float = 0.0) -> Link:
        link = connect(heartbeat=heartbeat)
        link.capabilities = frozenset()
        return link

    monkeypatch.setattr(broker.endpoint, "connect", plainly)
    with pytest.raises(ImproperlyConfigured, match="confirm_publish needs publisher confirms"):
        broker.publish(to("q", message(1)))
    broker.close()
    plain = make_amqp(confirm_publish=False)
    with plain.link() as link:
        link.capabilities = frozenset()
    plain.publish(to("q", *(message(i) for i in range(3))))
    assert ids(take(plain.consume([spec("q")]), 3)) == numbers(3)


def test_a_connection_that_was_closed_is_found_out_before_a_message_is_lost(
    make_amqp: MakeAmqp, rabbit_session: RabbitServer
) -> None:
    broker = make_amqp(confirm_publish=False)
    broker.publish(to("q", message(0)))
    (link,) = broker._idle
    link._line.shutdown(socket.SHUT_RDWR)
    broker.publish(to("q", message(1)))
    assert ids(take(broker.consume([spec("q")]), 2)) == numbers(2)


def test_quorum_queues(make_amqp: MakeAmqp) -> None:
    queue = QueueSpec("q", "q", routing_key="q", arguments={"x-queue-type": "quorum"})
    broker = make_amqp()
    broker.publish([Publication(message(i), Route("", "q", queue)) for i in range(20)])
    consumer = broker.consume([queue])
    held = take(consumer, 5)
    consumer.ack(held[:4])
    consumer.reject(held[4:], requeue=True)
    assert sorted(ids(take(consumer, 16)), key=int) == numbers(20)[4:]


def test_a_deleted_queue_is_declared_again(make_amqp: MakeAmqp, rabbit_session: RabbitServer, rabbit_url: str) -> None:
    broker = make_amqp()
    consumer = broker.consume([spec("q")])
    rabbit_session.call("DELETE", f"queues/{rabbit_url.rpartition('/')[2]}/q")
    with pytest.raises(OperationalError):
        consumer.fetch(1, 5.0)
    assert consumer.fetch(1, 0.0) == []
    make_amqp().publish(to("q", message(1)))
    assert ids(take(consumer, 1)) == ["1"]
    consumer.close()


def test_a_lost_connection_is_told_of_and_what_was_held_comes_again(make_amqp: MakeAmqp) -> None:
    broker = make_amqp()
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    (held,) = take(consumer, 1)
    assert consumer._link is not None
    consumer._link._line.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OperationalError):
        consumer.fetch(1, 1.0)
    assert (consumer.lost(), consumer.lost(), held.lost) == ([held], [], True)
    consumer.ack([held])
    (again,) = take(consumer, 1)
    assert again.message is not None
    assert (again.message.id, again.message.redelivered) == ("1", True)
    consumer.close()


def test_acknowledged_out_of_order(make_amqp: MakeAmqp) -> None:
    broker = make_amqp()
    broker.publish(to("q", *(message(i) for i in range(10))))
    consumer = broker.consume([spec("q")])
    held = take(consumer, 10)
    consumer.ack([held[5], held[1], held[0], held[2], held[7]])
    consumer.ack([held[3]])
    consumer.close()
    assert ids(take(broker.consume([spec("q")]), 4)) == ["4", "6", "8", "9"]


@pytest.mark.parametrize("name", ["with.dots", "*", "#.x", "n" * 230])
def test_any_queue_can_have_delays(make_amqp: MakeAmqp, name: str) -> None:
    broker = make_amqp()
    queue, neighbour = QueueSpec(name), QueueSpec(name.rpartition(".")[2] + "x")
    consumer = broker.consume([queue, neighbour])
    broker.publish([Publication(message(1, kept={"a": 1}), Route("", name, queue))])
    assert isinstance(consumer, Deferring)
    consumer.defer([(take(consumer, 1)[0], time.time() + 0.1)])
    (again,) = take(consumer, 1)
    assert again.message is not None
    assert (again.queue, again.message.redelivered, again.message.exchange) == (name, False, "")
    assert set(again.message.headers) == {"task", "id", "kept"}


def test_without_extensions_nothing_is_parked(make_amqp: MakeAmqp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the worker holds what is not due, as Celery's does."""
    broker = make_amqp(confirm_publish=False)
    connect = broker.endpoint.connect

    def plain(*, heartbeat: float = 0.0) -> Link:
        link = connect(heartbeat=heartbeat)
        link.capabilities = frozenset()
        return link

    monkeypatch.setattr(broker.endpoint, "connect", plain)
    broker.publish(to("q", *(message(i) for i in range(3))))
    consumer = broker.consume([spec("q")])
    assert not isinstance(consumer, Deferring)
    held = take(consumer, 3)
    consumer.ack(held[:1])
    consumer.reject(held[1:], requeue=True)
    held = take(consumer, 2)
    assert [(d.message.id, d.message.deaths) for d in held if d.message] == [("1", 0), ("2", 0)]
    consumer.reject(held, requeue=False)
    consumer.close()
    assert (depth_of(broker), depth_of(broker, "celery.dead.letters.q")) == (0, 0)


def test_a_queue_that_goes_with_its_last_consumer_stays_while_it_is_served(make_amqp: MakeAmqp) -> None:
    broker = make_amqp()
    queue = QueueSpec("q", "q", routing_key="q", auto_delete=True)
    consumer = broker.consume([spec("other"), queue])
    assert consumer.fetch(1, 0.01) == []
    assert consumer.fetch(1, 0.0) == []
    broker.publish([Publication(message(i), Route("q", "q")) for i in range(3)])
    held = take(consumer, 3, at_once=1)
    assert sorted(ids(held)) == numbers(3)
    consumer.ack(held)
    consumer.cancel_queue("q")
    broker.publish([Publication(message("lost"), Route("q", "q"))])
    assert consumer.fetch(1, 0.01) == []
    consumer.close()


def test_what_came_before_an_acknowledged_message_does_not_go_with_it(make_amqp: MakeAmqp) -> None:
    """One is asked for, while another has come by a subscription that lasts, and lies unread."""
    lasting, plain = QueueSpec("s", "s", routing_key="s", auto_delete=True), spec("q")
    busy = make_amqp().consume([lasting])
    broker = make_amqp()
    broker.publish([Publication(message("x"), Route("s", "s"))])
    (first,) = take(busy, 1)  # it holds one, and gets no other
    consumer = broker.consume([plain, lasting])
    broker.publish([Publication(message("unread"), Route("s", "s")), *to("q", message("asked for"))])
    assert consumer._link is not None
    until(lambda: select([consumer._link], [], [], 0)[0], "it has come")
    got = consumer._get(consumer._link, 1)
    while ids(got) != ["asked for"]:
        got = consumer._get(consumer._link, 1)
    consumer.ack(got)
    consumer.flush()
    consumer.close()
    busy.ack([first])
    assert ids(take(busy, 1)) == ["unread"]
    busy.close()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_many_are_taken_at_once_and_never_more_than_asked_for(kind: str, make_amqp: MakeAmqp) -> None:
    """By two consumers that take what the other was told of, from two queues."""
    queues = [QueueSpec(n, n, routing_key=n, arguments={"x-queue-type": kind}) for n in ("a", "b")]
    broker = make_amqp()
    broker.publish([Publication(message(i), Route("", "ab"[i % 2], queues[i % 2])) for i in range(1000)])
    one, two = broker.consume(queues), make_amqp().consume(queues)
    seen: list[str] = []
    sizes = set()
    while len(seen) < 1000:
        for consumer, limit in ((one, 150), (two, 90)):
            held = consumer.fetch(limit, 0.0)
            assert len(consumer.held) <= limit, "with those that came by themselves and wait for the next call"
            sizes.add(len(held))
            consumer.ack(held)
            seen += ids(held)
    assert max(sizes) > 100
    assert sorted(seen, key=int) == numbers(1000), "each once"
    for consumer in (one, two):
        assert consumer.fetch(100, 0.0) == []
        consumer.close()


def test_a_line_that_was_cut_is_found_out_and_the_worker_takes_another(rabbit_url: str) -> None:
    """Half open: nothing comes, and nothing says so. Heartbeats do, here within seconds."""
    port = urlsplit(rabbit_url).port or 0
    with FaultProxy(port) as proxy:
        broker = AmqpBroker(BrokerConfig(rabbit_url.replace(f":{port}", f":{proxy.port}"), OPTIONS))
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        (held,) = take(consumer, 1)
        proxy.half_open()
        with pytest.raises(OperationalError):
            consumer.fetch(0, 30.0)
        assert consumer.lost() == [held]
        assert ids(take(consumer, 1)) == ["1"]
        consumer.close()
        broker.close()


def test_unconfirmed_as_it_is_by_default(make_amqp: MakeAmqp) -> None:
    broker = make_amqp(confirm_publish=False)
    for i in range(20):
        broker.publish(to("q", message(i)))
    broker.publish(to("q", *(message(i) for i in range(20, 200))))
    consumer = broker.consume([spec("q")])
    assert ids(take(consumer, 200)) == numbers(200)
    consumer.close()


def test_tls(rabbit_url: str, rabbit_session: RabbitServer) -> None:
    """The certificate and the name in it are verified; what is large is read from the line's own buffers too."""
    parts = urlsplit(rabbit_url)
    trusted = {"ca_certs": rabbit_session.authority.path("ca.crt")}
    for host, secured in (("localhost", True), ("127.1", trusted)):
        broker = AmqpBroker(BrokerConfig(f"amqps://guest:s3cret@{host}:{rabbit_session.tls_port}/", ssl=secured))
        with pytest.raises(ImproperlyConfigured, match="certificate") as caught:
            broker.declare([spec("q")])
        assert "s3cret" not in str(caught.value)
    unasked = {"cert_reqs": ssl.CERT_NONE}
    AmqpBroker(BrokerConfig(f"amqps://guest:guest@127.1:{rabbit_session.tls_port}{parts.path}", ssl=unasked)).declare(
        []
    )
    url = f"amqps://guest:guest@localhost:{rabbit_session.tls_port}{parts.path}"
    broker = AmqpBroker(BrokerConfig(url, OPTIONS, ssl=trusted))
    body = b"x" * 1_000_000
    broker.publish(to("q", *(message(i, body=body) for i in range(5))))
    consumer = broker.consume([spec("q")])
    held = take(consumer, 5)
    assert ids(held) == numbers(5)
    assert held[4].message is not None
    assert held[4].message.body == body
    consumer.ack(held)
    consumer.close()
    broker.close()


def test_a_check_finds_it_well(rabbit_url: str) -> None:
    """`celery check`."""
    app = Celery("checked", broker=rabbit_url, set_as_current=False)
    app.task(name="add", shared=False)(lambda: None)
    found = list(check(app, 30.0))
    assert [one for one in found if one.finding.grade == "bad"] == []
    assert any(one.room == "broker" and one.finding.text.startswith("RabbitMQ ") for one in found), found
    app.close()
