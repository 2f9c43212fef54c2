"""The contracts on `sqlite://`, and what is particular to it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from celery.backends.sqlite import SqliteBackend
from celery.brokers.sqlite import SqliteBroker
from celery.ports import BackendConfig, BrokerConfig
from tests.adapters.test_memory import FakeClock
from tests.contracts.backend import BackendContract
from tests.contracts.broker import BrokerContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contracts.backend import MakeBackend, PassTime
    from tests.contracts.broker import MakeBroker, PutRaw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sqlite3"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


class TestBroker(BrokerContract):
    @pytest.fixture
    def make_broker(self, url: str) -> Iterator[MakeBroker]:
        made = []

        def make(node: str = "") -> SqliteBroker:
            made.append(SqliteBroker(BrokerConfig(url, node=node)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()

    @pytest.fixture
    def make_backend(self, url: str) -> Iterator[MakeBackend]:
        yield from backends(url, None)

    @pytest.fixture
    def put_raw(self, broker: SqliteBroker, path: Path) -> PutRaw:
        broker.declare([])

        def put(queue: str, raw: bytes) -> None:
            with sqlite3.connect(path) as db:
                db.execute("INSERT INTO messages (queue, envelope) VALUES (?, ?)", (queue, raw))
            db.close()

        return put


class TestBackend(BackendContract):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def make_backend(self, url: str, clock: FakeClock, request: pytest.FixtureRequest) -> Iterator[MakeBackend]:
        yield from backends(url, clock if "pass_time" in request.fixturenames else None)

    @pytest.fixture
    def pass_time(self, clock: FakeClock) -> PassTime:
        def move(seconds: float) -> None:
            clock.now += seconds

        return move


def backends(url: str, clock: FakeClock | None) -> Iterator[MakeBackend]:
    made = []

    def make(expires: float | None = None) -> SqliteBackend:
        config = BackendConfig(url, expires=expires)
        made.append(SqliteBackend(config, clock=clock) if clock else SqliteBackend(config))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
