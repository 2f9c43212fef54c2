"""State documents of a mixed fleet, byte for byte and key for key: what either worker leaves in Redis."""

from __future__ import annotations

import json
import pickle
import re
import socket
import zlib
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hiredis
import pytest
from tests.running import wait_until
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire.mixed import OURS, SIDES, THEIRS, Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]


def document(fleet: Fleet, identifier: str, prefix: str = "", loads: Any = json.loads) -> dict[str, Any]:
    """The stored document, once it is there; its date and its traceback checked, and named instead."""
    key = f"{prefix}celery-task-meta-{identifier}"
    wait_until(lambda: fleet.server.call("EXISTS", key), key)
    found: dict[str, Any] = loads(fleet.server.call("GET", key))
    if found["date_done"] is not None:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", found["date_done"])
        found["date_done"] = "<date>"
    if found["traceback"]:
        assert found["traceback"].startswith("Traceback (most recent call last):\n")
        found["traceback"] = found["traceback"].strip().splitlines()[-1]
    assert found.pop("task_id") == identifier
    return found


def both(fleet: Fleet, call: str, **how: Any) -> list[dict[str, Any]]:
    """The documents of theirs and of ours for the same call."""
    documents = []
    for runner in (THEIRS, OURS):
        identifier = fleet.clients[THEIRS].send(call, runner)
        fleet.read(identifier)
        found = document(fleet, identifier, **how)
        documents.append(json.loads(json.dumps(found, default=repr).replace(runner, "<side>")))
    return documents


CALLS = [
    "echo.apply_async((1, 'é'), {'k': None})",
    "add.apply_async((1, 2), group_id='G', parent_id='P', root_id='R')",
    "give.apply_async(('date',))",
    "give.apply_async(('result',))",
    "fail.apply_async(('builtin',))",
    "fail.apply_async(('own',), group_id='G')",
    "fail.apply_async(('opaque',))",
    "add.apply_async((1, 2), expires=-1)",
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[:50])
def test_documents(fleet: Fleet, call: str) -> None:
    theirs, ours = both(fleet, call)
    if call.startswith("fail"):
        assert theirs["result"].keys() == {"exc_type", "exc_message", "exc_module"}
    assert ours == theirs


def test_the_channel_tells_the_stored_bytes(fleet: Fleet) -> None:
    """[rkeys.2]: of both workers, on a channel of the key's name."""
    with socket.create_connection(("127.0.0.1", fleet.server.port), timeout=20) as line:
        line.sendall(hiredis.pack_command(("PSUBSCRIBE", "celery-task-meta-*")))
        reader = hiredis.Reader()
        for runner in SIDES:
            identifier = fleet.clients[OURS].send("add.apply_async((1, 2))", runner)
            key = f"celery-task-meta-{identifier}".encode()
            while True:
                while (told := reader.gets()) is False:
                    reader.feed(line.recv(65536))
                if told[0] == b"pmessage" and told[2] == key:
                    break
            assert told[3] == fleet.server.call("GET", key)


@pytest.mark.parametrize("side", SIDES)
def test_success_is_final(fleet: Fleet, side: str) -> None:
    """[state.10]: also where the other side's worker stored it."""
    other = THEIRS if side == OURS else OURS
    identifier = fleet.clients[side].send("add.apply_async((1, 2))", other)
    fleet.read(identifier)
    fleet.clients[side](f"app.backend.store_result({identifier!r}, 5, 'LATE')")
    assert document(fleet, identifier)["status"] == "SUCCESS"


def publish(fleet: Fleet, queue: str, body: bytes, headers: dict[str, Any], kind: str = "application/json") -> None:
    envelope = {
        "body": b64encode(body).decode(), "content-encoding": "utf-8", "content-type": kind, "headers": headers,
        "properties": {"body_encoding": "base64", "delivery_tag": headers.get("id", "noise"),
                       "delivery_info": {"exchange": "", "routing_key": queue}},
    }  # fmt: skip
    fleet.server.call("LPUSH", queue, json.dumps(envelope))


EMBED: dict[str, Any] = {}


@pytest.mark.parametrize("runner", SIDES)
def test_other_languages_say_little(fleet: Fleet, runner: str) -> None:
    """[wire.22]: only what cannot be missing."""
    identifier = f"sparse-{runner}"
    publish(fleet, runner, json.dumps([[2, 3], {}, EMBED]).encode(), {"task": "fleet.add", "id": identifier})
    assert fleet.read(identifier)["value"][1] == 5
    identifier = f"hash-{runner}"
    body = {"task": "fleet.add", "id": identifier, "args": [4], "kwargs": {"y": 5}}
    publish(fleet, runner, json.dumps(body).encode(), {})
    assert fleet.read(identifier)["value"][1] == 9


@pytest.mark.parametrize("runner", SIDES)
def test_noise_is_put_aside(fleet: Fleet, runner: str) -> None:
    """[wire.21]: each worker goes on, and nothing of it stays in custody."""
    good = json.dumps([[2, 3], {}, EMBED]).encode()
    publish(fleet, runner, b"{not json", {"task": "fleet.add", "id": f"broken-{runner}"})
    publish(fleet, runner, b'{"neither": 1}', {})
    publish(fleet, runner, good, {"task": "fleet.nonesuch", "id": f"unknown-{runner}"})
    publish(fleet, runner, good, {"task": "fleet.add", "id": f"type-{runner}"}, "application/x-nonesuch")
    fleet.read(fleet.clients[runner].send("add.apply_async((1, 2))", runner))
    found = fleet.read(f"unknown-{runner}")
    assert (found["state"], found["value"]) == ("FAILURE", ["NotRegistered", ["fleet.nonesuch"]])
    wait_until(lambda: fleet.server.call("HLEN", "unacked") == 0, "all acknowledged or rejected")


CONF = {
    "result_extended": True,
    "result_serializer": "pickle",
    "result_accept_content": ["pickle"],
    "result_expires": 100,
    "broker_transport_options": {"global_keyprefix": "b:"},
    "result_backend_transport_options": {"global_keyprefix": "r"},
}


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A second fleet: extended results, pickled, under prefixes of their own."""
    with RedisServer() as server:
        fleet = Fleet(server, tmp_path_factory.mktemp("prefixed"), FLEET_CONF=json.dumps(CONF))
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()


@pytest.mark.parametrize("call", [*CALLS[:3], "fail.apply_async(('builtin',))", "fail.apply_async(('own',))"])
def test_extended_pickled_documents_under_a_prefix(prefixed: Fleet, call: str) -> None:
    """[state.5] [state.8] [rkeys.11] [redis.13]"""
    theirs, ours = both(prefixed, call, prefix="r_", loads=unpickled)
    assert theirs["name"].startswith("fleet.")
    assert theirs["worker"] == "<side>@fleet"
    assert ours == theirs


def unpickled(stored: bytes) -> Any:
    """Pickles of the project's own exceptions need its classes: their names are enough here."""

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return type(name, (Exception,), {}) if module == "fleet" else super().find_class(module, name)

    import io

    found = Reader(io.BytesIO(stored)).load()
    if isinstance(found["result"], BaseException):
        found["result"] = [type(found["result"]).__name__, repr(found["result"].args)]
    return found


def test_keys_bear_their_prefix(prefixed: Fleet) -> None:
    """No worker and no client has left a key without it."""
    for runner in SIDES:
        prefixed.read(prefixed.clients[OURS].send("add.apply_async((1, 2), priority=9)", runner))
    keys = [key.decode() for key in prefixed.server.call("KEYS", "*")]
    assert {"b:_kombu.binding.ours", "b:_kombu.binding.theirs"} <= set(keys)
    assert [key for key in keys if not key.startswith(("b:", "r_"))] == []
    results = [key for key in keys if key.startswith("r_")]
    assert all(0 < prefixed.server.call("TTL", key) <= 100 for key in results)


PRESSED = {
    "result_compression": "gzip",
    "result_serializer": "pickle",
    "result_accept_content": ["pickle"],
    "result_expires": 100,
    "result_failure_expires": 50,
}


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A third fleet: pickled and compressed, failures expiring sooner."""
    with RedisServer() as server:
        fleet = Fleet(server, tmp_path_factory.mktemp("pressed"), FLEET_CONF=json.dumps(PRESSED))
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()


@pytest.mark.parametrize("call", ["echo.apply_async((1, 'é'), {'k': None})", "fail.apply_async(('own',))"])
def test_compressed_documents(pressed: Fleet, call: str) -> None:
    """[state.11] [new57.3] [new57.4]: either side writes what both read."""
    heads, seconds = set(), set()

    def loads(stored: bytes) -> Any:
        _, marker, mime, body = stored.split(b"\0", 3)
        heads.add((marker, mime))
        return unpickled(zlib.decompress(body))

    theirs, ours = both(pressed, call, loads=loads)
    assert ours == theirs
    assert len(heads) == 1
    for runner in SIDES:
        identifier = pressed.clients[OURS].send(call, runner)
        pressed.read(identifier)
        seconds.add(pressed.server.call("TTL", f"celery-task-meta-{identifier}") > 50)
    assert seconds == {not call.startswith("fail")}
