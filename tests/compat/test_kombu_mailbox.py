"""kombu's own mailbox and consumers on the embedded brokers, beside ours: plugins make nodes and clients with them."""

from __future__ import annotations

import socket
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Consumer, Exchange, Producer, Queue

from celery import Celery
from celery.app.commands import mailbox_settings
from tests.flow.engine import DEADLINE
from tests.flow.running import working

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Celery]:
    url = f"memory://{uuid.uuid4()}" if request.param == "memory" else f"sqlite:///{tmp_path}/broker.db"
    with Celery("mailbox", broker=url, set_as_current=False) as app:
        yield app


def drain(connection: Any, until: Any) -> None:
    end = time.monotonic() + DEADLINE
    while not until():
        assert time.monotonic() < end
        try:
            connection.drain_events(timeout=0.1)
        except socket.timeout:  # noqa: UP041 - kombu's word for it
            continue


def test_kombus_client_commands_our_worker(app: Celery) -> None:
    with working(app, hostname="w1@here", pool="threads"), app.connection() as connection:
        mailbox = app.control.mailbox(connection)
        replies = mailbox.multi_call("ping", timeout=DEADLINE, limit=1)
        assert replies == [{"w1@here": {"ok": "pong"}}]


def test_our_client_commands_a_node_of_kombus(app: Celery) -> None:
    """As plugins make them: `app.control.mailbox.Node(…).listen()`."""
    asked: list[Any] = []

    def double(state: Any, n: int) -> int:
        asked.append(n)
        return 2 * n

    with app.connection() as connection:
        node = app.control.mailbox.Node("own@here", channel=connection.channel(), handlers={"double": double})
        consumer = node.listen()
        app.control.broadcast("double", {"n": 21})
        drain(connection, lambda: asked)
        listener: Any = app.assembly.broker.listen  # type: ignore[attr-defined]
        replies = listener([mailbox_settings(app.conf).replies("oid")])
        reply_to = {"exchange": "reply.celery.pidbox", "routing_key": "oid"}
        node.dispatch("double", {"n": 4}, reply_to=reply_to, ticket="T")
        end = time.monotonic() + DEADLINE
        while not (heard := replies.hear(0.1)):
            assert time.monotonic() < end
        replies.close()
        consumer.cancel()
    assert asked == [21, 4]
    assert heard[0].body == b'{"own@here": 8}'
    assert heard[0].headers["ticket"] == "T"


def test_a_connection_may_be_given(app: Celery) -> None:
    with working(app, hostname="w1@here", pool="threads"), app.connection() as connection:
        expected = [{"w1@here": {"ok": "pong"}}]
        assert app.control.ping(connection=connection, limit=1, timeout=DEADLINE) == expected
        assert app.control.ping(channel=connection.channel(), limit=1, timeout=DEADLINE) == expected


def test_kombus_fanout(app: Celery) -> None:
    """Every queue that goes with its consumer gets each message; what was told before, none."""
    exchange = Exchange("news", "fanout")
    got: list[tuple[str, Any]] = []

    def hears(name: str) -> Any:
        return lambda body, message: got.append((name, body))

    with app.connection() as connection:
        producer = Producer(connection.channel(), exchange=exchange)
        producer.publish({"n": 0})
        consumers = [
            Consumer(
                connection.channel(), [Queue(name, exchange, auto_delete=True)], callbacks=[hears(name)], no_ack=True
            )
            for name in ("a", "b")
        ]
        for consumer in consumers:
            consumer.consume()
        producer.publish({"n": 1})
        drain(connection, lambda: len(got) == 2)
        assert sorted(got, key=str) == [("a", {"n": 1}), ("b", {"n": 1})]
        queue = Queue("c", exchange, auto_delete=True)(connection.channel())
        queue.declare()
        producer.publish({"n": 2})
        assert queue.queue_declare(passive=True).message_count == 1
        assert queue.purge() == 1
        queue.delete()
