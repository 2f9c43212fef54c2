"""Transport options of Redis: what each does, and what is said of those that do nothing."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.backends.redis_store import RedisStore
from celery.brokers.redis import RedisBroker
from celery.brokers.redis_advice import on_options
from celery.drivers.redis import READ_DEADLINE, Endpoint
from celery.drivers.redis_pool import LinkPool
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.ports import BackendConfig, BrokerConfig
from tests.contracts.broker import ids, message, spec, take, to
from tests.running import wait_until
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGGER = "celery.brokers.redis"


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[Callable[..., RedisBroker]]:
    made: list[RedisBroker] = []

    def make_broker(url: str = "", **options: Any) -> RedisBroker:
        made.append(RedisBroker(BrokerConfig(url or redis_server.url(), options)))
        return made[-1]

    yield make_broker
    for broker in made:
        broker.close()


def names(redis_server: RedisServer) -> list[bytes]:
    clients: bytes = redis_server.call("CLIENT", "LIST")
    return [line.partition(b" name=")[2].partition(b" ")[0] for line in clients.splitlines()]


# --------------------------------------------------------------------------------------------------------------- advice


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"visibility_timeout": 60, "priority_steps": [0, 9], "sep": ":", "ssl_ca_certs": "x"}, []),
        ({"fanout_prefix": True, "fanout_patterns": True, "ack_emulation": True, "body_encoding": "base64"}, []),
        ({"ack_emulation": False}, ["ack_emulation has no effect: a message is always held"]),
        ({"body_encoding": None}, ["body_encoding has no effect"]),
        ({"fanout_prefix": "/x.", "fanout_patterns": False, "sentinel_fanout_compat": True}, []),
        ({"deadletter_queue": "lost"}, ["deadletter_queue has no effect"]),
        ({"max_retries": 3, "interval_max": 1}, ["task_publish_retry_policy", "task_publish_retry_policy"]),
        ({"visiblity_timeout": 60}, ["there is no option visiblity_timeout .* Did you mean visibility_timeout?"]),
        ({"wait_time_seconds": 20}, ["there is no option wait_time_seconds for Redis; it has no effect.$"]),
    ],
)
def test_options_without_effect_are_named(options: dict[str, Any], said: list[str]) -> None:
    """[broker.9]"""
    lines = list(on_options(options))
    assert len(lines) == len(said)
    for line, pattern in zip(lines, said, strict=True):
        assert re.search(pattern, line), line


@pytest.mark.server
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"save": "", "maxmemory": "0", "maxmemory-policy": "noeviction"}, ["in memory only.*appendonly yes"]),
        ({"save": "3600 1", "maxmemory": "0", "maxmemory-policy": "allkeys-lru"}, []),
        (
            {"save": "3600 1", "maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"},
            [r"throws keys away.*maxmemory-policy allkeys-lru.*set maxmemory-policy noeviction"],
        ),
        ({"save": "3600 1", "maxmemory": "1gb", "maxmemory-policy": "noeviction"}, []),
        ({"save": "", "maxmemory": "1gb", "maxmemory-policy": "volatile-ttl"}, ["volatile-ttl", "appendonly"]),
    ],
)  # fmt: skip
def test_a_server_that_may_lose_messages_is_named_once(
    redis_server: RedisServer,
    make: Callable[..., RedisBroker],
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    said: list[str],
) -> None:
    """[broker.11]: eviction and persistence, at the start of a worker, one warning each."""
    before = {name: redis_server.call("CONFIG", "GET", name)[1] for name in settings}
    for name, value in settings.items():
        redis_server.call("CONFIG", "SET", name, value)
    try:
        with caplog.at_level(logging.WARNING, LOGGER):
            make().consume([spec("q")]).close()
    finally:
        for name, value in before.items():
            redis_server.call("CONFIG", "SET", name, value)
    lines = [entry.getMessage() for entry in caplog.records if entry.name == LOGGER]
    assert len(lines) == len(said), lines
    for line, pattern in zip(lines, said, strict=True):
        assert re.search(pattern, line), line


@pytest.mark.server
def test_no_advice_where_it_may_not_ask(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer("--rename-command", "CONFIG", "") as server:
        broker = RedisBroker(BrokerConfig(server.url()))
        broker.consume([spec("q")]).close()
        broker.close()
    assert [entry for entry in caplog.records if entry.name == LOGGER] == []


# ------------------------------------------------------------------------------------------------ order and connections


@pytest.mark.server
@pytest.mark.parametrize(("strategy", "want"), [("priority", "bbb aaa ccc"), ("sorted", "aaa bbb ccc")])
def test_order_between_queues(make: Callable[..., RedisBroker], strategy: str, want: str) -> None:
    """[route.17] [route.19]: within a step of priority all of one queue before any of the next; steps come first."""
    broker = make(queue_order_strategy=strategy)
    queues = ["b", "a", "c"]
    for queue in queues:
        broker.publish(to(queue, *(message(queue) for _ in range(3)), message(queue + "!", priority=3)))
    consumer = broker.consume([spec(queue) for queue in queues])
    found = "".join(ids(consumer.fetch(4, 1.0) + consumer.fetch(1, 1.0) + consumer.fetch(100, 1.0)))
    first, last = want.replace(" ", ""), "".join(f"{part[0]}!" for part in want.split())
    assert found == first + last
    consumer.close()


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="round_robin, priority, sorted"):
        RedisBroker(BrokerConfig("redis://", {"queue_order_strategy": "random"}))


@pytest.mark.server
def test_connections_bear_the_name_and_are_no_more_than_allowed(
    make: Callable[..., RedisBroker], redis_server: RedisServer
) -> None:
    broker = make(client_name="mine", max_connections=1, socket_timeout=0.2)
    broker.publish(to("q", message(1)))
    assert names(redis_server).count(b"mine") == 1
    link = broker._pool.take()
    with pytest.raises(OperationalError, match="all 1 connections"):
        broker.publish(to("q", message(1)))
    broker._pool.give_back(link)


@pytest.fixture
def forgetful() -> Iterator[int]:
    """The port of a server behind a line that was cut without a word: the first connection is answered once, and every
    later one each time."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        lines: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    lines.append(listening.accept()[0])
                except OSError:
                    return
                first = len(lines) == 1
                while lines[-1].recv(1000):
                    lines[-1].sendall(b"+FIRST\r\n" if first else b"+LATER\r\n")
                    if first:
                        break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)  # it may still be about to read the end of the last line
        for line in lines:
            line.close()


@pytest.mark.parametrize(("seconds", "want"), [(0.01, "LATER"), pytest.param(0, "no answer", marks=pytest.mark.slow)])
def test_an_idle_connection_is_asked_before_it_is_used(
    forgetful: int, monkeypatch: pytest.MonkeyPatch, seconds: float, want: str
) -> None:
    """[redis.17]: `health_check_interval`. What would have gone into a dead line goes over a new one, once."""
    monkeypatch.setattr("celery.drivers.redis_pool._HEALTHY", 0.2)
    options = {"health_check_interval": seconds, "socket_timeout": 0.5}
    pool = LinkPool(Endpoint(f"redis://127.0.0.1:{forgetful}", options))
    assert pool.run([("GET", "x")]) == [b"FIRST"]
    (link,) = [link for link in pool._places if link is not None]
    wait_until(lambda: time.monotonic() > link.checked_until, "the connection was idle long enough")
    try:
        got = str(pool.run([("GET", "x")]))
    except OperationalError as exc:
        got = str(exc)
    assert want in got
    pool.close()


@pytest.mark.server
def test_no_answer_in_time(redis_server: RedisServer) -> None:
    """`socket_timeout`, and `retry_on_timeout`: once more over a new link."""
    with RedisServer() as server:
        once, twice = (
            LinkPool(Endpoint(server.url(), {"socket_timeout": 0.3, "retry_on_timeout": again}))
            for again in (False, True)
        )
        for pool in (once, twice):
            pool.run([("PING",)])
        server.call("CLIENT", "PAUSE", 450, "ALL")
        began = time.monotonic()
        with pytest.raises(OperationalError, match=r"no answer within 0.3 s"):
            once.run([("PING",)])
        assert twice.run([("PING",)])
        assert time.monotonic() - began >= 0.45
        for pool in (once, twice):
            pool.close()


@pytest.mark.slow
def test_time_for_connecting_is_bounded() -> None:
    """`socket_connect_timeout`: nobody answers at an address of a documentation network."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]  # fill the queue of those that nobody accepts
        for line in waiting:
            line.setblocking(False)
            line.connect_ex(("127.0.0.1", port))
        try:
            with pytest.raises(OperationalError, match=r"timed out|no answer"):
                Endpoint(f"redis://127.0.0.1:{port}", {"socket_connect_timeout": 0.2, "socket_timeout": 0.2}).connect(3)
        finally:
            for line in waiting:
                line.close()


@pytest.mark.server
@pytest.mark.parametrize("given", [True, "true", None, False, "false"])
def test_keepalive(redis_server: RedisServer, given: Any) -> None:
    """On unless it is switched off; a line that was cut is then given up by the kernel after 25 seconds."""
    options = {} if given is None else {"socket_keepalive": given}
    link = Endpoint(redis_server.url(), options).connect()
    on = given not in (False, "false")
    assert bool(link._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) == on
    if on:
        wanted = [10, 5, 3]
        kept = [getattr(socket, f"TCP_KEEP{name}") for name in ("IDLE", "INTVL", "CNT")]
        assert [link._socket.getsockopt(socket.IPPROTO_TCP, option) for option in kept] == wanted
    link.close()


# ------------------------------------------------------------------------------------------------------------- settings


def test_settings_of_the_result_backend_reach_its_connections() -> None:
    """[backend.9]; what nobody has set stays our own."""
    app = Celery(backend="redis://h")
    endpoint = app.assembly.adapter.endpoint  # type: ignore[union-attr]
    assert (endpoint.timeout, endpoint.connect_timeout, endpoint.keepalive) == (READ_DEADLINE, 4.0, True)
    app.conf.update(
        redis_socket_timeout=3.0,
        redis_socket_connect_timeout=2.0,
        redis_socket_keepalive=False,
        redis_retry_on_timeout=True,
        redis_backend_health_check_interval=7,
        redis_client_name="results",
        redis_max_connections=5,
    )
    endpoint = app.assembly.adapter.endpoint  # type: ignore[union-attr]
    assert (endpoint.timeout, endpoint.connect_timeout, endpoint.keepalive) == (3.0, 2.0, False)
    assert (endpoint.retry_on_timeout, endpoint.health_check_interval, endpoint.client_name) == (True, 7.0, "results")
    assert len(app.assembly.adapter._pool._places) == 5  # type: ignore[union-attr]
    app.conf.result_backend = "redis://h?socket_timeout=1"
    assert app.assembly.adapter.endpoint.timeout == 1.0  # type: ignore[union-attr]
    app.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:s3cret@a:1/2;redis://u:s3cret@b", "redis://u:**@a:1/2;redis://u:**@b:6379/"),
        (["redis://a", "redis://b"], "redis://a:6379/;redis://b:6379/"),
        ("redis://a;b:7", "redis://a:6379/;redis://b:7/"),
    ],
)
def test_several_urls(url: Any, shown: str) -> None:
    """[broker.2]: a list, or one text."""
    app = Celery(broker=url)
    assert app.assembly.broker.endpoint.shown == shown  # type: ignore[attr-defined]
    app.close()


def test_urls_of_several_kinds_are_refused() -> None:
    app = Celery(broker="redis://a;sqlite:///b")
    with pytest.raises(ImproperlyConfigured, match="of one kind; got redis://, sqlite://"):
        _ = app.assembly.broker
    app.close()


def test_one_url_too_many_is_named(caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    app = Celery(broker=f"sqlite:///{tmp_path}/a;sqlite:///{tmp_path}/b")
    assert app.assembly.broker
    assert "has no failover; only the first of 2 URLs is used" in caplog.text
    app.close()


@pytest.mark.parametrize(("url", "said"), [("valkey://h", "write redis://"), ("unix:///x", r"redis\+socket:///path")])
def test_schemes_that_do_not_exist(url: str, said: str) -> None:
    app = Celery(broker=url)
    with pytest.raises(ImproperlyConfigured, match=said):
        _ = app.assembly.broker
    app.close()


@pytest.mark.server
def test_a_frozen_server_is_noticed_by_a_consumer(make: Callable[..., RedisBroker]) -> None:
    """It accepts what is sent, and says nothing: the read deadline ends that, and the next attempt connects anew."""
    with RedisServer() as server:
        broker = make(server.url(), socket_timeout=0.3, socket_connect_timeout=0.3)
        consumer = broker.consume([spec("q")])
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(OperationalError, match=r"no answer within"):
                consumer.fetch(1, 0.0)
            with pytest.raises(OperationalError):
                broker.publish(to("q", message(1)))
        finally:
            os.kill(server.pid, signal.SIGCONT)
        wait_until(lambda: _published(broker), "the server answers again")
        assert ids(take(consumer, 1)) == ["1"]
        consumer.close()


def _published(broker: RedisBroker) -> bool:
    try:
        broker.publish(to("q", message(1)))
    except OperationalError:
        return False
    return True


@pytest.mark.server
def test_results_on_another_server(redis_server: RedisServer) -> None:
    """No step settles on both: the consumer says so, and the result is stored before the message is let go."""
    with RedisServer() as other:
        broker, store = RedisBroker(BrokerConfig(redis_server.url())), RedisStore(BackendConfig(other.url()))
        consumer = broker.consume([spec("q")])
        assert not consumer.join(store)
        consumer.close()
        broker.close()
        store.close()
