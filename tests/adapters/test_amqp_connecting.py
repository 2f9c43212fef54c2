"""How connections to RabbitMQ are made, kept, shared and given up."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from celery import Celery
from celery.brokers.amqp import AmqpBroker
from celery.contrib.migrate import migrate_tasks
from celery.drivers.amqp_pulse import HEARTBEAT
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.ports import BrokerConfig, Publication
from celery.routing import QueueSpec, Route
from tests.chaos.proxy import FaultProxy
from tests.contracts.broker import ids, message, numbers, spec, take, to
from tests.flow.engine import until
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RabbitServer

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]


@pytest.fixture
def make(rabbit_url: str) -> Iterator[Callable[..., AmqpBroker]]:
    made: list[AmqpBroker] = []

    def make(url: str = "", options: Any = None, **others: Any) -> AmqpBroker:
        made.append(AmqpBroker(BrokerConfig(url or rabbit_url, options or {}, **others)))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


def works(broker: AmqpBroker, queue: str = "q") -> bool:
    broker.publish([Publication(message(1), Route("", queue, spec(queue)))])
    consumer = broker.consume([spec(queue)])
    held = take(consumer, 1)
    consumer.ack(held)
    consumer.close()
    return ids(held) == ["1"]


# ------------------------------------------------------------------------------------------------------- which server


def test_the_next_server_is_used_and_kept(rabbit_url: str, make: Callable[..., AmqpBroker]) -> None:
    away = f"amqp://guest@127.0.0.1:{free_port()}//"
    broker = make(f"{away};{rabbit_url}", pool_limit=None)
    assert works(broker)
    assert broker.endpoint._current == rabbit_url


def test_servers_in_an_order_of_one_s_own(rabbit_url: str, make: Callable[..., AmqpBroker]) -> None:
    away = f"amqp://guest@127.0.0.1:{free_port()}//"
    asked: list[list[str]] = []

    def last_first(urls: list[str]) -> Iterator[str]:
        asked.append(list(urls))
        while True:
            yield from reversed(urls)

    broker = make(f"{away};{rabbit_url}", failover=last_first)
    assert works(broker)
    assert asked == [[away, rabbit_url]]
    assert broker.endpoint._current == rabbit_url
    assert works(make(f"{away};{rabbit_url}", failover="shuffle"))
    with pytest.raises(ImproperlyConfigured, match=r"broker_failover_strategy: .*'best'"):
        make(rabbit_url, failover="best")


def test_all_are_away(make: Callable[..., AmqpBroker]) -> None:
    """The first one is named, and each was tried once."""
    tried: list[str] = []

    def noting(urls: list[str]) -> Iterator[str]:
        while True:
            for url in urls:
                tried.append(url)
                yield url

    one, two = (f"amqp://guest:s3cret@127.0.0.1:{free_port()}//" for _ in range(2))
    with pytest.raises(OperationalError, match=f"Cannot reach the broker at .*{urlsplit(one).port}") as caught:
        make(f"{one};{two}", failover=noting).declare([spec("q")])
    assert "s3cret" not in str(caught.value)
    assert tried == [one, two, one]


def test_read_from_one_and_written_to_another(rabbit_session: RabbitServer, rabbit_url: str) -> None:
    """`broker_read_url` is where a worker takes tasks from, `broker_write_url` where calls go."""
    other = rabbit_session.make_vhost("written")
    app = Celery("split", broker_read_url=rabbit_url, broker_write_url=other, set_as_current=False)
    app.conf.broker_transport_options = {"confirm_publish": True}
    app.send_task("there", task_id="there")
    reading: Any = app.assembly.broker_for_read
    writing: Any = app.assembly.broker
    assert (reading.depth("celery"), writing.depth("celery")) == (0, 1)
    assert reading.url_text != writing.url_text
    reading.publish([Publication(message("here"), Route("", "celery", QueueSpec("celery")))])
    assert ids(take(reading.consume([QueueSpec("celery")]), 1)) == ["here"]
    app.close()
    rabbit_session.drop_vhost("written")


def test_messages_are_moved_to_another_kind_of_broker(rabbit_url: str) -> None:
    """`celery migrate amqp://… memory://…`."""
    app = Celery("move", broker=rabbit_url, set_as_current=False)
    app.conf.broker_transport_options = {"confirm_publish": True}
    for i in range(5):
        app.send_task("add", (i, i), task_id=str(i))
    other = Celery("there", broker="memory://moved-from-rabbit", set_as_current=False)
    state = migrate_tasks(app.connection(), other.connection(), app=app, timeout=1.0, ack_messages=True)
    assert state.count == 5
    broker: Any = other.assembly.broker
    assert broker.depth("celery") == 5
    assert ids(take(broker.consume([QueueSpec("celery")]), 5)) == numbers(5)
    source: Any = app.assembly.broker
    until(lambda: source.depth("celery") == 0, "nothing is left there")
    app.close()
    other.close()


# ----------------------------------------------------------------------------------------------------- how one gets in


@pytest.mark.parametrize("method", ["PLAIN", "AMQPLAIN"])
def test_login_methods(method: str, rabbit_url: str) -> None:
    app = Celery("login", broker=rabbit_url, broker_login_method=method, set_as_current=False)
    broker: Any = app.assembly.broker
    assert broker.config.options["login_method"] == method
    assert works(broker)
    app.close()


def test_login_methods_that_do_not_work(make: Callable[..., AmqpBroker]) -> None:
    """One that nobody knows, and one that this server does not offer."""
    for method in ("SECRET HANDSHAKE", "GSSAPI", "EXTERNAL"):
        with pytest.raises((ImproperlyConfigured, OperationalError)) as caught:
            make(options={"login_method": method}).declare([spec("q")])
        assert "guest:guest" not in str(caught.value)


def test_a_client_certificate(rabbit_session: RabbitServer, make: Callable[..., AmqpBroker], rabbit_url: str) -> None:
    """`broker_use_ssl` with `keyfile` and `certfile`: the server asks for one, and its authority has signed this."""
    path = rabbit_session.authority.path
    rabbit_session.authority.sign("client", "extendedKeyUsage=clientAuth")
    url = f"amqps://guest:guest@localhost:{rabbit_session.tls_port}{urlsplit(rabbit_url).path}"
    options = {"ca_certs": path("ca.crt"), "keyfile": path("client.key"), "certfile": path("client.crt")}
    assert works(make(url, ssl=options))
    with pytest.raises((ImproperlyConfigured, OperationalError, OSError)):
        make(url, ssl={**options, "certfile": path("no such file")}).declare([spec("q")])


def test_time_for_the_login_is_bounded(make: Callable[..., AmqpBroker]) -> None:
    """`read_timeout`: the server accepts, and says nothing."""
    with FaultProxy(free_port()) as proxy:
        proxy.swallow()
        broker = make(f"amqp://guest:s3cret@127.0.0.1:{proxy.port}//", {"read_timeout": 0.3})
        with pytest.raises(OperationalError, match="Cannot reach the broker") as caught:
            broker.declare([spec("q")])
        assert "s3cret" not in str(caught.value)


# --------------------------------------------------------------------------------------------------------- how many


def test_a_pool_of_connections_that_are_all_busy(rabbit_url: str) -> None:
    """`broker_pool_limit` and `broker_pool_acquire_timeout`."""
    app = Celery("pool", broker=rabbit_url, broker_pool_limit=1, set_as_current=False)
    app.conf.broker_pool_acquire_timeout = 0.2
    broker: Any = app.assembly.broker
    with broker.link(), pytest.raises(OperationalError, match="broker_pool_limit or broker_pool_acquire_timeout"):
        broker.publish(to("q", message(1)))
    broker.publish(to("q", message(1)))
    assert len(broker._idle) == 1
    app.close()


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_pool(limit: int | None, make: Callable[..., AmqpBroker]) -> None:
    broker = make(pool_limit=limit)
    assert works(broker)
    assert broker._idle == []


def test_threads_share_a_few_connections(make: Callable[..., AmqpBroker], rabbit_url: str) -> None:
    port = urlsplit(rabbit_url).port or 0
    with FaultProxy(port) as proxy:
        broker = make(rabbit_url.replace(f":{port}/", f":{proxy.port}/"), pool_limit=3)
        threads = [threading.Thread(target=lambda i=i: broker.publish(to("q", message(i)))) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert proxy.accepted <= 3
        assert sorted(ids(take(broker.consume([spec("q")]), 20)), key=int) == numbers(20)


# -------------------------------------------------------------------------------------------------------- heartbeats


@pytest.mark.parametrize(("given", "agreed"), [(None, HEARTBEAT), (30, 30), (0, 0)])
def test_heartbeats_are_agreed_upon(given: int | None, agreed: float, rabbit_url: str) -> None:
    """Ours unless `broker_heartbeat` says otherwise; 0: none."""
    app = Celery("beat", broker=rabbit_url, set_as_current=False)
    if given is not None:
        app.conf.broker_heartbeat = given
    consumer: Any = app.assembly.broker.consume([QueueSpec("celery")])
    assert consumer._link.heartbeat == agreed
    assert consumer._pulse is not None
    consumer.close()
    app.close()


# -------------------------------------------------------------------------------------------------------- PAINS 21, 22


def test_pains_21_priorities_come_in_their_order(make: Callable[..., AmqpBroker]) -> None:
    """Random priorities, one slot: the order is exactly (priority descending, as they were sent)."""
    chance = random.Random(21)
    broker = make(options={"confirm_publish": True})
    queue = QueueSpec("q", "q", routing_key="q", arguments={"x-max-priority": 9})
    ranks = [chance.randrange(10) for _ in range(400)]
    broker.publish([Publication(message(i, priority=rank), Route("", "q", queue)) for i, rank in enumerate(ranks)])
    consumer = broker.consume([queue])
    begun: list[str] = []
    while len(begun) < len(ranks):
        held = take(consumer, 1)
        begun += ids(held)
        consumer.ack(held)
    consumer.close()
    assert begun == [str(i) for i in sorted(range(len(ranks)), key=lambda i: (-ranks[i], i))]


def test_pains_22_quorum_queues_have_what_classic_ones_have(make: Callable[..., AmqpBroker]) -> None:
    """Prefetching follows what is asked for, delays park, and nobody's limit stands in the way of the next."""
    broker = make(options={"confirm_publish": True})
    queue = QueueSpec("q", "q", routing_key="q", arguments={"x-queue-type": "quorum"})
    broker.publish([Publication(message(i), Route("", "q", queue)) for i in range(12)])
    consumer: Any = broker.consume([queue])
    for n in (1, 4, 2):  # more, and less again
        held = take(consumer, n)
        assert consumer.fetch(0, 0.0) == []
        assert len(consumer.held) == n
        consumer.ack(held)
    parked = take(consumer, 4)  # c#11948: as many delayed tasks as there is room for must not block it
    consumer.defer([(delivery, time.time() + 2) for delivery in parked])
    rest = take(consumer, 1)
    assert ids(rest) == ["11"]
    consumer.ack(rest)
    due = take(consumer, 4)
    assert sorted(ids(due), key=int) == ["7", "8", "9", "10"]
    consumer.ack(due)
    consumer.close()
    assert broker.depth("q") == 0
