"""The contracts on `sqlite://`, and what is particular to it."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from kombu.exceptions import OperationalError

from celery.backends.disabled import NoBackend
from celery.backends.sqlite import SqliteBackend
from celery.brokers.sqlite import SqliteBroker
from celery.drivers.sqlite import file_system
from celery.exceptions import ImproperlyConfigured
from celery.ports import BackendConfig, BrokerConfig, DeadLetterBounds
from tests.adapters.test_memory import FakeClock
from tests.contracts.backend import BackendContract, record
from tests.contracts.broadcasting import BroadcastingContract, ear, hear, notice
from tests.contracts.broker import BrokerContract, ids, message, nothing, spec, take, to
from tests.contracts.dead_letters import BOUNDS, DeadLetterContract
from tests.contracts.inspecting import InspectingContract
from tests.contracts.processes import Child, in_child
from tests.contracts.routing import RoutingContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contracts.backend import MakeBackend, PassTime
    from tests.contracts.broadcasting import MakeCarrier
    from tests.contracts.broker import MakeBroker, PutRaw
    from tests.contracts.dead_letters import MakeBounded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.sqlite3"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


class TestBroker(BrokerContract):
    @pytest.fixture
    def make_broker(self, url: str) -> Iterator[MakeBroker]:
        made = []

        def make(node: str = "") -> SqliteBroker:
            made.append(SqliteBroker(BrokerConfig(url, node=node)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()

    @pytest.fixture
    def make_backend(self, url: str) -> Iterator[MakeBackend]:
        yield from backends(url, None)

    @pytest.fixture
    def put_raw(self, broker: SqliteBroker, path: Path) -> PutRaw:
        broker.declare([])

        def put(queue: str, raw: bytes) -> None:
            with sqlite3.connect(path) as db:
                db.execute("INSERT INTO messages (queue, envelope) VALUES (?, ?)", (queue, raw))
            db.close()

        return put


class TestRouting(RoutingContract):
    make_broker = TestBroker.make_broker


class TestInspecting(InspectingContract):
    make_broker = TestBroker.make_broker
    put_raw = TestBroker.put_raw


class TestDeadLetters(DeadLetterContract):
    make_backend = TestBroker.make_backend
    put_raw = TestBroker.put_raw

    @pytest.fixture
    def make_bounded(self, url: str) -> Iterator[MakeBounded]:
        made = []

        def make(bounds: DeadLetterBounds = BOUNDS) -> SqliteBroker:
            made.append(SqliteBroker(BrokerConfig(url, dead_letters=bounds)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()


class TestBroadcasting(BroadcastingContract):
    @pytest.fixture
    def make_carrier(self, url: str) -> Iterator[MakeCarrier]:
        made: list[SqliteBroker] = []

        def make() -> SqliteBroker:
            made.append(SqliteBroker(BrokerConfig(url)))
            return made[-1]

        yield make
        for broker in made:
            broker.close()

    def test_nothing_is_written_where_nobody_listens(self, make_carrier: MakeCarrier, url: str) -> None:
        carrier = make_carrier()
        listener = carrier.listen([ear("n.pidbox")])
        listener.close()
        before = counted(url)
        carrier.tell([notice("into the void"), notice("r", "reply.pidbox", "direct", "nobody")])
        assert counted(url) == before == (0, 0, 0)

    def test_a_listener_that_was_killed_leaves_nothing(self, make_carrier: MakeCarrier, url: str) -> None:
        def listen() -> None:
            SqliteBroker(BrokerConfig(url)).listen([ear("n.pidbox"), ear("o.reply", "reply.pidbox", "direct", "o")])
            os._exit(0)

        carrier = make_carrier()
        carrier.listen([ear("alive.pidbox")]).close()  # the file is there
        pid = os.fork()
        if not pid:
            listen()
        os.waitpid(pid, 0)
        assert counted(url)[0] == 1
        mine = carrier.listen([ear("alive.pidbox")])
        assert counted(url)[:2] == (1, 1)
        carrier.tell([notice("r", "reply.pidbox", "direct", "o"), notice("heard")])
        assert hear(mine, 1) == ["heard"]
        mine.close()
        assert counted(url) == (0, 0, 0)

    def test_notices_are_few(self, make_carrier: MakeCarrier, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("celery.brokers.sqlite_listening._MOST", 5)
        carrier = make_carrier()
        with closing(carrier.listen([ear("n.pidbox")])):
            for number in range(20):
                carrier.tell([notice(str(number))])
            assert counted(url)[2] == 5


def counted(url: str) -> tuple[int, int, int]:
    """Rows of listeners, of mailboxes and of notices."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
        listeners, mailboxes, notices = (
            db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("listeners", "mailboxes", "notices")
        )
    return listeners, mailboxes, notices


class TestBackend(BackendContract):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def make_backend(self, url: str, clock: FakeClock, request: pytest.FixtureRequest) -> Iterator[MakeBackend]:
        yield from backends(url, clock if "pass_time" in request.fixturenames else None)

    @pytest.fixture
    def pass_time(self, clock: FakeClock) -> PassTime:
        def move(seconds: float) -> None:
            clock.now += seconds

        return move


def backends(url: str, clock: FakeClock | None) -> Iterator[MakeBackend]:
    made = []

    def make(expires: float | None = None) -> SqliteBackend:
        config = BackendConfig(url, expires=expires)
        made.append(SqliteBackend(config, clock=clock) if clock else SqliteBackend(config))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


# ------------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///", "celery.sqlite3"),
        ("sqlite://", "celery.sqlite3"),
        ("sqlite:///some%20where/a.db", "some where/a.db"),
        ("sqlite:////srv/celery/a.db", "/srv/celery/a.db"),
        ("sqlite:////srv/celery/a.db?synchronous=normal", "/srv/celery/a.db"),
    ],
)
def test_urls(url: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broker = SqliteBroker(BrokerConfig(url))
    assert broker.file.path == str(tmp_path / expected)
    assert broker.url_text == f"sqlite:///{tmp_path / expected}"
    assert not (tmp_path / expected).exists()  # made when it is first needed


@pytest.mark.parametrize("url", ["sqlite://a.db", "sqlite://srv/a.db", "sqlite:///:memory:"])
def test_urls_that_mean_something_else(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="sqlite:"):
        SqliteBroker(BrokerConfig(url))


def test_only_the_owner_may_read_the_files(url: str, path: Path) -> None:
    broker = SqliteBroker(BrokerConfig(url))
    consumer = broker.consume([spec("q")])
    broker.publish(to("q", message(1)))
    made = sorted(path.parent.iterdir())
    assert [p.name.removeprefix(path.name) for p in made] == ["", "-shm", "-wal", "-workers"]
    assert {oct(p.stat().st_mode & 0o777) for p in made} == {"0o600"}
    consumer.close()
    broker.close()


def test_a_file_of_another_program_is_refused(url: str, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE auth_user (id INTEGER)")
    with pytest.raises(ImproperlyConfigured, match=rf"{path} is an SQLite database of another program"):
        SqliteBroker(BrokerConfig(url)).publish(to("q", message(1)))
    with closing(sqlite3.connect(path)) as db:
        assert [name for (name,) in db.execute("SELECT name FROM sqlite_master")] == ["auth_user"]


def test_a_newer_file_is_refused(url: str, path: Path) -> None:
    in_child(lambda: SqliteBroker(BrokerConfig(url)).declare([]))
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ImproperlyConfigured, match=rf"{path} was written by a newer celery \(file format 99"):
        SqliteBackend(BackendConfig(url)).load(["a"])


def test_what_is_no_database_is_refused(url: str, path: Path) -> None:
    path.write_text("not a database, but long enough to be read as the header of one" * 20)
    with pytest.raises(ImproperlyConfigured, match=rf"{path} is no SQLite database"):
        SqliteBroker(BrokerConfig(url)).publish(to("q", message(1)))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    broker = SqliteBroker(BrokerConfig(f"sqlite:///{tmp_path}/no/such/a.db"))
    with pytest.raises(ImproperlyConfigured, match=rf"{tmp_path}/no/such/a.db cannot be made .*directory"):
        broker.consume([])


def test_network_file_systems_are_refused(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = file_system(str(path.parent))
    assert kind
    assert file_system("/proc/self") == "proc"
    monkeypatch.setattr("celery.drivers.sqlite.NETWORK_FILE_SYSTEMS", frozenset({kind}))
    with pytest.raises(ImproperlyConfigured, match=rf"{path} is on a network file system \({kind}\)"):
        SqliteBroker(BrokerConfig(url)).declare([])
    assert not path.exists()


def test_a_lock_that_others_keep_is_an_operational_error(url: str, path: Path) -> None:
    broker = SqliteBroker(BrokerConfig(url, options={"timeout": 0.05}))
    broker.declare([])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match=rf"{path}: other processes kept it locked"):
            broker.publish(to("q", message(1)))
    broker.publish(to("q", message(2)))
    consumer = broker.consume([spec("q")])
    assert ids(take(consumer, 1)) == ["2"]
    broker.close()


def test_a_full_disk_is_an_operational_error(url: str) -> None:
    """Nothing of the batch is accepted, and when there is room again everything works."""
    broker = SqliteBroker(BrokerConfig(url))
    with broker._writer.reading as db:
        db.execute("PRAGMA max_page_count = 10")
    with pytest.raises(OperationalError, match="the disk is full"):
        broker.publish(to("q", *(message(i, body=b"x" * 9000) for i in range(20))))
    assert broker.depth("q") == 0
    with broker._writer.reading as db:
        db.execute("PRAGMA max_page_count = 1000000")
    broker.publish(to("q", message(1)))
    assert broker.depth("q") == 1
    broker.close()


@pytest.mark.parametrize(
    ("query", "options", "expected"),
    [
        ("", {}, 2),
        ("", {"synchronous": "normal"}, 1),
        ("?synchronous=OFF", {}, 0),
        ("?synchronous=OFF", {"synchronous": "EXTRA"}, 3),
    ],
)
def test_synchronous(url: str, query: str, options: dict[str, str], expected: int) -> None:
    broker = SqliteBroker(BrokerConfig(url + query, options=options))
    with broker._writer.reading as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (expected,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    broker.close()


def test_synchronous_must_be_known(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"synchronous.*FULL.*got MAYBE"):
        SqliteBroker(BrokerConfig(url, options={"synchronous": "maybe"}))


@pytest.mark.process
def test_many_processes_begin_at_once(url: str) -> None:
    """The file is made once, and nobody sees it half made."""

    def begin() -> object:
        broker = SqliteBroker(BrokerConfig(url))
        broker.publish(to("q", message(os.getpid())))
        return broker

    children = [Child(begin) for _ in range(8)]
    for child in children:
        child.done()
    broker = SqliteBroker(BrokerConfig(url))
    assert broker.depth("q") == 8
    for child in children:
        child.kill()
    broker.close()


def test_a_removed_file(url: str, path: Path) -> None:
    """Publishers begin a new one; a consumer says that what it held is gone."""
    broker, backend = SqliteBroker(BrokerConfig(url)), SqliteBackend(BackendConfig(url))
    broker.publish(to("q", message(1)))
    backend.save([record("a")])
    consumer = broker.consume([spec("q")])
    take(consumer, 1)
    for part in path.parent.iterdir():
        part.unlink()
    broker.publish(to("q", message(2)))
    with pytest.raises(OperationalError, match="removed or replaced"):
        take(consumer, 1)
    with suppress(OperationalError):
        consumer.close()
    assert ids(take(broker.consume([spec("q")]), 1)) == ["2"]
    assert backend.load(["a"]) == [None]
    broker.close()
    backend.close()


def test_close_leaves_no_descriptor(url: str, path: Path) -> None:
    broker, backend = SqliteBroker(BrokerConfig(url)), SqliteBackend(BackendConfig(url))
    for i in range(3):
        broker.publish(to("q", message(i)))
        backend.save([record(str(i))])
        backend.wait([str(i)], 1)
        consumer, another = broker.consume([spec("q")]), broker.consume([spec("q")])
        take(consumer, 1)
        assert len(descriptors(path)) >= 4
        consumer.close()
        another.close()
        broker.close()
        backend.close()
        assert descriptors(path) == []


# --------------------------------------------------------------------------------------------------- forks and custody


def test_no_handle_crosses_a_fork(url: str, path: Path) -> None:
    broker, backend = SqliteBroker(BrokerConfig(url)), SqliteBackend(BackendConfig(url))
    consumer = broker.consume([spec("q")])
    broker.publish(to("q", message(1)))
    backend.save([record("a")])
    backend.load(["a"])

    def look() -> None:
        assert descriptors(path) == []

    assert len(descriptors(path)) >= 4
    in_child(look)
    assert ids(take(consumer, 1)) == ["1"]
    broker.close()
    backend.close()


@pytest.mark.slow
def test_forks_while_other_threads_publish(url: str) -> None:
    broker = SqliteBroker(BrokerConfig(url, options={"synchronous": "NORMAL"}))
    stop = threading.Event()
    counts: list[int] = []

    def publish() -> None:
        n = 0
        while not stop.is_set():
            broker.publish(to("q", message(n)))
            n += 1
        counts.append(n)

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        in_child(lambda: broker.publish(to("q", message("child"))))
    stop.set()
    for thread in threads:
        thread.join()
    assert broker.depth("q") == sum(counts) + 10
    with broker._writer.reading as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    broker.close()


@pytest.mark.slow
def test_a_consumer_of_this_process_is_not_taken_for_dead(url: str) -> None:
    """POSIX locks belong to the process: testing one's own lock would succeed, and lose it."""
    broker = SqliteBroker(BrokerConfig(url))
    broker.publish(to("q", message(1)))
    holder = broker.consume([spec("q")])
    held = take(holder, 1)
    for _ in range(3):
        another = broker.consume([spec("q")])
        nothing(another)
        another.close()

    def look() -> None:
        nothing(SqliteBroker(BrokerConfig(url)).consume([spec("q")]))

    in_child(look)  # its locks were not lost by the closing of the others
    holder.ack(held)
    holder.close()
    nothing(broker.consume([spec("q")]))
    broker.close()


@pytest.mark.slow
def test_what_the_dead_held_comes_back_to_one_who_waits(url: str) -> None:
    broker = SqliteBroker(BrokerConfig(url))
    broker.publish(to("q", message(1)))
    broker.close()

    def hold() -> object:
        consumer = SqliteBroker(BrokerConfig(url)).consume([spec("q")])
        return [consumer, take(consumer, 1)]

    child = Child(hold)
    child.done()
    consumer = broker.consume([spec("q")])
    nothing(consumer)
    child.kill()
    assert ids(consumer.fetch(1, 20)) == ["1"]
    with consumer._handle.reading as db:
        assert db.execute("SELECT count(*) FROM holders").fetchone() == (1,)
    consumer.close()
    broker.close()


@pytest.mark.slow
def test_no_message_is_overlooked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon after a look it is written: the log's time of change ticks coarsely."""
    monkeypatch.setattr("celery.brokers.sqlite.RECLAIM_EVERY", 60.0)  # which would find what was overlooked
    broker, consumers = SqliteBroker(BrokerConfig(url, options={"synchronous": "OFF"})), SqliteBroker(BrokerConfig(url))
    consumer = consumers.consume([spec("q")])
    for i in range(150):
        nothing(consumer, timeout=(i % 5) / 1000)
        broker.publish(to("q", message(i)))
        found = consumer.fetch(1, 20)
        assert ids(found) == [str(i)]
        consumer.ack(found)
    consumer.close()
    broker.close()


# ------------------------------------------------------------------------------------------------------------- records


def test_join_refuses_another_file(url: str) -> None:
    consumer = SqliteBroker(BrokerConfig(url)).consume([])
    assert not consumer.join(SqliteBackend(BackendConfig(url + "-b")))
    assert not consumer.join(NoBackend())
    assert consumer.join(SqliteBackend(BackendConfig(url)))
    consumer.close()


def test_expired_records_are_deleted_in_time(url: str) -> None:
    clock = FakeClock()
    backend = SqliteBackend(BackendConfig(url, expires=10), clock=clock)
    backend.save([record(str(i)) for i in range(700)])
    keeper = SqliteBackend(BackendConfig(url, expires=None), clock=clock)
    keeper.save([record("kept")])
    for seconds in (70, 2, 2):
        clock.now += seconds
        backend.save([record("new")])
    with backend._reader.reading as db:
        assert sorted(id for (id,) in db.execute("SELECT id FROM results")) == ["kept", "new"]
    backend.close()
    keeper.close()


def test_no_backend() -> None:
    backend = NoBackend()
    backend.save([record("a")])
    backend.close()
    for read in (lambda: backend.load(["a"]), lambda: backend.wait(["a"], 1), lambda: backend.forget(["a"])):
        with pytest.raises(NotImplementedError, match="result_backend"):
            read()


def descriptors(path: Path) -> list[str]:
    """The files beside `path` that this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in found if name.startswith(str(path.parent))]
