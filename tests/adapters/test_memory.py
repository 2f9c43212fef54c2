"""The contracts on `memory://`, and what is particular to it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from celery.backends.memory import MemoryBackend
from celery.brokers.memory import MemoryBroker
from celery.drivers.memory import server_of
from celery.ports import BackendConfig, BrokerConfig, Publication
from celery.routing import QueueSpec, Route
from tests.contracts.backend import BackendContract, record
from tests.contracts.broadcasting import BroadcastingContract
from tests.contracts.broker import BrokerContract, ids, message, nothing, spec, take, to
from tests.contracts.dead_letters import BOUNDS, DeadLetterContract
from tests.contracts.inspecting import InspectingContract
from tests.contracts.processes import in_child
from tests.contracts.routing import RoutingContract
from tests.running import Traces

if TYPE_CHECKING:
    from tests.contracts.backend import MakeBackend, PassTime
    from tests.contracts.broadcasting import MakeCarrier
    from tests.contracts.broker import MakeBroker, PutRaw
    from tests.contracts.dead_letters import MakeBounded

_names = itertools.count()


class FakeClock:
    """Stands still until it is told how much time has passed."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def url() -> str:
    return f"memory://test-{next(_names)}"


class TestBroker(BrokerContract):
    crosses_processes = False

    @pytest.fixture
    def make_broker(self, url: str) -> MakeBroker:
        return lambda node="": MemoryBroker(BrokerConfig(url, node=node))

    @pytest.fixture
    def make_backend(self, url: str) -> MakeBackend:
        return lambda expires=None: MemoryBackend(BackendConfig(url, expires=expires))

    @pytest.fixture
    def put_raw(self, url: str) -> PutRaw:
        def put(queue: str, raw: bytes) -> None:
            server = server_of(url)
            with server.changed:
                server.put(queue, raw)

        return put


class TestRouting(RoutingContract):
    crosses_processes = False
    make_broker = TestBroker.make_broker


class TestInspecting(InspectingContract):
    make_broker = TestBroker.make_broker
    put_raw = TestBroker.put_raw


class TestDeadLetters(DeadLetterContract):
    crosses_processes = False
    make_backend = TestBroker.make_backend
    put_raw = TestBroker.put_raw

    @pytest.fixture
    def make_bounded(self, url: str) -> MakeBounded:
        return lambda bounds=BOUNDS: MemoryBroker(BrokerConfig(url, dead_letters=bounds))


class TestBroadcasting(BroadcastingContract):
    @pytest.fixture
    def make_carrier(self, url: str) -> MakeCarrier:
        return lambda: MemoryBroker(BrokerConfig(url))


class TestBackend(BackendContract):
    crosses_processes = False

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def make_backend(self, url: str, clock: FakeClock, request: pytest.FixtureRequest) -> MakeBackend:
        moves = "pass_time" in request.fixturenames

        def make(expires: float | None = None) -> MemoryBackend:
            config = BackendConfig(url, expires=expires)
            return MemoryBackend(config, clock=clock) if moves else MemoryBackend(config)

        return make

    @pytest.fixture
    def pass_time(self, clock: FakeClock) -> PassTime:
        def move(seconds: float) -> None:
            clock.now += seconds

        return move


def test_names_are_apart(url: str) -> None:
    one, two = MemoryBroker(BrokerConfig(url)), MemoryBroker(BrokerConfig(url + "-b"))
    one.publish(to("q", message(1)))
    nothing(two.consume([spec("q")]))
    assert ids(take(one.consume([spec("q")]), 1)) == ["1"]


def test_due_times_go_by_the_given_clock(url: str) -> None:
    clock = FakeClock()
    broker = MemoryBroker(BrokerConfig(url), clock=clock)
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    consumer.defer([(take(consumer, 1)[0], clock.now + 3600)])
    clock.now += 3599
    nothing(consumer)
    clock.now += 1
    assert ids(consumer.fetch(1, 0)) == ["1"]


def test_a_fork_begins_with_nothing(url: str) -> None:
    broker, backend = MemoryBroker(BrokerConfig(url)), MemoryBackend(BackendConfig(url))
    broker.publish(to("q", message(1)))
    backend.save([record("1")])

    def look() -> None:
        nothing(broker.consume([spec("q")]))
        assert backend.load(["1"]) == [None]

    in_child(look)
    assert ids(take(broker.consume([spec("q")]), 1)) == ["1"]


def test_join_refuses_the_records_of_another_name(url: str) -> None:
    consumer = MemoryBroker(BrokerConfig(url)).consume([])
    assert not consumer.join(MemoryBackend(BackendConfig(url + "-b")))
    assert consumer.join(MemoryBackend(BackendConfig(url)))


def test_expired_records_are_dropped_in_time(url: str) -> None:
    clock = FakeClock()
    backend = MemoryBackend(BackendConfig(url, expires=10), clock=clock)
    backend.save([record(str(i)) for i in range(50)])
    clock.now += 70
    backend.save([record("new")])
    assert list(backend.server._records) == ["new"]


def test_close_leaves_no_descriptor(url: str) -> None:
    broker = MemoryBroker(BrokerConfig(url))
    traces = Traces()
    for _ in range(5):
        broker.consume([spec("q")]).close()
    assert not traces.new


def test_a_clock_that_stands_still_does_not_keep_fetch(url: str) -> None:
    clock = FakeClock()
    consumer = MemoryBroker(BrokerConfig(url), clock=clock).consume([spec("q")])
    consumer._server.put("q", b"{}")
    consumer.defer([(consumer.fetch(1, 0)[0], clock.now + 0.01)])
    assert consumer.fetch(1, 0.05) == []


def test_no_time_to_live_and_no_waiting(url: str) -> None:
    """[broker.19]: as in kombu's memory transport nothing is dropped because of its age; what was published is there at
    once, in every queue of a fanout exchange."""
    clock = FakeClock()
    broker = MemoryBroker(BrokerConfig(url), clock=clock)
    short = {"x-message-ttl": 1, "x-expires": 1}
    queues = [QueueSpec(f"f{i}", "everybody", "fanout", "", arguments=short) for i in range(2)]
    broker.declare(queues)
    old = message("old")
    old.properties["expiration"] = "1"
    broker.publish([Publication(old, Route("everybody", "", exchange_type="fanout"))])
    clock.now += 3600
    broker.publish([Publication(message("new"), Route("everybody", "", exchange_type="fanout"))])
    for each in queues:
        assert ids(broker.consume([each]).fetch(9, 0.0)) == ["old", "new"]
