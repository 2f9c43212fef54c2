"""What only RabbitMQ can do of routing: native delayed delivery, and what its server makes of the options of queues."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from kombu import Exchange, Queue, binding

from celery import Celery
from celery.bin.celery import celery
from celery.brokers.amqp import AmqpBroker
from celery.exceptions import OperationalError
from celery.ports import BrokerConfig, Publication
from celery.routing import QueueSpec, Route, queue_spec
from tests.contracts.broker import DEADLINE, ids, message, nothing, take, to
from tests.flow.engine import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RabbitServer

    MakeAmqp = Callable[..., AmqpBroker]

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]

QUORUM = {"x-queue-type": "quorum"}


@pytest.fixture
def make_amqp(rabbit_url: str) -> Iterator[MakeAmqp]:
    made: list[AmqpBroker] = []

    def make(**options: Any) -> AmqpBroker:
        # Levels as classic queues: a server makes thirty of them sooner.
        given = {"heartbeat": 2, "delayed_queue_type": "classic", **options}
        made.append(AmqpBroker(BrokerConfig(rabbit_url, given)))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


def asked(rabbit: RabbitServer, url: str, path: str) -> Any:
    return rabbit.call("GET", path.replace("{vhost}", url.rpartition("/")[2]))


def later(id: str, seconds: float, route: Route) -> list[Publication]:
    eta = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
    return [Publication(message(id, eta=eta), route)]


@pytest.mark.parametrize("confirm", [False, True])
def test_the_server_keeps_what_clients_delay(make_amqp: MakeAmqp, confirm: bool) -> None:
    """[route.21] Also before there is any worker; to the whole second below."""
    media = QueueSpec("images", "media", "topic", "media.*", arguments=QUORUM)
    route = Route("media", "media.image", media, "topic")
    broker = make_amqp(confirm_publish=confirm)
    broker.publish([*later("hours", 9999, route), *later("2", 0.5, route), *later("3", -5, route)])
    begin = time.time()
    broker.publish(later("1", 1.9, route))
    consumer = make_amqp().consume([media])
    assert ids(take(consumer, 2)) == ["2", "3"]  # these are the worker's to keep, or to run
    # In one go: a quorum queue may give what comes as a wait ends once more, as redelivered.
    (delivery,) = consumer.fetch(1, DEADLINE)
    assert time.time() - begin > 0.9
    got = delivery.message
    assert got is not None
    assert (got.id, delivery.queue, got.exchange, got.routing_key) == ("1", "images", "", "media.image")
    assert set(got.headers) == {"task", "id", "eta"}
    assert not got.redelivered
    nothing(consumer)


def test_a_worker_has_there_what_celerys_clients_need(
    make_amqp: MakeAmqp, rabbit_session: RabbitServer, rabbit_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """[route.21] They publish to the first level, and declare nothing. Keys without a word of their own would get
    everything that is delayed; and direct exchanges have no such thing, which is told."""
    queues = [
        QueueSpec("images", "media", "topic", "media.#", arguments=QUORUM),
        QueueSpec("all", "media", "topic", "#", arguments=QUORUM),
        QueueSpec("plain", "plain", "direct", "plain", arguments=QUORUM),
    ]
    with caplog.at_level(logging.WARNING, "celery"):
        make_amqp().consume(queues)
    said = [one.message for one in caplog.records]
    assert [line.split(" is bound to ")[0] for line in said] == ["Queue all", "Queue plain"]
    bindings = asked(rabbit_session, rabbit_url, "bindings/{vhost}")
    found = {(b["source"], b["destination_type"], b["destination"], b["routing_key"]) for b in bindings}
    assert {one for one in found if one[0] == "celery_delayed_delivery"} == {
        ("celery_delayed_delivery", "exchange", "media", "#.media.#")
    }
    assert ("media", "queue", "images", "#.media.#") in found
    levels = [one for one in found if one[0].startswith("celery_delayed_") and one[1] == "queue"]
    assert len(levels) == 28
    assert ("celery_delayed_27", "queue", "celery_delayed_27", "1.#") in found


def test_delays_of_a_project_with_quorum_queues(rabbit_url: str) -> None:
    """[route.20] [route.21] `task_default_queue_type` and `task_default_exchange_type` are enough."""
    app = Celery("quorum", broker=rabbit_url, set_as_current=False)
    app.conf.update(
        task_default_queue_type="quorum", task_default_exchange_type="topic",
        broker_native_delayed_delivery_queue_type="classic", broker_transport_options={"confirm_publish": True},
    )  # fmt: skip
    broker = app.assembly.broker
    assert isinstance(broker, AmqpBroker)
    app.send_task("far.away", countdown=100)
    app.send_task("far.away", countdown=0.5)
    until(
        lambda: broker.depth("celery_delayed_6") == broker.depth("celery") == 1,
        "64 seconds at first; half of one: none",
    )
    app.close()


def test_what_is_parked_reaches_its_own_queue_only(make_amqp: MakeAmqp) -> None:
    """Although its name is the routing key of another one that has native delayed delivery."""
    other = QueueSpec("other", "media", "topic", "plain", arguments=QUORUM)
    plain = QueueSpec("plain", arguments={})
    broker = make_amqp()
    consumer = broker.consume([other, plain])
    broker.publish(to("plain", message(1)))
    (delivery,) = take(consumer, 1)
    consumer.defer([(delivery, time.time() + 0.5)])  # type: ignore[attr-defined]
    (again,) = take(consumer, 1)
    assert (again.queue, again.message and again.message.routing_key) == ("plain", "plain")
    nothing(consumer, 0.3)


def test_queues_are_declared_as_they_are_described(
    make_amqp: MakeAmqp, rabbit_session: RabbitServer, rabbit_url: str
) -> None:
    """[route.22]"""
    described = Queue(
        "q", Exchange("papers", type="headers", durable=False, auto_delete=True, arguments={"alternate-exchange": "x"}),
        routing_key="k", binding_arguments={"x-match": "any", "format": "pdf"},
        consumer_arguments={"x-priority": 5}, queue_arguments={"x-single-active-consumer": True},
        expires=60, message_ttl=1.5, max_length=10, max_length_bytes=10_000, max_priority=7,
    )  # fmt: skip
    several = Queue("several", [binding(Exchange("a"), "1"), binding(Exchange("b", type="topic"), "2.#")])
    mine = Queue("mine", Exchange(""), durable=False, exclusive=True)
    consumer = make_amqp().consume([queue_spec(one) for one in (described, several, mine)])
    queues = {one["name"]: one for one in asked(rabbit_session, rabbit_url, "queues/{vhost}")}
    assert queues["q"]["arguments"] == {
        "x-expires": 60_000, "x-message-ttl": 1500, "x-max-length": 10, "x-max-length-bytes": 10_000,
        "x-max-priority": 7, "x-single-active-consumer": True,
    }  # fmt: skip
    assert (queues["mine"]["durable"], queues["mine"]["exclusive"]) == (False, True)
    exchange = asked(rabbit_session, rabbit_url, "exchanges/{vhost}/papers")
    assert (exchange["type"], exchange["durable"], exchange["auto_delete"]) == ("headers", False, True)
    assert exchange["arguments"] == {"alternate-exchange": "x"}
    bindings = asked(rabbit_session, rabbit_url, "bindings/{vhost}")
    assert {(b["source"], b["routing_key"], str(b["arguments"])) for b in bindings if b["source"]} == {
        ("papers", "k", str({"format": "pdf", "x-match": "any"})), ("a", "1", "{}"), ("b", "2.#", "{}"),
    }  # fmt: skip

    def subscribed() -> list[dict[str, Any]]:
        return [one for one in asked(rabbit_session, rabbit_url, "consumers/{vhost}") if one["queue"]["name"] == "q"]

    (one,) = until(subscribed, "the management has seen the consumer")
    assert one["arguments"] == {"x-priority": 5}
    consumer.close()


def test_the_server_chooses_who_gets_the_messages_of_a_single_active_consumer(make_amqp: MakeAmqp) -> None:
    """Only one of them, in order, until it goes; though both ask for as many as there are."""
    single = QueueSpec("single", arguments={"x-single-active-consumer": True})
    broker = make_amqp(confirm_publish=True)
    active, waiting = broker.consume([single]), broker.consume([single])
    broker.publish([Publication(message(i), Route("", "single", single)) for i in range(4)])
    for number in range(3):
        (delivery,) = take(active, 1)
        assert ids([delivery]) == [str(number)]
        nothing(waiting)
        active.ack([delivery])
    active.close()
    assert ids(take(waiting, 1)) == ["3"]


def test_an_exchange_that_is_not_there(make_amqp: MakeAmqp) -> None:
    """Nothing is lost behind one's back: the call says what is missing."""
    broker = make_amqp()
    with pytest.raises(OperationalError, match=r"has no exchange 'nowhere' .* 'some.key': declare a queue"):
        broker.publish([Publication(message(1), Route("nowhere", "some.key"))])


def test_by_hand(rabbit_url: str) -> None:
    """[route.26] [cli.24] At the prompt: what fails is told, and the next command connects anew."""
    app = Celery("by-hand", broker=rabbit_url)
    script = [
        "exchange.declare t topic", "queue.declare q", "queue.bind q t a.*", "basic.publish 'hi there' t a.b",
        "basic.publish nobody t b", "basic.get q", "basic.ack 1", "basic.get nowhere",
        "exchange.declare t fanout", "basic.get q", "exchange.delete t", "queue.purge q", "queue.delete q",
        "queue.delete q",
    ]  # fmt: skip
    done = CliRunner().invoke(celery, ["amqp"], input="\n".join(script), auto_envvar_prefix="CELERY")
    app.close()
    assert done.exit_code == 0
    said = [line for line in done.output.splitlines() if not line.startswith((" ", "{", "->"))]
    expected = [
        "OK", "queue:q messages:0 consumers:0", "OK", "OK", "OK", "OK", "OK",
        "OK", "ERROR: Basic.get: (404) NOT_FOUND", "ERROR: Exchange.declare: (406) PRECONDITION_FAILED",
        "No messages in queue. basic.publish something.", "OK", "OK", "0 messages deleted.", "OK",
        "0 messages deleted.", "OK", "0 messages deleted.", "OK",
    ]  # fmt: skip
    assert [line.split(" - ")[0] for line in said] == expected
    assert "'body': 'hi there'" in done.output
    assert done.output.count("-> connected.") == 3


def test_the_task_consumer_takes_from_the_server(rabbit_url: str) -> None:
    """[route.26] kombu's consumer of the selected queues, over kombu's own connection."""
    app = Celery("manual", broker=rabbit_url, set_as_current=False)
    app.conf.task_queues = [Queue("mine", Exchange("media", type="topic"), routing_key="media.#"), Queue("other")]
    app.select_queues(["mine"])
    heard: list[Any] = []
    with app.connection_for_read() as connection, connection.channel() as channel:
        consumer = app.amqp.TaskConsumer(channel)
        consumer.on_message = lambda message: (heard.append(message.headers["task"]), message.ack())
        with consumer:
            app.send_task("far.away", exchange="media", exchange_type="topic", routing_key="media.x", queue="mine")
            until(lambda: heard or connection.drain_events(timeout=10), "it came")
    assert heard == ["far.away"]
    app.close()


def test_what_is_pushed_while_others_are_asked_for_is_not_acknowledged_with_them(make_amqp: MakeAmqp) -> None:
    """Its number is lower than those of messages that were asked for after it came, and it is read after them."""
    pushed, plain = QueueSpec("pushed", auto_delete=True), QueueSpec("plain")
    broker = make_amqp(confirm_publish=True)
    consumer = broker.consume([pushed, plain])
    broker.publish([Publication(message("pushed"), Route("", "pushed", pushed)), *to("plain", message("plain"))])
    until(lambda: broker.depth("pushed") == 0, "it is on its way to the consumer")
    (first,) = consumer.fetch(1, 0.0)
    consumer.ack([first])
    (second,) = take(consumer, 1)
    consumer.ack([second])
    consumer.flush()  # the server would close the connection over a number that it does not know
    assert sorted(ids([first, second])) == ["plain", "pushed"]
    assert not consumer.held
