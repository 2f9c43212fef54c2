"""What is particular to Redis as a result backend, and to the driver: waiting, TLS, users, URLs."""

from __future__ import annotations

import datetime as dt
import json
import queue
import re
import shutil
import ssl
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from kombu.exceptions import OperationalError

from celery import Celery, chord
from celery.backends.redis_store import RedisStore
from celery.backends.redis_waiting import is_ready
from celery.brokers.redis import RedisBroker
from celery.drivers.redis import Endpoint
from celery.drivers.redis_pool import LinkPool
from celery.exceptions import ImproperlyConfigured
from celery.outcome import Record
from celery.ports import BackendConfig, BrokerConfig
from tests.contracts.backend import DEADLINE, record
from tests.contracts.broker import ids, message, spec, take, to
from tests.flow.test_worker_embedded import Running
from tests.servers import RedisServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[..., RedisStore]

pytestmark = pytest.mark.server


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[Make]:
    made: list[RedisStore] = []

    def make_backend(url: str = "", **options: Any) -> RedisStore:
        made.append(RedisStore(BackendConfig(url or redis_server.url(), **options)))
        return made[-1]

    yield make_backend
    for backend in made:
        backend.close()


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain: {what}"
        threading.Event().wait(0.005)
    return found


# ---------------------------------------------------------------------------------------------------------------- keys


def test_keys_and_expiry_are_celerys(make: Make, redis_server: RedisServer) -> None:
    """[rkeys.1] [rkeys.11] [state.13]"""
    make(expires=100.5).save([Record("a", "SUCCESS", b"1")])
    make(expires=None).save([Record("b", "SUCCESS", b"2")])
    make(key_prefix="one:").save([Record("a", "SUCCESS", b"3")])
    make(options={"global_keyprefix": "two"}).save([Record("a", "SUCCESS", b"4")])
    keys = ["celery-task-meta-a", "celery-task-meta-b", "one:celery-task-meta-a", "two_celery-task-meta-a"]
    assert redis_server.pipeline([("GET", key) for key in keys]) == [b"1", b"2", b"3", b"4"]
    assert redis_server.pipeline([("TTL", key) for key in keys[:3]]) == [101, -1, 86400]


@pytest.mark.parametrize(
    ("stored", "final"),
    [
        (b'{"status": "SUCCESS", "result": 1}', True),
        (b'{"result": {"status": "FAILURE"}, "status": "SUCCESS"}', True),
        (b'{"status": "PROGRESS", "result": {"status": "SUCCESS"}}', False),
        (b'{"result": {"status": "SUCCESS"}, "status": "STARTED"}', False),
        (b"\x80\x04\x95}\x94(\x8c\x06status\x94\x8c\x07SUCCESS\x94\x8c\x06result\x94K\x01u.", True),
        (b"\x80\x04\x95}\x94(\x8c\x06status\x94\x8c\x07STARTED\x94\x8c\x06result\x94\x8c\x07SUCCESS\x94u.", False),
        (b"status: SUCCESS\nresult: 1\n", True),
        (b"\x82\xa6status\xa7SUCCESS\xa6result\x01", True),
    ],
)
def test_success_is_final_in_every_encoding(make: Make, stored: bytes, final: bool) -> None:
    """[state.10]"""
    backend = make()
    backend.save([Record("a", "", stored)])
    backend.save([Record("a", "FAILURE", b"later")])
    assert backend.load(["a"]) == [stored if final else b"later"]
    assert is_ready(stored) == final


# -------------------------------------------------------------------------------------------------------------- waiting


def test_waiting_leaves_no_subscription_behind(make: Make, redis_server: RedisServer) -> None:
    backend = make()
    assert backend.wait(["a", "b"], 0.01) == {}
    backend.save([record("a")])
    assert list(backend.wait(["a"], DEADLINE)) == ["a"]
    until(lambda: redis_server.call("PUBSUB", "CHANNELS") == [], "unsubscribed")


def test_sixty_four_threads_on_one_connection(make: Make, redis_server: RedisServer) -> None:
    backend, other = make(), make()
    seen: dict[str, list[str]] = {}

    def wait(name: str) -> None:
        seen[name] = [*backend.wait([name], DEADLINE), *backend.wait(["all"], DEADLINE)]

    names = [f"n{i}" for i in range(64)]
    threads = [threading.Thread(target=wait, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    until(lambda: len(redis_server.call("PUBSUB", "CHANNELS")) == 64, "all subscribed")
    info: bytes = redis_server.call("INFO", "clients")
    assert int(info.split(b"pubsub_clients:")[1].split()[0] if b"pubsub_clients:" in info else 1) == 1
    for name in reversed(names):
        other.save([record(name)])
    until(lambda: redis_server.call("PUBSUB", "CHANNELS") == [b"celery-task-meta-all"], "all wait for the last")
    other.save([record("all")])
    for thread in threads:
        thread.join(DEADLINE)
    assert seen == {name: [name, "all"] for name in names}
    until(lambda: redis_server.call("PUBSUB", "CHANNELS") == [], "unsubscribed")


def test_the_place_of_the_reader_is_handed_on(make: Make) -> None:
    """Even where those who read and those who would follow get their answers in the same instant."""
    backend, other = make(), make()
    for turn in range(40):
        names = [f"{turn}-{i}" for i in range(5)]
        seen: list[str] = []
        threads = [threading.Thread(target=lambda n=n, s=seen: s.extend(backend.wait([n], DEADLINE))) for n in names]
        for thread in threads:
            thread.start()
        other.save([record(name) for name in names[:-1]])
        other.save([record(names[-1])])
        for thread in threads:
            thread.join(2)
        assert sorted(seen) == names


def test_waiters_survive_a_lost_connection(make: Make, redis_server: RedisServer) -> None:
    backend, other = make(), make()
    seen: list[list[str]] = []
    threads = [threading.Thread(target=lambda n=n: seen.append(list(backend.wait([n], DEADLINE)))) for n in "abc"]
    for thread in threads:
        thread.start()
    for kind in ("pubsub", "pubsub"):
        until(lambda: len(redis_server.call("PUBSUB", "CHANNELS")) == 3, "all subscribed")
        redis_server.call("CLIENT", "KILL", "TYPE", kind)
    for name in "abc":
        other.save([record(name)])
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(seen) == [["a"], ["b"], ["c"]]


def test_a_server_that_goes_away_ends_the_wait_with_an_error(make: Make) -> None:
    with RedisServer() as server:
        backend = make(server.url(), options={"socket_timeout": 0.3})
        failures: list[Exception] = []

        def wait() -> None:
            try:
                backend.wait(["a"], None)
            except OperationalError as exc:
                failures.append(exc)

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: server.call("PUBSUB", "CHANNELS"), "subscribed")
        server.stop()
        thread.join(DEADLINE)
        assert str(server.port) in str(failures[0])


def test_a_silent_server_ends_the_wait_with_an_error(make: Make, redis_server: RedisServer) -> None:
    backend = make(options={"socket_timeout": 0.2})
    backend.save([record("a")])
    backend.wait(["a"], 1)
    redis_server.call("CLIENT", "PAUSE", 1500, "ALL")
    begin = time.monotonic()
    with pytest.raises(OperationalError):
        backend.wait(["b"], None)
    assert time.monotonic() - begin < 20


def test_an_answer_wakes_who_waits(make: Make, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without polling: nothing is asked while it waits, and nothing else would end the wait."""
    monkeypatch.setattr("celery.backends.redis_waiting._SILENCE", 10 * DEADLINE)
    backend, other = make(), make()
    assert backend.wait(["nothing"], 0.01) == {}

    def asked() -> int:
        info: bytes = redis_server.call("INFO", "commandstats")
        return sum(int(n) for n in re.findall(rb"cmdstat_m?get:calls=(\d+)", info))

    for i in range(15):
        before = asked()
        thread = threading.Timer(0.02, other.save, [[record(str(i))]])
        thread.start()
        assert backend.wait([str(i)], DEADLINE).keys() == {str(i)}
        thread.join()
        assert asked() - before <= 2, "once as it begins, once as it is told"


# ----------------------------------------------------------------------------------------------------------- the driver


def test_users_and_passwords(redis_server: RedisServer) -> None:
    """[redis.19], and no password in what is told."""
    redis_server.call("ACL", "SETUSER", "ann", "on", ">s:cr/et@", "~*", "&*", "+@all")
    url = f"redis://ann:{{}}@127.0.0.1:{redis_server.port}/0"
    broker = RedisBroker(BrokerConfig(url.format("s%3Acr%2Fet%40")))
    broker.publish(to("q", message(1)))
    assert "cr" not in repr(broker)
    broker.close()
    with pytest.raises(OperationalError) as failure:
        RedisBroker(BrokerConfig(url.format("wr%3Ang"))).publish(to("q", message(1)))
    assert "WRONGPASS" in str(failure.value)
    assert "ng" not in str(failure.value).replace("WRONGPASS", "").split("invalid")[0]

    class Provider:
        def get_credentials(self) -> tuple[str, str]:
            return ("ann", "s:cr/et@")

    broker = RedisBroker(BrokerConfig(redis_server.url(), {"credential_provider": Provider()}))
    assert broker.depth("q") == 1
    broker.close()


@pytest.mark.parametrize("db", ["x", "1.5", "-1"])
def test_a_database_is_a_number(db: str) -> None:
    """[redis.20]"""
    with pytest.raises(ImproperlyConfigured, match="database number"):
        Endpoint(f"redis://localhost/{db}")


@pytest.mark.parametrize("port", ["x", "70000"])
def test_a_port_is_a_number(port: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"got redis://\*\*@localhost:\w+/1"):
        Endpoint(f"redis://ann:s3cret@localhost:{port}/1")


def test_a_password_with_a_slash_is_not_shown() -> None:
    with pytest.raises(ImproperlyConfigured, match="write / as %2F") as caught:
        Endpoint("redis://ann:s3cret/@localhost:6379/1")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_databases(redis_server: RedisServer) -> None:
    broker = RedisBroker(BrokerConfig(redis_server.url(db=3)))
    broker.publish(to("q", message(1)))
    assert redis_server.call("LLEN", "q", db=3) == 1
    broker.close()
    assert Endpoint("redis+socket:///tmp/x?virtual_host=4").db == 4
    assert Endpoint("redis://").db == 0
    same = Endpoint(redis_server.url()).same_server
    assert same(Endpoint(redis_server.url()))
    assert not same(Endpoint(redis_server.url(db=1)))


def test_nobody_there_is_told_without_the_password() -> None:
    broker = RedisBroker(BrokerConfig(f"redis://:secret@127.0.0.1:{free_port()}/0"))
    with pytest.raises(OperationalError) as failure:
        broker.publish(to("q", message(1)))
    assert "secret" not in str(failure.value)
    assert "127.0.0.1" in str(failure.value)


def test_socket_options(redis_server: RedisServer) -> None:
    """[redis.18]"""
    import socket

    options = {
        "socket_keepalive_options": {socket.TCP_KEEPIDLE: 33},
        "client_name": "mine",
        "socket_timeout": 7,
        "socket_connect_timeout": 3,
    }
    link = Endpoint(redis_server.url(), options).connect()
    assert b"name=mine" in redis_server.call("CLIENT", "LIST")
    assert link._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
    assert struct.unpack("@ll", link._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)) == (7, 0)
    link.close()


def test_more_threads_than_connections(redis_server: RedisServer) -> None:
    pool = LinkPool(Endpoint(redis_server.url()), limit=3)
    threads = [threading.Thread(target=lambda: [pool.run([("INCR", "n")]) for _ in range(30)]) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert redis_server.call("GET", "n") == b"360"
    held = [pool.take() for _ in range(3)]
    pool.endpoint.timeout = 0.05
    with pytest.raises(OperationalError, match="busy"):
        pool.take()
    for link in held:
        pool.give_back(link)
    pool.close()


def test_a_link_that_was_interrupted_is_not_used_again(redis_server: RedisServer) -> None:
    """A signal's exception between request and answer must not leave the answer to the next caller."""
    import signal

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    pool = LinkPool(Endpoint(redis_server.url()))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            pool.run([("BLPOP", "nothing", 1)])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert pool.run([("ECHO", "mine")]) == [b"mine"]
    pool.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    assert openssl, "expected openssl on PATH: apt-get install openssl"
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_tls(certificate: Path) -> None:
    port = free_port()
    cert, key = str(certificate / "cert.pem"), str(certificate / "key.pem")
    files = ("--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
    with RedisServer("--tls-port", str(port), *files):
        url = f"rediss://localhost:{port}/0"
        use = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": cert}
        broker = RedisBroker(BrokerConfig(url, ssl=use))
        consumer = broker.consume([spec("q")])
        thread = threading.Timer(0.1, broker.publish, [to("q", *(message(i, body=b"x" * 50_000) for i in range(20)))])
        thread.start()
        assert len(take(consumer, 20)) == 20
        thread.join()
        backend = RedisStore(BackendConfig(f"{url}?ssl_cert_reqs=required&ssl_ca_certs={cert}"))
        assert consumer.join(backend)
        consumer.close()
        thread = threading.Timer(0.1, backend.save, [[record("a", meta=b"x" * 100_000)]])
        thread.start()
        assert list(backend.wait(["a"], DEADLINE)) == ["a"]
        thread.join()
        backend.close()
        broker.close()
        unverified = RedisBroker(BrokerConfig(f"{url}?ssl_cert_reqs=none"))
        assert ids(take(unverified.consume([spec("q")]), 20))
        unverified.close()
        with pytest.raises(OperationalError, match=r"(?i)certificate"):
            RedisBroker(BrokerConfig(url)).depth("q")


# ------------------------------------------------------------------------------------------------- the wide face of it


@pytest.fixture
def make_app(redis_server: RedisServer) -> Iterator[Callable[..., Celery]]:
    made: list[Celery] = []

    def make_it(**settings: Any) -> Celery:
        made.append(Celery("wide", broker=redis_server.url(), backend=redis_server.url(), set_as_current=False))
        made[-1].conf.update(settings)
        return made[-1]

    yield make_it
    for app in made:
        app.close()


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("method", ["gzip", "bzip2"])
def test_compressed_results(make_app: Any, redis_server: RedisServer, serializer: str, method: str) -> None:
    """[state.11] [new57.3]: marked, read by those who compress nothing, waited for, and success stays final."""
    how = {"result_serializer": serializer, "result_accept_content": [serializer]}
    writer, reader = make_app(result_compression=method, **how), make_app(**how)
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(reader.AsyncResult("a").get(timeout=DEADLINE)))
    waiting.start()
    writer.backend.store_result("a", {"n": 1}, "STARTED")
    writer.backend.store_result("a", "x" * 10_000, "SUCCESS")
    waiting.join(DEADLINE)
    assert got == ["x" * 10_000]
    stored = redis_server.call("GET", "celery-task-meta-a")
    assert stored.startswith(b"\0celery-compressed\0application/x-")
    assert len(stored) < 1000
    writer.backend.mark_as_failure("a", KeyError())
    assert reader.AsyncResult("a").state == "SUCCESS"
    writer.backend.mark_as_failure("f", KeyError("z"))
    with pytest.raises(KeyError, match="z"):
        reader.AsyncResult("f").get(timeout=DEADLINE)


def test_an_unknown_compression(make_app: Any) -> None:
    with pytest.raises(
        ImproperlyConfigured, match="Unknown compression method 'nope' configured in result_compression"
    ):
        _ = make_app(result_compression="nope").backend


def test_failures_expire_in_their_own_time(make_app: Any, redis_server: RedisServer) -> None:
    """[new57.4] [rkeys.1]: also where a worker settles them with its messages."""
    app = make_app(result_failure_expires=dt.timedelta(hours=1), result_expires=100)

    @app.task(name="fail")
    def fail() -> None:
        raise KeyError

    app.backend.mark_as_failure("a", KeyError())
    app.backend.store_result("b", 1, "SUCCESS")
    with Running(app):
        result = fail.delay()
        result.get(timeout=DEADLINE, propagate=False)
    keys = [f"celery-task-meta-{id}" for id in ("a", "b", result.id)]
    for left, whole in zip(redis_server.pipeline([("TTL", key) for key in keys]), (3600, 100, 3600), strict=True):
        assert whole - DEADLINE < left <= whole
    make_app(result_failure_expires=0).backend.mark_as_failure("c", KeyError())
    assert redis_server.call("TTL", "celery-task-meta-c") == -1


@pytest.mark.parametrize(("chords", "kept"), [(1000, 1000), (10, 100), (None, 100), (0, -1)])
def test_chords_and_groups_expire_in_their_own_time(
    make_app: Any, redis_server: RedisServer, chords: int | None, kept: int
) -> None:
    """[state.13] [new57.4]: never before results do, with these if they have none, never if it is 0."""
    app = make_app(result_expires=100, result_chord_expires=chords)

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    members = chord([total.s([n]) for n in range(3)], total.s())().parent
    members.save()
    with Running(app):
        members[0].get(timeout=DEADLINE)
        app.tasks["total"].apply_async(([1],), group_id="g", chord=total.s(), group_index=0).get(timeout=DEADLINE)
    keys = [f"celery-taskset-meta-{id}" for id in (members.id, f"{members.id}.s", "g.j", "g.d")]
    ages = redis_server.pipeline([("TTL", key) for key in keys])
    gone = [age for age in ages if age == -2]  # the body of the first has been sent, perhaps
    assert all(kept - 60 < age <= kept for age in ages if age != -2), ages
    assert len(gone) <= 1


def test_a_group_s_results_come_by_one_subscription(make_app: Any, redis_server: RedisServer) -> None:
    """[backend.11]: whoever waits for a hundred results is told of them in the order in which they come."""
    app = make_app()
    results = app.ResultSet([app.AsyncResult(f"m{n}") for n in range(100)])
    heard: list[str] = []
    waiting = threading.Thread(
        target=lambda: results.join_native(timeout=DEADLINE, callback=lambda id, value: heard.append(id))
    )
    waiting.start()
    until(lambda: len(redis_server.call("PUBSUB", "CHANNELS", "celery-task-meta-m*")) == 100, "it subscribes to all")
    assert sum(b"sub=100" in line for line in redis_server.call("CLIENT", "LIST").splitlines()) == 1
    for n in reversed(range(100)):
        app.backend.store_result(f"m{n}", n, "SUCCESS")
    waiting.join(DEADLINE)
    assert sorted(heard) == sorted(f"m{n}" for n in range(100))
    until(lambda: not redis_server.call("PUBSUB", "CHANNELS", "celery-task-meta-m*"), "it unsubscribes")


def test_the_client_and_its_keys(make_app: Any, redis_server: RedisServer) -> None:
    backend = make_app(result_expires=50).backend
    backend.store_result("a", 1, "SUCCESS")
    key = backend.get_key_for_task("a")
    assert json.loads(backend.get(key))["result"] == 1
    assert json.loads(backend.client.get(key))["result"] == 1
    assert [value is None for value in backend.mget([key, b"none"])] == [False, True]
    backend.set("mine", "value")
    assert (redis_server.call("GET", "mine"), redis_server.call("TTL", "mine")) == (b"value", 50)
    backend.expire("mine", 20)
    assert redis_server.call("TTL", "mine") == 20
    assert backend.incr("n") == 1
    backend.delete("mine")
    assert backend.get("mine") is None
    assert backend.get_key_for_group("g") == b"celery-taskset-meta-g"
    backend.client.close()


def test_callbacks_are_called_once_ready(make_app: Any) -> None:
    """[result.12]: nobody waits; the thread that does is gone afterwards."""
    app, told = make_app(), queue.SimpleQueue[Any]()
    results = [app.AsyncResult(name) for name in "abc"]
    for result in results:
        result.then(told.put)
    app.backend.store_result("a", 1, "PROGRESS")
    app.backend.store_result("c", 0, "SUCCESS")
    app.backend.store_result("a", 1, "SUCCESS")
    app.backend.mark_as_failure("b", KeyError())
    heard = {told.get(timeout=DEADLINE).id for _ in results}
    assert heard == {"a", "b", "c"}
    assert [result.result for result in results[::2]] == [1, 0]
    until(lambda: not any(t.name == "celery-results" for t in threading.enumerate()), "the thread ends")
    assert told.empty()
    results[0].then(told.put)
    assert told.get(timeout=0) is results[0]


def test_a_weak_callback_ends_with_its_result(make_app: Any) -> None:
    result = make_app().AsyncResult("never")
    result.then(str, weak=True)
    until(lambda: any(t.name == "celery-results" for t in threading.enumerate()), "the thread waits")
    del result
    until(lambda: not any(t.name == "celery-results" for t in threading.enumerate()), "the thread ends")
