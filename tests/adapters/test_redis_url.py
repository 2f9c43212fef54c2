"""Redis URLs are read as kombu reads them, without kombu."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils.url import url_to_parts

from celery.drivers.redis import READ_DEADLINE, Endpoint, explained
from celery.exceptions import ImproperlyConfigured, OperationalError

ESCAPED = st.text("ab%/@: é", max_size=4).map(lambda text: "".join(f"%{byte:02X}" for byte in text.encode()))
PLAIN = st.text("aB9._~-", max_size=5)
WORDS = ESCAPED | PLAIN
HOSTS = st.sampled_from(["", "h", "Redis.example", "127.0.0.1", "[::1]", "[fe80::1]"])


@st.composite
def urls(draw: st.DrawFn) -> str:
    user = draw(st.none() | st.tuples(WORDS, WORDS))
    port = draw(st.none() | st.integers(1, 65535))
    url = draw(st.sampled_from(["redis", "rediss", "REDIS"])) + "://"
    url += "" if user is None else f"{user[0]}:{user[1]}@"
    url += draw(HOSTS) + ("" if port is None else f":{port}")
    url += draw(st.sampled_from(["", "/", "/0", "/15", "//7", "/%33"]))
    return url + draw(
        st.sampled_from(["", "?", "?client_name=a%20b", "?socket_timeout=3&socket_timeout=4&client_name="])
    )


@pytest.mark.slow
@settings(max_examples=25)
@given(urls())
def test_as_kombu_reads_them(url: str) -> None:
    want = url_to_parts(url)
    got = Endpoint(url)
    assert (got.host, got.port) == (want.hostname or "localhost", want.port or 6379)
    assert (got.user, got.password) == (want.username or "", want.password or "")
    assert got.db == int((want.path or "0").strip("/"))
    assert got.timeout == float(want.query.get("socket_timeout", READ_DEADLINE))
    assert got.client_name == want.query.get("client_name", "")
    assert (got.tls is not None) == (want.scheme == "rediss")


@pytest.mark.parametrize("url", ["redis+socket:///run/redis.sock?virtual_host=3", "unix:///run/redis.sock?db=3"])
def test_a_socket_in_the_file_system(url: str) -> None:
    endpoint = Endpoint(url)
    assert (endpoint.path, endpoint.db) == ("/run/redis.sock", 3)


def test_a_scheme_alone() -> None:
    endpoint = Endpoint("redis")
    assert (endpoint.host, endpoint.port, endpoint.db) == ("localhost", 6379, 0)


def test_an_unquoted_password_is_not_shown() -> None:
    with pytest.raises(ImproperlyConfigured, match="write / as %2F") as caught:
        Endpoint("redis://u:12/secret@h/0")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://h:port/0", "redis://h:70000/0", "redis://h/zero"])
def test_what_cannot_be_right(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"port|Port|database number"):
        Endpoint(url)


def test_the_password_is_not_shown() -> None:
    endpoint = Endpoint("redis://user:secret@h/0")
    assert endpoint.password == "secret"
    assert "secret" not in endpoint.shown + repr(endpoint)
    assert "h" in endpoint.shown


def test_a_refusal_is_an_operational_error() -> None:
    exc = explained("READONLY You can't write", "redis://h/0")
    assert isinstance(exc, OperationalError)
    assert type(exc).__name__ == "ServerReply"
    assert str(exc).startswith("Redis at redis://h/0 answered: READONLY You can't write")
    assert type(exc) is sys.modules["celery.drivers.redis_errors"].ServerReply
