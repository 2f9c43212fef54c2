"""A call becomes a message: on the memory broker, no app needed."""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kombu.exceptions import EncodeError, OperationalError

from celery import codecs
from celery.brokers.amqp_methods import message_properties, publish
from celery.brokers.amqp_publishing import frames_of_message
from celery.brokers.amqp_routing import Destinations
from celery.brokers.memory import MemoryBroker
from celery.drivers.amqp_frames import content
from celery.ports import BrokerConfig, Publication
from celery.producer import Call, Producer, PublishDefaults, new_id
from celery.retry import PublishPolicy
from celery.routing import QueueSpec, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.message import Message

NOW = dt.datetime(2030, 1, 1, 12, 0, tzinfo=dt.UTC)


class StoppedClock:
    def time(self) -> float:
        return NOW.timestamp()

    def monotonic(self) -> float:
        return 0.0


class Bench:
    """A producer on a memory broker of its own, and the message that it sent last."""

    def __init__(self, *, parent: Any = None, observer: Any = None, broker: Any = None, **defaults: Any) -> None:
        self.broker = broker or MemoryBroker(BrokerConfig(f"memory://{uuid.uuid4()}"))
        self.producer = Producer(
            self.broker,
            router=SimpleNamespace(
                remembered={}, route_for=lambda name, options, *_: (Route("", "q", QueueSpec("q")), options)
            ),
            encode=codecs.encode,
            encode_call=codecs.encode_call,
            compress=codecs.compress,
            represent=repr,
            running=SimpleNamespace(top=parent),
            parent=lambda: parent,
            address=SimpleNamespace(text="me"),
            defaults=PublishDefaults(origin="gen1@here", **defaults),
            clock=StoppedClock(),
            observer=observer,
        )

    def send(self, *args: Any, kwargs: Any = None, **options: Any) -> Message:
        self.producer.send(Call("proj.add", args, kwargs or {}, options))
        consumer = self.broker.consume([QueueSpec("q")])
        (delivery,) = consumer.fetch(1, 0)
        consumer.ack([delivery])
        consumer.close()
        return delivery.message


def test_plain_call() -> None:
    message = Bench().send(1, 2, kwargs={"z": 3})
    assert json.loads(message.body) == [
        [1, 2], {"z": 3}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]  # fmt: skip
    assert message.headers["argsrepr"] == "(1, 2)"
    assert message.headers["kwargsrepr"] == "{'z': 3}"
    assert message.headers["root_id"] == message.id
    assert message.headers["parent_id"] is None
    assert message.properties["correlation_id"] == message.id
    assert message.properties["reply_to"] == "me"
    assert message.properties["delivery_mode"] == 2
    assert message.priority == 0


def test_ids_come_from_the_running_task() -> None:
    parent = SimpleNamespace(id="P", root_id="R", delivery_info={"priority": 7})
    message = Bench(parent=parent).send()
    assert (message.headers["root_id"], message.headers["parent_id"], message.priority) == ("R", "P", 0)
    assert Bench(parent=parent, inherit_parent_priority=True).send().priority == 7
    assert Bench(parent=parent, inherit_parent_priority=True).send(priority=2).priority == 2
    own = Bench(parent=parent).send(root_id="r", parent_id="p")
    assert (own.headers["root_id"], own.headers["parent_id"]) == ("r", "p")


def test_countdown_beats_eta() -> None:
    assert Bench().send(countdown=10, eta="2040-01-01T00:00:00+00:00").eta == "2030-01-01T12:00:10+00:00"
    assert Bench().send(eta=NOW).eta == NOW.isoformat()
    assert Bench().send(eta="2040-01-01T00:00:00+00:00").eta == "2040-01-01T00:00:00+00:00"
    assert Bench().send(countdown=0).eta is None


def test_dates_are_in_the_apps_time_zone() -> None:
    zone = dt.timezone(dt.timedelta(hours=-5))
    assert Bench(timezone=zone).send(countdown=10).eta == "2030-01-01T07:00:10-05:00"


@pytest.mark.parametrize(
    ("expires", "header", "milliseconds"),
    [
        (60, "2030-01-01T12:01:00+00:00", "60000"),
        (1.5, "2030-01-01T12:00:01.500000+00:00", "1500"),
        (NOW + dt.timedelta(seconds=5), "2030-01-01T12:00:05+00:00", "5000"),
        ("2030-01-01T12:00:05", "2030-01-01T12:00:05", "5000"),
        (-5, "2030-01-01T11:59:55+00:00", "0"),
    ],
)
def test_expiry(expires: Any, header: str, milliseconds: str, caplog: pytest.LogCaptureFixture) -> None:
    message = Bench().send(expires=expires)
    assert (message.expires, message.properties["expiration"]) == (header, milliseconds)
    assert ("expires in the past" in caplog.text) == (expires == -5)


@pytest.mark.parametrize("name", ["countdown", "expires"])
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is out of range"):
        Bench().send(**{name: -(2**40)})


def test_links_and_flow_travel_in_the_body() -> None:
    message = Bench().send(link={"task": "a"}, link_error=[{"task": "b"}], chain=[{"task": "c"}], chord={"task": "d"})
    assert json.loads(message.body)[2] == {
        "callbacks": [{"task": "a"}], "errbacks": [{"task": "b"}], "chain": [{"task": "c"}], "chord": {"task": "d"},
    }  # fmt: skip


def test_unknown_options_become_properties() -> None:
    message = Bench().send(app_id="x", timestamp=5, queue="q", shadow="s")
    assert (message.properties["app_id"], message.properties["timestamp"]) == ("x", 5)
    assert "queue" not in message.properties
    assert message.shadow == "s"


def test_custom_headers_come_last_and_win() -> None:
    """Seen with the real one: a custom header may even take a standard one's place."""
    message = Bench().send(headers={"foo": 1, "shadow": "x"})
    assert list(message.headers)[-1] == "foo"
    assert message.shadow == "x"


def test_delivery_mode_and_representation() -> None:
    message = Bench().send(1, delivery_mode="transient", argsrepr="<hidden>", kwargsrepr="<none>")
    assert message.properties["delivery_mode"] == 1
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("<hidden>", "<none>")
    assert json.loads(message.body)[0] == [1]


def test_compression_is_named_in_the_headers() -> None:
    message = Bench().send("x" * 1000, compression="zlib")
    assert message.headers["compression"] == "application/x-gzip"
    assert json.loads(codecs.decompress(message.body, "application/x-gzip"))[0] == ["x" * 1000]
    assert len(message.body) < 500


def test_protocol_1_has_everything_in_the_body() -> None:
    bench = Bench(protocol=1)
    bench.producer.send(Call("proj.add", (1,), {}, {"headers": {"a": 1}, "time_limit": 4}))
    consumer = bench.broker.consume([QueueSpec("q")])
    (delivery,) = consumer.fetch(1, 0)
    consumer.close()
    assert delivery.message is None
    envelope = json.loads(delivery.raw)
    assert envelope["headers"] == {"a": 1}


def test_arguments_that_do_not_fit_are_refused_here() -> None:
    with pytest.raises(EncodeError, match="set is not JSON serializable"):
        Bench().send({1})


class Flaky:
    """A broker whose first publishes fail; what it accepted at last."""

    def __init__(self, failures: int, error: type[Exception] = OperationalError) -> None:
        self.failures, self.error = failures, error
        self.tries: list[str] = []

    def publish(self, publications: Sequence[Publication]) -> None:
        self.tries.append(publications[0].message.id)
        if len(self.tries) <= self.failures:
            raise self.error("away")


NO_WAIT = {"interval_step": 0, "interval_start": 0}


def test_publishing_is_tried_again_under_the_same_id() -> None:
    broker = Flaky(3)
    Bench(broker=broker, retry_policy=NO_WAIT).producer.send(Call("t", (), {}, {}))
    assert len(broker.tries) == 4
    assert len(set(broker.tries)) == 1


@pytest.mark.parametrize(
    ("options", "tries"),
    [
        ({}, 4),
        ({"retry": False}, 1),
        ({"retry_policy": {"max_retries": 1}}, 2),
        ({"retry_policy": {"retry_errors": (KeyError,)}}, 1),
        ({"retry_policy": {"retry_errors": (OperationalError,), "max_retries": 2}}, 3),
    ],
)
def test_the_policy_ends_in_operational_error(options: dict[str, Any], tries: int) -> None:
    broker = Flaky(100)
    with pytest.raises(OperationalError):
        Bench(broker=broker, retry_policy=NO_WAIT).producer.send(Call("t", (), {}, options))
    assert len(broker.tries) == tries


def test_other_errors_are_not_retried() -> None:
    broker = Flaky(1, ValueError)
    with pytest.raises(ValueError, match="away"):
        Bench(broker=broker).producer.send(Call("t", (), {}, {}))
    assert len(broker.tries) == 1


def test_an_unknown_policy_key_is_named() -> None:
    with pytest.raises(TypeError, match="max_retrys"):
        PublishPolicy.of({"max_retrys": 3})


@given(st.integers(0, 20), st.floats(0, 5), st.floats(0, 5), st.floats(0, 5))
def test_waits_grow_to_the_maximum(tries: int, start: float, step: float, maximum: float) -> None:
    waits = list(PublishPolicy(tries, start, step, maximum).waits())
    assert len(waits) == tries
    assert waits == sorted(waits)
    assert all(wait <= maximum for wait in waits)


def test_default_waits_are_celerys() -> None:
    assert list(PublishPolicy().waits()) == [0.0, 0.2, 0.4]


class Editor:
    """An observer that changes the message in place, as receivers of `before_task_publish` do."""

    seen: Any = None
    before = after = (SimpleNamespace(receivers=True),)

    def publishing(self, sketch: Any) -> None:
        sketch.headers["trace"] = "on"
        sketch.properties["app_id"] = "edited"
        sketch.body[1]["added"] = True

    def published(self, sketch: Any) -> None:
        self.seen = sketch.headers["id"]


def test_observers_edit_what_is_sent() -> None:
    observer = Editor()
    message = Bench(observer=observer).send()
    assert message.headers["trace"] == "on"
    assert message.properties["app_id"] == "edited"
    assert json.loads(message.body)[1] == {"added": True}
    assert observer.seen == message.id


def test_ids_are_random_version_4_uuids() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    for text in ids:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"eta": "garbage"}, ValueError, "eta: expected a datetime or ISO 8601 text, got 'garbage'"),
        ({"eta": 5}, TypeError, "eta: expected a datetime"),
        ({"expires": "junk"}, ValueError, "expires: expected a datetime"),
        ({"countdown": "abc"}, TypeError, "countdown: expected seconds as a number, got 'abc'"),
        ({"compression": "nope"}, KeyError, "compression: expected one of"),
    ],
)
def test_what_no_worker_could_use_is_refused_here(options: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Bench().send(1, **options)


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_call_needs_a_name(name: Any) -> None:
    with pytest.raises(TypeError, match="expected the name of a task"):
        Bench().producer.send(Call(name, (), {}, {}))


def test_ids_of_other_types_are_sent_as_text() -> None:
    assert Bench().send(task_id=7).id == "7"


class SlowClock(StoppedClock):
    """Each look at it is five seconds later."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 5.0
        return self.now


def test_a_silent_broker_is_given_up_after_some_seconds() -> None:
    broker = Flaky(100)
    bench = Bench(broker=broker, retry_policy=NO_WAIT)
    bench.producer._clock = SlowClock()
    with pytest.raises(OperationalError):
        bench.producer.send(Call("t", (), {}, {}))
    assert len(broker.tries) == 2, "the settings' policy would have tried four times"
    with pytest.raises(OperationalError):
        bench.producer.send(Call("t", (), {}, {"retry_policy": {"max_retries": 5}}))
    assert len(broker.tries) == 2 + 6, "a policy of the call's own is kept to"


class Listener:
    """Listens and changes nothing: the long way is taken."""

    before = after = (SimpleNamespace(receivers=True),)

    def publishing(self, sketch: Any) -> None: ...

    def published(self, sketch: Any) -> None: ...


def remembering(bench: Bench) -> Bench:
    """As with real routers, the route of the task is known by its name from the second call on."""
    bench.producer._router.remembered["proj.add"] = (Route("", "q", QueueSpec("q")), {})
    return bench


argument = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.dates(), st.binary()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@given(
    calls=st.lists(st.tuples(st.lists(argument, max_size=3).map(tuple), st.booleans()), min_size=2, max_size=4),
    priority=st.none() | st.integers(0, 9),
)
@example(calls=[(('%s %(i)b \\ "',), False), (("\ud800", "x" * 3000), True)], priority=3)
def test_forms_write_what_laying_out_does(calls: Any, priority: int | None) -> None:
    """Calls of one task, some with an option: filled in or laid out, the messages say the same."""
    quick, long = remembering(Bench(priority=priority)), remembering(Bench(priority=priority, observer=Listener()))
    for args, ignored in calls:
        options = {"ignore_result": True} if ignored else {"serializer": "json"}
        ours, theirs = quick.send(*args, **options), long.send(*args, **options)
        assert ours.body == theirs.body
        assert [ours.headers["id"], ours.headers["root_id"]] == [ours.id] * 2
        assert ours.properties["correlation_id"] == ours.id
        for one in (ours, theirs):
            for name in ("id", "root_id"):
                one.headers[name] = None
            for name in ("correlation_id", "delivery_tag"):
                one.properties[name] = None
        assert ours.headers == theirs.headers
        assert list(ours.headers) == list(theirs.headers)
        assert ours.properties == theirs.properties
        for name in ("task", "eta", "expires", "retries", "timelimit", "shadow", "ignore_result", "priority"):
            assert getattr(ours, name) == getattr(theirs, name)
        for name in ("exchange", "routing_key", "redelivered", "content_type", "content_encoding"):
            assert getattr(ours, name) == getattr(theirs, name)
    assert quick.producer._forms, "the quick way was not taken at all"
    assert not long.producer._forms


@given(st.lists(st.lists(argument, max_size=3).map(tuple), min_size=1, max_size=3), st.none() | st.integers(0, 9))
@example([('%s %(i)b \\ "',), ("\ud800", "x" * 3000)], 3)
def test_amqp_fills_the_same_form(calls: list[Any], priority: int | None) -> None:
    """What goes over AMQP is what the whole message would have been, byte for byte."""
    bench = remembering(Bench(priority=priority))
    link: Any = SimpleNamespace(frame_max=131072)
    destinations = Destinations(BrokerConfig("amqp://"), StoppedClock())
    for args in calls:
        bench.producer.send(Call("proj.add", (), {}, {"serializer": "json"}))
        ours = bench.producer.send(Call("proj.add", args, {}, {"serializer": "json"}))
        assert ours.filled is not None
        route = Route("", "q")
        written = frames_of_message(link, Publication(ours, route), destinations)
        assert written == publish("", "q") + content(message_properties(ours), ours.body, link.frame_max)
        assert ours.filled[0].kept.route is route


def test_a_form_is_made_anew_when_the_task_or_the_route_changes() -> None:
    bench = remembering(Bench())
    task = SimpleNamespace(ignore_result=False)
    call = Call("proj.add", (1,), {}, {}, task)
    assert bench.producer.send(call).ignore_result is False
    task.ignore_result = True
    assert bench.producer.send(call).ignore_result is True
    bench.producer._router.remembered["proj.add"] = (Route("", "other", QueueSpec("other")), {})
    assert bench.producer.send(call).routing_key == "other"


def test_a_policy_of_unknown_keys_is_refused_before_it_is_needed() -> None:
    """As in Celery, where it is the retrying that takes them."""
    with pytest.raises(TypeError, match="retry_policy: expected keys among max_retries"):
        Bench().send(retry_policy={"nope": 1})
    assert Bench().send(retry=False, retry_policy={"nope": 1}).id
