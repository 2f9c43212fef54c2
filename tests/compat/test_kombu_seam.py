"""Publishing through kombu's producers: brought by a call, wrapped by a monitoring package, or asked of the app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kombu
import pytest

from celery import Celery, signals
from celery.app.amqp import AMQP, task_message
from celery.routing import QueueSpec

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("seam", broker="memory://", backend="cache+memory://", set_as_current=False)

    @app.task(name="add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    app.assembly.broker.purge("celery")
    yield app
    app.close()


def waiting(app: Celery, queue: str = "celery") -> list[Any]:
    consumer = app.assembly.broker.consume([QueueSpec(queue)])
    deliveries = consumer.fetch(100, 0.0)
    consumer.ack(deliveries)
    consumer.close()
    return [delivery.message for delivery in deliveries]


def test_a_wrapped_publish_is_called_by_keywords(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sentry's and newrelic's wrappers expect; what they add to the headers arrives."""
    app.tasks["add"].delay(1)  # made a form of it
    own, seen = kombu.Producer.publish, []

    def publish(self: Any, body: Any, **given: Any) -> Any:
        seen.append((body, given, self.connection.transport.driver_type))
        return own(self, body, **{**given, "headers": {**given["headers"], "trace": "t1"}})

    monkeypatch.setattr(kombu.Producer, "publish", publish)
    result = app.tasks["add"].delay(2, y=3)
    app.tasks["add"].apply_async((4,), queue="other", headers={"mine": 1}, priority=3, expires=60, compression="zlib")
    monkeypatch.undo()
    app.tasks["add"].delay(5)

    (body, given, driver), (_, other, _), *rest = seen
    assert not rest
    assert body == ((2,), {"y": 3}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None})
    assert (given["exchange"], given["routing_key"], given["serializer"], driver) == ("", "celery", "json", "memory")
    assert {name: given["headers"][name] for name in ("task", "id", "retries")} == {
        "task": "add", "id": result.id, "retries": 0,
    }  # fmt: skip
    assert given["correlation_id"] == result.id
    assert [queue.name for queue in given["declare"]] == ["celery"]
    assert given["retry_policy"]["max_retries"] == 3
    assert (other["routing_key"], other["priority"], other["expiration"], other["compression"]) == (
        "other",
        3,
        60,
        "zlib",
    )

    first, second, third = waiting(app)
    assert (second.task, second.id, second.headers["trace"]) == ("add", result.id, "t1")
    assert "trace" not in first.headers
    assert "trace" not in third.headers
    assert second.properties.keys() == third.properties.keys()
    assert second.headers.keys() == {*third.headers, "trace"}
    (message,) = waiting(app, "other")
    assert (message.headers["mine"], message.priority, message.headers["compression"]) == (1, 3, "application/x-gzip")
    assert message.properties["expiration"] == "60000"


def test_a_wrapped_inner_publish_is_called_by_positions(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ddtrace reads them: body 0, headers 4, routing_key 6, exchange 9."""
    own, seen = kombu.Producer._publish, []

    def publish(self: Any, *given: Any, **named: Any) -> Any:
        seen.append(given)
        return own(self, *given, **named)

    monkeypatch.setattr(kombu.Producer, "_publish", publish)
    result = app.tasks["add"].delay(2)
    ((body, _, _, _, headers, _, routing_key, _, _, exchange, *_),) = seen
    assert (headers["id"], routing_key, exchange) == (result.id, "celery", "")
    assert body.startswith(b"[[2]" if isinstance(body, bytes) else "[[2]")
    assert len(waiting(app)) == 1


def test_a_call_may_bring_its_producer_or_connection(app: Celery) -> None:
    other = kombu.Connection("memory://elsewhere")
    producer = kombu.Producer(other)
    for options in ({"producer": producer}, {"connection": other}, {"publisher": producer}):
        result = app.tasks["add"].apply_async((1,), **options)
        message = other.default_channel.basic_get("celery", no_ack=True)
        assert message is not None
        assert (message["headers"] if isinstance(message, dict) else message.headers)["id"] == result.id
    assert waiting(app) == []
    with app.producer_or_acquire() as ours, app.connection_for_write() as line:
        for options in ({"producer": ours}, {"connection": line}):
            app.tasks["add"].apply_async((1,), **options)
    assert len(waiting(app)) == 2
    other.release()


def test_queues_to_declare_are_declared(app: Celery) -> None:
    with app.connection_for_write() as line:
        assert line.default_channel.queue_declare("celery").message_count == 0
    topic = kombu.Queue("all", kombu.Exchange("news", "topic"), routing_key="news.#")
    app.tasks["add"].apply_async(
        (1,), exchange="news", exchange_type="topic", routing_key="news.sport", declare=[topic]
    )
    assert [message.routing_key for message in waiting(app, "all")] == ["news.sport"]


def test_messages_are_made_and_sent_by_hand(app: Celery) -> None:
    """[util.15]"""
    made = app.amqp.create_task_message("id1", "add", (1,), {"y": 2}, countdown=10, retries=2, create_sent_event=True)
    assert made == app.amqp.as_task_v2(
        "id1", "add", (1,), {"y": 2}, eta=made.headers["eta"], retries=2, create_sent_event=True
    )
    assert made._fields == ("headers", "properties", "body", "sent_event")
    assert made.properties == {"correlation_id": "id1", "reply_to": ""}
    assert made.sent_event is not None
    assert made.sent_event["args"] == "(1,)"
    told: list[str] = []
    receiver = signals.before_task_publish.connect(lambda sender, **_: told.append(sender), weak=False)
    with app.producer_or_acquire() as producer:
        app.amqp.send_task_message(producer, "add", made, queue="hand")
    signals.before_task_publish.disconnect(receiver)
    (message,) = waiting(app, "hand")
    assert (message.id, message.retries, message.eta) == ("id1", 2, made.headers["eta"])
    assert told == ["add"]
    old = app.amqp.as_task_v1("id2", "add", (1,))
    assert old.headers == {}
    assert (old.body["task"], old.body["id"], old.body["args"]) == ("add", "id2", (1,))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"args": 5}, "task args must be a list or tuple, got 5"),
        ({"kwargs": [1]}, r"task keyword arguments must be a mapping, got \[1\]"),
        ({"countdown": -(2**33)}, "countdown is out of range"),
    ],
)
def test_messages_that_cannot_be_made(app: Celery, given: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        app.amqp.as_task_v2("id1", "add", **given)


def test_a_subclass_changes_what_is_published() -> None:
    """[util.15]"""

    class Stamping(AMQP):
        def as_task_v2(self, *args: Any, **options: Any) -> task_message:
            made = super().as_task_v2(*args, **options)
            made.headers["stamp"] = "mine"
            return made

    app = Celery("stamping", broker="memory://", amqp=Stamping, set_as_current=False)
    result = app.send_task("other", (1, 2), countdown=30, queue="stamped", link=app.signature("add"))
    (message,) = waiting(app, "stamped")
    assert (message.id, message.headers["stamp"], message.task) == (result.id, "mine", "other")
    assert message.eta is not None
    app.close()


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/broker.db"])
def test_kombu_reaches_the_embedded_brokers(url: str, tmp_path: Any) -> None:
    app = Celery("line", broker=url.format(tmp_path), set_as_current=False)
    seen = []
    with app.connection_for_write() as line:
        line.Producer().publish({"hello": 1}, routing_key="letters", declare=[kombu.Queue("letters")])
        assert line.default_channel.queue_declare("letters", passive=True).message_count == 1
        with line.Consumer(kombu.Queue("letters"), callbacks=[lambda body, message: seen.append(body)]):
            line.drain_events(timeout=5)
    assert seen == [{"hello": 1}]
    assert str(tmp_path) not in repr(line) or url.startswith("sqlite")
    app.close()
