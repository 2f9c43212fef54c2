"""The broker's contract on other servers than the system's: old ones, Valkey, and those that refuse commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from celery.backends.redis_store import RedisStore
from celery.brokers.redis import RedisBroker
from celery.exceptions import ImproperlyConfigured
from celery.ports import BackendConfig, BrokerConfig
from tests.adapters.test_redis import LEASE
from tests.contracts.backend import BackendContract, record
from tests.contracts.broker import BrokerContract, message, spec, to
from tests.running import ROOT
from tests.servers import RedisServer, free_port, redis_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.contracts.backend import PassTime
    from tests.contracts.broker import MakeBroker, PutRaw

pytestmark = pytest.mark.server

#: What old servers, proxies and hosts do not have or do not let us call.
REFUSED = {
    "RESP3 and tracking": ["HELLO", "CLIENT"],
    "questions about itself": ["INFO", "CONFIG", "ROLE", "SCRIPT"],
}


def rule_of_the_documents() -> list[str]:
    """The rule for a worker's user as our documents give it."""
    (line,) = [
        line
        for line in (ROOT / "docs/operate/brokers.md").read_text().splitlines()
        if line.startswith("ACL SETUSER celery ")
    ]
    return line.split()[3:]


def _servers() -> Iterator[tuple[str, str, list[str]]]:
    programs = redis_programs()
    for name, program in programs.items():
        if name != "redis":
            yield name, program, []
    for what, commands in REFUSED.items():
        renamed = [word for command in commands for word in ("--rename-command", command, "")]
        yield f"without {what}", programs["redis"], renamed
    yield "under ACL", programs["redis"], []


SERVERS = list(_servers())


@pytest.fixture(scope="module", params=SERVERS, ids=[name for name, _, _ in SERVERS])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    name, program, options = request.param
    with RedisServer(*options, program=program) as server:
        if name == "under ACL":
            server.call("ACL", "SETUSER", "celery", "reset", *rule_of_the_documents())
        server.name = name  # type: ignore[attr-defined]
        yield server


@pytest.fixture
def url(server: RedisServer) -> str:
    server.call("FLUSHALL")
    user = "celery:password@" if server.name == "under ACL" else ""  # type: ignore[attr-defined]
    return f"redis://{user}127.0.0.1:{server.port}/0"


@pytest.fixture
def make_any_backend(url: str) -> Iterator[Callable[..., RedisStore]]:
    made: list[RedisStore] = []

    def make(expires: float | None = None) -> RedisStore:
        made.append(RedisStore(BackendConfig(url, expires=expires)))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


class TestBroker(BrokerContract):
    @pytest.fixture
    def make_broker(self, url: str) -> Iterator[MakeBroker]:
        made: list[RedisBroker] = []

        def make(node: str = "") -> RedisBroker:
            made.append(RedisBroker(BrokerConfig(url, {"lease_timeout": LEASE}, node=node)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()

    @pytest.fixture
    def make_backend(self, make_any_backend: Callable[..., RedisStore]) -> Callable[..., RedisStore]:
        return make_any_backend

    @pytest.fixture
    def put_raw(self, server: RedisServer) -> PutRaw:
        return lambda queue, raw: server.call("LPUSH", queue, raw)


class TestBackend(BackendContract):
    @pytest.fixture
    def make_backend(self, make_any_backend: Callable[..., RedisStore]) -> Callable[..., RedisStore]:
        return make_any_backend

    @pytest.fixture
    def pass_time(self, server: RedisServer) -> PassTime:
        def move(seconds: float) -> None:
            for key in server.call("KEYS", "*"):
                left = server.call("PTTL", key)
                if left >= 0:
                    server.call("PEXPIRE", key, int(left - seconds * 1000))

        return move


def test_a_server_without_scripts_is_refused() -> None:
    """Nothing would make taking a message safe there."""
    with RedisServer("--rename-command", "EVALSHA", "") as server:
        broker = RedisBroker(BrokerConfig(server.url()))
        broker.publish(to("q", message(1)))
        consumer = broker.consume([spec("q")])
        with pytest.raises(ImproperlyConfigured, match="EVALSHA"):
            consumer.fetch(1, 1.0)
        consumer.close()
        broker.close()


def test_a_node_of_a_cluster_is_refused() -> None:
    """Keys of one queue would lie on several nodes; said at once, whoever comes first."""
    port = free_port(highest=55535)  # its nodes talk to each other ten thousand higher
    with RedisServer("--cluster-enabled", "yes", port=port) as server:
        broker, store = RedisBroker(BrokerConfig(server.url())), RedisStore(BackendConfig(server.url(1)))
        for attempt in (
            lambda: broker.publish(to("q", message(1))),
            lambda: broker.consume([spec("q")]),
            lambda: store.save([record("1")]),
            lambda: store.wait(["1"], 1.0),
        ):
            with pytest.raises(ImproperlyConfigured, match=r"node of a Redis Cluster.*Sentinel"):
                attempt()
        broker.close()
        store.close()
