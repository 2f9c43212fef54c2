"""`broker_transport_options` on RabbitMQ: each has its effect, or is named once as having none (`[broker.9]`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from celery import Celery
from celery.brokers.amqp import AmqpBroker
from celery.brokers.amqp_advice import on_options
from celery.exceptions import OperationalError
from celery.ports import BrokerConfig
from tests.chaos.proxy import FaultProxy
from tests.contracts.broker import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RabbitServer

    Make = Callable[..., AmqpBroker]

server = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]


def served(test: Any) -> Any:
    for mark in server:
        test = mark(test)
    return test


@pytest.fixture
def make(rabbit_url: str) -> Iterator[Make]:
    made: list[AmqpBroker] = []

    def make(url: str = "", **options: Any) -> AmqpBroker:
        made.append(AmqpBroker(BrokerConfig(url or rabbit_url, options)))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, []),
        ({"confirm_publish": True, "heartbeat": 5, "read_timeout": 3, "client_properties": {"x": 1}}, []),
        ({"login_method": "PLAIN", "write_timeout": 3, "userid": "u", "password": "s3cret", "frame_max": 0}, []),
        ({"max_retries": 3, "interval_start": 0}, ["max_retries .*task_publish_retry_policy", "interval_start"]),
        ({"frame_max": 4096, "connect_retries_timeout": 9}, ["frame_max has no effect", "connection_max_retries"]),
        ({"interval_step": 0, "interval_max": 1}, ["interval_step has no effect", "interval_max has no effect"]),
        ({"ssl": {"ca_certs": "x"}, "host": "h", "channel_max": 9}, ["broker_use_ssl", "broker_url", "few channels"]),
        ({"ssl": None, "channel_max": None, "insist": False, "on_blocked": None}, []),
        ({"on_blocked": print, "frame_writer": print}, ["on_blocked has no effect", "drivers of our own"]),
        ({"visibility_timeout": 60}, ["there is no option visibility_timeout for RabbitMQ; it has no effect.$"]),
        ({"confirm_publsh": True}, [r"there is no option confirm_publsh .* Did you mean confirm_publish\?$"]),
    ],
)  # fmt: skip
def test_options_without_effect_are_named(options: dict[str, Any], said: list[str]) -> None:
    lines = list(on_options(options))
    assert len(lines) == len(said)
    for line, pattern in zip(lines, said, strict=True):
        assert re.search(pattern, line), line
        assert "s3cret" not in line


@served
def test_they_are_named_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """At a worker's start, however often it connects."""
    broker = make(max_retries=3)
    for _ in range(2):
        broker.consume([spec("q")]).close()
    assert [record.name for record in caplog.records if "max_retries" in record.message] == ["celery.brokers.amqp"]


@served
def test_who_logs_in_where(rabbit_session: RabbitServer, rabbit_url: str) -> None:
    """The options count more than the URL, and the server shows what we say of ourselves."""
    parts = urlsplit(rabbit_url)
    app = Celery("login", broker=f"amqp://nobody:wrong@{parts.hostname}:{parts.port}/nowhere", set_as_current=False)
    app.conf.broker_transport_options = {
        "userid": parts.username, "password": parts.password, "virtual_host": parts.path[1:],
        "client_properties": {"product": "orders"},
    }  # fmt: skip
    broker: Any = app.assembly.broker
    with broker.link():
        broker.declare([spec("there")])
        shown = rabbit_session.evaluate("rabbit_networking:connection_info_all([client_properties, vhost]).")
        assert "orders" in shown
        assert parts.path[1:] in shown
    app.close()


@served
def test_time_for_answers_is_bounded(make: Make, rabbit_url: str) -> None:
    """`read_timeout`, also after the login; without it, it is ours."""
    port = urlsplit(rabbit_url).port or 0
    with FaultProxy(port) as proxy:
        broker = make(rabbit_url.replace(f":{port}/", f":{proxy.port}/"), read_timeout=0.6)
        broker.declare([spec("q")])
        proxy.freeze()
        with pytest.raises(OperationalError, match=r"did not answer for 0\.6 s"):
            broker.purge("q")
        proxy.freeze(False)
    with make().link(20.0) as link:
        assert link.patience == 20.0


@served
def test_time_to_take_what_is_sent_is_bounded(make: Make, rabbit_url: str) -> None:
    """`write_timeout`."""
    port = urlsplit(rabbit_url).port or 0
    with FaultProxy(port) as proxy:
        broker = make(rabbit_url.replace(f":{port}/", f":{proxy.port}/"), write_timeout=0.6)
        with broker.link() as link:
            proxy.freeze()
            with pytest.raises(OperationalError, match="while sending: timed out"):
                link.send(b"\x08\0\0\0\0\0\0\xce" * 4_000_000)  # more than all buffers on the way hold
        proxy.freeze(False)
