"""The contracts on `redis://`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from celery.backends.redis_store import RedisStore
from celery.brokers.redis import RedisBroker
from celery.ports import BackendConfig, BrokerConfig, DeadLetterBounds
from tests.contracts.backend import BackendContract
from tests.contracts.broadcasting import BroadcastingContract
from tests.contracts.broker import BrokerContract
from tests.contracts.dead_letters import BOUNDS, DeadLetterContract
from tests.contracts.inspecting import InspectingContract
from tests.contracts.routing import RoutingContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.contracts.backend import MakeBackend, PassTime
    from tests.contracts.broadcasting import MakeCarrier
    from tests.contracts.broker import MakeBroker, PutRaw
    from tests.contracts.dead_letters import MakeBounded
    from tests.servers import RedisServer

pytestmark = pytest.mark.server

#: Short, so that the dead are found out while the test waits.
LEASE = 1.5


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return redis_server.url()


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
    def options(self) -> dict[str, object]:
        return {"lease_timeout": LEASE}

    @pytest.fixture
    def make_broker(self, url: str, options: dict[str, object]) -> Iterator[MakeBroker]:
        made: list[RedisBroker] = []

        def make(node: str = "") -> RedisBroker:
            made.append(RedisBroker(BrokerConfig(url, options, node=node)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()

    @pytest.fixture
    def make_backend(self, make_any_backend: Callable[..., RedisStore]) -> Callable[..., RedisStore]:
        return make_any_backend

    @pytest.fixture
    def put_raw(self, redis_server: RedisServer) -> PutRaw:
        return lambda queue, raw: redis_server.call("LPUSH", queue, raw)


class TestBroadcasting(BroadcastingContract):
    @pytest.fixture
    def options(self) -> dict[str, object]:
        return {}

    @pytest.fixture
    def make_carrier(self, url: str, options: dict[str, object]) -> Iterator[MakeCarrier]:
        made: list[RedisBroker] = []

        def make() -> RedisBroker:
            made.append(RedisBroker(BrokerConfig(url, options)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()


class TestBroadcastingWithPrefix(TestBroadcasting):
    """Channels and keys under a global prefix, and no keys in the names of channels."""

    @pytest.fixture
    def options(self) -> dict[str, object]:
        return {"global_keyprefix": "us:", "fanout_patterns": False, "fanout_prefix": "/all.", "sep": "~"}


class TestBrokerWithPrefix(TestBroker):
    """Every key under a global prefix, over a unix socket, with other names for what kombu lets one name."""

    @pytest.fixture
    def url(self, redis_server: RedisServer) -> str:
        return f"redis+socket://{redis_server.socket}?virtual_host=2"

    @pytest.fixture
    def options(self) -> dict[str, object]:
        return {"lease_timeout": LEASE, "global_keyprefix": "p:", "unacked_key": "mine", "sep": ":"}

    @pytest.fixture
    def put_raw(self, redis_server: RedisServer) -> PutRaw:
        return lambda queue, raw: redis_server.call("LPUSH", "p:" + queue, raw, db=2)


class TestRouting(RoutingContract):
    options = TestBroker.options
    make_broker = TestBroker.make_broker


class TestInspecting(InspectingContract):
    options = TestBroker.options
    make_broker = TestBroker.make_broker
    put_raw = TestBroker.put_raw


class TestInspectingWithPrefix(TestInspecting):
    url = TestBrokerWithPrefix.url
    options = TestBrokerWithPrefix.options
    put_raw = TestBrokerWithPrefix.put_raw


class TestDeadLetters(DeadLetterContract):
    options = TestBroker.options
    make_backend = TestBroker.make_backend
    put_raw = TestBroker.put_raw

    @pytest.fixture
    def make_bounded(self, url: str, options: dict[str, object]) -> Iterator[MakeBounded]:
        made: list[RedisBroker] = []

        def make(bounds: DeadLetterBounds = BOUNDS) -> RedisBroker:
            made.append(RedisBroker(BrokerConfig(url, options, dead_letters=bounds)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()


class TestDeadLettersWithPrefix(TestDeadLetters):
    url = TestBrokerWithPrefix.url
    options = TestBrokerWithPrefix.options
    put_raw = TestBrokerWithPrefix.put_raw


class TestBackend(BackendContract):
    @pytest.fixture
    def make_backend(self, make_any_backend: MakeBackend) -> MakeBackend:
        return make_any_backend

    @pytest.fixture
    def pass_time(self, redis_server: RedisServer) -> PassTime:
        """Takes the time off what every key has left."""

        def move(seconds: float) -> None:
            for key in redis_server.call("KEYS", "*"):
                left = redis_server.call("PTTL", key)
                if left >= 0:
                    redis_server.call("PEXPIRE", key, int(left - seconds * 1000))

        return move
