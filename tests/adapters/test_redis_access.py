"""Being let in to a Redis server: TLS, passwords, users with few rights, and what is said to whoever is refused."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.backends.redis_store import RedisStore
from celery.brokers.redis import RedisBroker
from celery.drivers.redis import Endpoint
from celery.exceptions import ImproperlyConfigured, OperationalError
from celery.ports import BackendConfig, BrokerConfig
from tests.adapters.test_redis_servers import rule_of_the_documents
from tests.contracts.backend import record, results_by_id
from tests.contracts.broker import ids, message, spec, take, to
from tests.running import wait_until
from tests.servers import Authority, RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def tls_server(authority: Authority, tls_port: int) -> Iterator[RedisServer]:
    """Wants a certificate of its clients."""
    with RedisServer(*authority.options("--tls-port", str(tls_port), "--tls-auth-clients", "optional")) as server:
        yield server


def work(url: str, options: dict[str, Any] | None = None, tls: Any = False) -> None:
    """A message to a worker, a result back; the worker waits for the message."""
    broker = RedisBroker(BrokerConfig(url, options or {}, ssl=tls))
    store = RedisStore(BackendConfig(url, options or {}, ssl=tls))
    try:
        consumer = broker.consume([spec("q")])
        assert consumer.fetch(1, 0.0) == []
        broker.publish(to("q", message(1, body=b"x" * 100_000)))
        (delivery,) = take(consumer, 1)
        assert ids([delivery]) == ["1"]
        store.save([record("1", meta=b"done")])
        assert results_by_id(store.wait(["1"], 10.0)) == {"1": b"done"}
        consumer.ack([delivery])
        consumer.close()
    finally:
        broker.close()
        store.close()


# ------------------------------------------------------------------------------------------------------------------ TLS


@pytest.mark.usefixtures("tls_server")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_tls_by_the_options_of_the_settings(authority: Authority, tls_port: int, host: str) -> None:
    """[broker.5]: `broker_use_ssl` and `redis_backend_use_ssl`, with either scheme."""
    work(f"rediss://{host}:{tls_port}", tls={"ssl_ca_certs": authority.path("ca.crt")})
    work(f"redis://{host}:{tls_port}", tls={"ssl_cert_reqs": "required", "ssl_ca_certs": authority.path("ca.crt")})


@pytest.mark.usefixtures("tls_server")
@pytest.mark.parametrize("required", ["required", "CERT_REQUIRED", "optional"])
def test_tls_by_the_url(authority: Authority, tls_port: int, required: str) -> None:
    """[backend.8]"""
    work(f"rediss://localhost:{tls_port}/0?ssl_cert_reqs={required}&ssl_ca_certs={authority.path('ca.crt')}")


@pytest.mark.usefixtures("tls_server")
@pytest.mark.parametrize(
    "tls", [{"ssl_cert_reqs": ssl.CERT_NONE}, {"ssl_cert_reqs": "none"}, {"cert_reqs": "CERT_NONE"}]
)
def test_tls_that_verifies_nothing_if_it_is_told_so(tls_port: int, tls: dict[str, Any]) -> None:
    work(f"rediss://localhost:{tls_port}", tls=tls)


@pytest.mark.usefixtures("tls_server")
@pytest.mark.parametrize("tls", [False, True, {"ssl_cert_reqs": "required"}])
def test_an_unknown_authority_is_not_trusted(tls_port: int, tls: Any) -> None:
    with pytest.raises(OperationalError, match="ssl_ca_certs"):
        work(f"rediss://localhost:{tls_port}", tls=tls)


@pytest.mark.usefixtures("tls_server")
def test_an_app_over_tls(authority: Authority, tls_port: int) -> None:
    """[broker.5] [backend.8]: the settings reach broker, results, and redis-py's client of the wide class."""
    options = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": authority.path("ca.crt")}
    url = f"redis://localhost:{tls_port}/0"
    app = Celery("tls", broker=url, backend=url, set_as_current=False)
    app.conf.update(broker_use_ssl=options, redis_backend_use_ssl=options)
    app.send_task("anything")
    app.backend.store_result("over-tls", 7, "SUCCESS")
    assert app.AsyncResult("over-tls").get(timeout=10) == 7
    assert app.backend.client.get("celery-task-meta-over-tls")
    assert app.backend.client.llen("celery") == 1
    app.backend.client.close()
    app.close()


def test_a_certificate_of_another_host_is_not_trusted(authority: Authority) -> None:
    """Unless its name is not to be looked at."""
    authority.sign("other", "subjectAltName=DNS:other.example")
    port = free_port()
    options = authority.options("--tls-port", str(port), "--tls-auth-clients", "no")
    options[1], options[3] = authority.path("other.crt"), authority.path("other.key")
    with RedisServer(*options):
        trusted = {"ssl_ca_certs": authority.path("ca.crt")}
        with pytest.raises(OperationalError, match=r"(?i)hostname mismatch"):
            work(f"rediss://localhost:{port}", tls=trusted)
        work(f"rediss://localhost:{port}", tls={**trusted, "ssl_check_hostname": False})


def test_a_server_that_wants_a_certificate(authority: Authority) -> None:
    authority.sign("client", "extendedKeyUsage=clientAuth")
    port = free_port()
    with RedisServer(*authority.options("--tls-port", str(port), "--tls-auth-clients", "yes")):
        trusted = {"ssl_ca_certs": authority.path("ca.crt")}
        with pytest.raises(OperationalError):
            work(f"rediss://localhost:{port}", tls=trusted)
        mine = {"ssl_certfile": authority.path("client.crt"), "ssl_keyfile": authority.path("client.key")}
        work(f"rediss://localhost:{port}", tls={**trusted, **mine})


def test_tls_where_there_is_none_and_none_where_there_is(tls_server: RedisServer, tls_port: int) -> None:
    """Either way round an error within the time for connecting, which says what to do."""
    with pytest.raises(OperationalError, match="write redis://"):
        work(f"rediss://localhost:{tls_server.port}", {"socket_connect_timeout": 2})
    with pytest.raises(OperationalError, match=r"closed the connection|reset by peer|protocol|no answer"):
        work(f"redis://localhost:{tls_port}", {"socket_timeout": 2})


@pytest.mark.parametrize(
    ("url", "tls", "said"),
    [
        ("redis://h/0?ssl_cert_reqs=none", False, "write rediss://"),
        ("rediss://h/0?ssl_cert_reqs=perhaps", False, "none, optional or required"),
        ("rediss://h/0", {"ssl_ca_certs": "/nowhere/ca.crt"}, "ssl_ca_certs=/nowhere/ca.crt"),
        ("rediss://h/0", {"ssl_certfile": "/nowhere/me.crt"}, "ssl_certfile=/nowhere/me.crt"),
        ("rediss://h/0", {"ssl_validate_ocsp": True}, "ssl_validate_ocsp"),
    ],
)
def test_tls_options_that_cannot_be_right(url: str, tls: Any, said: str) -> None:
    """Less safety than was asked for is never the answer."""
    with pytest.raises(ImproperlyConfigured, match=said):
        Endpoint(url, {}, tls)


# -------------------------------------------------------------------------------------------------- users and passwords


@pytest.fixture
def guarded(redis_server: RedisServer) -> Iterator[RedisServer]:
    """Has a user `celery` with the rights that our documents give it, on keys under `app:` alone."""
    rule = [word if word != "~*" else "~app:*" for word in rule_of_the_documents()]
    redis_server.call("ACL", "SETUSER", "celery", "reset", *rule)
    yield redis_server
    redis_server.call("ACL", "DELUSER", "celery", "poor")


def test_a_user_whose_keys_are_those_of_the_prefix(guarded: RedisServer) -> None:
    """[redis.13]: every key that is touched lies under it."""
    work(f"redis://celery:password@127.0.0.1:{guarded.port}", {"global_keyprefix": "app:"})
    refused = [entry for entry in guarded.call("ACL", "LOG") if b"config" not in str(entry).encode()]
    assert refused == []


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("celery:s3cret@", "compare the URL with its ACL"),
        ("nobody:s3cret@", "compare the URL with its ACL"),
        ("poor:s3cret@", r"give it the rules of docs/operate/brokers.md"),
    ],
)
def test_who_is_refused_is_told_what_to_do_and_no_password(guarded: RedisServer, user: str, said: str) -> None:
    guarded.call("ACL", "SETUSER", "poor", "reset", "on", ">s3cret", "~*", "&*", "+@connection", "+@read")
    broker = RedisBroker(BrokerConfig(f"redis://{user}127.0.0.1:{guarded.port}"))
    with pytest.raises(OperationalError, match=said) as caught:
        broker.publish(to("q", message(1)))
    told, exc = "", caught.value
    while exc is not None:
        told += str(exc) + repr(exc)
        exc = exc.__cause__  # type: ignore[assignment]
    assert "s3cret" not in told
    broker.close()


def test_a_password_that_is_missing_or_wrong_on_a_server_without_users() -> None:
    with RedisServer() as server:
        server.call("CONFIG", "SET", "requirepass", "s3cret")
        for user, said in (("", "the server wants a password"), (":wr0ng@", "compare the URL")):
            with pytest.raises(OperationalError, match=said) as caught:
                work(f"redis://{user}127.0.0.1:{server.port}")
            assert "wr0ng" not in str(caught.value)
        work(f"redis://:s3cret@127.0.0.1:{server.port}")


def test_a_database_that_does_not_exist(redis_server: RedisServer) -> None:
    """[redis.20]"""
    with pytest.raises(ImproperlyConfigured, match="choose a lower number"):
        work(redis_server.url(99))


class Rotating:
    """A credential provider whose password changes."""

    def __init__(self) -> None:
        self.password = "first"

    def get_credentials(self) -> tuple[str, str]:
        return ("rotating", self.password)


def test_new_credentials_are_given_to_open_connections(redis_server: RedisServer) -> None:
    """[redis.19]: the server forgets a user's connections when the user is made anew; ours tell who they are again."""
    provider = Rotating()
    redis_server.call("ACL", "SETUSER", "rotating", "reset", "on", ">first", "~*", "&*", "+@all")
    url = f"redis://127.0.0.1:{redis_server.port}"
    broker = RedisBroker(BrokerConfig(url, {"credential_provider": provider, "reauth_check_interval": 0.01}))
    consumer = broker.consume([spec("q")])
    link = consumer._connected()
    redis_server.call("ACL", "SETUSER", "rotating", ">second")
    provider.password = "second"
    wait_until(lambda: time.monotonic() > link.credentials_until, "it is time to ask the provider")
    broker.publish(to("q", message(1)))
    assert ids(take(consumer, 1)) == ["1"]
    assert consumer._connected() is link
    assert link.credentials == ("rotating", "second")
    consumer.close()
    broker.close()
    redis_server.call("ACL", "DELUSER", "rotating")


class Away(Exception):
    """Whoever gives out the credentials does not answer."""


def test_credentials_that_are_not_to_be_had(redis_server: RedisServer) -> None:
    """[backend.10]: with `additional_connection_errors` it is as if the server were away."""

    class Provider:
        def get_credentials(self) -> tuple[str, str]:
            raise Away("no token")

    for options, error in (({}, Away), ({"additional_connection_errors": [f"{__name__}.Away"]}, OperationalError)):
        broker = RedisBroker(BrokerConfig(redis_server.url(), {"credential_provider": Provider(), **options}))
        with pytest.raises(error, match="no token"):
            broker.publish(to("q", message(1)))
        broker.close()
