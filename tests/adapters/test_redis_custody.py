"""What is particular to Redis as a broker: kombu's layout, leases, the lost, the parked, and an uneasy line."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.exceptions import OperationalError

from celery.brokers.redis import RedisBroker
from celery.message import Message
from celery.ports import BrokerConfig, Publication, Settled
from celery.routing import QueueSpec, Route
from tests.contracts.broker import DEADLINE, ids, message, nothing, numbers, spec, take, to
from tests.contracts.processes import Child
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.brokers.redis_consumer import RedisConsumer

    MakeBroker = Callable[..., RedisBroker]

pytestmark = pytest.mark.server


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[MakeBroker]:
    made: list[RedisBroker] = []

    def make_broker(url: str = "", **options: Any) -> RedisBroker:
        made.append(RedisBroker(BrokerConfig(url or redis_server.url(), {"lease_timeout": 1.5, **options})))
        return made[-1]

    yield make_broker
    for broker in made:
        broker.close()


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition of the outside world."""
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain: {what}"
        threading.Event().wait(0.01)
    return found


def everything(consumer: RedisConsumer, n: int) -> list[str]:
    """Fetch n messages, passing over a line that fails."""
    end = time.monotonic() + DEADLINE
    found: list[str] = []
    while len(found) < n:
        assert time.monotonic() < end, found
        try:
            found += ids(consumer.fetch(10, 0.3))
        except OperationalError:
            threading.Event().wait(0.05)
    return found


# ---------------------------------------------------------------------------------------------------------- the layout


def test_layout_is_kombus(make: MakeBroker, redis_server: RedisServer) -> None:
    """[redis.1] [redis.2] [redis.4] [redis.6]"""
    broker = make()
    queue = QueueSpec("q", exchange="q", routing_key="q")
    broker.publish([Publication(message(p, priority=p), Route("", "q", queue)) for p in (0, 2, 3, 8, 9, 200)])
    lengths = redis_server.pipeline([("LLEN", key) for key in ("q", "q\x06\x163", "q\x06\x166", "q\x06\x169")])
    assert lengths == [2, 1, 1, 2]
    assert redis_server.call("SMEMBERS", "_kombu.binding.q") == [b"q\x06\x16\x06\x16q"]
    assert redis_server.call("SMEMBERS", "_kombu.binding_permanent.q") == [b"q\x06\x16\x06\x16q"]
    consumer = broker.consume([queue])
    (delivery,) = take(consumer, 1)
    ((tag, value),) = [redis_server.call("HGETALL", "unacked")]
    body, exchange, key = json.loads(value)
    assert (body, exchange, key) == (json.loads(delivery.raw or b""), "", "q")
    (indexed, score) = redis_server.call("ZRANGE", "unacked_index", 0, -1, "WITHSCORES")
    assert indexed == tag == delivery.tag
    assert abs(float(score) - time.time()) < 5
    consumer.ack([delivery])
    consumer.flush()
    assert redis_server.pipeline([("EXISTS", "unacked"), ("EXISTS", "unacked_index")]) == [0, 0]
    consumer.close()


def test_topic_binding_is_kombus(make: MakeBroker, redis_server: RedisServer) -> None:
    make().declare([QueueSpec("q1", exchange="top", exchange_type="topic", routing_key="a.*.b.#")])
    assert redis_server.call("SMEMBERS", "_kombu.binding.top") == [b"a.*.b.#\x06\x16^a\\.[^\\.]+\\.b\\..*?$\x06\x16q1"]


def test_own_priority_steps(make: MakeBroker, redis_server: RedisServer) -> None:
    broker = make(priority_steps=list(range(10)), sep=":")
    broker.publish(to("q", message(1, priority=7)))
    assert redis_server.call("LLEN", "q:7") == 1
    assert ids(take(broker.consume([spec("q")]), 1)) == ["1"]


@pytest.mark.parametrize("steps", [range(10), [0, 3, 6, 9]], ids=["ten steps", "kombu's four"])
def test_order_is_exact_within_steps(make: MakeBroker, steps: Sequence[int]) -> None:
    """[redis.2] [route.17], PAINS 21: whatever was sent in whatever order, whether one is taken at a time or many: the
    lower step first, and within a step the one that was sent first."""
    chance = random.Random(21)
    for at_once in (1, 7, 1000):
        broker = make(priority_steps=list(steps))
        sent = [(max(s for s in steps if s <= p), i, p) for i in range(300) for p in [chance.randrange(10)]]
        broker.publish(to("q", *(message(i, priority=p) for _, i, p in sent)))
        consumer = broker.consume([spec("q")])
        taken = take(consumer, 300, at_once=at_once)
        assert [int(i) for i in ids(taken)] == [i for _, i, _ in sorted(sent)]
        consumer.ack(taken)
        consumer.close()


def test_unbound_exchange_drops(make: MakeBroker, redis_server: RedisServer) -> None:
    make().publish([Publication(message(1), Route("nowhere", "key"))])
    assert redis_server.call("DBSIZE") == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
tricky = st.sampled_from(
    ["headers", "delivery_info", "redelivered", "priority", "properties", '", "', "]", "{}", '\\"']
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    headers=st.dictionaries(st.text(max_size=5) | tricky, json_values, max_size=4),
    body=st.binary(max_size=30),
    priority=st.integers(0, 9),
    queue=st.text(min_size=1, max_size=8) | tricky,
    times=st.integers(1, 3),
)
def test_restoring_changes_nothing_but_the_mark(
    redis_server: RedisServer,
    headers: dict[str, Any],
    body: bytes,
    priority: int,
    queue: str,
    times: int,
) -> None:
    """Cut out, marked and put back by the scripts, however often: every header, number and byte survives."""
    queue = queue.encode("utf-8", "replace").decode()
    headers = json.loads(json.dumps(headers).encode("utf-8", "replace"))
    headers = {**headers, "task": "t", "id": "1"}
    headers.pop("redelivered", None)
    for name in ("eta", "expires", "retries", "timelimit", "shadow", "compression"):
        headers.pop(name, None)
    broker = RedisBroker(BrokerConfig(redis_server.url()))
    try:
        properties = {"priority": priority, "reply_to": "x"}
        envelope = json.dumps(
            {
                "body": "",
                "content-encoding": "utf-8",
                "content-type": "application/json",
                "headers": headers,
                "properties": {
                    **properties,
                    "body_encoding": "base64",
                    "delivery_info": {"exchange": "", "routing_key": queue},
                },
            }
        )
        redis_server.pipeline([("FLUSHALL",), ("LPUSH", broker.layout.list_of(queue, priority), envelope)])
        consumer = broker.consume([spec(queue)])
        for _ in range(times):
            consumer.reject(take(consumer, 1, deadline=0.5), requeue=True)
        restored = json.loads(redis_server.call("RPOP", broker.layout.list_of(queue, priority)))
        expected = json.loads(envelope)
        expected["headers"]["redelivered"] = True
        expected["properties"]["delivery_info"]["redelivered"] = True
        assert restored == expected
        consumer.close()
    finally:
        broker.close()


# -------------------------------------------------------------------------------------------- abandoned and parked


def test_what_strangers_abandoned_comes_back_past_the_visibility_timeout(
    make: MakeBroker, redis_server: RedisServer
) -> None:
    """[redis.8]: through default, direct and topic exchanges; not while another process holds kombu's lock."""
    broker = make(visibility_timeout=60)
    broker.declare([QueueSpec("direct", "ex", "direct", "key"), QueueSpec("topic", "top", "topic", "a.*.#")])
    routes = {
        "plain": ("", "q"),
        "direct": ("ex", "key"),
        "topic": ("top", "a.b.c.d"),
        "fresh": ("", "q"),
        "gone": ("x", "q"),
    }
    now = time.time()
    for name, (exchange, key) in routes.items():
        envelope = message(name).to_envelope().decode()
        redis_server.call("HSET", "unacked", name, f'[{envelope}, "{exchange}", "{key}"]')
        redis_server.call("ZADD", "unacked_index", now - (30 if name == "fresh" else 61), name)
    redis_server.call("ZADD", "unacked_index", now - 100, "without a message")
    redis_server.call("SET", "unacked_mutex", "other", "PX", 700)
    consumer = broker.consume([spec("q"), spec("direct"), spec("topic")])
    nothing(consumer)
    broker.consume([])  # its keeper looks at once; the first one's in ten seconds
    until(lambda: redis_server.call("EXISTS", "unacked_mutex") == 0, "the lock runs out")
    broker.consume([])
    taken = take(consumer, 4)
    assert {(d.message.id, d.queue) for d in taken if d.message} == {
        ("plain", "q"), ("direct", "direct"), ("topic", "topic"), ("gone", "q"),
    }  # fmt: skip
    assert all(d.message and d.message.redelivered for d in taken)
    assert set(redis_server.call("HKEYS", "unacked")) - {d.tag for d in taken} == {b"fresh"}
    assert redis_server.call("ZSCORE", "unacked_index", "without a message") is None


def test_what_is_held_long_is_scored_anew(make: MakeBroker, redis_server: RedisServer) -> None:
    """So that neither our sweep nor kombu's takes it for abandoned."""
    broker = make(visibility_timeout=1.2)
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    (delivery,) = take(consumer, 1)
    first = float(redis_server.call("ZSCORE", "unacked_index", delivery.tag))
    until(lambda: float(redis_server.call("ZSCORE", "unacked_index", delivery.tag)) > first + 1.5, "scored anew")
    redis_server.call("ZADD", "unacked_index", time.time(), delivery.tag)
    broker.consume([])
    nothing(consumer)


def test_a_parked_message_is_scored_for_kombus_sweep(make: MakeBroker, redis_server: RedisServer) -> None:
    broker = make(visibility_timeout=100)
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    (delivery,) = take(consumer, 1)
    due = time.time() + 50
    consumer.defer([(delivery, due)])
    assert abs(float(redis_server.call("ZSCORE", "unacked_index", delivery.tag)) - (due - 100)) < 0.001
    assert redis_server.call("HEXISTS", "unacked", delivery.tag) == 1
    consumer.close()
    assert broker.depth("q") == 0  # closing leaves it parked


def test_a_parked_message_that_kombu_took_is_forgotten(make: MakeBroker, redis_server: RedisServer) -> None:
    broker = make()
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    (delivery,) = take(consumer, 1)
    consumer.defer([(delivery, time.time() + 0.1)])
    redis_server.pipeline([("HDEL", "unacked", delivery.tag), ("ZREM", "unacked_index", delivery.tag)])
    nothing(consumer, timeout=0.3)
    assert redis_server.call("ZCARD", "celery.1.due") == 0


def test_the_keeper_sends_acks_that_the_owner_leaves(make: MakeBroker, redis_server: RedisServer) -> None:
    broker = make(lease_timeout=60 * DEADLINE)  # it is told of them: no renewal falls due
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    taken = take(consumer, 1)
    nothing(consumer, timeout=0.3)  # the keeper, which was roused, waits again
    consumer.ack(taken)
    until(lambda: redis_server.call("HLEN", "unacked") == 0, "the ack goes out")


def test_killed_at_random_instants(make: MakeBroker, redis_server: RedisServer) -> None:
    """Nothing is ever in neither the list nor `unacked`; what was not acked comes again."""
    broker = make()
    total, seed = 600, random.Random(5)
    broker.publish(to("q", *(message(i) for i in range(total))))
    broker.close()

    def work() -> object:
        mine = make()
        consumer = mine.consume([spec("q")])
        while True:
            deliveries = consumer.fetch(7, 0.1)
            published = [p for d in deliveries if d.message for p in to("done", message(d.message.id))]
            consumer.settle([Settled(d, "ack", None, [p]) for d, p in zip(deliveries, published, strict=True)])

    waiting = total
    while waiting > 0:
        child = Child(work)
        threading.Event().wait(seed.uniform(0.02, 0.12))
        child.kill()
        waiting, held, done = redis_server.pipeline([("LLEN", "q"), ("HLEN", "unacked"), ("LLEN", "done")])
        assert waiting + held + done == total
    consumer = broker.consume([spec("q")])
    left = take(consumer, total - redis_server.call("LLEN", "done"))
    seen = ids(left) + [Message.from_envelope(raw).id for raw in redis_server.call("LRANGE", "done", 0, -1)]
    assert sorted(seen, key=int) == numbers(total)  # each exactly once: publication and ack are one step


# ----------------------------------------------------------------------------------------------------- waiting


def test_idle_asks_nothing(make: MakeBroker, redis_server: RedisServer) -> None:
    gc.collect()  # and with them the keepers of consumers that other tests left behind
    consumer = make(lease_timeout=60).consume([spec("q")])
    consumer.fetch(1, 0.5)

    def processed() -> int:
        info: bytes = redis_server.call("INFO", "stats")
        return int(info.split(b"total_commands_processed:")[1].split()[0])

    before, cpu = processed(), time.process_time()
    assert consumer.fetch(1, 1.0) == []
    assert processed() - before <= 4  # our own looking
    assert time.process_time() - cpu < 0.5  # a thread that turns in circles takes nearly all of the second


def test_large_messages_come_a_few_at_a_time(make: MakeBroker) -> None:
    """All that there are, each time as many as are about as large as many small ones together."""
    broker, consumer = make(), make().consume([spec("q")])
    size, counts = 10_000, []
    broker.publish(to("q", *(message(i, body=b'[["%b"], {}, {}]' % (b"x" * size)) for i in range(200))))
    while sum(counts) < 200:
        taken = consumer.fetch(200 - sum(counts), DEADLINE)
        assert ids(taken) == [str(i) for i in range(sum(counts), sum(counts) + len(taken))]
        counts.append(len(taken))
        consumer.ack(taken)
    assert max(counts[1:]) * size < 400_000, counts
    broker.publish(to("q", *(message(i) for i in range(1000))))
    counts = []
    while sum(counts) < 1000:
        taken = consumer.fetch(1000 - sum(counts), DEADLINE)
        counts.append(len(taken))
        consumer.ack(taken)
    assert max(counts) > 100, counts


@pytest.fixture
def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found by looking again: who is not woken waits longer than any test."""
    for name in ("_LOOK_AGAIN", "_LOOK_QUIET"):
        monkeypatch.setattr(f"celery.brokers.redis_consumer.{name}", 10 * DEADLINE)


@pytest.mark.usefixtures("never_looks")
def test_woken_by_any_queue_and_priority(make: MakeBroker) -> None:
    broker = make()
    consumer = broker.consume([spec(name) for name in "abc"])
    for i in range(15):
        assert consumer.fetch(1, 0.0) == []
        thread = threading.Timer(0.02, broker.publish, [to("abc"[i % 3], message(i, priority=(i * 3) % 10))])
        thread.start()
        found = consumer.fetch(1, DEADLINE)
        assert ids(found) == [str(i)]
        consumer.ack(found)
        thread.join()


@pytest.mark.usefixtures("never_looks")
def test_own_follow_up_messages_are_seen(make: MakeBroker) -> None:
    """The server does not tell us of what we write ourselves."""
    broker = make()
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    (delivery,) = take(consumer, 1)
    nothing(consumer)
    consumer.settle([Settled(delivery, "ack", None, to("q", message(2)))])
    assert ids(consumer.fetch(1, DEADLINE)) == ["2"]


@pytest.mark.usefixtures("never_looks")
def test_where_tracking_is_refused_it_looks_now_and_then(make: MakeBroker, redis_server: RedisServer) -> None:
    redis_server.call("ACL", "SETUSER", "plain", "on", ">pass word", "~*", "&*", "+@all", "-client|tracking")
    broker = make(f"redis://plain:pass%20word@127.0.0.1:{redis_server.port}/0")
    consumer = broker.consume([spec("q")])
    thread = threading.Timer(0.3, broker.publish, [to("q", message(1))])
    thread.start()
    assert ids(consumer.fetch(1, DEADLINE)) == ["1"]
    thread.join()


# ------------------------------------------------------------------------------------------------- an uneasy line


def test_custody_survives_a_lost_connection(make: MakeBroker, redis_server: RedisServer) -> None:
    broker = make()
    broker.publish(to("q", *(message(i) for i in range(4))))
    consumer = broker.consume([spec("q")])
    held = take(consumer, 2)
    redis_server.call("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(OperationalError):
        consumer.fetch(1, 1.0)
    assert ids(take(consumer, 2)) == ["2", "3"]
    consumer.ack(held)
    consumer.flush()
    consumer.close()
    assert make().depth("q") == 2


def test_acks_survive_a_lost_connection(make: MakeBroker, redis_server: RedisServer) -> None:
    broker = make()
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    held = take(consumer, 1)
    redis_server.call("CLIENT", "KILL", "TYPE", "normal")
    consumer.ack(held)
    with pytest.raises(OperationalError):
        consumer.flush()
    consumer.flush()
    assert redis_server.call("HLEN", "unacked") == 0


def test_a_silent_server_is_noticed_and_what_it_did_late_is_put_back(
    make: MakeBroker, redis_server: RedisServer
) -> None:
    """The fetch reaches the server, its answer never reaches us: the messages must not wait under tags nobody knows."""
    broker = make(socket_timeout=0.3)
    broker.publish(to("q", *(message(i) for i in range(3))))
    consumer = broker.consume([spec("q")])
    redis_server.call("CLIENT", "PAUSE", 900, "ALL")
    with pytest.raises(OperationalError, match=r"0\.3 s"):
        consumer.fetch(10, 5.0)
    assert sorted(everything(consumer, 3)) == numbers(3)


def test_a_restarted_server(make: MakeBroker) -> None:
    with RedisServer() as server:
        broker = make(server.url())
        consumer = broker.consume([spec("q")])
        broker.publish(to("q", message(1)))
        take(consumer, 1)
        server.stop(keep_directory=True)
        with pytest.raises(OperationalError) as failure:
            broker.publish(to("q", message(2)))
        assert str(server.port) in str(failure.value)
        with pytest.raises(OperationalError):
            consumer.fetch(1, 0.1)
        server.start()
        broker.publish(to("q", message(3)))  # scripts and declarations are gone, and made anew
        assert everything(consumer, 1) == ["3"]
        consumer.close()


def test_scripts_flushed(make: MakeBroker, redis_server: RedisServer) -> None:
    broker = make()
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    redis_server.call("SCRIPT", "FLUSH")
    assert ids(take(consumer, 1)) == ["1"]


def test_a_stopped_holder_loses_its_lease_and_its_late_ack_does_nothing(
    make: MakeBroker, redis_server: RedisServer
) -> None:
    broker = make(lease_timeout=0.6)
    broker.publish(to("q", message(1)))
    broker.close()

    def hold() -> object:
        consumer = make(lease_timeout=0.6).consume([spec("q")])
        held = take(consumer, 1)

        def ack_late() -> None:
            until(lambda: redis_server.call("EXISTS", "go"), "the word")
            consumer.ack(held)
            consumer.flush()
            redis_server.call("SET", "acked late", "1")

        threading.Thread(target=ack_late).start()
        return consumer

    child = Child(hold)
    child.done()
    try:
        os.kill(child.pid, signal.SIGSTOP)
        consumer = broker.consume([spec("q")])
        (again,) = take(consumer, 1)
        assert again.message is not None
        assert again.message.redelivered
        redis_server.call("SET", "go", "1")
        os.kill(child.pid, signal.SIGCONT)
        until(lambda: redis_server.call("EXISTS", "acked late"), "the late ack")
        assert redis_server.call("HKEYS", "unacked") == [again.tag]
    finally:
        child.kill()


def lapsed(make: MakeBroker, redis_server: RedisServer, n: int) -> tuple[RedisConsumer, RedisConsumer]:
    """One that did not renew its lease while it held n messages, and who has them now."""
    broker = make(lease_timeout=0.5)
    broker.publish(to("q", *(message(i) for i in range(n))))
    consumer, other = broker.consume([spec("q")]), make(lease_timeout=0.5).consume([spec("q")])
    take(consumer, n)
    consumer._keeper.stop()
    take(other, n)
    return consumer, other


@pytest.mark.parametrize("who_renews", ["fetch", "keeper", "nobody"])
def test_whoever_renews_a_lease_that_ran_out_it_is_known(
    who_renews: str, make: MakeBroker, redis_server: RedisServer
) -> None:
    consumer, other = lapsed(make, redis_server, 3)
    make().publish(to("q", message("new")))
    if who_renews == "fetch":
        assert ids(take(consumer, 1)) == ["new"]
    elif who_renews == "keeper":
        consumer._keeper._tick()
    assert sorted(ids(consumer.lost())) == ["0", "1", "2"]
    assert consumer.lost() == []
    assert len(consumer.held) == (who_renews == "fetch")
    other.close()
    assert set(ids(take(consumer, 3 if who_renews == "fetch" else 4))) >= {"0", "1", "2"}


def test_it_is_asked_again_until_an_answer_comes(make: MakeBroker, redis_server: RedisServer) -> None:
    consumer, _ = lapsed(make, redis_server, 2)
    redis_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(OperationalError):
        consumer.lost()
    assert len(consumer.lost()) == 2


def test_giving_up_tells_what_others_have(make: MakeBroker, redis_server: RedisServer) -> None:
    consumer, other = lapsed(make, redis_server, 2)
    held = list(consumer.held.values())
    make().publish(to("q", message("new")))
    held += take(consumer, 1)
    consumer.give_up(held)
    assert [delivery.lost for delivery in held] == [True, True, False]
    assert not consumer.held
    assert set(redis_server.call("HKEYS", "unacked")) == set(other.held)


def test_what_the_server_has_forgotten_is_not_lost_to_others(make: MakeBroker, redis_server: RedisServer) -> None:
    """Nobody has it, so the one whose memory it is in runs it."""
    broker = make(lease_timeout=0.5)
    broker.publish(to("q", message(1)))
    consumer = broker.consume([spec("q")])
    take(consumer, 1)
    redis_server.call("FLUSHALL")
    until(lambda: redis_server.call("EXISTS", f"celery.1.lease.{consumer.holder}"), "the lease is there again")
    consumer._keeper.lapsed = True
    assert consumer.lost() == []
    assert len(consumer.held) == 1


def settled_down(consumers: list[RedisConsumer]) -> bool:
    for consumer in consumers:
        assert consumer.fetch(1, 0.05) == []
    return all(consumer._keeper.quiet for consumer in consumers)


def test_an_idle_worker_asks_six_times_a_minute(
    make: MakeBroker, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PAINS 30. A minute is three seconds long here: every time that an idle worker goes by is a twentieth."""
    monkeypatch.setattr("celery.brokers.redis_keeper._QUIET_EVERY", 45.0 / 20)
    monkeypatch.setattr("celery.brokers.redis_keeper.QUIET_LEASE", 120.0 / 20)
    monkeypatch.setattr("celery.brokers.redis_consumer.QUIET_LEASE", 120.0 / 20)
    monkeypatch.setattr("celery.brokers.redis_consumer._LOOK_QUIET", 20.0 / 20)
    monkeypatch.setattr("celery.brokers.redis_consumer._LOOK_AGAIN", 5.0 / 20)
    gc.collect()
    consumer = make(lease_timeout=5.5 / 20).consume([spec("q")])
    until(lambda: settled_down([consumer]), "the worker has nothing to do")
    assert consumer.fetch(1, 1.0) == []  # the last look at a busy worker's pace
    before = commands(redis_server)
    assert consumer.fetch(1, 3.0) == []
    after = commands(redis_server)
    assert 0 < after - before <= 6
    assert redis_server.call("PTTL", f"celery.1.lease.{consumer.holder}") > 0


def commands(redis_server: RedisServer) -> int:
    """Scripts that were called: what a script calls inside costs no round trip."""
    stats: bytes = redis_server.call("INFO", "commandstats")
    return sum(int(calls) for calls in re.findall(rb"cmdstat_evalsha:calls=(\d+)", stats))


@pytest.mark.parametrize("looks", [False, True], ids=["woken by the message", "while it only looks"])
def test_idle_workers_take_over_as_fast_as_busy_ones(make: MakeBroker, redis_server: RedisServer, looks: bool) -> None:
    """A message on their queue rouses all of them; its taker, too, has a short lease from then on."""
    dying, other = consumers = [make(lease_timeout=1.0).consume([spec("q")]) for _ in range(2)]
    until(lambda: settled_down(consumers), "nobody holds anything")
    make().publish(to("q", message(1)))
    if looks:  # as if it had not been told: the look itself finds something
        dying._dirty, dying._look_at = False, 0.0
        dying._link.collect_pushes()  # type: ignore[union-attr]
    (held,) = take(dying, 1)
    lease = f"celery.1.lease.{dying.holder}"
    until(lambda: redis_server.call("PTTL", lease) <= 1000, "a short lease")
    dying._keeper.stop()
    assert ids(take(other, 1, deadline=5.0)) == ["1"]
    assert not other._keeper.quiet
    dying.ack([held])
    dying.close()
    other.close()


def test_nobody_is_quiet_while_somebody_holds_something(make: MakeBroker) -> None:
    """On any queue: those who wait for the dead look often. What is parked is nobody's."""
    busy = make(lease_timeout=0.5).consume([spec("a")])
    make().publish(to("a", message(1)))
    (held,) = take(busy, 1)
    idle = make(lease_timeout=0.5).consume([spec("b")])
    asked = idle._keeper._sweep_at
    until(lambda: idle.fetch(1, 0.05) == [] and idle._keeper._busy_until > 0.0, "it asked whether it may be quiet")
    until(lambda: idle.fetch(1, 0.05) == [] and time.monotonic() > idle._keeper._busy_until, "and asks once more")
    assert not idle._keeper.quiet
    assert not busy._keeper.quiet
    assert idle._keeper._sweep_at > asked
    busy.defer([(held, time.time() + 60)])
    until(lambda: settled_down([busy, idle]), "parked messages keep nobody awake")
    busy.close()
    idle.close()


def test_a_server_that_is_away_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the thread that keeps the leases: it does not turn in circles until the server is back."""
    with RedisServer() as server:
        broker = RedisBroker(BrokerConfig(server.url()))
        consumer = broker.consume([spec("q")])
        assert consumer.fetch(1, 0.0) == []
        connect, tries = broker.endpoint.connect, []

        def connect_and_tell(*args: Any, **options: Any) -> Any:
            tries.append(time.monotonic())
            return connect(*args, **options)

        monkeypatch.setattr(broker.endpoint, "connect", connect_and_tell)
        server.stop(keep_directory=True)
        until(lambda: len(tries) > 4, "the keeper looks for the server")
        assert tries[4] - tries[0] > 0.5
        consumer.close()
        broker.close()
