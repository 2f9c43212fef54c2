"""Broker URLs in parts: `broker_host`, `broker_port` … of old ([compat.11])."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection

from celery import Celery
from celery.app.broker_parts import whole_url

ALL = {
    "broker_transport": "redis", "broker_host": "h", "broker_port": 99, "broker_user": "u", "broker_password": "p/w@",
    "broker_vhost": "3",
}  # fmt: skip
LESS = {key: value for key, value in ALL.items() if key != "broker_transport"}


def made(**settings: Any) -> Celery:
    app = Celery("parts", set_as_current=False)
    app.conf.update(settings)
    return app


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"broker_host": "h"}, "amqp://h/"),
        ({"broker_port": 99}, "amqp://localhost:99/"),
        ({"broker_vhost": "v"}, "amqp://localhost/v"),
        ({"broker_user": "u", "broker_password": "p"}, "amqp://u:p@localhost/"),
        ({"broker_transport": "memory"}, "memory://"),
        (ALL, "redis://u:p%2Fw%40@h:99/3"),
        ({**LESS, "broker_url": "redis://x"}, "redis://u:p%2Fw%40@x:99/3"),
        ({**LESS, "broker_url": "redis://a:b@x:1/2"}, "redis://a:b@x:1/2"),
        ({**LESS, "broker_url": "redis://[::1]:1"}, "redis://u:p%2Fw%40@[::1]:1/3"),
        ({**ALL, "broker_transport": "amqp", "broker_url": "redis://x"}, "amqp://u:p%2Fw%40@x:99/3"),
        ({**ALL, "broker_url": "sqlite:///q.db"}, "sqlite:///q.db"),
        ({"broker_url": "redis://x"}, "redis://x"),
    ],
)
def test_what_the_url_does_not_say(settings: dict[str, Any], wanted: str) -> None:
    app = made(**settings)
    assert whole_url(app.conf.broker_write_url or "", app.conf) == wanted


@pytest.mark.parametrize("url", [None, "redis://x", "redis://x:1/2", "amqp://a:b@x//", "amqp://x/v"])
@pytest.mark.parametrize("left_out", [None, *ALL])
def test_kombu_agrees(url: str | None, left_out: str | None) -> None:
    app = made(broker_url=url, **{key: value for key, value in ALL.items() if key != left_out})
    ours = Connection(whole_url(app.conf.broker_write_url or "", app.conf))
    assert ours.as_uri(include_password=True) == app.connection_for_write().as_uri(include_password=True)


def test_the_adapter_goes_there() -> None:
    endpoint = made(**ALL).assembly.broker.endpoint  # type: ignore[attr-defined]
    assert (endpoint.host, endpoint.port, endpoint.db) == ("h", 99, 3)
    assert (endpoint.user, endpoint.password) == ("u", "p/w@")
