"""The Redis result backend by parts: `redis_host`, `redis_port` … ([compat.12])."""

from __future__ import annotations

from typing import Any

import pytest

from celery import Celery
from celery.app.redis_parts import completed

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
