"""Remote control from end to end, on a memory broker: `app.control` on one side, a worker's mailbox on the other."""

from __future__ import annotations

import json
import threading
import time
import uuid
import warnings
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery
from celery.app.commands import command_of, gather, mailbox_settings
from celery.app.control import Control, Inspect, flatten_reply
from celery.exceptions import DuplicateNodenameWarning, ImproperlyConfigured
from celery.ports import Notice
from celery.worker import state
from celery.worker.control import Panel, control_command, inspect_command
from tests.contracts.broadcasting import hear
from tests.flow import running
from tests.flow.engine import DEADLINE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.ports import Broadcasting
    from celery.routing import QueueSpec
    from celery.worker import WorkController


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setattr(state, "should_stop", None)
    state.reset_state()
    with make_app() as app:
        yield app
    state.reset_state()


@contextmanager
def working(app: Celery, **options: Any) -> Iterator[WorkController]:
    with running.working(app, **{"pool": "threads", **options}) as worker:
        yield worker


def make_app(**conf: Any) -> Celery:
    name = f"memory://{uuid.uuid4()}"
    return Celery("controlled", broker=name, backend=name, set_as_current=False, **conf)


@pytest.fixture
def commands() -> Iterator[None]:
    """Commands of the test's own, gone after it."""
    data, meta = dict(Panel.data), dict(Panel.meta)
    yield
    Panel.data.clear()
    Panel.meta.clear()
    Panel.data.update(data)
    Panel.meta.update(meta)


def carrier(app: Celery) -> Broadcasting:
    broker: Any = app.assembly.broker
    return broker


def tell(app: Celery, body: bytes, content_type: str = "application/json", **headers: Any) -> None:
    carrier(app).tell([Notice("celery.pidbox", "fanout", "", body, content_type, "utf-8", headers)])


# -- asking ----------------------------------------------------------------------------------------------------------


def test_a_worker_answers(app: Celery) -> None:
    with working(app, hostname="w1@here"):
        assert app.control.ping(limit=1, timeout=DEADLINE) == [{"w1@here": {"ok": "pong"}}]
        inspect = app.control.inspect(limit=1, timeout=DEADLINE)
        assert inspect.ping() == {"w1@here": {"ok": "pong"}}
        assert list(inspect.registered()["w1@here"]) == []
        assert inspect.active_queues()["w1@here"][0]["name"] == "celery"
        assert inspect.stats()["w1@here"]["pool"]


def test_nobody_answers(app: Celery) -> None:
    assert app.control.ping(timeout=0.05) == []
    assert app.control.inspect(timeout=0.05).ping() is None
    assert app.control.broadcast("ping") is None, "no reply was asked for"


def test_a_busy_worker_answers(app: Celery) -> None:
    """A solo pool runs the task in the engine's own thread."""
    begun, gate = threading.Event(), threading.Event()

    @app.task
    def hold() -> None:
        begun.set()
        assert gate.wait(DEADLINE)

    with working(app, pool="solo", hostname="busy@here"):
        hold.delay()
        assert begun.wait(DEADLINE)
        assert app.control.ping(limit=1, timeout=DEADLINE) == [{"busy@here": {"ok": "pong"}}]
        gate.set()


@pytest.mark.slow
def test_who_is_meant(app: Celery) -> None:
    """`[wirectl.8]`, `[control.3]`, `[control.4]`."""

    def answer(**how: Any) -> set[str]:
        return set(flatten_reply(app.control.ping(**how)))

    with working(app, hostname="w1@here"), working(app, hostname="w2@here"), working(app, hostname="x@there"):
        everybody = {"w1@here", "w2@here", "x@there"}
        assert answer(limit=3, timeout=DEADLINE) == everybody
        assert answer(destination=["w2@here"], timeout=DEADLINE) == {"w2@here"}, "as many as there are destinations"
        assert answer(destination=("w1@here", "x@there"), timeout=DEADLINE) == {"w1@here", "x@there"}
        assert answer(destination=["nobody@here"], timeout=0.1) == set()
        assert answer(pattern="w*", matcher="glob", limit=2, timeout=DEADLINE) == {"w1@here", "w2@here"}
        assert answer(pattern=r".*@there$", matcher="pcre", limit=1, timeout=DEADLINE) == {"x@there"}
        assert answer(pattern="w*", limit=3, timeout=DEADLINE) == everybody, "both are needed"
        inspect = app.control.inspect(pattern="w*", limit=3, timeout=DEADLINE)
        assert set(inspect.ping() or ()) == {"w1@here", "w2@here"}, "the answers are picked out all the same"
        for wrong in ("w1@here", {"w1@here"}):
            with pytest.raises(ValueError, match="as a list"):
                app.control.ping(destination=wrong)
        with pytest.raises(ValueError, match="as a list"):
            app.control.inspect("w1@here").ping()


def test_limit_and_callback(app: Celery) -> None:
    heard: list[Any] = []
    with working(app, hostname="w1@here"), working(app, hostname="w2@here"):
        replies = app.control.broadcast("ping", reply=True, limit=1, timeout=DEADLINE, callback=heard.append)
    assert replies == heard
    assert len(heard) == 1


def test_two_nodes_of_one_name(app: Celery) -> None:
    with working(app, hostname="same@here"), working(app, hostname="same@here"):
        replies = app.control.ping(limit=2, timeout=DEADLINE)
    assert replies == [{"same@here": {"ok": "pong"}}] * 2
    with pytest.warns(DuplicateNodenameWarning, match="same@here"):
        assert flatten_reply(replies) == {"same@here": {"ok": "pong"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert flatten_reply([{"a": 1}, {"b": 2}]) == {"a": 1, "b": 2}


class Patient:
    """A carrier whose replies come one after the other, each after some seconds of a clock of its own."""

    def __init__(self, gaps: Sequence[float], make: Callable[[int], Notice], hearers: int | None = None) -> None:
        self.now, self.gaps, self.make, self.hearers = 0.0, list(gaps), make, hearers
        self.closed = False

    def tell(self, notices: Sequence[Notice]) -> int | None:
        (self.command,) = notices
        return self.hearers

    def listen(self, mailboxes: Sequence[QueueSpec]) -> Patient:
        return self

    def hear(self, timeout: float, until_readable: Sequence[int] = ()) -> list[Notice]:
        if not self.gaps or self.gaps[0] > timeout:
            self.now += timeout
            return []
        self.now += self.gaps.pop(0)
        return [self.make(len(self.gaps))]

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("hearers", "limit", "expected", "took"),
    [
        (None, None, ["n4", "n3", "n2"], 3.7),
        (None, 2, ["n4", "n3"], 1.8),
        (0, None, [], 0.0),
        (2, None, ["n4", "n3"], 1.8),
        (2, 1, ["n4"], 0.9),
        (1, 2, ["n4"], 0.9),
        (5, None, ["n4", "n3", "n2"], 3.7),
    ],
)
def test_each_reply_starts_the_clock_anew(
    app: Celery, monkeypatch: pytest.MonkeyPatch, hearers: int | None, limit: int | None, expected: list[str],
    took: float,
) -> None:  # fmt: skip
    """`[wirectl.9]`; and nobody is waited for once all who have heard have answered."""

    def reply(left: int) -> Notice:
        return Notice("reply", "direct", "", b'{"n%d": 1}' % left, headers={"ticket": command.body["ticket"]})

    patient = Patient([0.9, 0.9, 0.9, 1.1, 0.1], reply, hearers)
    monkeypatch.setattr("celery.app.commands.time", SimpleNamespace(monotonic=lambda: patient.now, time=time.time))
    command = command_of(app, mailbox_settings(app.conf), "ping", {}, None, None, None)
    assert [next(iter(reply)) for reply in gather(patient, command, 1.0, limit, None)] == expected
    assert patient.now == pytest.approx(took)
    assert patient.closed


def test_replies_to_others_do_not_count(app: Celery) -> None:
    """Another ticket, an expired one, and what is no reply are passed over (`[wirectl.5]`, `[wirectl.6]`)."""
    settings = mailbox_settings(app.conf)
    mine = settings.replies(app.thread_oid)

    def reply(body: bytes, **headers: Any) -> Notice:
        return Notice(mine.exchange, "direct", mine.routing_key, body, headers=headers)

    answered = threading.Event()

    @inspect_command(name="others")
    def others(state: Any) -> str:
        ticket = "another"
        bodies = [reply(b'{"a": 1}', ticket=ticket), reply(b"[]"), reply(b"\xff"), reply(b'{"b": 1}', expires=1.0)]
        carrier(app).tell(bodies)
        answered.set()
        return "mine"

    try:
        with working(app, hostname="w1@here"):
            assert app.control.broadcast("others", reply=True, limit=1, timeout=DEADLINE) == [{"w1@here": "mine"}]
    finally:
        del Panel.data["others"], Panel.meta["others"]
    assert answered.is_set()


# -- answering -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("commands")
def test_what_goes_wrong_is_the_reply(app: Celery) -> None:
    """`[wirectl.7]`, `[drift.12]`, `[sample.14]`."""

    @control_command(name="fails")
    def fails(state: Any, **arguments: Any) -> None:
        raise ValueError(f"not {arguments}")

    @inspect_command(name="unwritable")
    def unwritable(state: Any) -> Any:
        return object()

    @inspect_command(name="nothing")
    def nothing(state: Any) -> None:
        """Gives nothing."""

    def told(command: str, **arguments: Any) -> Any:
        (reply,) = app.control.broadcast(command, arguments, reply=True, limit=1, timeout=DEADLINE) or ()
        return reply["w1@here"]

    with working(app, hostname="w1@here"):
        assert told("nosuch") == {"error": "KeyError('nosuch')"}
        assert told("fails", a=1) == {"error": "ValueError(\"not {'a': 1}\")"}
        assert "TypeError" in told("nothing", unexpected=1)["error"]
        assert "object" in told("unwritable")["error"]
        assert told("nothing") is None, "a reply that was asked for, and says nothing"


@pytest.mark.usefixtures("commands")
def test_what_a_command_gets(app: Celery) -> None:
    got: list[Any] = []

    @control_command(args=[("n", int)])
    def remember(state: Any, n: int, **rest: Any) -> dict[str, str]:
        got.append((state.app, state.hostname, state.consumer.hostname, state.tset([1]), n, rest))
        return {"ok": "remembered"}

    with working(app, hostname="w1@here"):
        replies = app.control.broadcast("remember", {"n": 3}, reply=True, limit=1, timeout=DEADLINE, more="x")
    assert replies == [{"w1@here": {"ok": "remembered"}}]
    assert got == [(app, "w1@here", "w1@here", {1}, 3, {"more": "x"})]


def test_what_cannot_be_read_is_passed_over(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody can send anything to the exchange; the worker goes on answering, and its clock stays sane."""
    bad = [
        b"", b"\xff\xfe", b"[]", b"1", b"null", b"{}", b'{"method": 3}', b'{"method": "ping", "arguments": [1]}',
        b'{"method": "ping", "destination": 3}', b'{"method": "ping", "pattern": "(", "matcher": "pcre"}',
        b'{"method": "ping", "pattern": "x", "matcher": "nosuch"}', b'{"method": "ping", "reply_to": "x"}',
        b'{"method": "ping", "reply_to": {"exchange": 1, "routing_key": null}}', b"[" * 100_000,
        b'{"method": ["ping"]}', b'{"method": "__class__"}',
    ]  # fmt: skip
    with working(app, hostname="w1@here"):
        for body in bad:
            tell(app, body, clock=2**80)
        tell(app, b"cos\nsystem\n(S'touch /tmp/owned'\ntR.", "application/x-python-serialize")
        tell(app, b'{"method": "ping"}', clock="x")
        assert app.control.ping(limit=1, timeout=DEADLINE) == [{"w1@here": {"ok": "pong"}}]
        assert app.clock.value < 1000
    told = [entry.message for entry in caplog.records if "passed over" in entry.message]
    assert len(told) >= len(bad) - 2
    assert any("application/x-python-serialize" in text for text in told)


def test_the_clock_is_shared(app: Celery) -> None:
    with working(app, hostname="w1@here"):
        tell(app, b'{"method": "ping"}', clock=5000)
        app.control.ping(limit=1, timeout=DEADLINE)
    assert app.clock.value > 5000


def test_without_remote_control(app: Celery) -> None:
    """`[control.39]`."""
    app.conf.worker_enable_remote_control = False
    with working(app) as worker:
        assert worker.pidbox is None
        assert "celery-control" not in {thread.name for thread in threading.enumerate()}
        assert app.control.ping(timeout=0.05) == []


def test_nothing_is_left_behind(app: Celery) -> None:
    for _ in range(3):
        with working(app):
            assert "celery-control" in {thread.name for thread in threading.enumerate()}
        assert "celery-control" not in {thread.name for thread in threading.enumerate()}
    assert app.control.ping(timeout=0.05) == []


@pytest.mark.slow
def test_shutdown_is_not_answered(app: Celery) -> None:
    with working(app, hostname="w1@here") as worker:
        assert app.control.shutdown(["w1@here"], reply=True, timeout=0.2) == []
        until(lambda: worker.exitcode is not None, "the worker has ended")


@pytest.mark.usefixtures("commands")
def test_a_command_may_end_the_worker(app: Celery) -> None:
    @control_command(name="leave")
    def leave(state: Any) -> None:
        raise SystemExit(3)

    with working(app) as worker:
        app.control.broadcast("leave")
        until(lambda: worker.exitcode is not None, "the worker has ended")
        assert worker.exitcode == 3


# -- on the wire -----------------------------------------------------------------------------------------------------


def test_a_command_as_it_is_told(app: Celery) -> None:
    """`[wirectl.1]`, `[wirectl.4]`, `[wirectl.11]`, `[sample.12]`."""
    listener = carrier(app).listen([mailbox_settings(app.conf).node("spy@here")])
    app.control.broadcast("revoke", {"task_id": "x"}, destination=["a@b"], pattern="p*", matcher="glob", more=1)
    app.control.ping(timeout=0.01)
    end = time.monotonic() + DEADLINE
    notices: list[Notice] = []
    while len(notices) < 2 and time.monotonic() < end:
        notices += listener.hear(0.1)
    listener.close()
    silent, asking = notices
    assert (silent.exchange, silent.exchange_type, silent.routing_key) == ("celery.pidbox", "fanout", "")
    assert _loads(silent.body) == {
        "method": "revoke", "arguments": {"task_id": "x", "more": 1}, "destination": ["a@b"], "pattern": "p*",
        "matcher": "glob",
    }  # fmt: skip
    body = _loads(asking.body)
    assert body.pop("ticket")
    assert body == {
        "method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None,
        "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": app.thread_oid},
    }  # fmt: skip
    assert asking.headers["clock"] > silent.headers["clock"] > 0
    assert abs(asking.headers["expires"] - time.time()) < DEADLINE


def test_a_reply_as_it_is_told(app: Celery) -> None:
    """`[wirectl.3]`, `[wirectl.5]`, `[sample.13]`."""
    mailbox = mailbox_settings(app.conf).replies("oid")
    assert (mailbox.name, mailbox.routing_key) == ("oid.reply.celery.pidbox", "oid")
    listener = carrier(app).listen([mailbox])
    with working(app, hostname="w1@here"):
        tell(
            app,
            b'{"method": "ping", "arguments": {}, "ticket": "T", "reply_to": {"exchange": "reply.celery.pidbox", '
            b'"routing_key": "oid"}}',
            clock=7,
        )
        end = time.monotonic() + DEADLINE
        while not (heard := listener.hear(0.1)):
            assert time.monotonic() < end
    listener.close()
    (reply,) = heard
    assert _loads(reply.body) == {"w1@here": {"ok": "pong"}}
    assert reply.headers["ticket"] == "T"
    assert reply.headers["clock"] > 7
    assert reply.properties["delivery_mode"] == 1


def test_mailboxes_are_as_the_settings_say() -> None:
    """`[wirectl.2]`, `[wirectl.12]`."""
    node = mailbox_settings(make_app().conf).node("a@b")
    assert (node.name, node.exchange, node.exchange_type) == ("a@b.celery.pidbox", "celery.pidbox", "fanout")
    assert (node.durable, node.exclusive, node.auto_delete) == (False, True, True)
    assert node.arguments == {"x-message-ttl": 300_000, "x-expires": 10_000}
    other = make_app()
    other.conf.update(
        control_exchange="ctl", control_queue_ttl=1.5, control_queue_expires=None, control_queue_durable=True,
        control_queue_exclusive=False, task_serializer="yaml", accept_content=["yaml"],
    )  # fmt: skip
    settings = mailbox_settings(other.conf)
    reply = settings.replies("o")
    assert (reply.name, reply.exchange, reply.arguments) == (
        "o.reply.ctl.pidbox", "reply.ctl.pidbox", {"x-message-ttl": 1500},
    )  # fmt: skip
    assert (reply.durable, reply.exclusive) == (True, False)
    assert settings.serializer == "yaml"
    assert settings.accept == {"application/x-yaml", "application/json"}


def test_durable_and_exclusive_do_not_go_together() -> None:
    """`[wirectl.10]`, `[new57.17]`."""
    app = make_app(control_queue_durable=True)
    with pytest.raises(ImproperlyConfigured, match="control_queue_exclusive"):
        _ = app.control


def test_other_serializers(app: Celery) -> None:
    app.conf.update(task_serializer="yaml", accept_content=["yaml"])
    with working(app, hostname="w1@here"):
        assert app.control.ping(limit=1, timeout=DEADLINE) == [{"w1@here": {"ok": "pong"}}]


CALLS: list[tuple[Callable[[Control], Any], str, dict[str, Any]]] = [
    (lambda c: c.revoke("i"), "revoke", {"task_id": "i", "terminate": False, "signal": "SIGTERM"}),
    (lambda c: c.revoke(["i", "j"], terminate=True, signal="KILL"), "revoke",
     {"task_id": ["i", "j"], "terminate": True, "signal": "KILL"}),
    (lambda c: c.terminate("i", signal=9), "revoke", {"task_id": "i", "terminate": True, "signal": 9}),
    (lambda c: c.revoke_by_stamped_headers({"a": ["b"]}), "revoke_by_stamped_headers",
     {"headers": {"a": ["b"]}, "terminate": False, "signal": "SIGTERM"}),
    (lambda c: c.rate_limit("t", "1/m"), "rate_limit", {"task_name": "t", "rate_limit": "1/m"}),
    (lambda c: c.time_limit("t", 1, 2), "time_limit", {"task_name": "t", "soft": 1, "hard": 2}),
    (lambda c: c.add_consumer("q"), "add_consumer",
     {"queue": "q", "exchange": None, "exchange_type": "direct", "routing_key": None}),
    (lambda c: c.add_consumer("q", "e", "topic", "k", options={"durable": False}), "add_consumer",
     {"queue": "q", "exchange": "e", "exchange_type": "topic", "routing_key": "k", "durable": False}),
    (lambda c: c.cancel_consumer("q"), "cancel_consumer", {"queue": "q"}),
    (lambda c: c.enable_events(), "enable_events", {}),
    (lambda c: c.disable_events(), "disable_events", {}),
    (lambda c: c.heartbeat(), "heartbeat", {}),
    (lambda c: c.pool_grow(2), "pool_grow", {"n": 2}),
    (lambda c: c.pool_shrink(), "pool_shrink", {"n": 1}),
    (lambda c: c.autoscale(4, 2), "autoscale", {"max": 4, "min": 2}),
    (lambda c: c.pool_restart(["m"], True), "pool_restart", {"modules": ["m"], "reload": True, "reloader": None}),
    (lambda c: c.shutdown(), "shutdown", {}),
    (lambda c: c.election("i", "t", "a"), "election", {"id": "i", "topic": "t", "action": "a"}),
    (lambda c: c.inspect(timeout=0.01).active(), "active", {"safe": None}),
    (lambda c: c.inspect(timeout=0.01).scheduled(safe=True), "scheduled", {}),
    (lambda c: c.inspect(timeout=0.01).reserved(), "reserved", {}),
    (lambda c: c.inspect(timeout=0.01).revoked(), "revoked", {}),
    (lambda c: c.inspect(timeout=0.01).report(), "report", {}),
    (lambda c: c.inspect(timeout=0.01).clock(), "clock", {}),
    (lambda c: c.inspect(timeout=0.01).conf(True), "conf", {"with_defaults": True}),
    (lambda c: c.inspect(timeout=0.01).memsample(), "memsample", {}),
    (lambda c: c.inspect(timeout=0.01).memdump(3), "memdump", {"samples": 3}),
    (lambda c: c.inspect(timeout=0.01).objgraph(), "objgraph", {"num": 200, "max_depth": 10, "type": "Request"}),
    (lambda c: c.inspect(timeout=0.01).query_task("a", "b"), "query_task", {"ids": ["a", "b"]}),
    (lambda c: c.inspect(timeout=0.01).query_task(["a", "b"]), "query_task", {"ids": ["a", "b"]}),
    (lambda c: c.inspect(timeout=0.01).registered_tasks("rate_limit"), "registered", {"taskinfoitems": ["rate_limit"]}),
    (lambda c: c.inspect(timeout=0.01).hello("me", {"x": 1}), "hello", {"from_node": "me", "revoked": {"x": 1}}),
]  # fmt: skip


@pytest.mark.slow
def test_what_each_method_tells(app: Celery) -> None:
    """The commands and arguments of Celery 5.7, as it was seen to send them (`[control.1]`, `[control.36]`)."""
    listener = carrier(app).listen([mailbox_settings(app.conf).node("spy@here")])
    for call, _, _ in CALLS:
        assert not call(app.control)
    told = [_loads(body.encode()) for body in hear(listener, len(CALLS))]
    listener.close()
    assert [(body["method"], body["arguments"]) for body in told] == [(name, given) for _, name, given in CALLS]


def test_everybody_is_asked_only_if_it_takes_that(app: Celery) -> None:
    inspect = app.control.inspect(timeout=0.01)
    assert isinstance(inspect, Inspect)
    inspect.ping(destination=["w1@here"])
    assert inspect.destination == ["w1@here"]
    assert app.control.inspect is app.control.inspect
    assert app.control is app.control


# -- what follows from it --------------------------------------------------------------------------------------------


def test_results_are_revoked(app: Celery) -> None:
    """`[result.14]`: returns when the workers know it."""

    @app.task
    def never() -> None:
        raise AssertionError("it was revoked")

    with working(app, hostname="w1@here"):
        one, two, three = (app.AsyncResult(str(uuid.uuid4())) for _ in range(3))
        one.revoke(wait=True, timeout=0.2)
        app.ResultSet([two, three]).revoke(wait=True, timeout=0.2)
        assert {one.id, two.id, three.id} <= set(app.control.inspect(limit=1, timeout=DEADLINE).revoked()["w1@here"])
        never.apply_async(task_id=two.id)
        until(lambda: two.state == "REVOKED", "the task is revoked")
        one.revoke_by_stamped_headers({"stamp": "value"}, wait=True, timeout=0.2)
        assert state.revoked_stamps["stamp"]


def test_purge(app: Celery) -> None:
    """`[route.27]`."""
    for _ in range(3):
        app.send_task("x")
    app.send_task("x", queue="elsewhere")
    assert app.control.purge() == 3
    assert app.control.discard_all() == 0
    app.amqp.queues.add("elsewhere")
    app.amqp.queues.select_add("elsewhere")
    assert app.control.purge() == 1


def test_the_class_can_be_chosen() -> None:
    """`[app.3]`."""

    class Mine(Control):
        pass

    app = make_app(control=Mine)
    assert type(app.control) is Mine
    assert type(make_app(control="celery.app.control:Control").control) is Control


def _loads(body: bytes) -> Any:
    return json.loads(body)
