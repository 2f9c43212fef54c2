"""Servers that the adapters are tested against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(redis_session: RedisServer) -> RedisServer:
    """A Redis server with nothing in it."""
    redis_session.call("FLUSHALL")
    return redis_session
