"""Servers that the adapters are tested against."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.servers import RabbitServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_vhosts = itertools.count()


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(redis_session: RedisServer) -> RedisServer:
    """A Redis server with nothing in it."""
    redis_session.call("FLUSHALL")
    return redis_session


@pytest.fixture(scope="session")
def rabbit_session() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@pytest.fixture
def rabbit_url(rabbit_session: RabbitServer) -> Iterator[str]:
    """Of a virtual host with nothing in it."""
    name = f"test-{next(_vhosts)}"
    yield rabbit_session.make_vhost(name)
    rabbit_session.drop_vhost(name)
