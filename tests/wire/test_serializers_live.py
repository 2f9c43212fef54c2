"""A mixed fleet and serializers: those of kombu and of the user's own, for messages and for results; typed tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire.mixed import OURS, SIDES, THEIRS, Fleet
from tests.wire.test_fleet import same

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]

SERIALIZERS = ["yaml", "msgpack", "own-text", "own-bytes"]


@pytest.fixture(scope="module", params=SERIALIZERS)
def writing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet that writes messages and results with one serializer."""
    conf = {"task_serializer": request.param, "result_serializer": request.param}
    with RedisServer() as server:
        fleet = Fleet(server, tmp_path_factory.mktemp(request.param), FLEET_CONF=json.dumps(conf))
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()


def test_messages_and_results(writing: Fleet) -> None:
    """Each worker reads what either client sent, and each client what either worker stored."""
    found = same(writing, "echo.apply_async(('é', None, [1.5]), {'k': {'a': True}})")
    assert found["value"][1] == [["é", None, [1.5]], {"k": {"a": True}}]
    assert same(writing, "fail.apply_async(('builtin',))")["raised"] == "builtins.KeyError: ('a', 1)"


@pytest.mark.parametrize("serializer", ["own-text", "own-bytes"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
def test_messages_of_a_serializer_of_ones_own(fleet: Fleet, serializer: str, compression: str | None) -> None:
    options = f"serializer={serializer!r}, compression={compression!r}"
    assert same(fleet, f"echo.apply_async(('é', 1), {{}}, {options})")["value"][1] == [["é", 1], {}]


STAY = "Stay(uuid.UUID(int=1), dt.date(2020, 1, 2))"
DATA = {"guest": "00000000-0000-0000-0000-000000000001", "until": "2020-01-02"}


@pytest.mark.parametrize("runner", SIDES)
def test_typed_tasks_are_plain_json_to_others(fleet: Fleet, runner: str) -> None:
    """The real Celery gets dicts and text; what it returns is read as the type again."""
    ours = fleet.clients[OURS]
    identifier = ours.send(f"typed.apply_async(({STAY}, [{STAY}]))", runner)
    assert fleet.read(identifier)["value"] == ["dict", DATA]
    assert ours(f"typed.AsyncResult({identifier!r}).get(timeout=20) == {STAY}") is True
    assert fleet.clients[THEIRS](f"typed.AsyncResult({identifier!r}).get(timeout=20)") == DATA


def test_typed_tasks_read_what_others_send(fleet: Fleet) -> None:
    theirs: Any = fleet.clients[THEIRS]
    assert fleet.read(theirs.send("moved.apply_async((dt.date(2020, 1, 2),))", OURS))["value"][1] == "date"
    assert fleet.read(theirs.send("moved.apply_async(('2020-01-02',))", OURS))["value"][1] == "date"
    assert fleet.read(theirs.send(f"typed.apply_async(({DATA}, [{DATA}]))", OURS))["value"][1] == DATA
    refused = fleet.read(theirs.send("moved.apply_async(('yesterday',))", OURS))
    assert refused["raised"].startswith(
        "builtins.TypeError: fleet.moved: argument 'day': expected date, got 'yesterday'"
    )
