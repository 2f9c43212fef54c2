"""Barriers of chords and groups on each adapter that counts them."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from celery.backends.memory import MemoryBackend
from celery.backends.redis_store import RedisStore
from celery.backends.sqlite import SqliteBackend
from celery.brokers.memory import MemoryBroker
from celery.brokers.redis import RedisBroker
from celery.brokers.sqlite import SqliteBroker
from celery.ports import BackendConfig, BrokerConfig
from tests.adapters.test_memory import FakeClock
from tests.contracts.barrier import BarrierContract, member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.servers import RedisServer

_names = count()


class _Clocked(BarrierContract):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def let_claims_lapse(self, clock: FakeClock) -> Callable[[], None]:
        def lapse() -> None:
            clock.now += 31

        return lapse


class TestMemory(_Clocked):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://barriers-{next(_names)}"

    @pytest.fixture
    def broker(self, url: str, clock: FakeClock) -> Any:
        return MemoryBroker(BrokerConfig(url), clock=clock)

    @pytest.fixture
    def backend(self, url: str, clock: FakeClock) -> Any:
        return MemoryBackend(BackendConfig(url), clock=clock)


class TestSqlite(_Clocked):
    @pytest.fixture
    def broker(self, tmp_path: Path) -> Iterator[Any]:
        broker = SqliteBroker(BrokerConfig(f"sqlite:///{tmp_path}/b.db"))
        yield broker
        broker.close()

    @pytest.fixture
    def backend(self, tmp_path: Path, clock: FakeClock) -> Iterator[Any]:
        backend = SqliteBackend(BackendConfig(f"sqlite:///{tmp_path}/b.db"), clock=clock)
        yield backend
        backend.close()

    def test_what_has_expired_is_deleted(self, backend: Any, clock: FakeClock) -> None:
        backend.barriers.open("b", 2)
        backend.barriers.arrive([member(0)])
        backend.groups.save_group("g", b"x")
        clock.now += 86401
        with backend._writer.writing as db:
            assert not backend.arrivals.clean(db, 100)
            for table in ("barriers", "arrivals", "groups"):
                assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


@pytest.mark.server
class TestRedis(BarrierContract):
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def broker(self, redis_server: RedisServer) -> Iterator[Any]:
        broker = RedisBroker(BrokerConfig(redis_server.url()))
        yield broker
        broker.close()

    @pytest.fixture
    def backend(self, redis_server: RedisServer) -> Iterator[Any]:
        backend = RedisStore(BackendConfig(redis_server.url(), options=self.options))
        yield backend
        backend.close()

    @pytest.fixture
    def let_claims_lapse(self, redis_server: RedisServer) -> Callable[[], None]:
        def lapse() -> None:
            for key in redis_server.call("KEYS", "*.c"):
                if redis_server.call("GET", key) != b"done":
                    redis_server.call("DEL", key)

        return lapse

    def test_the_keys_are_celerys(self, backend: Any, redis_server: RedisServer) -> None:
        """[rkeys.4] to [rkeys.9], as MONITOR shows them of 5.7.0."""
        backend.barriers.open("b", 3)
        backend.barriers.arrive([member(1), member(None, "x", more=1)])
        key = "celery-taskset-meta-b"
        assert redis_server.call("ZRANGE", f"{key}.j", 0, -1, "WITHSCORES") == [b"m1", b"1", b"x", b"inf"]
        assert redis_server.call("GET", f"{key}.s") == b"3"
        assert redis_server.call("GET", f"{key}.t") == b"1"
        assert redis_server.call("SISMEMBER", f"{key}.d", "m1:1") == 1
        assert all(0 < redis_server.call("TTL", key + end) <= 86400 for end in (".j", ".s", ".t", ".d"))
        backend.barriers.arrive([member(0), member(2)])
        backend.barriers.fired("b")
        assert redis_server.call("KEYS", f"{key}*") == [f"{key}.c".encode()]
        assert redis_server.call("GET", f"{key}.c") == b"done"

    def test_of_a_failure_only_the_size_is_dropped(self, backend: Any, redis_server: RedisServer) -> None:
        """[rkeys.9]"""
        backend.barriers.open("b", 1)
        backend.barriers.arrive([member(0)])
        backend.barriers.fired("b", failed=True)
        key = b"celery-taskset-meta-b"
        assert sorted(redis_server.call("KEYS", key + b"*")) == [key + b".c", key + b".d", key + b".j"]

    def test_what_theirs_is_about_to_fire_is_left_to_theirs(self, backend: Any, redis_server: RedisServer) -> None:
        backend.barriers.open("b", 1)
        redis_server.call("SET", "celery-taskset-meta-b.c", "somebody", "EX", "6")
        assert backend.barriers.arrive([member(0)]) == []


@pytest.mark.server
class TestRedisUnordered(TestRedis):
    """`result_chord_ordered` off: members are kept as they come."""

    options: ClassVar[dict[str, Any]] = {"result_chord_ordered": False}

    def parts(self, barriers: Any, name: str = "b") -> list[bytes]:
        return sorted(super().parts(barriers, name))

    def test_the_keys_are_celerys(self, backend: Any, redis_server: RedisServer) -> None:
        backend.barriers.open("b", 3)
        backend.barriers.arrive([member(1), member(0)])
        assert redis_server.call("LRANGE", "celery-taskset-meta-b.j", 0, -1) == [b"m1", b"m0"]

    def test_many_members_come_in_batches(self, barriers: Any) -> None:
        barriers.open("b", 2500)
        barriers.arrive([member(index) for index in range(2500)])
        assert len(list(barriers.parts("b"))) == 3

    def test_members_are_added(self, barriers: Any) -> None:
        barriers.open("b", 1)
        assert barriers.arrive([member(0, more=1)]) == []
        assert len(barriers.arrive([member(None, "x")])) == 1
