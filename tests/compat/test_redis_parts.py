"""The Redis result backend by parts: `redis_host`, `redis_port` … ([compat.12])."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from celery import Celery
from celery.app.redis_parts import completed
from celery.exceptions import OperationalError

PARTS = {"redis_host": "h", "redis_port": 1, "redis_db": 2, "redis_username": "u", "redis_password": "p/w"}


@pytest.mark.parametrize(
    ("given", "settings", "wanted"),
    [
        ("redis://", {}, "redis://localhost:6379/0"),
        ("redis://", PARTS, "redis://u:p%2Fw@h:1/2"),
        ("redis", PARTS, "redis://u:p%2Fw@h:1/2"),
        ("redis://x", PARTS, "redis://u:p%2Fw@x:1/2"),
        ("redis://x:5", PARTS, "redis://u:p%2Fw@x:5/2"),
        ("redis://x:5/7", PARTS, "redis://u:p%2Fw@x:5/7"),
        ("rediss://:q@x:5/7?ssl_cert_reqs=none", PARTS, "rediss://:q@x:5/7?ssl_cert_reqs=none"),
        ("redis://x?socket_timeout=1", PARTS, "redis://u:p%2Fw@x:1/2?socket_timeout=1"),
        ("redis://x/?socket_timeout=1", {}, "redis://x:6379/0?socket_timeout=1"),
        ("redis://[::1]", {}, "redis://[::1]:6379/0"),
        ("redis://[::1]:7/3", {}, "redis://[::1]:7/3"),
        ("redis+socket:///s?virtual_host=3", PARTS, "redis+socket:///s?virtual_host=3"),
        ("sqlite:///x", PARTS, "sqlite:///x"),
    ],
)
def test_what_the_url_does_not_say(given: str, settings: dict[str, Any], wanted: str) -> None:
    app = Celery("parts", set_as_current=False)
    app.conf.update(settings)
    assert completed(given, app.conf) == wanted


def test_the_adapter_goes_there() -> None:
    app = Celery("parts", backend="redis", set_as_current=False)
    app.conf.update(PARTS)
    store: Any = app.assembly.store
    assert (store.endpoint.host, store.endpoint.port, store.endpoint.db) == ("h", 1, 2)
    assert (store.endpoint.user, store.endpoint.password) == ("u", "p/w")
    assert "p/w" not in repr(store)


class Refused(Exception):
    """What a provider of credentials raises, or a proxy's client."""


def backend_with(given: Any) -> Any:
    app = Celery("errors", backend="redis://h", set_as_current=False)
    retries = {"max_retries": 2, "interval_start": 0, "interval_step": 0}
    app.conf.result_backend_transport_options = {"additional_connection_errors": given, "retry_policy": retries}
    return app.backend


@pytest.mark.parametrize("given", [Refused, [Refused], (KeyError, f"{__name__}.Refused"), f"{__name__}:Refused"])
def test_additional_connection_errors(given: Any) -> None:
    """[backend.10]: they mean that the server is away, so what failed is tried again."""
    backend = backend_with(given)
    assert Refused in backend.connection_errors
    assert backend.exception_safe_to_retry(Refused())
    assert backend.exception_safe_to_retry(OperationalError())
    assert not backend.exception_safe_to_retry(ValueError())
    tried: list[int] = []

    def fail() -> None:
        tried.append(1)
        raise Refused

    with pytest.raises(Refused):
        backend.ensure(fail, ())
    assert len(tried) == 3
    with pytest.raises(Refused):
        backend_with(None).ensure(fail, ())
    assert len(tried) == 4


def test_additional_connection_errors_that_are_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "celery.backends.redis"):
        errors = backend_with([KeyError, "no.such.Thing", 3, "os.path", "Bare"]).connection_errors
    assert errors[-1] is KeyError
    assert len(errors) == len(backend_with(None).connection_errors) + 1
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 4
    for named in ("'no.such.Thing'", "got 3", "got 'os.path'", "'Bare'"):
        assert named in said


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [("", ""), ("mine", "mine_"), ("mine:", "mine:"), ("mine_", "mine_"), ("mine-", "mine-"), ("mine.", "mine.")],
)
def test_a_prefix_of_all_keys(prefix: str, keys: str) -> None:
    """[backend.10]: where the adapter keeps them, and where the backend's own client looks."""
    app = Celery("prefix", backend="redis://h", set_as_current=False)
    app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
    store: Any = app.assembly.store
    assert f"{store.key_prefix}t" == f"{keys}celery-task-meta-t"
    assert app.backend.get_key_for_task("t") == f"{keys}celery-task-meta-t".encode()
