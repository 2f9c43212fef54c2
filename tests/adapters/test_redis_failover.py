"""Several Redis servers: lists of URLs, Sentinels, replicas that become masters and masters that become replicas."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.backends.redis import SentinelBackend
from celery.backends.redis_store import RedisStore
from celery.brokers.redis import RedisBroker
from celery.drivers.redis import open_endpoint
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.ports import BackendConfig, BrokerConfig
from tests.contracts.backend import record, results, results_by_id
from tests.contracts.broker import ids, message, numbers, spec, take, to
from tests.running import wait_until
from tests.servers import RedisServer, Sentinel, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.server

MASTER = {"master_name": "mymaster"}


def insist(action: Callable[[], Any], what: str) -> Any:
    """Again and again while the server is away, as a worker's loop and the publish retry policy do."""
    came: list[Any] = []

    def tried() -> bool:
        with suppress(OperationalError):
            came.append(action())
        return bool(came)

    wait_until(tried, what)
    return came[0]


@pytest.fixture
def replica(redis_server: RedisServer) -> Iterator[RedisServer]:
    redis_server.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with RedisServer("--replicaof", "127.0.0.1", str(redis_server.port)) as replica:
        wait_until(lambda: b"master_link_status:up" in replica.call("INFO", "replication"), "the replica is in step")
        yield replica


# ------------------------------------------------------------------------------------------------------- lists of URLs


def test_the_next_server_is_used_when_the_first_is_away(redis_server: RedisServer) -> None:
    """[broker.2]"""
    nobody = f"redis://127.0.0.1:{free_port()}"
    broker = RedisBroker(BrokerConfig(f"{nobody};{redis_server.url()}"))
    consumer = broker.consume([spec("q")])
    broker.publish(to("q", message(1)))
    assert ids(take(consumer, 1)) == ["1"]
    consumer.close()
    broker.close()


def test_nobody_is_there() -> None:
    broker = RedisBroker(BrokerConfig(";".join(f"redis://u:s3cret@127.0.0.1:{free_port()}" for _ in range(2))))
    with pytest.raises(OperationalError, match="none of 2 Redis servers") as caught:
        broker.publish(to("q", message(1)))
    assert "s3cret" not in str(caught.value) + repr(broker)


def test_lists_in_another_order(redis_server: RedisServer) -> None:
    """[broker.2]: `broker_failover_strategy`."""
    urls = [f"redis://127.0.0.1:{free_port()}" for _ in range(3)] + [redis_server.url()]
    asked: list[list[str]] = []

    def last_first(given: list[str]) -> Iterator[str]:
        asked.append(given)
        while True:
            yield from reversed(given)

    open_endpoint(";".join(urls), strategy=last_first).connect().close()
    assert asked == [urls]
    open_endpoint(";".join(urls[2:]), strategy="shuffle").connect().close()
    with pytest.raises(ImproperlyConfigured, match="'round-robin', 'shuffle' or a function"):
        open_endpoint(";".join(urls), strategy="best")


def test_a_server_that_has_become_a_replica_is_left(redis_server: RedisServer, replica: RedisServer) -> None:
    """READONLY: the one try fails, the next goes to the other server of the list, over links made anew."""
    broker = RedisBroker(BrokerConfig(f"{redis_server.url()};{replica.url()}", {"lease_timeout": 1.5}))
    consumer = broker.consume([spec("q")])
    broker.publish(to("q", message(1)))
    wait_until(lambda: replica.call("LLEN", "q") == 1, "the replica is in step")
    try:
        replica.call("REPLICAOF", "NO", "ONE")
        redis_server.call("REPLICAOF", "127.0.0.1", replica.port)
        with pytest.raises(OperationalError, match=r"READONLY.*connects anew"):
            broker.publish(to("q", message(2)))
        broker.publish(to("q", message(3)))
        assert ids(insist(lambda: take(consumer, 2), "fetching")) == ["1", "3"]
    finally:
        redis_server.call("REPLICAOF", "NO", "ONE")
    consumer.close()
    broker.close()


def test_a_single_address_that_has_become_a_replica(redis_server: RedisServer, replica: RedisServer) -> None:
    """As behind the one name of a managed server: each attempt asks anew who stands behind it."""
    store = RedisStore(BackendConfig(redis_server.url()))
    store.save([record("1")])
    (before,) = [link for link in store._pool._places if link is not None]
    redis_server.call("REPLICAOF", "127.0.0.1", replica.port)
    try:
        with pytest.raises(OperationalError, match="READONLY"):
            store.save([record("2")])
    finally:
        redis_server.call("REPLICAOF", "NO", "ONE")
    assert before.closed
    store.save([record("2")])
    assert results(store.load(["2"])) == [b"{}"]
    store.close()


# ------------------------------------------------------------------------------------------------------------- Sentinel


class Fleet:
    """A master, a replica and three Sentinels."""

    def __init__(self) -> None:
        self.master = RedisServer("--repl-diskless-sync-delay", "0").start()
        self.replica = RedisServer("--replicaof", "127.0.0.1", str(self.master.port)).start()
        wait_until(lambda: b"link_status:up" in self.replica.call("INFO", "replication"), "the replica is in step")
        self.sentinels = [Sentinel(self.master, quorum=2).start() for _ in range(3)]
        for sentinel in self.sentinels:
            wait_until(lambda s=sentinel: self._knows(s), "the Sentinels know each other and the replica", 30)

    @staticmethod
    def _knows(sentinel: Sentinel) -> bool:
        flat = sentinel.call("SENTINEL", "MASTER", "mymaster")
        state = dict(zip(flat[::2], flat[1::2], strict=True))
        return (state[b"num-other-sentinels"], state[b"num-slaves"]) == (b"2", b"1")

    def url(self) -> str:
        return ";".join(f"sentinel://127.0.0.1:{sentinel.port}/0" for sentinel in self.sentinels)

    def in_step(self) -> bool:
        """Whether the replica has everything that the master had when it was asked."""
        offset = self.master.call("INFO", "replication").partition(b"master_repl_offset:")[2].partition(b"\r")[0]
        wait_until(
            lambda: (
                int(self.replica.call("INFO", "replication").partition(b"slave_repl_offset:")[2].partition(b"\r")[0])
                >= int(offset)
            ),
            "the replica has caught up",
        )
        return True

    def stop(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.stop()


def test_the_master_is_killed(fleet: Fleet) -> None:
    """[broker.11] [backend.14]: publisher, consumer and whoever waits for a result come back by themselves. What the
    replica had is neither lost nor left lying: held messages are settled, waiting ones taken, acks known to us kept."""
    broker = RedisBroker(BrokerConfig(fleet.url(), {**MASTER, "lease_timeout": 2.0}, node="one"))
    store = RedisStore(BackendConfig(fleet.url(), MASTER))
    consumer = broker.consume([spec("q")])
    assert consumer.join(store)
    broker.publish(to("q", *(message(i) for i in range(20))))
    held = take(consumer, 5)
    heard: dict[str, bytes] = {}
    waiter = threading.Thread(target=lambda: heard.update(store.wait(["late"], 30.0)))
    waiter.start()
    assert fleet.in_step()
    fleet.master.stop(keep_directory=True)
    sent = 20
    insist(lambda: broker.publish(to("q", message(sent))), "publishing")
    left = insist(lambda: take(consumer, 16), "fetching")
    insist(lambda: consumer.ack([*held, *left]) or consumer.flush(), "settling")
    store.save([record("late", meta=b"told")])
    waiter.join(30)
    assert results_by_id(heard) == {"late": b"told"}
    assert sorted(ids([*held, *left]), key=int) == numbers(21)
    assert fleet.replica.pipeline([("HLEN", "unacked"), ("ZCARD", "unacked_index"), ("LLEN", "q")]) == [0, 0, 0]
    consumer.close()
    store.close()
    broker.close()


def test_acks_that_the_new_master_never_saw(redis_server: RedisServer, replica: RedisServer) -> None:
    """Redis replicates without waiting. What the new master still takes for held, though we have settled it, is not
    left lying for the visibility timeout: it runs again. What we do hold stays ours."""
    url = f"{redis_server.url()};{replica.url()}"
    broker = RedisBroker(BrokerConfig(url, {"lease_timeout": 1.5}, node="one"))
    consumer = broker.consume([spec("q")])
    broker.publish(to("q", *(message(i) for i in range(3))))
    settled, *held = take(consumer, 3)
    wait_until(lambda: replica.call("HLEN", "unacked") == 3, "the replica is in step")
    replica.call("REPLICAOF", "NO", "ONE")  # it hears of nothing from now on
    consumer.ack([settled])
    consumer.flush()
    redis_server.call("REPLICAOF", "127.0.0.1", replica.port)
    try:
        again = insist(lambda: take(consumer, 1), "fetching")
        assert ids(again) == ids([settled])
        assert again[0].message is not None
        assert again[0].message.redelivered
        insist(lambda: consumer.ack([*held, *again]) or consumer.flush(), "settling")
        assert replica.pipeline([("HLEN", "unacked"), ("LLEN", "q")]) == [0, 0]
    finally:
        redis_server.call("REPLICAOF", "NO", "ONE")
    consumer.close()
    broker.close()


def test_sentinels_with_a_password_and_a_choosy_client(redis_server: RedisServer) -> None:
    """`sentinel_kwargs` go to the Sentinels, user and password of the URL to the master; `min_other_sentinels`."""
    with Sentinel(redis_server) as sentinel:
        sentinel.call("ACL", "SETUSER", "default", "resetpass", ">t0psecret")
        places = f"sentinel://127.0.0.1:{free_port()};sentinel://127.0.0.1:{sentinel.port}"
        known = {**MASTER, "sentinel_kwargs": {"password": "t0psecret"}, "socket_connect_timeout": 0.5}
        open_endpoint(places, known).connect().close()
        with pytest.raises(OperationalError, match=r"NOAUTH|wants a password"):
            open_endpoint(places, {**known, "sentinel_kwargs": {}}).connect()
        with pytest.raises(OperationalError, match="fewer than min_other_sentinels=1"):
            open_endpoint(places, {**known, "min_other_sentinels": 1}).connect()
        with pytest.raises(OperationalError, match="No such master"):
            open_endpoint(places, {**known, "master_name": "other"}).connect()
        with pytest.raises(OperationalError, match="WRONGPASS") as caught:
            open_endpoint(places.replace("//", "//me:s3cret@", 1), known).connect()
        assert "secret" not in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_an_app_whose_results_lie_behind_sentinels(redis_server: RedisServer) -> None:
    """[backend.14]: `sentinel://` with `master_name`; the wide class has redis-py's client of the same master."""
    redis_server.call("ACL", "SETUSER", "results", "reset", "on", ">s3cret", "~*", "&*", "+@all")
    with Sentinel(redis_server) as sentinel:
        url = f"sentinel://results:s3cret@127.0.0.1:{sentinel.port}/0"
        app = Celery("sentinels", broker="memory://", backend=url, set_as_current=False)
        app.conf.result_backend_transport_options = MASTER
        backend = app.backend
        assert type(backend) is SentinelBackend
        backend.store_result("1", {"a": 1}, "SUCCESS")
        assert app.AsyncResult("1").get(timeout=10) == {"a": 1}
        assert b'"a": 1' in backend.client.get("celery-task-meta-1").replace(b'"a":1', b'"a": 1')
        assert "s3cret" not in backend.as_uri() + repr(app.assembly.adapter)
        app.close()
    redis_server.call("ACL", "DELUSER", "results")


def test_a_sentinel_url_needs_the_name_of_the_master() -> None:
    with pytest.raises(ImproperlyConfigured, match="master_name"):
        open_endpoint("sentinel://h1;sentinel://h2")


def test_same_server_behind_sentinels() -> None:
    one, two = "sentinel://h1/0;sentinel://h2", "sentinel://h2/0;sentinel://h1:26379"
    assert open_endpoint(one, MASTER).same_server(open_endpoint(two, MASTER))
    assert not open_endpoint(one, MASTER).same_server(open_endpoint(two, {"master_name": "other"}))
    assert not open_endpoint("redis://a;redis://b").same_server(open_endpoint("redis://a;redis://b"))
