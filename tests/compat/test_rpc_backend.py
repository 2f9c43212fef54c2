"""`celery.backends.rpc`: its face, and apps that cannot have it. What it does: tests/adapters/test_rpc.py."""

from __future__ import annotations

import pytest

from celery import Celery
from celery.app.backends import by_name, by_url
from celery.app.publishing import Address, ReplyQueue
from celery.backends.rpc import BacklogLimitExceeded, RPCBackend
from celery.exceptions import ImproperlyConfigured


def make(**settings: object) -> Celery:
    app = Celery("rpc", broker="amqp://guest@127.0.0.1:1//", backend="rpc://", set_as_current=False)
    app.conf.update(settings)
    return app


def test_by_name_and_url() -> None:
    assert by_name("rpc") is RPCBackend
    assert by_url("rpc://")[0] is RPCBackend
    backend = make().backend
    assert type(backend) is RPCBackend
    assert backend.as_uri() == "rpc://"
    assert backend.is_async
    assert backend.supports_autoexpire
    assert backend.supports_native_join
    assert RPCBackend.BacklogLimitExceeded is BacklogLimitExceeded
    backend.ensure_chords_allowed()


def test_results_are_transient_unless_told() -> None:
    """[settings.119]"""
    assert make().backend.persistent is False
    assert make(result_persistent=True).backend.persistent is True


def test_poll_is_get_task_meta() -> None:
    """[compat.4]: nothing was sent from here, so nothing is asked, and nothing known."""
    backend = make().backend
    with pytest.warns(DeprecationWarning, match="use get_task_meta"):
        assert backend.poll("nobody") == {"status": "PENDING", "result": None}


def test_where_a_result_goes() -> None:
    app = make()
    request = app.Context(id="a", reply_to="queue", correlation_id="c")
    assert app.backend.destination_for("a", request) == ("queue", "c")
    with pytest.raises(RuntimeError, match="expected the request of task 'a'"):
        app.backend.destination_for("a", None)


def test_a_task_without_an_address_stores_nothing() -> None:
    """[backend.15]: nobody is connected to."""
    app = make()
    app.backend.store_result("a", 1, "SUCCESS", request=app.Context(id="a", reply_to=None))
    app.backend.store_result("a", 1, "SUCCESS")


def test_addresses() -> None:
    """One for each thread; over `rpc://` one for each process, since a queue belongs to it."""
    app = make()
    assert isinstance(app.assembly.address, ReplyQueue)
    app.conf.result_backend = "memory://"
    assert isinstance(app.assembly.address, Address)
    assert app.assembly.address.text == app.thread_oid


@pytest.mark.parametrize(("url", "instead"), [("memory://", "sqlite:///results.db"), ("redis://x:y@h/1", "redis://")])
def test_brokers_that_carry_no_results(url: str, instead: str) -> None:
    app = Celery("rpc", broker=url, backend="rpc://", set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    for use in (lambda: app.assembly.store, lambda: add.delay(1, 2), lambda: app.backend.get_task_meta("a")):
        with pytest.raises(ImproperlyConfigured, match="has to be an AMQP server") as caught:
            use()
        assert f"result_backend = '{instead}" in str(caught.value)
        assert "y@" not in str(caught.value)
