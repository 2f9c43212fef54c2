"""The contracts on `rpc://`, against RabbitMQ, and what is particular to it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from celery import Celery, chord, group
from celery.backends import rpc_replies
from celery.backends.rpc_barriers import RpcBarriers
from celery.backends.rpc_store import RpcStore, _part
from celery.brokers.amqp import AmqpBroker
from celery.brokers.amqp_methods import exists, passive_queue, publish
from celery.brokers.memory import MemoryBroker
from celery.contrib.testing.worker import start_worker
from celery.drivers.amqp_frames import content, method, properties_of, short
from celery.exceptions import ChordError, ImproperlyConfigured
from celery.outcome import Arrival, Record
from celery.ports import BackendConfig, BrokerConfig, Firing, Sending, SystemClock
from tests.contracts.backend import DEADLINE, BackendContract, record, results, results_by_id
from tests.contracts.barrier import BODY, BarrierContract, member
from tests.contracts.broker import message, to
from tests.contracts.processes import Child, in_child
from tests.flow.engine import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.contracts.backend import MakeBackend, PassTime
    from tests.servers import RabbitServer

    MakeStore = Callable[..., RpcStore]

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("rabbit-adapters")]


class Wall(SystemClock):
    """The machine's clocks, the wall clock ahead by so many seconds."""

    ahead = 0.0

    def time(self) -> float:  # type: ignore[override]
        return time.time() + self.ahead


class Pair:
    """A worker that saves, for one client, and that client, who reads: a result backend as the contract knows it."""

    def __init__(self, worker: RpcStore, client: RpcStore) -> None:
        self.worker, self.client = worker, client
        self.watch = client.watch

    def save(self, records: Sequence[Record]) -> None:
        address = self.client.address()
        self.worker.save([Record(one.id, one.state, one.meta, address) for one in records])

    def load(self, ids: Sequence[str]) -> list[bytes | None]:
        return self.client.load(ids)

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, bytes]:
        return self.client.wait(ids, timeout)

    def forget(self, ids: Sequence[str]) -> None:
        self.client.forget(ids)

    def close(self) -> None:
        self.worker.close()
        self.client.close()


@pytest.fixture
def clock() -> Wall:
    return Wall()


@pytest.fixture
def make_store(rabbit_url: str, clock: Wall) -> Iterator[MakeStore]:
    made: list[RpcStore] = []

    def make(name: str = "client", **config: Any) -> RpcStore:
        broker = AmqpBroker(BrokerConfig(rabbit_url))
        given = BackendConfig("rpc://", **{"persistent": True, **config})
        made.append(RpcStore(given, broker, lambda: f"{name}-{os.getpid()}", clock=clock))
        return made[-1]

    yield make
    for store in made:
        store.close()
        store._broker.close()


class TestBackend(BackendContract):
    """Persistent results, which are confirmed: what was saved has come when it is looked for."""

    @pytest.fixture
    def make_backend(self, make_store: MakeStore) -> MakeBackend:
        clients: list[RpcStore] = []

        def make(expires: float | None = 86400.0) -> Any:
            if not clients:
                clients.append(make_store(expires=expires))
            return Pair(make_store("worker"), clients[0])

        return make

    @pytest.fixture
    def pass_time(self, clock: Wall) -> PassTime:
        def go(seconds: float) -> None:
            clock.ahead += seconds

        return go

    def test_expiry(self, make_backend: MakeBackend, pass_time: PassTime) -> None:
        """[state.13], for one client: each has results of its own."""
        backend = make_backend(expires=60)
        backend.save([record("a", "SUCCESS", b"first")])
        assert results(backend.load(["a"])) == [b"first"]
        pass_time(61)
        assert backend.load(["a"]) == [None]
        assert backend.wait(["a"], 0) == {}
        backend.save([record("b", "FAILURE", b"drops the first")])
        backend.save([record("a", "FAILURE", b"anew")])
        assert results(backend.load(["a"])) == [b"anew"]

    def test_saving_again_renews_the_expiry(self, make_backend: MakeBackend, pass_time: PassTime) -> None:
        backend = make_backend(expires=60)
        backend.save([record("a", "STARTED", b"1")])
        assert results(backend.load(["a"])) == [b"1"]
        pass_time(40)
        backend.save([record("a", "FAILURE", b"2")])
        assert results(backend.load(["a"])) == [b"2"]
        pass_time(40)
        assert results(backend.load(["a"])) == [b"2"]

    def test_wakes_across_processes(self, make_store: MakeStore) -> None:  # type: ignore[override]
        client = make_store()
        address = client.address()

        def answer() -> object:
            mine = make_store("worker")
            mine.save([Record("answer", "SUCCESS", b'{"status": "SUCCESS", "result": "x"}', address)])
            return mine

        child = Child(answer)
        try:
            assert results_by_id(client.wait(["answer"], DEADLINE)) == {"answer": b"x"}
            child.done()
        finally:
            child.kill()

    def test_a_fork_has_connections_of_its_own(self, make_backend: MakeBackend) -> None:  # type: ignore[override]
        """And a queue of its own: it does not take what its parent waits for."""
        backend = make_backend()
        backend.save([record("a", meta=b"1")])
        assert results_by_id(backend.wait(["a"], DEADLINE)) == {"a": b"1"}

        def use() -> None:
            assert backend.load(["a"]) == [None]
            backend.save([record("b", meta=b"2")])
            assert results_by_id(backend.wait(["b"], DEADLINE)) == {"b": b"2"}
            backend.close()

        in_child(use)
        backend.save([record("c", meta=b"3")])
        assert results_by_id(backend.wait(["c"], DEADLINE)) == {"c": b"3"}
        assert backend.load(["b"]) == [None]


class TestBarriers(BarrierContract):
    """At the broker. Only what somebody has opened is there, and nothing is kept of what has failed."""

    @pytest.fixture
    def broker(self, rabbit_url: str) -> Iterator[Any]:
        broker = AmqpBroker(BrokerConfig(rabbit_url, {"confirm_publish": True}))
        yield broker
        broker.close()

    @pytest.fixture
    def backend(self, make_store: MakeStore, broker: AmqpBroker) -> Any:
        store = make_store()
        store.barriers = store.groups = RpcBarriers(broker, 600.0, save=store.save, patience=0.2)
        return store

    @pytest.fixture
    def let_claims_lapse(self, backend: Any, broker: AmqpBroker) -> Callable[[], None]:
        def lapse() -> None:
            """The worker that held it dies, and the note comes up."""
            link = backend.barriers._link
            link.hang_up()
            backend.barriers._begin()
            until(lambda: broker.depth("celery.chords.due"), "a note comes up")

        return lapse

    def test_nothing_is_full_whose_size_nobody_knows(self, barriers: Any) -> None:
        assert barriers.standing("b") == (None, 0)
        assert barriers.arrive([member(0)]) == []
        assert barriers.standing("b") == (None, 0)
        barriers.open("b", 1)
        assert [full.barrier for full in barriers.arrive([member(0)])] == ["b"]

    def test_what_failed_is_kept(self, barriers: Any) -> None:
        """Here it is not: its queue goes."""
        barriers.open("b", 1)
        barriers.arrive([member(0)])
        barriers.fired("b", failed=True)
        assert self.parts(barriers) == []
        assert barriers.arrive([member(0)]) == []

    # -- in one step: the barrier sends bodies itself ----------------------------------------------------------------

    def test_arrivals_are_settled_with_records(self, barriers: Any) -> None:
        assert isinstance(barriers, Sending)

    def test_a_lost_delivery_does_not_arrive(self, barriers: Any) -> None:
        """Its member is run again, and arrives once all the same."""
        barriers.open("b", 2)
        barriers.arrive([member(0)])
        assert barriers.arrive([member(0)]) == []
        assert barriers.standing("b") == (2, 1)

    def test_a_body_is_sent_once(self, broker: Any, backend: Any, make_store: MakeStore) -> None:
        other = make_store("other").barriers
        backend.barriers.open("b", 1)
        (full,) = backend.barriers.arrive([member(0)])
        assert other.arrive([member(0)]) == []  # it is in the first one's hands
        assert other.standing("b") == (None, 0)
        firing = Firing(full.barrier, to("bodies", message("body")))
        assert not backend.barriers.fire([firing])
        assert not other.fire([firing])
        assert not backend.barriers.fire([firing])
        assert broker.depth("bodies") == 1
        assert other.arrive([member(0)]) == []

    def test_a_failed_body_arrives_at_the_chord_around_it(self, backend: Any, make_store: MakeStore) -> None:
        client = make_store()
        backend.barriers.open("b", 1)
        backend.barriers.open("outer", 1)
        backend.barriers.arrive([member(0)])
        outer = member(0, "body", barrier="outer")
        failure = Record("body", "FAILURE", b'{"status": "FAILURE"}', client.address())
        (full,) = backend.barriers.fire([Firing("b", (), [failure], [outer], failed=True)])
        assert full.barrier == "outer"
        assert client.wait(["body"], DEADLINE) == {"body": failure.meta}

    # -- several workers ---------------------------------------------------------------------------------------------

    def test_a_worker_that_dies_with_a_full_barrier(
        self, broker: Any, backend: Any, make_store: MakeStore, let_claims_lapse: Callable[[], None]
    ) -> None:
        """Everything that it held goes back, and whoever meets the note takes over; the old one sends nothing."""
        first = backend.barriers
        other = RpcBarriers(broker, 600.0, save=backend.save, patience=0.2)
        first.open("b", 2)
        first.arrive([member(1)])
        first.arrive([member(0)])
        firing = Firing("b", to("bodies", message("body")))
        let_claims_lapse()
        (full,) = until(other.full, "the other one finds it")
        assert full.body == BODY + b"b"
        assert self.parts(other) == [b"m0", b"m1"]
        assert first.fire([firing]) == []
        assert broker.depth("bodies") == 0
        assert other.fire([firing]) == []
        assert broker.depth("bodies") == 1
        until(lambda: not other.full() and not broker.depth("celery.chords.due"), "its note is forgotten")

    def test_a_connection_that_is_lost_while_it_fires(self, broker: Any, barriers: Any) -> None:
        barriers.open("b", 1)
        barriers.arrive([member(0)])
        barriers._link.hang_up()
        assert self.parts(barriers) == [b"m0"]
        until(lambda: broker.depth("celery.chord.b") == 2, "what it held is back")
        assert barriers.fire([Firing("b", to("bodies", message("body")))]) == []
        assert broker.depth("bodies") == 1
        assert barriers.standing("b") == (None, 0)

    def test_a_chord_that_is_begun_anew(self, broker: Any, backend: Any) -> None:
        """Whoever remembers an earlier one with its id is not misled: its size, and a long body that he has brought."""
        one, two = backend.barriers, RpcBarriers(broker, 600.0, save=backend.save, patience=0.2)
        long = BODY * 4000
        for size in (3, 1):
            one.open("b", size)
            for place in range(size):
                last = two.arrive([Arrival("b", f"m{place}", place, b"part", long)])
            last = last or until(two.full, "the note comes up")  # it had expected more of them
            assert [full.body for full in last] == [long]
            two.close()  # it dies before it fires
            (full,) = one.arrive([Arrival("b", "m0", 0, b"part", long)])
            assert full.body == long
            one.fire([Firing("b")])

    def test_what_fails_half_way_stays_in_nobody_s_hands(self, broker: Any, backend: Any) -> None:
        """The first barrier was found full when the second could not be looked at: told again, it is found again."""
        barriers = backend.barriers
        barriers.open("b", 1)
        barriers.open("c", 1)
        with broker.link() as thief:  # whose only consumer somebody else is, who has no messages
            thief.call(method(60, 20, b"\0\0" + short("celery.chord.c") + short("x") + b"\4\0\0\0\0"), {(60, 21)})
            both = [member(0), member(0, barrier="c")]
            assert [full.barrier for full in barriers.arrive(both)] == ["b"]
            thief.call(method(60, 30, short("x") + b"\0"), {(60, 31)})
            thief.hang_up()
        barriers._link.hang_up()
        found = until(lambda: barriers.arrive(both), "all is back")
        assert {full.barrier for full in found} <= {"b", "c"}
        until(lambda: not barriers.arrive(both) and set(barriers._held) == {"b", "c"}, "both are found")

    def test_the_last_arrivals_meet(self, broker: Any) -> None:
        """Two workers that look at once: one of them finds it full, each time."""
        workers = [RpcBarriers(broker, 600.0, save=lambda records: None) for _ in range(2)]
        for turn in range(20):
            name = f"b{turn}"
            workers[0].open(name, 4)
            found: list[Any] = []
            gate = threading.Barrier(2)

            def run(worker: RpcBarriers, places: tuple[int, int], name: str = name, gate: Any = gate) -> None:
                gate.wait()
                for place in places:
                    found.extend(worker.arrive([member(place, barrier=name)]))  # noqa: B023 - joined below

            threads = [
                threading.Thread(target=run, args=(worker, places))
                for worker, places in zip(workers, ((0, 2), (1, 3)), strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [full.barrier for full in found] == [name]
        for worker in workers:
            worker.close()


class TestQueues:
    def test_its_queue(self, make_store: MakeStore, rabbit_session: RabbitServer) -> None:
        """Durable, with a lease; it goes with the process that it is for, or with the store."""
        client = make_store("mine", expires=3600)
        address = client.address()
        assert client.address() == address == f"mine-{os.getpid()}"
        vhost = client._broker.config.url.rpartition("/")[2]
        told = rabbit_session.call("GET", f"queues/{vhost}/{address}")
        assert (told["durable"], told["auto_delete"], told["exclusive"]) == (True, False, False)
        assert told["arguments"] == {"x-expires": 3_600_000, "x-message-ttl": 3_600_000}
        assert client.wait(["nobody"], 0.01) == {}
        _part(client.replies, client._broker, client._where)
        assert not there(client, address)

    def test_results_of_those_who_are_gone(self, make_store: MakeStore) -> None:
        """The server drops them; the next one arrives."""
        worker, client = make_store("worker"), make_store()
        address = client.address()
        worker.save([Record("a", "SUCCESS", b"{}", "nobody"), Record("b", "SUCCESS", b"{}")])
        worker.save([Record("c", "SUCCESS", b'{"status": "SUCCESS"}', address)])
        assert set(client.wait(["a", "b", "c"], DEADLINE)) == {"c"}
        assert not there(client, "nobody")

    def test_who_expects_nothing_asks_nobody(self, make_store: MakeStore) -> None:
        store = make_store()
        assert store.load(["a"]) == [None]
        assert store.wait(["a"], 0) == {}
        assert store.replies.link is None
        assert not there(store, store.name())

    def test_a_lost_connection_loses_no_result(self, make_store: MakeStore) -> None:
        """What had come but was not taken comes again, and what comes meanwhile waits."""
        worker, client = make_store("worker"), make_store()
        address = client.address()
        assert client.wait(["a"], 0.01) == {}
        worker.save([Record(name, "SUCCESS", b'{"status": "SUCCESS"}', address) for name in "ab"])
        link = client.replies.link
        assert link is not None
        until(lambda: link.wait(0.0) == [] and link.inbox, "it has come")
        link.hang_up()
        worker.save([Record("c", "SUCCESS", b'{"status": "SUCCESS"}', address)])
        seen = dict.fromkeys("abc")
        while seen:
            for name in client.wait(list(seen), DEADLINE):
                del seen[name]

    def test_a_queue_that_somebody_deleted(self, make_store: MakeStore) -> None:
        worker, client = make_store("worker"), make_store()
        address = client.address()
        assert client.wait(["a"], 0.01) == {}
        with worker._broker.link() as link:
            link.call(method(50, 40, b"\0\0" + short(address) + b"\0"), {(50, 41)})
        thread = threading.Thread(target=lambda: found.update(client.wait(["a"], DEADLINE)))
        found: dict[str, bytes] = {}
        thread.start()
        until(lambda: there(worker, address), "it is declared anew")
        worker.save([Record("a", "SUCCESS", b'{"status": "SUCCESS"}', address)])
        thread.join(DEADLINE)
        assert set(found) == {"a"}

    def test_the_address_is_renewed_in_time(self, make_store: MakeStore) -> None:
        """Publishing to a queue does not keep it from expiring; declaring it does."""
        client = make_store(expires=0.4)
        address = client.address()
        gate = threading.Event()
        for _ in range(10):
            gate.wait(0.1)
            assert client.address() == address
            assert there(client, address)

    def test_memory_is_bounded(self, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rpc_replies, "_UNREAD", 30)
        monkeypatch.setattr(rpc_replies, "_READ", 5)
        worker, client = make_store("worker"), make_store()
        names = [f"n{place}" for place in range(50)]
        address = client.address()
        worker.save([Record(name, "SUCCESS", b'{"status": "SUCCESS"}', address) for name in names])
        until(lambda: client.load(["n49"]) != [None], "all have come")
        assert len(client.replies._replies) <= 30
        assert client.load(["n0"]) == [None]
        assert len(client.wait(names, DEADLINE)) == 30
        assert len(client.replies._replies) == 5

    def test_another_broker(self) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"rpc:// .* AMQP server .* is memory://.*sqlite:///results"):
            RpcStore(BackendConfig("rpc://"), MemoryBroker(BrokerConfig("memory://x")), lambda: "me")


def there(store: RpcStore, queue: str) -> bool:
    with store._broker.link() as link:
        return exists(link, passive_queue(queue, channel=2), (50, 11)) is not None


class TestMessages:
    """[wire.23]: what Celery 5.7's workers send, as they were seen to."""

    @pytest.mark.parametrize(("persistent", "mode"), [(False, 1), (True, 2)])
    def test_properties(self, make_store: MakeStore, persistent: bool, mode: int) -> None:
        worker, client = make_store("worker", persistent=persistent), make_store()
        address = client.address()
        worker.save([Record("täsk", "SUCCESS", b'{"status": "SUCCESS"}', address)])
        with client._broker.link() as link:
            get = method(60, 70, b"\0\0" + short(address) + b"\1")
            came = until(lambda: (one := link.call(get, {(60, 71), (60, 72)})).kind == (60, 71) and one, "it comes")
        assert came.body == b'{"status": "SUCCESS"}'
        assert properties_of(came.properties) == {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": {},
            "delivery_mode": mode,
            "priority": 0,
            "correlation_id": "täsk",
        }

    def test_others_forms_are_read(self, make_store: MakeStore) -> None:
        client = make_store()
        address = client.address()
        forms: list[dict[str, Any]] = [
            {"correlation_id": "a"},
            {"correlation_id": "b", "content_type": "application/json", "headers": {"x": 1}, "app_id": "y"},
            {"content_type": "application/json"},
            {"correlation_id": "c" * 200, "priority": 0, "delivery_mode": 1, "message_id": "m"},
        ]
        with client._broker.link() as link:
            for form in forms:
                link.send(publish("", address) + content(form, b'{"status": "SUCCESS"}', link.frame_max))
        left = {"a", "b", "c" * 200}
        while left:
            left -= set(client.wait(list(left), DEADLINE))


class TestCanvases:
    """Flows whose tasks are sent from within tasks, with a worker in this process."""

    def test_shapes(self, rabbit_url: str) -> None:
        app = Celery("rpc", broker=rabbit_url, backend="rpc://", set_as_current=False)
        called: list[Any] = []

        @app.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="total")
        def total(numbers: list[int]) -> int:
            return sum(numbers)

        @app.task(name="fail")
        def fail() -> None:
            raise ValueError("no")

        @app.task(name="heard")
        def heard(*args: Any) -> None:
            called.append(args)

        @app.task(name="replaced", bind=True)
        def replaced(self: Any, n: int) -> None:
            self.replace(chord([add.s(i, n) for i in range(3)], total.s()))

        @app.task(name="grown", bind=True)
        def grown(self: Any) -> int:
            self.add_to_chord(add.s(100, 1))
            return 1

        def get(canvas: Any) -> Any:
            return canvas.apply_async().get(timeout=DEADLINE)

        with start_worker(app, pool="solo", perform_ping_check=False):
            assert get(chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s())) == 12
            assert get(group(add.s(i, 1) for i in range(3)) | total.s() | group(add.s(1), add.s(2))) == [7, 8]
            assert get(replaced.s(10)) == 33
            assert get(chord([replaced.s(1), replaced.s(2)], total.s())) == 15
            assert get(chord([grown.si(), add.s(1, 1)], total.s())) == 104
            with pytest.raises(ChordError, match="no"):
                get(chord([add.s(1, 1), fail.si()], total.s().on_error(heard.s())))
            until(lambda: called, "the errback is called")
            results = group(add.s(i, i) for i in range(3)).apply_async()
            results.save()
            assert app.GroupResult.restore(results.id).get(timeout=DEADLINE) == [0, 2, 4]
            results.delete()
            assert app.GroupResult.restore(results.id) is None
        app.close()
