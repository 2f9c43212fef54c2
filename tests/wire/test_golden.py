"""Golden messages: what we publish has the values of what Celery 5.7 published, and what it published we read."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.running import ROOT
from tests.servers import RedisServer
from tests.wire import golden

from celery import codecs
from celery.message import Message, read_body

NAMES = golden.names()
ACCEPT = codecs.accept_types(["json", "pickle", "yaml", "msgpack"])
#: What is in the body of protocol 1 and in the headers of protocol 2.
MOVED = ("task", "id", "group", "group_index", "retries", "timelimit")


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """Every form as our own producer leaves it in Redis."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}:{golden.SCRIPTS}", "TZ": "UTC"}
    with RedisServer() as server:
        return golden.capture(sys.executable, environment, server.url().removesuffix("/0"))


@pytest.mark.server
@pytest.mark.parametrize("name", NAMES)
def test_we_publish_the_same_values(published: dict[str, Any], name: str) -> None:
    """Same lists, same bindings, and envelopes that decode to the same headers, properties and body."""
    theirs, ours = golden.load(name), published[name]
    assert ours["sets"] == theirs["sets"]
    assert ours["lists"].keys() == theirs["lists"].keys()
    for key, envelope in theirs["lists"].items():
        assert golden.values(ours["lists"][key]) == golden.values(envelope)


@pytest.mark.server
@pytest.mark.skipif(not Path(golden.REFERENCE).is_file(), reason="CELERY_REFERENCE_PYTHON names no Python")
def test_the_golden_messages_are_what_celery_publishes(tmp_path: Path) -> None:
    with RedisServer() as server:
        captured = golden.capture(
            golden.REFERENCE, golden.reference_environment(tmp_path), server.url().removesuffix("/0")
        )
    assert captured.keys() == set(NAMES)
    for name, found in captured.items():
        kept = golden.load(name)
        assert kept["sets"] == found["sets"]
        for key, envelope in found["lists"].items():
            assert golden.values(kept["lists"][key]) == golden.values(envelope), name


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("v1_")])
def test_we_read_protocol_2(name: str) -> None:
    (envelope,) = golden.load(name)["lists"].values()
    message, want = Message.from_envelope(envelope.encode()), golden.values(envelope)
    kept, headers = golden.values(envelope), dict(message.headers)
    assert message.id == name
    assert (message.task, message.redelivered) == ("p.add", False)
    assert (message.exchange, message.routing_key) == tuple(kept["properties"]["delivery_info"].values())
    assert message.priority == kept["properties"]["priority"]
    assert list(message.timelimit) == headers["timelimit"]
    assert (message.eta, message.expires, message.shadow) == (headers["eta"], headers["expires"], headers["shadow"])
    args, kwargs, embed = read_body(_payload(message))
    found = golden.plain([args, kwargs, embed], message.content_type)
    assert found == want["body"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("v1_")])
def test_we_read_protocol_1(name: str) -> None:
    """As what protocol 2 would have said."""
    (envelope,) = golden.load(name)["lists"].values()
    body = golden.values(envelope)["body"]
    message = codecs.read_protocol_1(envelope.encode(), ACCEPT)
    assert message.headers.items() >= {key: body[key] for key in MOVED}.items()
    args, kwargs, embed = read_body(_payload(message))
    found = golden.plain([args, kwargs, embed], message.content_type)
    chord, callbacks, errbacks = body["chord"], body["callbacks"], body["errbacks"]
    assert found == [
        body["args"], body["kwargs"], {"callbacks": callbacks, "errbacks": errbacks, "chain": None, "chord": chord}
    ]  # fmt: skip


def _payload(message: Message) -> Any:
    compression = message.headers.get("compression")
    body = codecs.decompress(message.body, compression) if compression else message.body
    return codecs.decode(body, message.content_type, message.content_encoding, ACCEPT)
