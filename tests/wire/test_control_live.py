"""Remote control in a mixed fleet on Redis: each side's client commands both sides' workers."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.servers import RedisServer
from tests.wire import golden
from tests.wire.mixed import SIDES, Fleet

pytestmark = [
    pytest.mark.server,
    pytest.mark.process,
    pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python"),
]

NODES = {f"{side}@fleet" for side in SIDES}
#: Seconds without a reply; far more than any takes, and hardly ever waited for.
PATIENCE = 20


def ask(fleet: Fleet, side: str, method: str, *arguments: str, to: str = "limit=2") -> dict[str, Any]:
    """What `app.control.inspect` answers to a client of that side, by node."""
    given = ", ".join(arguments)
    found: dict[str, Any] = fleet.clients[side](f"app.control.inspect(timeout={PATIENCE}, {to}).{method}({given})")
    return found


def command(fleet: Fleet, side: str, call: str, limit: int = 2) -> dict[str, Any]:
    """Replies to a command, by node."""
    replies = fleet.clients[side](f"app.control.{call[:-1]}, reply=True, timeout={PATIENCE}, limit={limit})")
    return {node: said for reply in replies for node, said in reply.items()}


@pytest.mark.parametrize("side", SIDES)
def test_everybody_answers(fleet: Fleet, side: str) -> None:
    assert ask(fleet, side, "ping") == {key: {"ok": "pong"} for key in NODES}
    assert set(ask(fleet, side, "active")) == NODES
    assert set(ask(fleet, side, "reserved")) == NODES
    assert set(ask(fleet, side, "stats")) == NODES
    registered = ask(fleet, side, "registered")
    assert registered["ours@fleet"] == registered["theirs@fleet"]
    queues = {node: {queue["name"] for queue in said} for node, said in ask(fleet, side, "active_queues").items()}
    assert queues == {f"{name}@fleet": {name} for name in SIDES}


def test_ours_waits_for_no_more_than_have_heard(fleet: Fleet) -> None:
    """Nobody says how many workers there are: the server counts who hears the command."""
    replies = fleet.clients["ours"]("app.control.ping(timeout=3600)")
    assert {node for reply in replies for node in reply} == NODES


@pytest.mark.parametrize("side", SIDES)
def test_who_is_meant(fleet: Fleet, side: str) -> None:
    for other in SIDES:
        node = f"{other}@fleet"
        assert ask(fleet, side, "ping", to=f"destination=[{node!r}]") == {node: {"ok": "pong"}}
        pattern = f"pattern='{other[:3]}*', matcher='glob', limit=1"
        assert ask(fleet, side, "ping", to=pattern) == {node: {"ok": "pong"}}
        pattern = f"pattern='^{other}@', matcher='pcre', limit=1"
        assert ask(fleet, side, "ping", to=pattern) == {node: {"ok": "pong"}}


@pytest.mark.parametrize("side", SIDES)
def test_what_goes_wrong_is_said_alike(fleet: Fleet, side: str) -> None:
    unknown = command(fleet, side, "broadcast('nosuch')")
    assert unknown == {key: {"error": "KeyError('nosuch')"} for key in NODES}
    failed = command(fleet, side, "rate_limit('nosuch', '1/s')")
    assert failed["ours@fleet"] == failed["theirs@fleet"]
    assert "error" in failed["ours@fleet"]


@pytest.mark.parametrize("side", SIDES)
def test_commands_are_obeyed(fleet: Fleet, side: str) -> None:
    limited = command(fleet, side, "rate_limit('fleet.echo', '1000/s')")
    assert limited == {key: {"ok": "new rate limit set successfully"} for key in NODES}
    limited = command(fleet, side, "rate_limit('fleet.echo', 0)")
    assert limited == {key: {"ok": "rate limit disabled successfully"} for key in NODES}
    revoked = str(uuid.uuid4())
    command(fleet, side, f"revoke({revoked!r})")
    assert all(revoked in ids for ids in ask(fleet, side, "revoked").values())
    for runner in SIDES:  # an id of which all workers know: whoever takes it does not run it
        again = fleet.clients[side].send(f"add.apply_async((1, 2), task_id={revoked!r})", queue=runner)
        assert fleet.read(again)["state"] == "REVOKED"


def test_the_server_keeps_nothing(fleet: Fleet) -> None:
    for side in SIDES:
        ask(fleet, side, "ping")
    keys = {key.decode() for key in fleet.server.call("KEYS", "*")}
    assert not [key for key in keys if "reply" in key or key.startswith("celery.1.ears")]


@pytest.mark.parametrize(
    "options",
    [{"global_keyprefix": "us:", "fanout_prefix": "/all{db}."}, {"fanout_patterns": False, "fanout_prefix": False}],
    ids=["prefixes", "plain"],
)
def test_transport_options(options: dict[str, Any], tmp_path: Path) -> None:
    """`[redis.12]`, `[redis.13]`: both understand them alike."""
    conf = json.dumps({"broker_transport_options": options})
    with RedisServer() as server, closing(Fleet(server, tmp_path, FLEET_CONF=conf)) as fleet:
        fleet.start()
        for side in SIDES:
            assert ask(fleet, side, "ping") == {key: {"ok": "pong"} for key in NODES}
