"""One mixed fleet for all modules: starting it costs more than most of what it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.servers import RedisServer
from tests.wire.mixed import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with RedisServer() as server:
        fleet = Fleet(server, tmp_path_factory.mktemp("fleet"))
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()
