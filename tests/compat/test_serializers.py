"""Every serializer and compression, for messages and results, on every adapter; and what a worker refuses to read."""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import pickle
import uuid
import zlib
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import compression, serialization
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from celery import Celery, codecs
from celery.current import Context
from celery.documents import Documents, decode
from celery.exceptions import TimeoutError
from tests.embedded import DEADLINE, working
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What each serializer carries unchanged.
PLAIN: list[Any] = [None, True, -1, 1.5, "é 東京", [1, ["a"]], {"a": {"b": None}}]
CARRIES: dict[str, list[Any]] = {
    "json": [*PLAIN, uuid.UUID(int=1), Decimal("1.50"), b"\xff", dt.datetime(2020, 1, 1, tzinfo=dt.UTC)],
    "pickle": [*PLAIN, {1, 2}, (1, 2), b"\xff", complex(1, 2), dt.timedelta(1), Path("a")],
    "yaml": [*PLAIN, b"\xff", dt.date(2020, 1, 1)],
    "msgpack": [*PLAIN, b"\xff"],
    "reversed-text": PLAIN,
    "reversed-bytes": PLAIN,
}


def _reversed_text(value: Any) -> str:
    return json.dumps(value)[::-1]


def _text_reversed(text: str) -> Any:
    return json.loads(text[::-1])


@pytest.fixture(autouse=True)
def own_serializers() -> Iterator[None]:
    """One that writes text, one that writes bytes: both are no JSON, and no bytes are UTF-8."""
    serialization.register("reversed-text", _reversed_text, _text_reversed, "application/x-reversed", "utf-8")
    serialization.register(
        "reversed-bytes",
        lambda value: b"\xff" + json.dumps(value).encode("utf-16")[::-1],
        lambda data: json.loads(bytes(data)[:0:-1].decode("utf-16")),
        "application/x-reversed-bytes",
        "binary",
    )
    yield
    serialization.unregister("reversed-text")
    serialization.unregister("reversed-bytes")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.server)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        server.call("FLUSHALL")
        return server.url()
    return f"memory://{uuid.uuid4()}" if request.param == "memory" else f"sqlite:///{tmp_path}/queue.db"


def make_app(url: str, **settings: Any) -> Celery:
    app = Celery("proj", broker=url, backend=url, set_as_current=False)
    app.conf.update(settings)

    @app.task(name="echo")
    def echo(*args: Any, **kwargs: Any) -> Any:
        return [list(args), kwargs]

    @app.task(name="fail")
    def fail(value: Any) -> None:
        raise KeyError(value, 1)

    return app


class Money:
    """A type of the user's own."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


def test_types_that_users_register_for_json(url: str) -> None:
    """[opt.8]: as kombu tags them."""
    from kombu.utils.json import _decoders, _encoders, register_type

    register_type(Money, "money", lambda money: money.cents, Money)
    try:
        app = make_app(url)
        got: list[Any] = []
        app.task(name="double")(lambda money: got.append(money) or Money(money.cents * 2))
        with working(app):
            doubled = app.tasks["double"].delay(Money(5)).get(timeout=DEADLINE)
        assert [type(got[0]), got[0].cents] == [Money, 5]
        assert [type(doubled), doubled.cents] == [Money, 10]
    finally:
        _encoders.pop(Money)
        _decoders.pop("money")


@pytest.mark.parametrize("serializer", CARRIES)
def test_messages_and_results(url: str, serializer: str) -> None:
    app = make_app(url, task_serializer=serializer, result_serializer=serializer, accept_content=[serializer])
    values = CARRIES[serializer]
    with working(app):
        result = app.tasks["echo"].delay(*values, key=values)
        assert result.get(timeout=DEADLINE) == [values, {"key": values}]
        assert app.AsyncResult(result.id).result == [values, {"key": values}]
        failed = app.tasks["fail"].delay("é")
        with pytest.raises(KeyError) as raised:
            failed.get(timeout=DEADLINE)
    assert raised.value.args == ("é", 1)
    assert failed.state == "FAILURE"
    assert "raise KeyError(value, 1)" in (failed.traceback or "")


@pytest.mark.parametrize("compression", [None, pytest.param("zlib", marks=pytest.mark.slow)])
@pytest.mark.parametrize("serializer", CARRIES)
def test_states_are_told_whatever_they_are_written_in(url: str, serializer: str, compression: str | None) -> None:
    """A state on the way does not wake who waits, and a success is never overwritten ([state.10])."""
    settings = {"result_compression": compression} if url.startswith("redis") else {}
    app = make_app(url, result_serializer=serializer, accept_content=[serializer], **settings)
    app.backend.store_result("one", {"done": 1}, "PROGRESS")
    result = app.AsyncResult("one")
    with pytest.raises(TimeoutError):
        result.get(timeout=0)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)
    app.backend.store_result("one", 5, "SUCCESS")
    assert result.get(timeout=DEADLINE) == 5
    app.backend.store_result("one", {"done": 2}, "PROGRESS")
    assert (app.AsyncResult("one").state, app.AsyncResult("one").result) == ("SUCCESS", 5)
    app.close()


@pytest.mark.parametrize("serializer", [s for s in CARRIES if s != "json"])
def test_each_call_may_choose_its_own(url: str, serializer: str) -> None:
    """The worker goes by the message, not by its own setting."""
    app = make_app(url, accept_content=["json", serializer])
    with working(app):
        assert app.tasks["echo"].apply_async(([1],), serializer=serializer).get(timeout=DEADLINE) == [[[1]], {}]
        assert app.tasks["echo"].apply_async(([1],)).get(timeout=DEADLINE) == [[[1]], {}]


@pytest.mark.parametrize("method", ["zlib", "gzip", "bzip2", "lzma", "application/x-bz2"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_compression(url: str, serializer: str, method: str) -> None:
    app = make_app(url, task_serializer=serializer, task_compression=method, accept_content=["json", serializer])
    with working(app):
        assert app.tasks["echo"].delay("é" * 5000).get(timeout=DEADLINE) == [["é" * 5000], {}]


def sent(app: Celery, **options: Any) -> dict[str, Any]:
    """The envelope of a call, as a third party reads it."""
    published: list[Any] = []
    app.assembly.broker.publish = published.extend  # type: ignore[method-assign]
    app.tasks["echo"].apply_async(("é",), **options)
    return json.loads(published[0].message.to_envelope())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("serializer", "content_type", "encoding"),
    [
        ("json", "application/json", "utf-8"),
        ("pickle", "application/x-python-serialize", "binary"),
        ("yaml", "application/x-yaml", "utf-8"),
        ("msgpack", "application/x-msgpack", "binary"),
        ("reversed-text", "application/x-reversed", "utf-8"),
        ("reversed-bytes", "application/x-reversed-bytes", "binary"),
    ],
)
def test_what_kombu_reads_of_a_message(serializer: str, content_type: str, encoding: str) -> None:
    envelope = sent(make_app("memory://"), serializer=serializer, compression="zlib")
    assert (envelope["content-type"], envelope["content-encoding"]) == (content_type, encoding)
    assert envelope["headers"]["compression"] == "application/x-gzip"
    body = zlib.decompress(base64.b64decode(envelope["body"]))
    args, kwargs, _ = serialization.loads(body, content_type, encoding, accept=[content_type])
    assert (list(args), kwargs) == (["é"], {})


@pytest.mark.parametrize("method", compression.encoders())
def test_every_compression_that_kombu_has(method: str) -> None:
    envelope = sent(make_app("memory://"), compression=method)
    assert envelope["headers"]["compression"] == method
    assert json.loads(compression.decompress(base64.b64decode(envelope["body"]), method))[0] == ["é"]


def test_the_call_outranks_the_task_and_the_task_the_setting() -> None:
    app = make_app("memory://", task_serializer="yaml", task_compression="bzip2")
    assert sent(app)["content-type"] == "application/x-yaml"
    assert sent(app)["headers"]["compression"] == "application/x-bz2"
    app.task(name="own", serializer="pickle", compression="lzma")(lambda: None)
    published: list[Any] = []
    app.assembly.broker.publish = published.extend  # type: ignore[method-assign]
    app.tasks["own"].delay()
    app.tasks["own"].apply_async(serializer="msgpack", compression="zlib")
    found = [(p.message.content_type, p.message.headers["compression"]) for p in published]
    assert found == [
        ("application/x-python-serialize", "application/x-lzma"),
        ("application/x-msgpack", "application/x-gzip"),
    ]


def test_names_that_nobody_knows_fail_at_the_call() -> None:
    app = make_app("memory://")
    with pytest.raises(KeyError, match=r"compression: expected one of .*application/x-gzip.*; got 'zap'"):
        app.tasks["echo"].apply_async(compression="zap")
    with pytest.raises(serialization.SerializerNotInstalled, match="zap"):
        app.tasks["echo"].apply_async(serializer="zap")
    with pytest.raises(EncodeError):
        app.tasks["echo"].apply_async(({1},))


@pytest.mark.parametrize("name", ["pickle", "application/x-python-serialize"])
def test_accepted_by_name_or_content_type(url: str, name: str) -> None:
    app = make_app(url, accept_content=["json", name])
    with working(app):
        assert app.tasks["echo"].apply_async(((1, 2),), serializer="pickle").get(timeout=DEADLINE) == [[[1, 2]], {}]


class Bomb:
    """Says so when it is unpickled."""

    exploded = False

    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    Bomb.exploded = True


def test_what_is_not_accepted_is_never_decoded(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It becomes a failure for the caller, a line in the log, and a dead letter where the broker keeps them."""
    app = make_app(url)
    with caplog.at_level(logging.ERROR), working(app):
        result = app.tasks["echo"].apply_async((Bomb(),), serializer="pickle")
        failure = result.get(timeout=DEADLINE, propagate=False)
        assert app.tasks["echo"].delay(1).get(timeout=DEADLINE) == [[1], {}]
    assert not Bomb.exploded
    assert type(failure) is ContentDisallowed
    line = "\n".join(record.getMessage() for record in caplog.records)
    assert "accept_content" in line
    assert "application/x-python-serialize" in line


def test_results_are_not_unpickled_unless_accepted(url: str) -> None:
    app = make_app(url, result_serializer="pickle", accept_content=["json"])
    assert app.assembly.store is not None
    app.backend.store_result("one", Bomb(), "SUCCESS")
    with pytest.raises(ContentDisallowed):
        app.AsyncResult("one").get(timeout=DEADLINE)
    assert not Bomb.exploded
    app = make_app(url, result_serializer="pickle", result_accept_content=["pickle"], accept_content=["json"])
    assert app.AsyncResult("one").get(timeout=DEADLINE) is None
    assert Bomb.exploded
    Bomb.exploded = False


def test_result_accept_content_outranks_accept_content(url: str) -> None:
    app = make_app(url, result_serializer="yaml", result_accept_content=["json"], accept_content=["json", "yaml"])
    app.backend.store_result("one", 1, "SUCCESS")
    with pytest.raises(ContentDisallowed):
        app.AsyncResult("one").get(timeout=DEADLINE)


def test_a_body_that_does_not_decode_fails_its_task_alone(url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(url, accept_content=["json", "yaml"])
    with working(app):
        broken = app.assembly.producer
        broken._encode_call = lambda call, serializer: ("application/x-yaml", "utf-8", b"[unclosed")  # type: ignore[method-assign, assignment]
        result = app.tasks["echo"].apply_async((1,), shadow="x")
        assert type(result.get(timeout=DEADLINE, propagate=False)) is DecodeError
        del broken._encode_call
        broken._encode_call = codecs.encode_call
        assert app.tasks["echo"].delay(1).get(timeout=DEADLINE) == [[1], {}]


def test_a_compression_that_is_not_installed_is_named() -> None:
    with pytest.raises(DecodeError, match=r"expected a body compressed by one of .*; got 'application/x-zap'"):
        codecs.decompress(b"", "application/x-zap")


@pytest.mark.slow
@pytest.mark.parametrize("serializer", CARRIES)
@settings(max_examples=12)
@given(data=st.data())
def test_documents_are_read_as_they_were_written(serializer: str, data: st.DataObject) -> None:
    text = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF))
    scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | text
    values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=8)
    value = data.draw(values)
    meta = Documents(serializer).success(value, Context({"id": "x"}))
    accept = codecs.accept_types([serializer])
    assert decode(meta, serializer, accept)["result"] == value
    content_type, _, raw = codecs.encode(value, serializer)
    assert codecs.decode_from(raw, serializer, {content_type}) == value


def test_pickle_reads_only_what_was_asked_for() -> None:
    body = pickle.dumps([[Bomb()], {}, {}])
    with pytest.raises(ContentDisallowed):
        codecs.decode(body, "application/x-python-serialize", "binary", codecs.accept_types(["json", "yaml"]))
    with pytest.raises(ContentDisallowed):
        codecs.decode(body, "application/x-python-serialize", "binary")
    assert not Bomb.exploded
