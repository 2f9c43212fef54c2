"""Events: the dispatcher, the receiver, `app.events`, the dumper and cameras (`[event.12]` to `[event.20]`)."""

from __future__ import annotations

import io
import json
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from kombu.exceptions import OperationalError

from celery import Celery
from celery.app.events import Events
from celery.bin.celery import celery
from celery.events import Event, EventDispatcher, EventReceiver, event_exchange, get_exchange, group_from
from celery.events.dumper import Dumper
from celery.events.snapshot import Polaroid
from celery.exceptions import ImproperlyConfigured
from celery.ports import Notice
from celery.routing import QueueSpec
from tests.hearing import Ear
from tests.running import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4()}"
    with Celery("events", broker=name, backend=name, set_as_current=False) as app:
        yield app


def notices(app: Celery, tell: Any) -> list[Notice]:
    """What is told meanwhile, as it is on the wire."""
    listener = app.assembly.broker.listen([QueueSpec("ear", "celeryev", "topic", "#")])  # type: ignore[attr-defined]
    try:
        tell()
        heard: list[Notice] = listener.hear(0.0)
        return heard
    finally:
        listener.close()


# ------------------------------------------------------------------------------------------------------------ values


def test_an_event_is_a_mapping_with_type_and_time() -> None:
    assert Event("task-x", a=1, __now__=lambda: 3.0) == {"type": "task-x", "a": 1, "timestamp": 3.0}
    assert Event("task-x", {"a": 1, "b": 2}, b=3, timestamp=4.0) == {"type": "task-x", "a": 1, "b": 3, "timestamp": 4.0}
    assert [group_from(type) for type in ("task-sent", "worker-elect-ack", "custom")] == ["task", "worker", "custom"]


@pytest.mark.parametrize(("driver", "kind"), [("redis", "fanout"), ("gcpubsub", "fanout"), ("amqp", "topic")])
def test_the_exchange_is_what_the_transport_can_do(driver: str, kind: str) -> None:
    connection = type("C", (), {"transport": type("T", (), {"driver_type": driver})})
    assert (get_exchange(connection).name, get_exchange(connection).type) == ("celeryev", kind)
    assert get_exchange(connection, name="other").name == "other"
    assert (event_exchange.name, event_exchange.type, event_exchange.durable) == ("celeryev", "topic", True)


# -------------------------------------------------------------------------------------------------------- dispatcher


def test_an_event_on_the_wire(app: Celery) -> None:
    app.clock.value = 6
    dispatcher = app.events.Dispatcher(None, "w@h")
    (one,) = notices(app, lambda: dispatcher.send("task-started", uuid="u"))
    assert (one.exchange, one.exchange_type, one.routing_key, one.durable) == (
        "celeryev", "topic", "task.started", True,
    )  # fmt: skip
    assert (one.content_type, one.content_encoding) == ("application/json", "utf-8")
    assert (one.headers, one.properties["delivery_mode"]) == ({"hostname": "w@h"}, 1)
    event = json.loads(one.body)
    assert isinstance(event.pop("timestamp"), float)
    assert isinstance(event.pop("utcoffset"), float | int)
    assert event == {"type": "task-started", "hostname": "w@h", "pid": dispatcher.pid, "clock": 7, "uuid": "u"}


def test_a_blind_event_does_not_tick(app: Celery) -> None:
    before = app.clock.value
    (one,) = notices(app, lambda: app.events.Dispatcher().send("a-b", blind=True))
    assert json.loads(one.body)["clock"] is None
    assert app.clock.value == before


def test_groups_are_gathered_until_they_are_many(app: Celery) -> None:
    calls: list[int] = []
    dispatcher = app.events.Dispatcher(buffer_group=["task"], buffer_limit=3, on_send_buffered=lambda: calls.append(1))

    def tell() -> None:
        for n in range(4):
            dispatcher.send("task-x", n=n)
        dispatcher.send("worker-y")

    heard = notices(app, tell)
    assert [one.routing_key for one in heard] == ["task.multi", "worker.y"]
    assert [event["n"] for event in json.loads(heard[0].body)] == [0, 1, 2]
    assert len(calls) == 3
    (rest,) = notices(app, dispatcher.flush)
    assert [event["n"] for event in json.loads(rest.body)] == [3]
    assert notices(app, dispatcher.flush) == []


def test_only_groups_that_are_wanted(app: Celery) -> None:
    dispatcher = app.events.Dispatcher(groups=["worker"])
    assert notices(app, lambda: dispatcher.send("task-x")) == []
    dispatcher.groups.add("task")
    assert len(notices(app, lambda: dispatcher.send("task-x"))) == 1
    dispatcher.groups.discard("task")
    assert notices(app, lambda: dispatcher.send("task-x")) == []
    dispatcher.groups = ()
    assert len(notices(app, lambda: dispatcher.send("task-x"))) == 1


def test_off_and_on(app: Celery) -> None:
    told: list[str] = []
    dispatcher = app.events.Dispatcher(enabled=False)
    dispatcher.on_enabled.add(lambda: told.append("on"))
    dispatcher.on_disabled.add(lambda: told.append("off"))
    assert notices(app, lambda: dispatcher.send("a-b")) == []
    dispatcher.enable()
    assert len(notices(app, lambda: dispatcher.send("a-b"))) == 1
    dispatcher.disable()
    dispatcher.disable()
    assert notices(app, lambda: dispatcher.send("a-b")) == []
    assert told == ["on", "off"]


class Away:
    """A producer whose broker is away, for as long as `away` says so."""

    def __init__(self, producer: Any) -> None:
        self.away, self._producer = True, producer

    def tell(self, notices: Any) -> None:
        if self.away:
            raise OperationalError("away")
        self._producer._carrier.tell(notices)


def _cut(dispatcher: EventDispatcher) -> Away:
    carrier = Away(dispatcher.producer)
    dispatcher.producer = type(dispatcher.producer)(carrier, "celeryev")
    return carrier


def test_what_cannot_be_sent_is_kept_and_handed_on(app: Celery) -> None:
    dispatcher, other = app.events.Dispatcher(), app.events.Dispatcher()
    cut = _cut(dispatcher)
    for n in range(3):
        dispatcher.send("a-b", n=n)
    with pytest.raises(OperationalError):
        dispatcher.flush()
    other.extend_buffer(dispatcher)
    for each in (dispatcher, other):
        cut.away = False
        heard = notices(app, each.flush)
        assert [(one.routing_key, json.loads(one.body)["n"]) for one in heard] == [("a.b", 0), ("a.b", 1), ("a.b", 2)]
        assert notices(app, each.flush) == []


def test_what_is_kept_is_bounded(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery.events.dispatcher._OFFLINE_LIMIT", 5)
    dispatcher = app.events.Dispatcher()
    cut = _cut(dispatcher)
    for n in range(8):
        dispatcher.send("a-b", n=n)
    cut.away = False
    assert [json.loads(one.body)["n"] for one in notices(app, dispatcher.flush)] == [3, 4, 5, 6, 7]
    assert dispatcher.dropped == 3


def test_without_buffer_it_raises(app: Celery) -> None:
    dispatcher = app.events.Dispatcher(buffer_while_offline=False)
    _cut(dispatcher)
    with pytest.raises(OperationalError):
        dispatcher.send("a-b")


def test_the_serializer_is_the_setting(app: Celery) -> None:
    app.conf.event_serializer = "yaml"
    (one,) = notices(app, lambda: app.events.Dispatcher().send("a-b", c=1))
    assert one.content_type == "application/x-yaml"
    with Ear(app) as ear, app.events.default_dispatcher() as dispatcher:
        dispatcher.send("a-b", c=1)
        assert ear.wait_for("a-b")[0]["c"] == 1


def test_another_exchange(app: Celery) -> None:
    app.conf.event_exchange = "other"
    with Ear(app) as ear, app.events.default_dispatcher() as dispatcher:
        dispatcher.send("a-b")
        ear.wait_for("a-b")


def test_a_connection_to_the_apps_broker_needs_no_kombu(app: Celery) -> None:
    with app.connection() as connection, Ear(app) as ear:
        app.events.Dispatcher(connection, "x@y").send("custom-x", a=1)
        assert ear.wait_for("custom-x")[0]["hostname"] == "x@y"


@pytest.mark.slow
def test_another_broker_is_told_by_kombu(app: Celery) -> None:
    """kombu's own memory transport, which is none of ours."""
    from kombu import Connection

    with Connection("memory://") as connection:
        heard: list[Any] = []
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        capture = receiver.itercapture(limit=2, timeout=PATIENCE, wakeup=False)
        dispatcher = app.events.Dispatcher(connection)
        sender = threading.Timer(0.1, dispatcher.send, ["custom-x"])
        sender.start()
        next(capture)
        capture.close()
        sender.join()
        assert [event["type"] for event in heard] == ["custom-x"]


# ---------------------------------------------------------------------------------------------------------- receiver


def test_the_default_dispatcher_and_custom_events(app: Celery) -> None:
    with Ear(app) as ear, app.events.default_dispatcher(hostname="me@here") as dispatcher:
        dispatcher.send("custom-thing", size=3)
        (event,) = ear.wait_for("custom-thing")
    assert (event["size"], event["hostname"]) == (3, "me@here")
    assert event["local_received"] >= event["timestamp"] - 1


def test_handlers_of_a_type_come_before_those_of_all(app: Celery) -> None:
    heard: list[tuple[str, str]] = []
    handlers = {name: lambda event, name=name: heard.append((name, event["type"])) for name in ("task-x", "*")}
    receiver = app.events.Receiver(None, handlers=handlers)
    for type in ("task-x", "task-y"):
        receiver.process(type, {"type": type})
    assert heard == [("task-x", "task-x"), ("*", "task-y")]


def test_times_become_local_and_clocks_meet(app: Celery) -> None:
    receiver = app.events.Receiver(None)
    app.clock.value = 10
    body = {"type": "task-started", "clock": 50, "timestamp": 1000.0, "utcoffset": 2}
    type, event = receiver.event_from_message(body, now=lambda: 7.0, adjust_timestamp=lambda at, offset: at - offset)
    assert (type, event["timestamp"], event["local_received"], app.clock.value) == ("task-started", 998.0, 7.0, 51)
    _, event = receiver.event_from_message({"type": "task-sent", "clock": 3})
    assert event["clock"] == 50  # a client's clock counts for nothing: just before what is known here
    _, event = receiver.event_from_message({"type": "x", "timestamp": 1.0, "utcoffset": 2}, localize=False)
    assert (event["timestamp"], event["clock"]) == (1.0, app.clock.value)


@pytest.mark.slow
def test_limits_and_silence(app: Celery) -> None:
    heard: list[Any] = []
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        capture = receiver.itercapture(limit=3, wakeup=False)
        dispatcher = app.events.Dispatcher()
        sender = threading.Timer(0.1, lambda: [dispatcher.send("a-b", n=n) for n in range(5)])
        sender.start()
        for _ in capture:
            pass
        sender.join()
        assert [event["n"] for event in heard] in ([0, 1, 2], [0, 1])  # a silent second would count as well
        with pytest.raises(TimeoutError):
            receiver.capture(timeout=1, wakeup=False)


@pytest.mark.slow
def test_it_stops_when_it_is_told(app: Celery) -> None:
    receiver = app.events.Receiver(None, handlers={})
    turns: list[int] = []

    def on_iteration() -> None:
        turns.append(1)
        receiver.should_stop = True

    receiver.on_iteration = on_iteration
    receiver.capture(wakeup=False)
    assert turns == [1]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"\xff", "application/json"), (b"[1, null, {}]", "application/json"), (b"x", "application/x-python-serialize"),
        (b"{}", "application/nonsense"), (b'{"type": 3, "clock": "x"}', "application/json"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_passed_over(app: Celery, body: bytes, content_type: str) -> None:
    with Ear(app) as ear:
        carrier: Any = app.assembly.broker
        carrier.tell([Notice("celeryev", "topic", "task.x", body, content_type)])
        app.events.Dispatcher().send("a-b")
        ear.wait_for("a-b")


def test_the_queue_of_a_receiver(app: Celery) -> None:
    app.conf.update(event_queue_ttl=3.0, event_queue_expires=20.0, event_queue_prefix="mon")
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, node_id="n", routing_key="worker.#")
        queue = receiver.queue
    assert (queue.name, queue.routing_key, queue.auto_delete, queue.exclusive) == ("mon.n", "worker.#", True, True)
    assert (queue.durable, queue.queue_arguments) == (False, {"x-message-ttl": 3000, "x-expires": 20000})
    other = app.events.Receiver(None, queue_ttl=1, queue_expires=2, queue_exclusive=False, queue_durable=True)
    assert other.mailbox.arguments == {"x-message-ttl": 1000, "x-expires": 2000}
    assert (other.mailbox.exclusive, other.mailbox.durable) == (False, True)
    with pytest.raises(ImproperlyConfigured):
        app.events.Receiver(None, queue_durable=True)
    app.conf.update(event_queue_durable=True, event_queue_exclusive=True)
    with pytest.raises(ImproperlyConfigured):
        app.events.Receiver(None)


@pytest.mark.slow
def test_only_what_the_routing_key_says(app: Celery) -> None:
    with Ear(app, "worker.#") as ear:
        dispatcher = app.events.Dispatcher()
        for type in ("task-x", "worker-online"):
            dispatcher.send(type)
        ear.wait_for("worker-online")
        assert ear.types() == ["worker-online"]


# --------------------------------------------------------------------------------------------------------------- app


def test_the_parts_of_an_app(app: Celery) -> None:
    assert app.events is app.events
    assert issubclass(app.events.Receiver, EventReceiver)
    assert issubclass(app.events.Dispatcher, EventDispatcher)
    assert app.events.Dispatcher.app is app.events.Receiver.app is app.events.State.app is app


class Own(Events):
    """An app's own."""


def test_events_of_its_own_class() -> None:
    for cls in (Own, f"{__name__}:Own"):
        assert type(Celery("own", events=cls, set_as_current=False).events) is Own


def test_a_client_tells_what_it_has_sent(app: Celery) -> None:
    app.conf.task_send_sent_event = True
    with Ear(app) as ear:
        sent = app.send_task("some.task", (1, "a"), {"b": 2}, queue="fast", retries=2)
        (event,) = ear.wait_for("task-sent")
    assert {name: event[name] for name in ("uuid", "name", "args", "kwargs", "retries", "queue", "exchange")} == {
        "uuid": sent.id, "name": "some.task", "args": "(1, 'a')", "kwargs": "{'b': 2}", "retries": 2, "queue": "fast",
        "exchange": "",
    }  # fmt: skip
    assert (event["routing_key"], event["root_id"], event["parent_id"], event["eta"]) == ("fast", sent.id, None, None)


def test_a_group_is_told_in_one_message(app: Celery) -> None:
    from celery import group

    app.conf.task_send_sent_event = True
    one = app.signature("some.task")
    heard = notices(app, lambda: group([one.clone((n,)) for n in range(3)], app=app).apply_async())
    assert [each.routing_key for each in heard] == ["task.multi"]
    assert [event["args"] for event in json.loads(heard[0].body)] == ["(0,)", "(1,)", "(2,)"]


def test_nothing_is_told_unless_it_is_asked_for(app: Celery) -> None:
    assert notices(app, lambda: app.send_task("some.task")) == []


def test_a_call_does_not_fail_for_want_of_its_event(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.task_send_sent_event = True

    def away(*_: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(app.assembly.broker, "tell", away)
    app.send_task("some.task")
    assert "cannot be sent" in caplog.text


def test_a_task_tells_events_of_its_own(app: Celery) -> None:
    @app.task(name="one")
    def one() -> None: ...

    with Ear(app) as ear:
        one.send_event("task-progress", done=3)
        (event,) = ear.wait_for("task-progress")
    assert (event["uuid"], event["done"]) == (None, 3)


# ------------------------------------------------------------------------------------------------- dumper and cameras


def test_events_as_lines() -> None:
    """Lines of the real Celery 5.7."""
    out = io.StringIO()
    dumper = Dumper(out)
    common = {"hostname": "w@h", "timestamp": 1795893965.25, "clock": 4}
    dumper.on_event({"type": "worker-online", "active": 0, **common})
    dumper.on_event({"type": "task-received", "uuid": "u", "name": "add", "args": "(2,)", "kwargs": "{}", **common})
    dumper.on_event({"type": "task-succeeded", "uuid": "u", "result": "5", **common})
    dumper.on_event({"type": "task-started", "uuid": "unknown", **common})
    dumper.on_event({"type": "worker-offline", **common})
    dumper.on_event({"type": "custom-x", "b": 1, "a": 2, **common})
    when = "[2026-11-28 19:26:05.250000+00:00]"
    assert out.getvalue().splitlines() == [
        f"w@h {when} started: active=0, clock=4",
        f"w@h {when} task received: add(u) args=(2,) kwargs={{}} clock=4",
        f"w@h {when} task succeeded: add(u) args=(2,) kwargs={{}} clock=4, result=5",
        f"w@h {when} task started:  clock=4",
        f"w@h {when} shutdown: clock=4",
        f"w@h {when} custom x: a=2, b=1, clock=4",
    ]


class Camera(Polaroid):
    """Notes what it sees."""

    clear_after = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[int] = []
        self.cleaned = 0

    def on_shutter(self, state: Any) -> None:
        self.seen.append(len(state.tasks))

    def on_cleanup(self) -> None:
        self.cleaned += 1


def test_a_camera_looks_at_a_frozen_state_at_regular_times(app: Celery) -> None:
    state = app.events.State()
    state.event({"type": "task-succeeded", "uuid": "u", "hostname": "w", "timestamp": 1.0, "clock": 1,
                 "local_received": 1.0, "result": "1", "runtime": 1.0})  # fmt: skip
    signals: list[Any] = []

    def shutter(sender: Any, **_: Any) -> None:
        signals.append(sender)

    Camera.shutter_signal.connect(shutter)
    try:
        camera = Camera(state, freq=0.01, cleanup_freq=0.01, app=app)
        with camera:
            wait_until(lambda: len(camera.seen) > 2 and camera.cleaned, "pictures")
    finally:
        Camera.shutter_signal.disconnect(shutter)
        camera.timer.stop()
    assert camera.seen[:2] == [1, 0]  # what has ended is forgotten after a picture
    assert signals[0] is state
    assert camera._tref is None


def test_no_more_pictures_than_the_rate_allows(app: Celery) -> None:
    camera = Camera(app.events.State(), maxrate="1/h", app=app)
    for _ in range(5):
        camera.capture()
    assert len(camera.seen) == 1


def test_the_command_names_what_it_cannot_run(app: Celery) -> None:
    done = CliRunner().invoke(celery, ["events", "--help"])
    assert all(option in done.output for option in ("--dump", "--camera", "--frequency", "--maxrate", "--detach"))
    done = CliRunner(env={"CELERY_BROKER_URL": "memory://"}).invoke(celery, ["events", "-c", "no.such:Camera"])
    assert done.exit_code == 1
    assert "Unable to run the `events` command" in done.output
