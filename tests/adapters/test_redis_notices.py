"""Notices and remote control on a real Redis: fleets, killed clients, lost and silent servers."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError

from celery import Celery
from celery.brokers import redis_ears, redis_listening
from celery.brokers.notices import to_envelope
from celery.brokers.redis import RedisBroker
from celery.ports import BrokerConfig
from celery.worker.control import Panel, inspect_command
from celery.worker.pidbox import Pidbox
from tests.contracts.broadcasting import DEADLINE, BroadcastingContract, ear, hear, notice
from tests.servers import RedisServer, Sentinel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.ports import Listener
    from tests.contracts.broadcasting import MakeCarrier

pytestmark = pytest.mark.server

#: Nodes that answer, and clients that are killed.
FLEET = 200
KILLED = 1000 if os.environ.get("CHAOS") else 40


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[Celery]:
    with Celery("fleet", broker=redis_server.url(), set_as_current=False) as app:
        yield app


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[RedisBroker]:
    with closing(RedisBroker(BrokerConfig(redis_server.url()))) as broker:
        yield broker


@pytest.fixture
def answer() -> Iterator[Callable[[Callable[[Any], Any]], None]]:
    """Sets what the command `answer` does."""
    does: list[Callable[[Any], Any]] = [lambda state: "here"]
    inspect_command(name="answer")(lambda state: does[-1](state))
    yield does.append
    del Panel.data["answer"], Panel.meta["answer"]


def nodes(app: Celery, count: int) -> list[Pidbox]:
    """Mailboxes of workers that are nothing else."""
    made = [Pidbox(SimpleNamespace(app=app, hostname=f"n{number}@fleet")) for number in range(count)]  # type: ignore[arg-type]
    for node in made:
        node.start()
    return made


def test_a_fleet_answers_in_one_timeout(app: Celery, answer: Callable[[Any], None]) -> None:
    """And one slow node hides none of the others."""
    gate = threading.Event()
    answer(lambda state: gate.wait(DEADLINE) if state.hostname == "n7@fleet" else "here")
    fleet = nodes(app, FLEET)
    try:
        replies = app.control.broadcast("answer", reply=True, timeout=2.0) or []
    finally:
        gate.set()
        for node in fleet:
            node.stop(None)
    names = {name for reply in replies for name in reply}
    assert names == {f"n{number}@fleet" for number in range(FLEET)} - {"n7@fleet"}
    assert not [thread for thread in threading.enumerate() if thread.name == "celery-control"]


def test_killed_clients_leave_nothing(
    app: Celery, redis_server: RedisServer, answer: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PAINS 29. Each is killed while it waits for its reply."""
    monkeypatch.setattr(redis_listening, "_BELIEVED", 30)
    gate = threading.Event()
    answered = threading.Semaphore(0)

    def late(state: Any) -> str:
        answered.release()
        return "too late"

    answer(late)
    fleet = nodes(app, 1)
    try:
        for _ in range(KILLED):
            pid = os.fork()
            if not pid:
                app.control.broadcast("answer", reply=True, timeout=DEADLINE, callback=lambda _: os._exit(0))
                os._exit(1)
            assert answered.acquire(timeout=DEADLINE)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        gate.set()
        keys = redis_server.call("KEYS", "*")
        lasting = {key.decode() for key in keys if redis_server.call("PTTL", key) < 0}
        assert lasting <= {"_kombu.binding_deadlines"}
        end = time.monotonic() + DEADLINE
        while redis_server.call("EXISTS", "_kombu.binding.reply.celery.pidbox"):
            assert app.control.broadcast("answer", reply=True, limit=1, timeout=DEADLINE)
            assert time.monotonic() < end
        assert not redis_server.call("EXISTS", "celery.1.ears")
    finally:
        for node in fleet:
            node.stop(None)
    left = {key.decode() for key in redis_server.call("KEYS", "*") if b"reply" not in key}
    assert left <= {"_kombu.binding_deadlines"}
    assert all(redis_server.call("PTTL", key) <= 60_000 for key in redis_server.call("KEYS", "*reply*"))


def test_a_listener_leaves_nothing(broker: RedisBroker, redis_server: RedisServer) -> None:
    """`[redis.5]`, `[redis.21]`, `[redis.22]`."""
    mailbox = ear("oid.reply.pidbox", "reply.pidbox", "direct", "oid")
    with closing(broker.listen([mailbox, ear("n.pidbox"), ear("ev.1", "celeryev", "topic", "worker.#")])):
        bound = redis_server.call("SMEMBERS", "_kombu.binding.reply.pidbox")
        assert bound == [b"oid\x06\x16\x06\x16oid.reply.pidbox"]
        assert redis_server.call("ZSCORE", "_kombu.binding_deadlines", "reply.pidbox")
        assert not redis_server.call("EXISTS", "_kombu.binding.ctl.pidbox"), "who is told needs no binding"
        broker.tell([notice("r", "reply.pidbox", "direct", "oid")])
        assert redis_server.call("PUBSUB", "NUMPAT") == len(redis_server.call("PUBSUB", "CHANNELS", "/*")) == 1
    assert [key for key in redis_server.call("KEYS", "*") if key != b"_kombu.binding_deadlines"] == []
    assert redis_server.call("PUBSUB", "CHANNELS", "/*") == []


def test_a_reply_does_not_wait_for_ever(broker: RedisBroker, redis_server: RedisServer) -> None:
    """`[redis.14]`: of a client that was killed or frozen."""
    redis_server.call("SADD", "_kombu.binding.reply.pidbox", "oid\x06\x16\x06\x16oid.reply.pidbox")
    broker.tell([notice("r", "reply.pidbox", "direct", "oid")])
    assert redis_server.call("LLEN", "oid.reply.pidbox") == 1
    assert 0 < redis_server.call("PTTL", "oid.reply.pidbox") <= redis_listening.REPLY_KEPT


def fails(listener: Listener) -> None:
    """Listen until the loss is noticed."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            listener.hear(DEADLINE / 10)
        except OperationalError:
            return
    pytest.fail("the loss was not noticed")


@pytest.mark.parametrize(
    ("mailbox", "told"),
    [(ear("n.pidbox"), notice("x")), (ear("o.r", "r", "direct", "o"), notice("x", "r", "direct", "o"))],
    ids=["commands", "replies"],
)
class TestTrouble:
    def test_a_lost_connection(self, broker: RedisBroker, redis_server: RedisServer, mailbox: Any, told: Any) -> None:
        with closing(broker.listen([mailbox])) as listener:
            for kind in ("pubsub", "normal"):
                redis_server.call("CLIENT", "KILL", "TYPE", kind)
            fails(listener)
            assert listener.hear(0) == []
            broker.tell([told])
            assert hear(listener, 1) == ["x"]

    def test_a_silent_server(self, mailbox: Any, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (redis_ears, redis_listening):
            monkeypatch.setattr(module, "ROUND", 1.0)
        with RedisServer() as server:
            broker = RedisBroker(BrokerConfig(server.url(), {"socket_timeout": 1.0}))
            with closing(broker), closing(broker.listen([mailbox])) as listener:
                os.kill(server.pid, signal.SIGSTOP)
                try:
                    fails(listener)
                finally:
                    os.kill(server.pid, signal.SIGCONT)
                end = time.monotonic() + DEADLINE
                heard: list[Any] = []
                while not heard and time.monotonic() < end:
                    try:
                        heard = listener.hear(0)
                        broker.tell([told])
                        heard += listener.hear(1)
                    except OperationalError:
                        pass
                assert heard

    def test_signs_of_life(self, broker: RedisBroker, mailbox: Any, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A listener that hears nothing for long stays where it is."""
        for module in (redis_ears, redis_listening):
            monkeypatch.setattr(module, "ROUND", 0.05)
        with closing(broker.listen([mailbox])) as listener:
            assert listener.hear(1.2) == []
            broker.tell([told])
            assert hear(listener, 1) == ["x"]


def test_a_worker_is_heard_again(answer: Callable[[Any], None]) -> None:
    """The server is killed and another one comes in its place."""
    first = RedisServer().start()
    app = Celery("again", broker=first.url(), set_as_current=False)
    (node,) = nodes(app, 1)
    second = RedisServer(port=first.port)
    try:
        assert app.control.broadcast("answer", reply=True, limit=1, timeout=DEADLINE) == [{"n0@fleet": "here"}]
        first.stop()
        second.start()
        end, replies = time.monotonic() + 3 * DEADLINE, None
        while not replies and time.monotonic() < end:
            with suppress(OperationalError):
                replies = app.control.broadcast("answer", reply=True, limit=1, timeout=0.5)
        assert replies == [{"n0@fleet": "here"}]
    finally:
        node.stop(None)
        app.close()
        second.stop()


def test_strangers_on_the_channel(broker: RedisBroker, redis_server: RedisServer, caplog: Any) -> None:
    """Anybody may publish there: what is no notice is told of, and passed over."""
    with closing(broker.listen([ear("n.pidbox"), ear("o.r", "r", "direct", "o")])) as listener:
        for payload in (b"", b"\xff", b"{}", b"[]", b'{"properties": {"delivery_info": {"exchange": 3}}, "body": ""}'):
            redis_server.call("PUBLISH", "/0.ctl.pidbox", payload)
            redis_server.call("LPUSH", "o.r", payload)
        broker.tell([notice("heard")])
        broker.tell([notice("too", "r", "direct", "o")])
        assert sorted(hear(listener, 2)) == ["heard", "too"]
    assert "passed over" in caplog.text


def test_a_user_of_one_prefix(redis_server: RedisServer) -> None:
    """Keys and channels of others are closed to him; the mailboxes of remote control need none of them."""
    rule = "on >pw ~us:* &us:* -@all +@read +@write +@pubsub +@scripting +@transaction +@connection +time".split()
    redis_server.call("ACL", "SETUSER", "one", "reset", *rule)
    options = {"global_keyprefix": "us:", "username": "one", "password": "pw"}
    broker = RedisBroker(BrokerConfig(redis_server.url(), options))
    with closing(broker), closing(broker.listen([ear("n.pidbox"), ear("o.r", "r", "direct", "o")])) as listener:
        broker.tell([notice("command"), notice("reply", "r", "direct", "o")])
        assert sorted(hear(listener, 2)) == ["command", "reply"]
    redis_server.call("ACL", "DELUSER", "one")


class TestSentinel(BroadcastingContract):
    """Behind a Sentinel, in the way that older and newer kombu understand both (`sentinel_fanout_compat`)."""

    counts = False  # each notice goes over two channels

    @pytest.fixture
    def sentinel(self, redis_server: RedisServer) -> Iterator[Sentinel]:
        with Sentinel(redis_server) as sentinel:
            yield sentinel

    @pytest.fixture
    def make_carrier(self, sentinel: Sentinel) -> Iterator[MakeCarrier]:
        made: list[RedisBroker] = []
        options = {"master_name": "mymaster", "sentinel_fanout_compat": True}

        def make() -> RedisBroker:
            made.append(RedisBroker(BrokerConfig(f"sentinel://127.0.0.1:{sentinel.port}/3", options)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()

    def test_both_names_are_used(self, make_carrier: MakeCarrier, redis_server: RedisServer) -> None:
        carrier, newer = make_carrier(), RedisBroker(BrokerConfig(redis_server.url(3)))
        with closing(newer), closing(carrier.listen([ear("n.pidbox")])) as mine:
            assert len(redis_server.call("PUBSUB", "CHANNELS", "/*ctl.pidbox")) == 2
            newer.tell([notice("from a newer one")])
            assert hear(mine, 1) == ["from a newer one"]
            redis_server.call("PUBLISH", "/{db}.ctl.pidbox", to_envelope(notice("from an older one")))
            assert hear(mine, 1) == ["from an older one"]
            carrier.tell([notice("to all")])
            assert hear(mine, 1) == ["to all"]
            assert mine.hear(0.05) == []
